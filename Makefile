# Two commands do all the set-up on a machine with Go and make: `make demo` and `make test`.
GO ?= go
BIN := bin/keyturn
DEMO := bin/keyturn-demo
AGENT := bin/keyturn-agent

.PHONY: all build agent demo test prove lint measure bench deps clean

all: build

# The binary is built without cgo, so that it runs on any machine of its kind.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/keyturn

# agent builds the agent alone: a third of the size, without a server.
agent:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(AGENT) ./cmd/keyturn-agent

# demo rotates real credentials on a throw-away server and stays up; ARGS=--exit ends it.
demo: build
	CGO_ENABLED=0 $(GO) build -trimpath -o $(DEMO) ./cmd/keyturn-demo
	$(DEMO) $(ARGS)

# deps installs what the tests need and the machine lacks.
deps:
	scripts/test-deps
	scripts/test-hydra
	scripts/test-mysql
	scripts/test-postgres

# ALONE are the packages that judge how long something lasts, with many servers and applications at the same time. They run after the
# others, one by one: beside each other they would judge how busy the machine is.
ALONE := ./test/consumer ./test/flood ./test/messy ./test/prove ./test/rotation

test: deps
	@$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -vxF "$$($(GO) list $(ALONE))"); others=$$?; \
	$(GO) test -race -timeout 20m -p 1 $(ALONE) && exit $$others

# prove runs the long form of the proofs against real servers. It prints one figure per line, name and value, and fails when a bound does
# not hold. ARGS are for the unusual states of targets, such as ARGS='-seeds 20'.
prove:
	scripts/prove $(ARGS)

lint:
	scripts/lint

# measure prints figures of the source, one a line, and fails when a bound does not hold. `scripts/measure mutations` breaks rules
# of the product on purpose and expects a named test to fail.
measure:
	scripts/measure

# bench prints one figure per line, name and value, and fails when a bound does not hold.
bench: build
	$(GO) run ./test/bench -keyturn $(BIN)

clean:
	rm -rf bin
