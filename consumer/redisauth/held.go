package redisauth

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// heldConn is a connection that holds its version until it is closed, or until it is older than the
// pool hands out and at rest. One that somebody keeps, and uses again after that, holds its version
// again.
type heldConn struct {
	net.Conn
	adapter *adapter.Adapter
	version string
	limit   time.Duration
	opened  time.Time

	used    atomic.Int64 // when something was last written or read, in nanoseconds since opened
	reading atomic.Int32 // reads under way
	rests   atomic.Bool  // holds nothing

	mu     sync.Mutex
	held   *adapter.Conn // guarded by mu, as all below
	timer  *time.Timer
	closed bool
}

func hold(conn net.Conn, a *adapter.Adapter, held *adapter.Conn, limit time.Duration) net.Conn {
	h := &heldConn{Conn: conn, adapter: a, version: held.Version, limit: limit, opened: time.Now()}
	h.mu.Lock()
	h.held = held
	h.timer = time.AfterFunc(limit, h.look)
	h.mu.Unlock()
	if raw, ok := conn.(syscall.Conn); ok {
		return plainConn{h, raw}
	}
	return h
}

// look lets the version go of a connection at rest. It is called when the connection has come to
// its age, and again while it is in use after that.
func (c *heldConn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	quiet := time.Since(c.opened) - time.Duration(c.used.Load())
	switch {
	case c.closed:
	case c.reading.Load() > 0 || quiet < c.limit/2:
		c.timer.Reset(c.limit / 4)
	default:
		c.rests.Store(true)
		c.held.Closed()
	}
}

// use notes that the connection is in use.
func (c *heldConn) use() {
	c.used.Store(int64(time.Since(c.opened)))
	if !c.rests.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rests.Load() && !c.closed {
		c.rests.Store(false)
		c.held = c.adapter.Opened(c.version)
		c.timer.Reset(c.limit / 4)
	}
}

func (c *heldConn) Write(p []byte) (int, error) {
	c.use()
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

// NetConn is what is below, by which go-redis finds the connection below TLS.
func (c *heldConn) NetConn() net.Conn { return c.Conn }

// plainConn is a heldConn that go-redis can look at through the operating system, as at the one
// below.
type plainConn struct {
	*heldConn
	syscall.Conn
}
