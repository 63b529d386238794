// Package consumer shows that applications that read secrets by package consumer, and connect by
// its adapters, notice no rotation and no outage of the server, against real servers and with
// real drivers.
//
// `make prove` runs all of it and prints one figure a line; `make test` runs a faster cut of the
// same.
package consumer

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

var full = flag.Bool("full", false, "run everything, and print the figures")

// look is the pause between two counts of goroutines.
const look = 20 * time.Millisecond

var figures support.Figures

// pick is one value for a full run and another for the faster cut.
func pick[T any](inFull, inCut T) T {
	if *full {
		return inFull
	}
	return inCut
}

// dataDir is the variable by which a child learns that it is a server, and addr its address.
const dataDir, addr = "KEYTURN_CONSUMER_CHILD", "KEYTURN_CONSUMER_ADDR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dataDir); dir != "" {
		os.Exit(nodes.Serve(server.Config{DataDir: dir, ListenHTTP: os.Getenv(addr)}))
	}
	os.Exit(figures.Run(m, full))
}

func good(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
