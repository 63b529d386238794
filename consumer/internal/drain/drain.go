// Package drain decides when the connections of a pool are replaced that were opened with a former version of a secret, and
// says which versions are held. The adapters of package consumer use it.
package drain

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/consumer"
)

// DefaultWithin is when the last connection of a former version is replaced. It is well below the grace period that rotations
// have by default, one hour, after which the former credential stops working.
const DefaultWithin = 5 * time.Minute

// Pool is the connections of one pool, all opened with one secret.
type Pool struct {
	consumer *consumer.Consumer
	secret   string
	within   time.Duration

	mu      sync.Mutex
	current string    // guarded by mu; the version that was current when somebody last looked
	since   time.Time // guarded by mu; not after it became that: when the one before was last seen to be current
	looked  time.Time // guarded by mu; when somebody last looked
}

// Within checks a setting: 0 means DefaultWithin.
func Within(d time.Duration) (time.Duration, error) {
	switch {
	case d < 0:
		return 0, fmt.Errorf("DrainWithin is %v; it must be 0 for %v, or more", d, DefaultWithin)
	case d == 0:
		return DefaultWithin, nil
	}
	return d, nil
}

// New returns a Pool whose connections of a former version are due after one half to the whole of within, each at its own
// time.
func New(c *consumer.Consumer, secret string, within time.Duration) *Pool {
	return &Pool{consumer: c, secret: secret, within: within}
}

// ended is a context that has ended: with it Get returns a value that is at hand, and waits for none.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// look is the current version and when it became that, rather too early than too late; empty when there is none.
func (p *Pool) look(now time.Time) (string, time.Time) {
	s, err := p.consumer.Get(ended, p.secret)
	if err != nil {
		return "", time.Time{} // no version is former while none is current
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.VersionID != p.current {
		p.current, p.since = s.VersionID, p.looked
	}
	p.looked = now
	return p.current, p.since
}

// Conn is an open connection.
type Conn struct {
	// Version is the version of the secret that it was opened with.
	Version string

	pool    *Pool
	opened  time.Time
	limit   time.Duration
	release func()
}

// Opened notes a connection that was opened with a version. Closed must be called when it is closed.
func (p *Pool) Opened(version string) *Conn {
	now := time.Now()
	p.look(now)
	return &Conn{
		Version: version, pool: p, opened: now, limit: time.Duration((0.5 + rand.Float64()/2) * float64(p.within)), release: p.consumer.Hold(p.secret, version),
	}
}

// Due reports whether the connection is to be replaced: another version is current, and has been for longer than this
// connection's limit. One that was opened with another version than the current one, because the target accepted no other,
// lives as long from then on. It takes less than a microsecond.
func (c *Conn) Due() bool {
	now := time.Now()
	current, since := c.pool.look(now)
	if current == "" || current == c.Version {
		return false
	}
	if c.opened.After(since) {
		since = c.opened
	}
	return now.Sub(since) >= c.limit
}

// Closed says that the connection is closed. It may be called more than once.
func (c *Conn) Closed() { c.release() }
