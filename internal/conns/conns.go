// Package conns bounds the connections of a server, those of all its listeners together.
//
// A connection belongs to its source address until a request on it has a valid signature, and to the access
// key of that request from then on. Connections of both sorts have shares of their own, and so have sources
// from which a valid signature came lately. When a share is used up, the owner with the most connections
// gives one up: a flood displaces itself first, and an owner with few connections always gets one more.
// The bytes of requests whose signature is not verified yet have a bound too.
//
// Connections of trusted proxies carry the requests of many clients: only the total bounds them.
package conns

import (
	"cmp"
	"container/heap"
	"container/list"
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Least is the smallest total that can be shared out.
	Least = 64
	// patience is how long a connection without a valid signature is safe from newer ones of its own source.
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

// Each new connection of a source takes a token: these are tokens per second, and how many may be saved up.
// A TLS handshake costs some 0.3 ms of one core.
const (
	strangerRate, strangerBurst = 100, 1000
	knownRate, knownBurst       = 1000, 12_000
)

// Config bounds connections. The zero value of a member means its default, except for Total.
type Config struct {
	// Total is how many connections may be open; at least Least.
	Total int
	// PerSource is how many of them one source may have on which no request had a valid signature; 0 means
	// half of the share of such connections.
	PerSource int
	// Pending is how many bytes may be held of requests whose signature is not verified; 0 means DefaultPending.
	Pending int64
	// Trusted reports whether an address is that of a proxy; nil means that none is.
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

// share is what connections of one class may use, and who uses it.
type share struct {
	limit, count int
	owners       map[string]*owner
	largest      owners
}

// owner is who connections count for: a source, or an access key.
type owner struct {
	name string
	// idle and busy hold *conn, the one whose state has not changed for longest in front.
	idle, busy list.List
	place      int // in the heap
}

func (o *owner) size() int { return o.idle.Len() + o.busy.Len() }

// first returns the connection to give up first: of an access key an idle one before all others, else the
// one whose state has not changed for longest.
func (o *owner) first(of class) *conn {
	idle, busy := o.idle.Front(), o.busy.Front()
	switch {
	case idle == nil && busy == nil:
		return nil
	case busy == nil, idle != nil && (of == verified || !busy.Value.(*conn).since.Before(idle.Value.(*conn).since)):
		return idle.Value.(*conn)
	}
	return busy.Value.(*conn)
}

// owners is a heap with the largest owner on top.
type owners []*owner

func (h owners) Len() int           { return len(h) }
func (h owners) Less(i, j int) bool { return h[i].size() > h[j].size() }
func (h owners) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].place, h[j].place = i, j }
func (h *owners) Push(x any)        { o := x.(*owner); o.place = len(*h); *h = append(*h, o) }
func (h *owners) Pop() any {
	last := len(*h) - 1
	o := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return o
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

// Source is the part of an address that limits count by: an IPv4 address, or the /64 of an IPv6 address,
// which one host can have to itself.
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
	// Open is how many connections are open, Verified how many of them belong to an access key or a proxy.
	Open, Verified int
	// Rejected counts connections that were closed when they came, Evicted those closed for others' sake.
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

// Listener returns l, whose connections g admits. TLS goes on top of it.
func (g *Guard) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	guard *Guard
}

// Accept returns the next connection that is admitted. Others are reset without an answer: an answer would
// cost more than the connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.guard.admit(raw); c != nil {
			return c, nil
		}
		l.guard.rejected.Add(1)
		reset(raw)
	}
}

// reset closes a connection at once and keeps nothing of it, no state in the kernel either.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the close follows in any case
	}
	_ = c.Close() // nobody waits for it
}

// admit returns the connection to serve, or nil.
func (g *Guard) admit(raw net.Conn) *conn {
	var peer netip.Addr
	if at, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil {
		peer = at.Addr().Unmap()
	}
	c := &conn{Conn: raw, guard: g, source: Source(peer)}
	g.mu.Lock()
	victim, ok := g.admitLocked(c, peer)
	g.mu.Unlock()
	g.evict(victim)
	if !ok {
		return nil
	}
	return c
}

func (g *Guard) admitLocked(c *conn, peer netip.Addr) (victim *conn, ok bool) {
	c.since = g.now()
	if g.cfg.Trusted != nil && g.cfg.Trusted(peer) {
		return g.admitProxyLocked(c)
	}
	s := &g.shares[stranger]
	bucket := g.bucketLocked(c)
	if c.class == known {
		s = &g.shares[known]
	}
	if !bucket.AllowN(c.since, 1) {
		return nil, false
	}
	name := c.source.String()
	own := s.owners[name]
	switch {
	case own != nil && own.size() >= g.cfg.PerSource:
		victim = own.stale(c.since)
	case s.count < s.limit:
		g.addLocked(c, name)
		return nil, true
	default:
		if victim = s.giveUpLocked(own, c.class); victim == nil && own != nil {
			victim = own.stale(c.since)
		}
	}
	if victim == nil {
		return nil, false
	}
	g.removeLocked(victim)
	g.addLocked(c, name)
	return victim, true
}

