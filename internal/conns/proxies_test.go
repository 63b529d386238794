package conns_test

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/conns"
)

// TestOrigin verifies that only trusted proxies say where a request comes from, and only as far as
// they are trusted.
func TestOrigin(t *testing.T) {
	t.Parallel()
	proxies, err := conns.ParseProxies([]string{"10.0.0.0/8", "2001:db8::1", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, peer   string
		tls          bool
		four, proto  []string
		want         string
		secure, fail bool
	}{
		{name: "no proxy", peer: "192.0.2.1:1", want: "192.0.2.1"},
		{
			name:  "a stranger lies",
			peer:  "192.0.2.1:1",
			four:  []string{"198.51.100.1"},
			proto: []string{"https"},
			want:  "192.0.2.1",
		},
		{
			name:   "a stranger over TLS",
			peer:   "192.0.2.1:1",
			tls:    true,
			proto:  []string{"http"},
			want:   "192.0.2.1",
			secure: true,
		},
		{
			name:   "one proxy",
			peer:   "10.1.1.1:1",
			four:   []string{"192.0.2.1"},
			proto:  []string{"https"},
			want:   "192.0.2.1",
			secure: true,
		},
		{name: "its client lies", peer: "10.1.1.1:1", four: []string{"198.51.100.1, 192.0.2.1"}, want: "192.0.2.1"},
		{
			name: "its client claims to be a proxy",
			peer: "10.1.1.1:1",
			four: []string{"198.51.100.1, 10.9.9.9, 192.0.2.1"},
			want: "192.0.2.1",
		},
		{
			name: "two proxies",
			peer: "[2001:db8::1]:1",
			four: []string{"198.51.100.1, 192.0.2.1, 10.1.1.1"},
			want: "192.0.2.1",
		},
		{name: "two header lines", peer: "10.1.1.1:1", four: []string{"198.51.100.1", "192.0.2.1"}, want: "192.0.2.1"},
		{name: "with a port", peer: "10.1.1.1:1", four: []string{"192.0.2.1:4711"}, want: "192.0.2.1"},
		{name: "IPv6 with a port", peer: "10.1.1.1:1", four: []string{"[2001:db8::9]:4711"}, want: "2001:db8::9"},
		{name: "4in6", peer: "[::ffff:10.1.1.1]:1", four: []string{"::ffff:192.0.2.1"}, want: "192.0.2.1"},
		{name: "the proxy itself", peer: "10.1.1.1:1", want: "10.1.1.1"},
		{name: "proxies alone", peer: "10.1.1.1:1", four: []string{"10.2.2.2, 10.3.3.3"}, want: "10.2.2.2"},
		{name: "no address", peer: "10.1.1.1:1", four: []string{"192.0.2.1, unknown"}, want: "10.1.1.1", fail: true},
		{name: "an empty entry", peer: "10.1.1.1:1", four: []string{"192.0.2.1,"}, want: "10.1.1.1", fail: true},
		{name: "no address from a stranger", peer: "10.1.1.1:1", four: []string{"x, 192.0.2.1"}, want: "192.0.2.1"},
		{
			name:  "the client came over HTTP",
			peer:  "10.1.1.1:1",
			tls:   true,
			four:  []string{"192.0.2.1"},
			proto: []string{"https, http"},
			want:  "192.0.2.1",
		},
	} {
		r := &http.Request{
			RemoteAddr: tt.peer, Header: http.Header{"X-Forwarded-For": tt.four, "X-Forwarded-Proto": tt.proto},
		}
		if tt.tls {
			r.TLS = &tls.ConnectionState{}
		}
		source, secure, err := proxies.Origin(r)
		if source.String() != tt.want || secure != tt.secure || (err != nil) != tt.fail {
			t.Errorf("%s: %s, secure %v, %v; want %s, %v", tt.name, source, secure, err, tt.want, tt.secure)
		}
	}
}

func TestParseProxies(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "proxy", "0.0.0.0/0", "::/0", "10.0.0.0/33", "fe80::1%eth0", "::ffff:10.0.0.0/104"} {
		if _, err := conns.ParseProxies([]string{"10.0.0.1", text}); err == nil ||
			!strings.Contains(err.Error(), strconv.Quote(text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
