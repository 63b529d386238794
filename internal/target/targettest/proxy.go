package targettest

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Fault is a fault in one direction of a connection through a [Proxy].
type Fault struct {
	// After is the number of bytes that pass before the fault begins.
	After int
	Kind  FaultKind
}

// FaultKind is a kind of network fault.
type FaultKind uint8

// The faults.
const (
	// None lets everything pass.
	None FaultKind = iota
	// Reset closes both sides at once, with a reset where the system does so.
	Reset
	// Silence swallows all further bytes of the direction and keeps the connection open: a
	// half-open connection.
	Silence
)

// Proxy forwards TCP connections to an address, with the faults that the test sets.
type Proxy struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	request Fault // from the client to the target
	reply   Fault // from the target to the client
	refuse  bool
	spared  int // connections that pass although refuse is set
	conns   map[net.Conn]bool
	passed  [2]int // bytes of requests and of replies since the faults were set
	opened  int

	all sync.WaitGroup
}

// NewProxy starts a proxy on loopback; it ends with the test.
func NewProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, to: to, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.all.Wait()
	})
	return p
}

// Addr returns host:port of the proxy.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set sets the faults of all further connections and resets the counts of [Proxy.Passed].
func (p *Proxy) Set(request, reply Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.request, p.reply, p.refuse, p.spared = request, reply, false, 0
	p.passed, p.opened = [2]int{}, 0
}

// Refuse makes the proxy close every new connection at once, before a byte has passed.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = true
}

// CutLater lets the next n connections pass, and closes every later one like [Proxy.Refuse].
func (p *Proxy) CutLater(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse, p.spared = true, n
}

// Passed returns how many bytes of requests and replies have passed since Set, and how many
// connections were made.
func (p *Proxy) Passed() (requests, replies, connections int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed[0], p.passed[1], p.opened
}

// Cut closes every connection that is open.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.opened++
		refuse, faults := p.refuse && p.spared == 0, [2]Fault{p.request, p.reply}
		p.spared = max(0, p.spared-1)
		p.mu.Unlock()
		if refuse {
			_ = c.Close()
			continue
		}
		p.all.Go(func() { p.pass(c, faults) })
	}
}

func (p *Proxy) pass(client net.Conn, faults [2]Fault) {
	server, err := net.DialTimeout("tcp", p.to, 5*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	closeBoth := sync.OnceFunc(func() {
		_ = client.Close()
		_ = server.Close()
		p.mu.Lock()
		delete(p.conns, client)
		delete(p.conns, server)
		p.mu.Unlock()
	})
	defer closeBoth()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, faults[0], 0, closeBoth) })
	both.Go(func() { p.copy(client, server, faults[1], 1, closeBoth) })
	both.Wait()
}

func (p *Proxy) copy(to, from net.Conn, fault Fault, direction int, closeBoth func()) {
	if fault.Kind == None {
		_, _ = io.Copy(counter{p, to, direction}, from)
		closeWrite(to)
		return
	}
	_, err := io.CopyN(counter{p, to, direction}, from, int64(fault.After))
	switch {
	case errors.Is(err, io.EOF):
		closeWrite(to)
	case fault.Kind == Reset:
		for _, c := range []net.Conn{to, from} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}
		closeBoth()
	default:
		_, _ = io.Copy(io.Discard, from)
		closeBoth()
	}
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

type counter struct {
	p         *Proxy
	to        io.Writer
	direction int
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.p.mu.Lock()
	c.p.passed[c.direction] += n
	c.p.mu.Unlock()
	return n, err
}
