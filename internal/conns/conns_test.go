package conns_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/conns"
)

// fake is a connection from an address.
type fake struct {
	net.Conn
	from net.Addr

	mu     sync.Mutex
	closed bool
}

func (f *fake) RemoteAddr() net.Addr { return f.from }

func (f *fake) Read(b []byte) (int, error) { return len(b), nil }

func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *fake) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// queue is a listener whose connections are put in by hand.
type queue struct{ waiting []net.Conn }

func (q *queue) Accept() (net.Conn, error) {
	if len(q.waiting) == 0 {
		return nil, io.EOF
	}
	c := q.waiting[0]
	q.waiting = q.waiting[1:]
	return c, nil
}
func (q *queue) Close() error   { return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// client is one connection and what the server has of it.
type client struct {
	raw    *fake
	served net.Conn // nil when it was refused
	ctx    context.Context
	guard  *conns.Guard
}

func dial(g *conns.Guard, from string) *client {
	raw := &fake{from: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4711))}
	served, err := g.Listener(&queue{waiting: []net.Conn{raw}}).Accept()
	c := &client{raw: raw, guard: g}
	if err == nil {
		c.served, c.ctx = served, g.ConnContext(context.Background(), served)
		g.ConnState(served, http.StateNew)
	}
	return c
}

func (c *client) active()                { c.guard.ConnState(c.served, http.StateActive) }
func (c *client) idle()                  { c.guard.ConnState(c.served, http.StateIdle) }
func (c *client) verified(k string) bool { return conns.Verified(c.ctx, k) }
func (c *client) open() bool             { return c.served != nil && !c.raw.isClosed() }

func count(list []*client) (open int) {
	for _, c := range list {
		if c.open() {
			open++
		}
	}
	return open
}

// TestFloodDisplacesItself fills the shares from one source; others still get in and stay.
func TestFloodDisplacesItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := conns.New(conns.Config{Total: 800, PerSource: 800})
		var flood []*client
		for range 900 {
			flood = append(flood, dial(g, "192.0.2.1"))
		}
		if n := count(flood); n != 100 {
			t.Fatalf("%d connections of one source without a signature are open, want an eighth of 800", n)
		}
		var others []*client
		for i := range 100 {
			others = append(others, dial(g, fmt.Sprintf("198.51.100.%d", i)))
			dial(g, "192.0.2.1")
		}
		if n := count(others); n != 99 {
			t.Errorf("%d of 100 other sources got in, want all but the last, when each source has one", n)
		}
		if f := g.Figures(); f.Open > 100 || f.Rejected == 0 || f.Evicted == 0 {
			t.Errorf("figures %+v", f)
		}
	})
}

// TestStaleGivesWay verifies that a source that fills its own share with silent connections gets
// new ones in, and that a burst of new ones does not displace each other.
func TestStaleGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := conns.New(conns.Config{Total: 800, PerSource: 10})
		var first []*client
		for range 10 {
			first = append(first, dial(g, "192.0.2.1"))
		}
		first[0].active() // a request that does not end
		if c := dial(g, "192.0.2.1"); c.open() || count(first) != 10 {
			t.Error("a burst displaces its own connections")
		}
		time.Sleep(3 * time.Second)
		for range 10 {
			if c := dial(g, "192.0.2.1"); !c.open() {
				t.Error("silent connections keep their own source out")
			}
		}
		if n := count(first); n != 0 {
			t.Errorf("%d silent connections are left", n)
		}
	})
}

// TestVerifiedStays verifies that connections of access keys survive a flood of strangers, and that
// between keys the one with the most gives way.
func TestVerifiedStays(t *testing.T) {
	t.Parallel()
	g := conns.New(conns.Config{Total: 80})
	good := dial(g, "192.0.2.1")
	good.active()
	if !good.verified("good") {
		t.Fatal("refused")
	}
	var greedy []*client
	refused := 0
	for range 100 {
		c := dial(g, "192.0.2.1")
		if !c.open() {
			t.Fatal("a known source does not get in")
		}
		c.active()
		if !c.verified("greedy") {
			refused++
			_ = c.served.Close()
		}
		greedy = append(greedy, c)
	}
	if n := count(greedy); n != 59 || refused != 41 {
		t.Errorf("a key has %d connections, %d were refused; want the other 59 of 60 places", n, refused)
	}
	for i := range 10 {
		c := dial(g, "198.51.100.1")
		c.active()
		if !c.open() || !c.verified(fmt.Sprintf("key%d", i)) {
			t.Error("a key with many connections keeps another out")
		}
	}
	if !good.open() {
		t.Error("the connection of a key with one was closed")
	}
	greedy[20].idle()
	newest := dial(g, "192.0.2.1")
	newest.active()
	if !newest.verified("greedy") || count(greedy[20:21]) != 0 {
		t.Error("an idle connection does not give way to a busy one of the same key")
	}
}

