package egress_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/test/support"
)

func rules(t *testing.T, list ...string) []egress.Rule {
	t.Helper()
	var out []egress.Rule
	for _, s := range list {
		r, err := egress.ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		allow, deny []string
		permitted   string
		refused     string
	}{
		{
			permitted: "127.0.0.1:1 [::1]:1 10.0.0.1:1 192.168.7.1:1 203.0.113.9:1 [2001:db8::1]:1 [::ffff:10.0.0.1]:1 " +
				"100.100.100.201:1",
			refused: "169.254.169.254:80 169.254.1.1:1 [fe80::1]:1 [fe80::1%1]:1 0.0.0.0:1 0.1.2.3:1 [::]:1 224.0.0.1:1 " +
				"239.1.1.1:1 [ff02::1]:1 255.255.255.255:1 " +
				"240.0.0.1:1 100.100.100.200:80 168.63.129.16:80 192.0.0.192:80 [fd00:ec2::254]:80 [fd20:ce::254]:80 " +
				// The same in the forms in which IPv6 carries them.
				"[::ffff:169.254.169.254]:80 [2002:a9fe:a9fe::1]:80 [64:ff9b::a9fe:a9fe]:80 [64:ff9b:1::a9fe:a9fe]:80 " +
				"[::a9fe:a9fe]:80 [2001:db8::5efe:a9fe:a9fe]:80 " +
				"[2001:0:a9fe:a9fe::1]:80 [2001:0:1::5601:5601]:80 [::ffff:0:a9fe:a9fe]:80 [::ffff:0:127.0.0.1]:1 " +
				"[2001:db8::200:5efe:7f00:1]:1 [64:ff9b::7f00:1]:1 [2002:7f00:1::]:1 [::7f00:1]:1 [::ffff:0.0.0.0]:1",
		},
		{
			allow:     []string{"10.0.0.0/8", "[2001:db8::1]:5432", "127.0.0.1:6379"},
			permitted: "10.9.9.9:1 [::ffff:10.9.9.9]:1 [2001:db8::1]:5432 127.0.0.1:6379",
			refused:   "11.0.0.1:1 127.0.0.1:6380 [::1]:6379 [2001:db8::1]:5433 [2001:db8::2]:5432 169.254.169.254:80",
		},
		{
			allow:     []string{"0.0.0.0/0", "::/0"},
			permitted: "203.0.113.9:1 127.0.0.1:1 [2001:db8::1]:1",
			refused:   "169.254.169.254:80 [fe80::1]:1 0.0.0.0:1 [64:ff9b::a9fe:a9fe]:80",
		},
		{
			allow:     []string{"169.254.10.0/24", "10.0.0.0/8"},
			permitted: "169.254.10.7:1 10.0.0.1:1",
			refused:   "169.254.169.254:80 203.0.113.9:1",
		},
		{
			deny:      []string{"127.0.0.0/8", "::1", "10.1.0.0/16", "192.168.0.1:443"},
			permitted: "10.2.0.1:1 192.168.0.1:80",
			refused: "127.0.0.1:1 127.9.9.9:1 [::1]:1 [::ffff:127.0.0.1]:1 10.1.2.3:1 [::ffff:10.1.2.3]:1 " +
				"[64:ff9b::10.1.2.3]:1 [2002:a01:203::]:1 192.168.0.1:443",
		},
		{
			allow:   []string{"10.0.0.0/8"},
			deny:    []string{"10.0.0.0/8"},
			refused: "10.0.0.1:1",
		},
		{
			// The prefix that RFC 8215 leaves to the network, with each length that RFC 6052 has for it.
			allow:     []string{"64:ff9b:1::/48"},
			deny:      []string{"10.1.0.0/16"},
			permitted: "[64:ff9b:1::10.2.3.4]:1 [64:ff9b:1:a02:3:400::]:1",
			refused: "[64:ff9b:1::10.1.2.3]:1 [64:ff9b:1:a01:2:300::]:1 [64:ff9b:1:a:1:203::]:1 [64:ff9b:1:77:a:102:300:0]:1 " +
				"[64:ff9b:1:a9fe:a9:fe00::]:80 [64:ff9b:1::a9fe:a9fe]:80 [64:ff9b:1::7f00:1]:1",
		},
		{
			deny:      []string{"10.1.0.0/16"},
			permitted: "[::ffff:0:10.2.0.1]:1",
			refused:   "[::ffff:0:10.1.0.1]:1 [2001:db8::5efe:10.1.0.1]:1 [2001:0:a01:1::]:1",
		},
	} {
		d := egress.New(egress.Config{Allow: rules(t, tt.allow...), Deny: rules(t, tt.deny...)})
		for _, address := range strings.Fields(tt.permitted) {
			if reason := d.Judge(t.Context(), address); reason != "" {
				t.Errorf("allow %q, deny %q: %s is refused: %s", tt.allow, tt.deny, address, reason)
			}
		}
		for _, address := range strings.Fields(tt.refused) {
			if d.Judge(t.Context(), address) == "" {
				t.Errorf("allow %q, deny %q: %s is permitted", tt.allow, tt.deny, address)
			}
		}
	}
}

func TestParseRuleRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "10.0.0.1/8", "10.0.0.0/33", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "[::1",
		"[::1]x", "*", "*.", "a..b",
		"http://h", "h/", "fe80::1%eth0", "db:70000", "un ix", "/run/x.sock", "1.2.3",
	} {
		if r, err := egress.ParseRule(s); err == nil {
			t.Errorf("ParseRule(%q) = %+v, want an error", s, r)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "[::1]:5", "*.example.com:443", "::ffff:10.0.0.0/104", "a", "[", "1.2.3.4:"} {
		f.Add(s, "10.0.0.1:5")
	}
	f.Fuzz(func(t *testing.T, rule, address string) {
		r, err := egress.ParseRule(rule)
		if err != nil {
			return
		}
		peer, err := netip.ParseAddrPort(address)
		if err != nil {
			return
		}
		// Whatever a rule says, denying it and allowing nothing else permits nothing.
		d := egress.New(egress.Config{Allow: []egress.Rule{r}, Deny: []egress.Rule{r}})
		if d.Judge(t.Context(), peer.String()) == "" {
			t.Errorf("%q is permitted by a rule that is allowed and denied: %q", address, rule)
		}
	})
}

// TestEverySpellingReachesTheRules verifies that no spelling of an address that the resolver takes
// gets around the rules: a listener on loopback, which the rules deny, gets no connection.
func TestEverySpellingReachesTheRules(t *testing.T) {
	t.Parallel()
	port, connected := listener(t)
	d := egress.New(egress.Config{Deny: rules(t, "127.0.0.0/8", "::1")})
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "::",
		"::ffff:127.0.0.1", "::ffff:7f00:1", "127.0.0.1.",
		"::1", "127.255.255.254", "",
	} {
		if c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port)); err == nil {
			_ = c.Close()
			t.Errorf("%q was connected to", host)
		}
	}
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
}

// TestUnixSocketsAreRefused verifies that only TCP is spoken.
func TestUnixSocketsAreRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, network := range []string{"unix", "unixgram", "udp", "ip"} {
		c, err := egress.Default.DialContext(t.Context(), network, path+":1")
		if err == nil {
			_ = c.Close()
		}
		if !errors.As(err, new(*egress.RefusedError)) {
			t.Errorf("%s: %v", network, err)
		}
	}
	if _, err := egress.Default.DialContext(t.Context(), "unix", path); err == nil {
		t.Error("a Unix socket was connected to")
	}
}

