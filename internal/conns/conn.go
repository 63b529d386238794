package conns

import (
	"container/list"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

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

// CloseWrite lets http.Server end an answer before it closes a connection on which more is coming
// in: a client would not see the answer otherwise.
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
