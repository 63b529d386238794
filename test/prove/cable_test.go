package prove

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// harm is what a cable does when so many bytes of one direction have passed, over all connections
// together.
type harm struct {
	kind  harmKind
	reply bool // of the direction from the target
	after int
}

type harmKind int

const (
	unharmed harmKind = iota
	// cut resets the connection, and every new one until the cable is healed.
	cut
	// mute swallows what follows in the direction, on every connection, until the cable is healed; a
	// connection that was muted stays so.
	mute
	// drop resets the one connection, and no other.
	drop
	// call calls act before the bytes pass, and harms nothing itself.
	call
)

// cable passes connections on to an address.
type cable struct {
	listener net.Listener
	to       string
	// watched are bytes of replies whose occurrences are counted, such as an error code.
	watched []byte
	act     func()

	mu     sync.Mutex
	harm   harm
	passed [2]int // requests and replies
	broken bool
	hit    chan struct{} // closed when the harm is done
	conns  map[net.Conn]bool
	seen   int // occurrences of watched

	all sync.WaitGroup
}

func newCable(t testing.TB, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	good(t, err)
	c := &cable{listener: l, to: to, hit: make(chan struct{}), conns: map[net.Conn]bool{}}
	c.all.Go(c.accept)
	t.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.all.Wait()
	})
	return c
}

func (c *cable) addr() string { return c.listener.Addr().String() }

// set plans a harm, and counts anew.
func (c *cable) set(h harm) (hit <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.harm, c.passed, c.broken, c.hit = h, [2]int{}, false, make(chan struct{})
	return c.hit
}

func (c *cable) heal() { c.set(harm{}) }

// counts are the bytes of requests and replies that have passed.
func (c *cable) counts() [2]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed
}

func (c *cable) occurrences() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *cable) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		refuse := c.broken && c.harm.kind == cut
		c.mu.Unlock()
		if refuse {
			reset(conn)
			continue
		}
		c.all.Go(func() { c.join(conn) })
	}
}

func (c *cable) join(client net.Conn) {
	server, err := net.DialTimeout("tcp", c.to, 5*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	c.mu.Lock()
	c.conns[client], c.conns[server] = true, true
	c.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { c.pass(server, client, 0) })
	both.Go(func() { c.pass(client, server, 1) })
	both.Wait()
	c.mu.Lock()
	delete(c.conns, client)
	delete(c.conns, server)
	c.mu.Unlock()
	_ = client.Close()
	_ = server.Close()
}

// pass copies one direction until it ends or is harmed.
func (c *cable) pass(to, from net.Conn, direction int) {
	buf := make([]byte, 16<<10)
	muted := false
	for {
		n, err := from.Read(buf)
		if n > 0 && !muted {
			allowed, kind := c.take(buf[:n], direction)
			_, _ = to.Write(buf[:allowed])
			switch {
			case allowed == n:
			case kind == mute:
				muted = true
			default:
				reset(to)
				reset(from)
			}
		}
		if err != nil {
			if tcp, ok := to.(*net.TCPConn); ok && !muted {
				_ = tcp.CloseWrite()
			}
			return
		}
	}
}

// take says how many of the bytes may pass, and what happens to the rest.
func (c *cable) take(b []byte, direction int) (allowed int, kind harmKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if direction == 1 && len(c.watched) > 0 {
		c.seen += bytes.Count(b, c.watched)
	}
	allowed = len(b)
	if c.harm.kind == call && c.harm.reply == (direction == 1) && !c.broken && c.passed[direction]+len(b) > c.harm.after {
		c.broken = true
		c.act()
		close(c.hit)
	}
	if kind = c.harm.kind; kind != unharmed && kind != call && c.harm.reply == (direction == 1) {
		allowed = min(max(0, c.harm.after-c.passed[direction]), len(b))
	}
	c.passed[direction] += allowed
	if allowed < len(b) {
		if !c.broken {
			close(c.hit)
		}
		if c.broken = true; kind == drop {
			c.harm = harm{}
		}
	}
	return allowed, kind
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
