// Package conns bounds the connections of a server, over all its listeners together.
//
// A connection belongs to its source address until a request on it has a valid signature, and to
// the access key of that request from then on. Connections of both sorts have shares of their own,
// and so have sources from which a valid signature came lately. When a share is used up, the owner
// with the most connections gives one up: a flood displaces itself first, and an owner with few
// connections always gets one more. The bytes of requests whose signature is not verified yet have
// a bound too.
//
// Connections of trusted proxies carry the requests of many clients: only the total bounds them.
package conns

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Least is the smallest total that can be shared out.
	Least = 64
	// patience is how long a connection without a valid signature is safe from newer ones of its own
	// source.
	patience = 2 * time.Second
	// strangerIdle is how long a connection without a valid signature may stay open between requests.
	strangerIdle = 5 * time.Second
	sweepEvery   = time.Second
	// knownFor is how long a source counts as known after a valid signature came from it.
	knownFor   = time.Hour
	knownEvery = time.Minute
	// maxSources bounds how many sources are remembered, of the known ones and of the others each.
	maxSources = 10_000
	// DefaultPending bounds the bytes that were read of requests whose signature is not verified yet.
	DefaultPending = 24 << 20
)

// Each new connection of a source takes a token: these are tokens per second, and how many may be
// saved up. A TLS handshake costs some 0.3 ms of one core.
const (
	strangerRate, strangerBurst = 100, 1000
	knownRate, knownBurst       = 1000, 12_000
)

// Config bounds connections. The zero value of a member means its default, except for Total.
type Config struct {
	// Total is how many connections may be open; at least Least.
	Total int
	// PerSource is how many of them one source may have on which no request had a valid signature; 0
	// means half of the share of such connections.
	PerSource int
	// Pending is how many bytes may be held of requests whose signature is not verified; 0 means
	// DefaultPending.
	Pending int64
	// Trusted reports whether an address belongs to a proxy; nil means that none does.
	Trusted func(netip.Addr) bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

type class int

const (
	stranger class = iota // no valid signature, from a source that is not known
	known                 // no valid signature yet, from a source that is known
	verified              // of an access key, or of a trusted proxy
	classes
)

// Guard admits connections. It is safe for concurrent use.
type Guard struct {
	cfg Config
	now func() time.Time

	pending           atomic.Int64
	evicted, rejected atomic.Int64

	mu      sync.Mutex
	shares  [classes]share
	seen    recent[*rate.Limiter] // guarded by mu; sources that are not known
	knowns  recent[*familiar]     // guarded by mu; known sources, which only a valid signature adds to
	open    map[*conn]struct{}    // guarded by mu
	proxied int                   // guarded by mu; connections of trusted proxies
}

// familiar is what is known of a source from which a valid signature came.
type familiar struct {
	until  time.Time
	bucket *rate.Limiter
}

// New returns a guard.
func New(c Config) *Guard {
	if c.Pending == 0 {
		c.Pending = DefaultPending
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	g := &Guard{
		cfg:    c,
		now:    c.Now,
		open:   map[*conn]struct{}{},
		seen:   newRecent[*rate.Limiter](maxSources),
		knowns: newRecent[*familiar](maxSources),
	}
	total := max(c.Total, Least)
	g.shares[stranger].limit = total / 8
	g.shares[known].limit = total / 8
	g.shares[verified].limit = total - 2*(total/8)
	for i := range g.shares {
		g.shares[i].owners = map[string]*owner{}
	}
	if g.cfg.PerSource == 0 {
		g.cfg.PerSource = max(1, g.shares[stranger].limit/2)
	}
	return g
}

// Source is the part of an address that limits count by: an IPv4 address, or the /64 of an IPv6
// address, which one host can have to itself.
func Source(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits are there
		return p.Addr()
	}
	return a
}

// Figures are what a guard has counted.
type Figures struct {
	// Open is how many connections are open, Verified how many of them belong to an access key or a
	// proxy.
	Open, Verified int
	// Rejected counts connections that were closed when they came, Evicted those closed for others'
	// sake.
	Rejected, Evicted int64
	// Pending is how many bytes are held of requests whose signature is not verified yet.
	Pending int64
}

// Figures returns what was counted up to now.
func (g *Guard) Figures() Figures {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Figures{
		Open:     len(g.open),
		Verified: g.shares[verified].count,
		Rejected: g.rejected.Load(),
		Evicted:  g.evicted.Load(),
		Pending:  g.pending.Load(),
	}
}
