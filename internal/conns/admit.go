package conns

import (
	"container/heap"
	"net"
	"net/netip"

	"golang.org/x/time/rate"
)

// Listener returns l, whose connections g admits. TLS goes on top of it.
func (g *Guard) Listener(l net.Listener) net.Listener { return &listener{l, g} }

type listener struct {
	net.Listener
	guard *Guard
}

// Accept returns the next connection that is admitted. Others are reset without an answer: an
// answer would cost more than the connection.
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
	_ = c.Close() // no request is lost
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
