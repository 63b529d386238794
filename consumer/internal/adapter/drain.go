package adapter

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// promotions records when the current version was promoted. It has no goroutine: each check of a
// connection updates it.
type promotions struct {
	mu      sync.Mutex
	current string    // guarded by mu, as all below; the current version at the last check
	since   time.Time // the last check that found another version: a lower bound of the promotion
	checked time.Time // the last check
}

// ended is a context that has ended. With it, Get returns a value that is in memory and never
// waits.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// current returns the current version and a lower bound of when it became current. The version is
// empty if there is none.
func (a *Adapter) current(now time.Time) (string, time.Time) {
	s, err := a.Consumer.Get(ended, a.Secret)
	if err != nil {
		return "", time.Time{}
	}
	p := &a.promotions
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.VersionID != p.current {
		p.current, p.since = s.VersionID, p.checked
	}
	p.checked = now
	return p.current, p.since
}

// Conn is an open connection. It holds its version until it is closed.
type Conn struct {
	// Version is the version of the secret that the connection was opened with.
	Version string

	adapter *Adapter
	opened  time.Time
	limit   time.Duration // drawn for each connection, so that not all log in again at once
	release func()
}

// Opened registers a connection that was opened with a version. The caller must call Closed when
// the connection is closed.
func (a *Adapter) Opened(version string) *Conn {
	now := time.Now()
	a.current(now)
	return &Conn{
		Version: version,
		adapter: a,
		opened:  now,
		limit:   time.Duration((0.5 + rand.Float64()/2) * float64(a.Options.DrainWithin)),
		release: a.Consumer.Hold(a.Secret, version),
	}
}

// Due reports whether the connection must be replaced: another version has been current for longer
// than this connection's limit, which lies between one half and the whole of DrainWithin. For a
// connection that was opened while its version was not the current one, because the target accepted
// no other, the limit counts from then. Due takes less than a microsecond.
func (c *Conn) Due() bool {
	now := time.Now()
	current, since := c.adapter.current(now)
	if current == "" || current == c.Version {
		return false
	}
	if c.opened.After(since) {
		since = c.opened
	}
	return now.Sub(since) >= c.limit
}

// Closed registers that the connection is closed. It may be called more than once.
func (c *Conn) Closed() { c.release() }
