package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
)

// maxOthers bounds the secrets that are held for callers of the wire API beside those that the
// configuration names, each name and ARN counted separately. Others are read from the server with
// each call.
const maxOthers = 1000

// errFull is returned when no more secrets can be held for callers.
var errFull = errors.New("as many secrets are held as the agent holds for callers")

// readWait bounds how long a file waits for its first values.
const readWait = 40 * time.Second

// secretSource provides values to every part of the agent. Its consumer may be replaced while it is
// used.
type secretSource struct{ state atomic.Pointer[backend] }

// backend is one consumer with what belongs to it.
type backend struct {
	consumer *consumer.Consumer
	client   *kms.Client // for what is passed on
	names    []string    // sorted; those that the configuration names
	any      bool        // the wire API serves others too
}

// anySecret reports whether the wire API serves all that the access key may read.
func (h *secretSource) anySecret() bool { return h.state.Load().any }

// serves reports whether the configuration names a secret. name may be an ARN.
func (h *secretSource) serves(name string) bool {
	return slices.Contains(h.state.Load().names, bareName(name))
}

// bareName returns the name of a secret that is named by its name or ARN.
func bareName(name string) string {
	if i := strings.LastIndex(name, ":secret/"); i >= 0 && strings.HasPrefix(name, "acs:") {
		return name[i+len(":secret/"):]
	}
	return name
}

// Get returns the current version of a secret.
func (h *secretSource) Get(ctx context.Context, name string) (*consumer.Secret, error) {
	return h.state.Load().consumer.Get(ctx, name)
}

// callers gets values for the callers of the wire API, who choose the names.
type callers struct {
	*secretSource

	mu     sync.Mutex
	others map[string]bool // guarded by mu; what is held for them and the configuration does not name
}

// Get returns the current version of a secret, or errFull.
func (c *callers) Get(ctx context.Context, name string) (*consumer.Secret, error) {
	if !slices.Contains(c.state.Load().names, name) && !c.admit(name) {
		return nil, errFull
	}
	return c.secretSource.Get(ctx, name)
}

// heldName returns the name under which a secret is held, which may be an ARN; "" for one that is
// not held.
func (c *callers) heldName(name string) string {
	if bare := bareName(name); slices.Contains(c.state.Load().names, bare) {
		return bare
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.others[name] {
		return name
	}
	return ""
}

// admit reports whether a secret that the configuration does not name may be held.
func (c *callers) admit(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.others[name] {
		return true
	}
	if len(c.others) >= maxOthers { // the consumer has forgotten those that it got no value of
		held := map[string]bool{}
		for _, s := range c.Status() {
			held[s.Name] = true
		}
		maps.DeleteFunc(c.others, func(name string, _ bool) bool { return !held[name] })
	}
	if len(c.others) >= maxOthers {
		return false
	}
	if c.others == nil {
		c.others = map[string]bool{}
	}
	c.others[name] = true
	return true
}

// Do passes a call on.
func (h *secretSource) Do(ctx context.Context, call kms.Call) ([]byte, error) {
	return h.state.Load().client.Do(ctx, call)
}

// Endpoint is where calls go.
func (h *secretSource) Endpoint() string { return h.state.Load().client.Endpoint() }

// Status and Counters make it a source of metrics.
func (h *secretSource) Status() []consumer.Status { return h.state.Load().consumer.Status() }

// Counters returns the counters of the consumer that is in use.
func (h *secretSource) Counters() consumer.Counters { return h.state.Load().consumer.Counters() }

func (h *secretSource) values(ctx context.Context, names []string) (map[string]Value, error) {
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	out := make(map[string]Value, len(names))
	for _, name := range names {
		s, err := h.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		out[name] = valueOf(s)
	}
	return out, nil
}

func valueOf(s *consumer.Secret) Value {
	return Value{Name: s.Name, VersionID: s.VersionID, Data: s.Value(), Binary: s.DataType == kms.DataBinary}
}

func (h *secretSource) hold(name, version string) (release func()) {
	return h.state.Load().consumer.Hold(name, version)
}

func (h *secretSource) read(ctx context.Context, name string) (answer, error) {
	if _, ok := slices.BinarySearch(h.state.Load().names, name); !ok {
		return answer{}, errNotHeld
	}
	s, err := h.Get(ctx, name)
	if err != nil {
		return answer{}, err
	}
	a := answer{Value: valueOf(s), Stages: s.Stages, FetchedAt: s.FetchedAt}
	for _, known := range h.Status() {
		if known.Name == name {
			a.Stale = known.State != consumer.StateFresh
		}
	}
	return a, nil
}

// ready returns which of the named secrets the server has not confirmed or does not return.
func (h *secretSource) ready() error {
	state := h.state.Load()
	if err := state.consumer.Ready(); err != nil {
		return err
	}
	known := map[string]consumer.Status{}
	for _, s := range h.Status() {
		known[s.Name] = s
	}
	var errs []error
	for _, name := range state.names { // some may be newer than the consumer
		switch s := known[name]; {
		case s.State == consumer.StateFresh, s.State == consumer.StateStale && s.Source == consumer.SourceServer:
		case s.LastError != "":
			errs = append(errs, fmt.Errorf("secret %q: %s", name, s.LastError))
		default:
			errs = append(errs, fmt.Errorf("secret %q was not read yet", name))
		}
	}
	return errors.Join(errs...)
}

// complete waits until there is a value of every named secret, from the server or from the disk.
// With definite set it does not wait for one that the server does not have, or does not give.
func (h *secretSource) complete(ctx context.Context, definite bool) error {
	for {
		state := h.state.Load()
		told, stop := state.consumer.Changes()
		missing := h.missing(ctx, state)
		if missing == nil {
			stop()
			return nil
		}
		if definite && (errors.Is(missing, consumer.ErrAbsent) || errors.Is(missing, consumer.ErrDenied)) {
			stop()
			return missing
		}
		again := time.NewTimer(look)
		select {
		case <-ctx.Done():
		case <-told:
		case <-again.C:
		}
		again.Stop()
		stop()
		if ctx.Err() != nil {
			return missing
		}
	}
}

func (h *secretSource) missing(ctx context.Context, state *backend) error {
	for _, name := range state.names {
		if _, err := state.consumer.Get(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
