package conns

import (
	"context"
	"net"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

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

// ConnState is for http.Server: it marks a connection as busy while it has a request, and as idle
// otherwise.
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

// Verified notes that a request had a valid signature by an access key. ok is false when that key
// has more connections than any other, none of which is idle, and there is no room: the request is
// to be refused, and its connection closed. ctx is the context of the request.
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