// bucketLocked returns the bucket that a new connection takes a token of, and sets its class.
func (g *Guard) bucketLocked(c *conn) *rate.Limiter {
	if f, ok := g.knowns.get(c.source); ok && c.since.Before(f.until) {
		c.class = known
		return f.bucket
	}
	c.class = stranger
	b, ok := g.seen.get(c.source)
	if !ok {
		b = rate.NewLimiter(strangerRate, strangerBurst)
		g.seen.put(c.source, b)
	}
	return b
}

// admitProxyLocked admits a connection of a trusted proxy as long as there is any room.
func (g *Guard) admitProxyLocked(c *conn) (victim *conn, ok bool) {
	c.class, c.proxy = verified, true
	s := &g.shares[verified]
	if s.count >= s.limit {
		if len(s.largest) == 0 {
			return nil, false
		}
		victim = s.largest[0].first(verified)
		g.removeLocked(victim)
	}
	g.addLocked(c, "")
	return victim, true
}

// giveUpLocked returns the connection that gives way to a new one of own, which may be nil for an owner
// without any: that of the owner with the most, unless that is the newcomer's own.
func (s *share) giveUpLocked(own *owner, of class) *conn {
	if len(s.largest) == 0 {
		return nil
	}
	top, mine := s.largest[0], 0
	if own != nil {
		mine = own.size()
	}
	if top == own || mine+1 > top.size() {
		return nil
	}
	return top.first(of)
}

// stale returns a connection of o whose state has not changed for some time, or nil.
func (o *owner) stale(now time.Time) *conn {
	if c := o.first(stranger); c != nil && now.Sub(c.since) >= patience {
		return c
	}
	return nil
}

func (g *Guard) addLocked(c *conn, name string) {
	s := &g.shares[c.class]
	s.count++
	g.open[c] = struct{}{}
	if c.proxy {
		g.proxied++
		return
	}
	o := s.owners[name]
	if o == nil {
		o = &owner{name: name}
		s.owners[name] = o
		heap.Push(&s.largest, o)
	}
	c.owner = o
	c.queueLocked()
	heap.Fix(&s.largest, o.place)
}

// queueLocked puts c behind the others of its owner that are as busy as it is.
func (c *conn) queueLocked() {
	l := &c.owner.idle
	if c.busy {
		l = &c.owner.busy
	}
	c.queue, c.element = l, l.PushBack(c)
}

func (g *Guard) removeLocked(c *conn) {
	if _, ok := g.open[c]; !ok {
		return
	}
	delete(g.open, c)
	s := &g.shares[c.class]
	s.count--
	if c.proxy {
		g.proxied--
		return
	}
	o := c.owner
	c.queue.Remove(c.element)
	if o.size() > 0 {
		heap.Fix(&s.largest, o.place)
		return
	}
	heap.Remove(&s.largest, o.place)
	delete(s.owners, o.name)
}

// evict closes a connection that has given way; nil is none.
func (g *Guard) evict(c *conn) {
	if c == nil {
		return
	}
	g.evicted.Add(1)
	reset(c.Conn)
	c.closed.Store(true)
	c.forget()
}

// ConnContext is for http.Server: it lets [Verified] find the connection of a request.
func (g *Guard) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if own := guarded(c); own != nil {
		return context.WithValue(ctx, contextKey{}, own)
	}
	return ctx
}

type contextKey struct{}

func guarded(c net.Conn) *conn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// ConnState is for http.Server: it tells a connection with a request from one without.
func (g *Guard) ConnState(nc net.Conn, state http.ConnState) {
	c := guarded(nc)
	if c == nil || state != http.StateActive && state != http.StateIdle {
		return
	}
	if state == http.StateIdle {
		c.forget()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.open[c]; !ok {
		return
	}
	c.busy, c.served, c.since = state == http.StateActive, true, g.now()
	if !c.proxy {
		c.queue.Remove(c.element)
		c.queueLocked()
	}
}

// Verified notes that a request had a valid signature by an access key. ok is false when that key has more
// connections than any other, none of which is idle, and there is no room: the request is to be refused, and
// its connection closed. ctx is that of the request.
func Verified(ctx context.Context, key string) (ok bool) {
	c, _ := ctx.Value(contextKey{}).(*conn)
	if c == nil {
		return true
	}
	c.forget()
	return c.guard.verified(c, key)
}

func (g *Guard) verified(c *conn, key string) bool {
	now := g.now()
	if c.proxy {
		return true
	}
	if name := c.key.Load(); name != nil && *name == key && now.UnixNano()-c.noted.Load() < int64(knownEvery) {
		return true
	}
	g.mu.Lock()
	victim, ok := g.verifiedLocked(c, key, now)
	g.mu.Unlock()
	g.evict(victim)
	return ok
}

func (g *Guard) verifiedLocked(c *conn, key string, now time.Time) (victim *conn, ok bool) {
	f, found := g.knowns.get(c.source)
	if !found {
		f = &familiar{bucket: rate.NewLimiter(knownRate, knownBurst)}
		g.knowns.put(c.source, f)
	}
	f.until = now.Add(knownFor)
	c.noted.Store(now.UnixNano())
	if _, open := g.open[c]; !open || c.class == verified && c.owner.name == key {
		return nil, true
	}
	s := &g.shares[verified]
	own := s.owners[key]
	if c.class != verified && s.count >= s.limit {
		if victim = s.giveUpLocked(own, verified); victim == nil && own != nil {
			if e := own.idle.Front(); e != nil {
				victim = e.Value.(*conn)
			}
		}
		if victim == nil {
			return nil, false
		}
		g.removeLocked(victim)
	}
	g.removeLocked(c)
	c.class = verified
	g.addLocked(c, key)
	c.key.Store(&key)
	return victim, true
}

// Run closes connections without a valid signature that have been idle for some time, until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.sweep()
		case <-ctx.Done():
			return
		}
	}
}

