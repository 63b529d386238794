package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// slack is how late a confirmation may be before a value counts as stale.
	slack = 30 * time.Second
	// maxReads is how many reads, of different secrets, may run at the same time.
	maxReads = 16
)

// Consumer reads secrets and keeps their values up to date. It is safe for concurrent use.
type Consumer struct {
	config   Config
	api      API
	log      *slog.Logger
	disk     *disk          // nil without Config.LastGood
	draw     func() float64 // returns a number in [0, 1)
	counters counters
	slots    chan struct{} // holds one element for each read in progress

	entries atomic.Pointer[map[string]*entry] // copied on write, so that Get takes no lock

	ctx    context.Context // ends with Close, not with the context of a caller
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu          sync.Mutex
	closed      bool                 // guarded by mu
	subscribers map[*subscriber]bool // guarded by mu
	groups      []*group             // guarded by mu
}

// New returns a Consumer and starts its background work, which [Consumer.Close] ends. It loads the
// values of [Config.LastGood] and starts to read [Config.Secrets], but does not wait for a server.
// It fails only if the configuration is invalid. ctx bounds New alone.
func New(ctx context.Context, config Config) (*Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	c := &Consumer{
		config:      config,
		api:         config.Client,
		log:         config.Logger,
		draw:        mathrand.Float64,
		slots:       make(chan struct{}, maxReads),
		subscribers: map[*subscriber]bool{},
	}
	if config.LastGood != nil {
		endpoint := ""
		if e, ok := config.Client.(interface{ Endpoint() string }); ok {
			endpoint = e.Endpoint()
		}
		var err error
		if c.disk, err = config.LastGood.open(endpoint); err != nil {
			return nil, err
		}
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.entries.Store(&map[string]*entry{})
	c.preload(config.Secrets)
	return c, nil
}

// Close ends the background work, reports to the server, within two seconds, that this instance no
// longer holds any version, and returns when all goroutines have ended. [Consumer.Get] still
// returns the values that were read.
func (c *Consumer) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
	if !again {
		c.reportLeaving()
	}
	return nil
}

// Get returns the current version of a secret. Once the secret was read, Get takes nanoseconds,
// allocates nothing and uses no network. The first Get of a name waits for one read, which all
// callers that want that name share; ctx bounds the wait, not the read. If that read fails, Get
// returns its error until the next attempt is due. The errors are [ErrExpired], [ErrAbsent],
// [ErrDenied], [ErrUnavailable] and [ErrClosed], each with the error of the server in its chain,
// and the error of ctx.
func (c *Consumer) Get(ctx context.Context, name string) (*Secret, error) {
	e := (*c.entries.Load())[name]
	if e == nil {
		return c.awaitValue(ctx, name)
	}
	s := e.current.Load()
	if s == nil {
		return c.awaitValue(ctx, name)
	}
	now := time.Now()
	if confirmed := *e.confirmed.Load(); now.Sub(confirmed) > time.Duration(e.freshFor.Load()) || c.config.MaxStale > 0 {
		return c.checkAge(e, s, now, confirmed)
	}
	return s, nil
}

// checkAge returns a value that may be stale, or ErrExpired.
func (c *Consumer) checkAge(e *entry, s *Secret, now, confirmed time.Time) (*Secret, error) {
	switch c.stateOf(e, now, confirmed) {
	case StateExpired:
		c.counters.expiredReads.Add(1)
		age := now.Sub(confirmed).Round(time.Second)
		return nil, fmt.Errorf("consumer: secret %q: %w: last confirmed %s ago", s.Name, ErrExpired, age)
	case StateStale:
		c.counters.staleReads.Add(1)
		if e.warned.CompareAndSwap(false, true) {
			c.log.Warn("a stale value is served", "secret", s.Name, "version", s.VersionID, "confirmed", confirmed)
		}
	}
	return s, nil
}

// stateOf returns the state of a value that was confirmed at the given time. Under
// [Config.MaxStale] the age by the wall clock counts too, because the monotonic clock stops while
// the machine sleeps.
func (c *Consumer) stateOf(e *entry, now, confirmed time.Time) string {
	age := now.Sub(confirmed)
	if bound := c.config.MaxStale; bound > 0 {
		wall := now.Round(0).Sub(confirmed.Round(0))
		// A time in the future comes from a value that was saved under a clock that was ahead. The
		// age of such a value is unknown.
		if max(age, wall) > bound || age < -slack {
			return StateExpired
		}
	}
	if age > time.Duration(e.freshFor.Load()) {
		return StateStale
	}
	return StateFresh
}

// awaitValue is [Consumer.Get] for a secret that has no value yet.
func (c *Consumer) awaitValue(ctx context.Context, name string) (*Secret, error) {
	for {
		e, err := c.entry(name)
		if err != nil {
			return nil, err
		}
		f, err := e.ask(time.Now())
		switch {
		case errors.Is(err, errForgotten):
			continue
		case err != nil:
			return nil, err
		}
		if err := e.wait(ctx, f); err != nil && e.current.Load() == nil {
			return nil, err
		}
		if s := e.current.Load(); s != nil {
			return c.checkAge(e, s, time.Now(), *e.confirmed.Load())
		}
	}
}

// entry returns the entry of a name. It adds an entry and starts its goroutine if there is none.
func (c *Consumer) entry(name string) (*entry, error) {
	if e := (*c.entries.Load())[name]; e != nil {
		return e, nil
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("consumer: secret %q: %w", name, ErrClosed)
	}
	old := *c.entries.Load()
	if e := old[name]; e != nil {
		return e, nil
	}
	e := c.newEntry(name, false)
	all := maps.Clone(old)
	all[name] = e
	c.entries.Store(&all)
	c.work.Go(func() { c.keepFresh(e) })
	return e, nil
}

// preload adds the secrets of the configuration, all at once: adding one by one would copy the map
// for each.
func (c *Consumer) preload(names []string) {
	all := map[string]*entry{}
	for _, name := range names {
		if all[name] == nil {
			all[name] = c.newEntry(name, true)
		}
	}
	c.entries.Store(&all)
	for _, e := range all {
		c.work.Go(func() { c.keepFresh(e) })
	}
}

// drop removes an entry.
func (c *Consumer) drop(e *entry) {
	c.leave(e)
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(*c.entries.Load())
	if all[e.name] == e {
		delete(all, e.name)
		c.entries.Store(&all)
	}
}

// Refresh reads a secret now. It returns when a read that began after the call has ended. Calls
// share reads, and two reads of one secret begin at least a second apart. While reads fail they
// begin ten seconds apart; in between Refresh returns the error of the last read.
func (c *Consumer) Refresh(ctx context.Context, name string) error {
	for {
		e, err := c.entry(name)
		if err != nil {
			return err
		}
		f, err := e.force(time.Now())
		switch {
		case errors.Is(err, errForgotten):
			continue
		case err != nil:
			return err
		}
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return fmt.Errorf("consumer: refresh secret %q: %w", name, context.Cause(ctx))
		}
	}
}