// TestRebindingIsRefused verifies that a name is judged by the address that is connected to: one
// that resolves to a permitted address first and to another afterwards connects to neither the
// second nor, by an allowed name, to loopback.
func TestRebindingIsRefused(t *testing.T) {
	t.Parallel()
	port, connected := listener(t)
	var answers atomic.Int64
	resolver := fakeDNS(t, func(name string) []netip.Addr {
		switch name {
		case "rebind.example.":
			if answers.Add(1) == 1 {
				return []netip.Addr{netip.MustParseAddr("203.0.113.7")}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		case "metadata.example.":
			return []netip.Addr{netip.MustParseAddr("169.254.169.254")}
		case "inside.example.", "denied.example.":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		return nil
	})
	byName := egress.New(egress.Config{Resolver: resolver, Allow: rules(t, "*.example")})
	denied := egress.New(egress.Config{Resolver: resolver, Deny: rules(t, "127.0.0.1")})
	deniedName := egress.New(egress.Config{Resolver: resolver, Deny: rules(t, "denied.example")})
	own := egress.New(egress.Config{Resolver: resolver, Own: []string{"inside.example:" + port}})
	for name, dial := range map[string]struct {
		d    *egress.Dialer
		host string
	}{
		"a name that changes":              {byName, "rebind.example"},
		"an allowed name of loopback":      {byName, "inside.example"},
		"an allowed name of metadata":      {byName, "metadata.example"},
		"a name of a denied address":       {denied, "inside.example"},
		"the address of a denied name":     {deniedName, "127.0.0.1"},
		"another name of a denied name":    {deniedName, "inside.example"},
		"another spelling of a service":    {own, "127.0.0.1"},
		"the mapped address of a service":  {own, "::ffff:127.0.0.1"},
		"a name that is no allowed one":    {byName, "localhost"},
		"the metadata service by any name": {egress.New(egress.Config{Resolver: resolver}), "metadata.example"},
	} {
		if name == "a name that changes" {
			if reason := byName.Judge(t.Context(), "203.0.113.7:1"); reason == "" {
				t.Error("an address is permitted that no rule names")
			}
			answers.Store(1) // the first answer was given to somebody who looked before
		}
		c, err := dial.d.DialContext(t.Context(), "tcp", net.JoinHostPort(dial.host, port))
		if err == nil {
			_ = c.Close()
		}
		if !errors.As(err, new(*egress.RefusedError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
}

// TestDeniedNameWithoutAddress verifies that a denied name that does not exist denies itself alone,
// and that nothing is connected to while a denied name cannot be looked up.
func TestDeniedNameWithoutAddress(t *testing.T) {
	t.Parallel()
	port, _ := listener(t)
	resolver := fakeDNS(t, func(name string) []netip.Addr {
		if name == "other.example." {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		return nil
	})
	for _, tt := range []struct {
		deny, host string
		permitted  bool
	}{
		{"missing.example", "other.example", true},
		{"missing.example", "127.0.0.1", true},
		{"missing.example", "missing.example", false},
		{"failing.example", "other.example", false},
		{"failing.example", "127.0.0.1", false},
	} {
		d := egress.New(egress.Config{Resolver: resolver, Deny: rules(t, tt.deny)})
		c, err := d.DialContext(t.Context(), "tcp4", net.JoinHostPort(tt.host, port))
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != tt.permitted {
			t.Errorf("deny %s, connect to %s: %v, want permitted: %v", tt.deny, tt.host, err, tt.permitted)
		}
	}
}

// TestOwnServicesAreRefusedAtEveryAddress verifies that a service of the server at an address of
// this machine is refused at all addresses of this machine, whatever the spelling of its port;
// that a service whose name cannot be looked up makes the attempt fail without a verdict; and
// that a host behind the same proxy as a service is reached only by the name that the operator
// allows.
func TestOwnServicesAreRefusedAtEveryAddress(t *testing.T) {
	t.Parallel()
	port, connected := listener(t)
	resolver := fakeDNS(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	dial := func(host string, c egress.Config) error {
		c.Resolver = resolver
		conn, err := egress.New(c).DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	everything := rules(t, "0.0.0.0/0", "::/0", "127.0.0.0/8", "127.0.0.1:"+port, "sink.example:"+port)
	for _, own := range []string{"127.0.0.1:" + port, "0.0.0.0:" + port, "[::1]:" + port, "127.0.0.1:0" + port,
		"sink.example:" + port} {
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "sink.example", "other.example"} {
			for kind, c := range map[string]egress.Config{"any": {Own: []string{own}}, "HTTP": {OwnHTTP: []string{own}}} {
				c.Allow = everything
				if host == "sink.example" && kind == "HTTP" && own != "sink.example:"+port {
					continue // the operator has exempted the name
				}
				if err := dial(host, c); !errors.As(err, new(*egress.RefusedError)) {
					t.Errorf("own %s service %s: connecting to %s: %v", kind, own, host, err)
				}
			}
		}
	}
	if connected.Load() != 0 {
		t.Errorf("%d connections arrived", connected.Load())
	}
	err := dial("127.0.0.1", egress.Config{Own: []string{"failing.example:" + port}})
	if err == nil || errors.As(err, new(*egress.RefusedError)) {
		t.Errorf("a service cannot be looked up: %v, want an error that is no verdict", err)
	}
	shared := egress.Config{OwnHTTP: []string{"sink.example:" + port}, Allow: rules(t, "idp.example:"+port, "127.0.0.0/8")}
	if err := dial("idp.example", shared); err != nil {
		t.Errorf("a host that the operator names, behind the proxy of a service: %v", err)
	}
	shared = egress.Config{OwnHTTP: []string{"sink.example:" + port},
		Allow: rules(t, "*.example:"+port, "idp.example", "127.0.0.0/8")}
	if err := dial("idp.example", shared); !errors.As(err, new(*egress.RefusedError)) {
		t.Errorf("rules that do not name host and port: %v", err)
	}
}

// TestOwnListenersAreRefused verifies that a process does not connect to its own listeners, under
// any address of this machine.
func TestOwnListenersAreRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := egress.New(egress.Config{Allow: rules(t, "0.0.0.0/0", "::/0")})
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if reason := d.Judge(t.Context(), "127.0.0.1:"+port); reason != "" {
		t.Fatalf("before: %s", reason)
	}
	d.RefuseListener(l.Addr())
	hosts := []string{"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		hosts = append(hosts, a.(*net.IPNet).IP.String())
	}
	for _, host := range hosts {
		if d.Judge(t.Context(), net.JoinHostPort(host, port)) == "" {
			t.Errorf("the own listener at %s is permitted", host)
		}
	}
	if reason := d.Judge(t.Context(), "203.0.113.9:"+port); reason != "" {
		t.Errorf("the same port elsewhere: %s", reason)
	}
}

func TestPermittedConnects(t *testing.T) {
	t.Parallel()
	port, _ := listener(t)
	for host, d := range map[string]*egress.Dialer{
		"127.0.0.1": egress.New(egress.Config{Allow: rules(t, "127.0.0.1:"+port)}),
		"localhost": egress.New(egress.Config{Allow: rules(t, "localhost")}),
		"LOCALHOST": egress.Default,
	} {
		c, err := d.DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("%q: %v", host, err)
			continue
		}
		_ = c.Close()
	}
}

// listener counts the connections that arrive on loopback.
func listener(t *testing.T) (port string, connected *atomic.Int64) {
	t.Helper()
	connected = new(atomic.Int64)
	addr := support.Serve(t, func(net.Conn) { connected.Add(1) })
	return strconv.Itoa(addr.Port), connected
}

// fakeDNS is a resolver that asks a server on loopback. Names that begin with "missing." do not
// exist there, and the look-up of those that begin with "failing." fails.
func fakeDNS(t *testing.T, answer func(name string) []netip.Addr) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Authoritative, m.RCode = true, true, dnsmessage.RCodeSuccess
			switch label, _, _ := strings.Cut(q.Name.String(), "."); label {
			case "missing":
				m.RCode = dnsmessage.RCodeNameError
			case "failing":
				m.RCode = dnsmessage.RCodeServerFailure
			}
			m.Additionals = nil
			var found []netip.Addr
			if q.Type == dnsmessage.TypeA {
				found = answer(q.Name.String())
			}
			for _, a := range found {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
					Body:   &dnsmessage.AResource{A: a.As4()},
				})
			}
			if out, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", server.LocalAddr().String())
	}}
}