func (g *Guard) sweep() {
	now := g.now()
	var old []*conn
	g.mu.Lock()
	for _, class := range []class{stranger, known} {
		for _, o := range g.shares[class].owners {
			for e := o.idle.Front(); e != nil; e = e.Next() {
				c := e.Value.(*conn)
				if now.Sub(c.since) < strangerIdle {
					break // the others' states have changed later
				}
				if c.served { // one that has sent nothing yet has a deadline of its own
					old = append(old, c)
				}
			}
		}
	}
	for _, c := range old {
		g.removeLocked(c)
	}
	g.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nobody waits for it
	}
}

// relieve closes connections until the others hold a sixteenth less of unverified requests than is
// allowed. It begins with the source that holds the most bytes, and with its largest connection: a
// source that sends much displaces its own connections, and no large request of another source.
// Within a source the oldest would be no better: connections that a flood replaces all the time are
// younger than a large request that is still being sent. Whether a connection has had a valid signature does not count: it does
// not excuse what it holds now, and closing one that holds little would free nothing.
func (g *Guard) relieve() {
	g.mu.Lock()
	victims := g.victimsLocked(g.cfg.Pending - g.cfg.Pending/16)
	for _, c := range victims {
		g.removeLocked(c)
	}
	g.mu.Unlock()
	for _, c := range victims {
		g.evict(c)
	}
}

// victimsLocked returns the connections to close so that the others hold at most so many bytes.
func (g *Guard) victimsLocked(most int64) []*conn {
	type holder struct {
		*conn
		bytes int64
	}
	var holders []holder
	var sum int64
	totals := map[netip.Addr]int64{}
	for c := range g.open {
		h := holder{c, c.pending.Load()}
		if h.bytes == 0 {
			continue
		}
		holders = append(holders, h)
		totals[c.source] += h.bytes
		sum += h.bytes
	}
	if sum <= g.cfg.Pending {
		return nil // another call has made room
	}
	slices.SortFunc(holders, func(a, b holder) int {
		return cmp.Or(
			cmp.Compare(totals[b.source], totals[a.source]),
			a.source.Compare(b.source),
			cmp.Compare(b.bytes, a.bytes),
		)
	})
	var victims []*conn
	for _, h := range holders {
		if sum <= most {
			break
		}
		victims = append(victims, h.conn)
		sum -= h.bytes
	}
	return victims
}

// conn is an admitted connection.
type conn struct {
	net.Conn
	guard  *Guard
	source netip.Addr
	proxy  bool

	key     atomic.Pointer[string] // of the last valid signature
	noted   atomic.Int64           // when the source was last noted as known, Unix nanoseconds
	pending atomic.Int64           // bytes of requests that are not verified
	closed  atomic.Bool

	// guarded by guard.mu
	class   class
	owner   *owner
	queue   *list.List
	element *list.Element
	since   time.Time // the last change of state
	busy    bool      // a request is under way
	served  bool      // something was received
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.pending.Add(int64(n))
		if g := c.guard; g.pending.Add(int64(n)) > g.cfg.Pending {
			g.relieve()
		}
		if c.closed.Load() {
			c.forget() // Close may have done so before these bytes were counted
		}
	}
	return n, err
}

// CloseWrite lets http.Server end an answer before it closes a connection on which more is coming in: a client
// would not see the answer otherwise.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// forget no longer counts the bytes that were read.
func (c *conn) forget() { c.guard.pending.Add(-c.pending.Swap(0)) }

func (c *conn) Close() error {
	c.guard.mu.Lock()
	c.guard.removeLocked(c)
	c.guard.mu.Unlock()
	err := c.Conn.Close()
	c.closed.Store(true)
	c.forget()
	return err
}