// TestKnownSources verifies that strangers, however many, leave a share to sources that were
// verified lately.
func TestKnownSources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := conns.New(conns.Config{Total: 80})
		c := dial(g, "2001:db8::1")
		c.active()
		c.verified("key")
		for i := range 20_000 {
			dial(g, fmt.Sprintf("10.%d.%d.1", i/250, i%250))
		}
		again := dial(g, "2001:db8::2") // of the same /64
		for i := range 100 {
			dial(g, fmt.Sprintf("10.200.%d.1", i))
		}
		if !again.open() {
			t.Error("strangers displaced a source that was verified lately")
		}
		time.Sleep(2 * time.Hour)
		late := dial(g, "2001:db8::2")
		for i := range 100 {
			dial(g, fmt.Sprintf("10.201.%d.1", i))
		}
		if late.open() {
			t.Error("a source counts as known for ever")
		}
	})
}

// TestRate verifies that one source opens only so many connections per second.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := conns.New(conns.Config{Total: 8000})
		in := 0
		for range 3000 {
			if c := dial(g, "192.0.2.1"); c.open() {
				in++
				_ = c.served.Close()
			}
		}
		if in != 1000 {
			t.Errorf("%d at once, want 1000", in)
		}
		time.Sleep(time.Second)
		if c := dial(g, "192.0.2.1"); !c.open() {
			t.Error("refused a second later")
		}
		if c := dial(g, "192.0.2.2"); !c.open() {
			t.Error("another source is refused")
		}
	})
}

// TestIdleStrangersEnd verifies that connections without a signature are closed when they are idle.
func TestIdleStrangersEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := conns.New(conns.Config{Total: 800})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go g.Run(ctx)
		page, call := dial(g, "192.0.2.1"), dial(g, "192.0.2.1")
		for _, c := range []*client{page, call} {
			c.active()
		}
		call.verified("key")
		page.idle()
		call.idle()
		time.Sleep(10 * time.Second)
		if page.open() || !call.open() {
			t.Errorf("after 10 s the connection without a signature is open: %v, the other: %v", page.open(), call.open())
		}
	})
}

// TestPending verifies that the bytes of unverified requests have a bound, that the largest is
// given up, and that what was counted is given back.
func TestPending(t *testing.T) {
	t.Parallel()
	g := conns.New(conns.Config{Total: 800, Pending: 1000})
	small, large := dial(g, "192.0.2.1"), dial(g, "192.0.2.2")
	read := func(c *client, n int) { _, _ = io.ReadFull(c.served, make([]byte, n)) }
	read(small, 100)
	read(large, 800)
	read(small, 101)
	if !small.open() || large.open() {
		t.Errorf("small open: %v, large open: %v", small.open(), large.open())
	}
	for range 100 {
		read(small, 500)
		small.verified("key")
	}
	if f := g.Figures(); f.Pending != 0 || !small.open() {
		t.Errorf("after verified requests: %+v", f)
	}
	read(small, 10)
	_ = small.served.Close()
	if f := g.Figures(); f.Pending != 0 || f.Open != 0 {
		t.Errorf("after all were closed: %+v", f)
	}
}

// TestPendingOfAFlood verifies that medium-sized requests of one source do not displace the large
// request of another.
func TestPendingOfAFlood(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	g := conns.New(conns.Config{Total: 800, Pending: 16000, Now: func() time.Time { return now }})
	large := dial(g, "192.0.2.1")
	large.active()
	var flood []*client
	for range 100 {
		now = now.Add(time.Millisecond)
		c := dial(g, "192.0.2.2")
		c.active()
		flood = append(flood, c)
		_, _ = io.ReadFull(c.served, make([]byte, 500))
		_, _ = io.ReadFull(large.served, make([]byte, 60))
	}
	if !large.open() {
		t.Error("a flood of medium-sized requests has closed the connection of a large one")
	}
	if f := g.Figures(); f.Pending > 16000 {
		t.Errorf("%d bytes are held, 16000 are allowed", f.Pending)
	}
	if open := count(flood); open == 0 || open == len(flood) {
		t.Errorf("of the flood %d connections are open", open)
	}
}

// TestPendingOfManySmall verifies that many connections that hold little do not let the bytes
// exceed their bound.
func TestPendingOfManySmall(t *testing.T) {
	t.Parallel()
	g := conns.New(conns.Config{Total: 8000, Pending: 1000})
	for i := range 200 {
		c := dial(g, fmt.Sprintf("192.0.2.%d", 2+i/20))
		_, _ = io.ReadFull(c.served, make([]byte, 1))
	}
	for range 10 {
		c := dial(g, "192.0.2.2")
		_, _ = io.ReadFull(c.served, make([]byte, 500))
		if f := g.Figures(); f.Pending > 1000 {
			t.Fatalf("%d bytes are held, 1000 are allowed", f.Pending)
		}
	}
}

// TestProxies verifies that a trusted proxy is bounded by the total alone.
func TestProxies(t *testing.T) {
	t.Parallel()
	proxy := netip.MustParseAddr("192.0.2.9")
	g := conns.New(conns.Config{Total: 80, Trusted: func(a netip.Addr) bool { return a == proxy }})
	var list []*client
	for range 70 {
		list = append(list, dial(g, "192.0.2.9"))
	}
	if n := count(list); n != 60 {
		t.Errorf("%d connections of a proxy, want three quarters of 80", n)
	}
	if c := dial(g, "192.0.2.1"); !c.open() {
		t.Error("a proxy keeps others out")
	}
}
