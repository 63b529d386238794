package redisauth

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// heldConn is a connection that holds its version until it is closed, or until it is idle and older
// than the connections that the pool uses. If it is used again after that, because the application
// has kept it, it holds its version again.
type heldConn struct {
	net.Conn
	adapter *adapter.Adapter
	version string
	limit   time.Duration
	opened  time.Time

	used     atomic.Int64 // time of the last read or write, in nanoseconds since opened
	reading  atomic.Int32 // reads in progress
	released atomic.Bool  // holds nothing

	mu     sync.Mutex
	held   *adapter.Conn // guarded by mu, as all below
	timer  *time.Timer
	closed bool
}

func hold(conn net.Conn, a *adapter.Adapter, held *adapter.Conn, limit time.Duration) net.Conn {
	h := &heldConn{
		Conn:    conn,
		adapter: a,
		version: held.Version,
		limit:   limit,
		opened:  time.Now(),
	}
	h.mu.Lock()
	h.held = held
	h.timer = time.AfterFunc(limit, h.releaseIdle)
	h.mu.Unlock()
	if raw, ok := conn.(syscall.Conn); ok {
		return plainConn{h, raw}
	}
	return h
}

// releaseIdle releases the version if the connection is idle. It runs when the connection has
// reached its maximum age, and again while the connection is in use after that.
func (c *heldConn) releaseIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := time.Since(c.opened) - time.Duration(c.used.Load())
	switch {
	case c.closed:
	case c.reading.Load() > 0 || idle < c.limit/2:
		c.timer.Reset(c.limit / 4)
	default:
		c.released.Store(true)
		c.held.Closed()
	}
}

// touch registers that the connection is in use, and holds its version again if it was released.
func (c *heldConn) touch() {
	c.used.Store(int64(time.Since(c.opened)))
	if !c.released.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released.Load() && !c.closed {
		c.released.Store(false)
		c.held = c.adapter.Opened(c.version)
		c.timer.Reset(c.limit / 4)
	}
}

func (c *heldConn) Write(p []byte) (int, error) {
	c.touch()
	return c.Conn.Write(p)
}

func (c *heldConn) Read(p []byte) (int, error) {
	c.reading.Add(1)
	defer c.reading.Add(-1)
	n, err := c.Conn.Read(p)
	c.used.Store(int64(time.Since(c.opened)))
	return n, err
}

func (c *heldConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.timer.Stop()
	c.held.Closed()
	c.mu.Unlock()
	return c.Conn.Close()
}

// NetConn returns the connection below. go-redis uses it to find the connection below TLS.
func (c *heldConn) NetConn() net.Conn { return c.Conn }

// plainConn is a heldConn on which go-redis can check the socket for unread data, as on the
// connection below.
type plainConn struct {
	*heldConn
	syscall.Conn
}
