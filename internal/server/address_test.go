package server

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
)

// fixed is a listener at an address.
type fixed struct {
	net.Listener
	at net.TCPAddr
}

func (f fixed) Addr() net.Addr { return &f.at }

// TestEndpointIsNamedByTheCertificate verifies that a client can connect to the address in
// admin.json and verify the certificate there, whatever the server listens on.
func TestEndpointIsNamedByTheCertificate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ip    string
		names []string
		own   *x509.Certificate
		want  string
	}{
		{"::", nil, nil, "127.0.0.1:7443"},
		{"0.0.0.0", nil, nil, "127.0.0.1:7443"},
		{"::", []string{"*.example.test", "kms.example.test"}, nil, "kms.example.test:7443"},
		{"::", []string{"2001:db8::1"}, nil, "[2001:db8::1]:7443"},
		{"::", nil, &x509.Certificate{DNSNames: []string{"own.example.test"}}, "own.example.test:7443"},
		{"::", nil, &x509.Certificate{}, "127.0.0.1:7443"},
		{"192.0.2.1", []string{"kms.example.test"}, nil, "192.0.2.1:7443"},
		{"::1", nil, nil, "[::1]:7443"},
	} {
		l := fixed{at: net.TCPAddr{IP: net.ParseIP(c.ip), Port: 7443}}
		s := &Server{config: Config{TLSNames: c.names}, tls: l, plain: l}
		if c.own != nil {
			s.own = &ownCertificate{}
			s.own.pair.Store(&tls.Certificate{Leaf: c.own})
		}
		if got := s.Endpoint(); got != c.want {
			t.Errorf("listening on %s with names %v: %s, want %s", c.ip, c.names, got, c.want)
		}
	}
	if got := (&Server{}).Endpoint(); got != "" {
		t.Errorf("without a listener: %q", got)
	}
}
