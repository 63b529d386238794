package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
)

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files  uint64
		wanted int
		want   int
		err    string
	}{
		{files: 1024, want: 768},
		{files: 384, want: 128},
		{files: 383, err: "at least 384 are needed"},
		{files: 1 << 62, want: 16_384},
		{files: 1 << 20, wanted: 100_000, want: 100_000},
		{files: 1024, wanted: 768, want: 768},
		{files: 1024, wanted: 769, err: "needs 1025 files"},
		{files: 1024, wanted: 63, err: "at least 64"},
	} {
		got, err := server.ConnectionLimit(c.files, c.wanted)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d files, %d wanted: %d, %v; want %d, %q", c.files, c.wanted, got, err, c.want, c.err)
		}
	}
}

// from returns a client whose connections come from an address of loopback.
func from(t *testing.T, s *keyturntest.Server, address string, attempts int) *kms.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{
		DialContext:       dialer.DialContext,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: s.RootCAs, MinVersion: tls.VersionTLS12},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := kms.NewClient(kms.Config{
		Endpoint:    s.Endpoint,
		Credentials: s.Credentials,
		MaxAttempts: attempts,
		HTTPClient:  &http.Client{Transport: transport, Timeout: 20 * time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// idlers opens connections that ask for a page and stay, and returns how many the server has let
// in.
func idlers(t *testing.T, address string, n int) (in int) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if status, err := bufio.NewReader(c).ReadString('\n'); err == nil && strings.Contains(status, "200") {
			in++
		}
	}
	return in
}

// TestIdleConnections verifies that connections without a signature are bounded over both
// listeners, and that clients that are connected, and new ones of another address, are served
// during a flood.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t, server.Change(func(c *server.Config) { c.MaxConnections, c.MaxPerSource = 160, 160 }))
	create(t, s, "a", "value")
	read := func(c *kms.Client) error {
		_, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
		return err
	}
	connected, fresh := s.Client, from(t, s, "127.0.0.2", 1)
	if err := read(connected); err != nil {
		t.Fatal(err)
	}
	if in := idlers(t, s.HTTPEndpoint, 300); in > 40 {
		t.Errorf("%d of 300 idle connections are served at once, want at most a quarter of 160", in)
	}
	if err := read(connected); err != nil {
		t.Errorf("a client that was connected before the flood: %v", err)
	}
	if err := read(fresh); err != nil {
		t.Errorf("a new client of another address: %v", err)
	}
}

// TestStreams verifies that one HTTP/2 connection carries a bounded number of requests at once, and
// that a client that waits with more of them opens another.
func TestStreams(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "s", "value")
	c := from(t, s, "127.0.0.1", 1)
	ctx, stop := context.WithCancel(t.Context())
	var waiting []<-chan watched
	for range 70 {
		waiting = append(waiting, waitWith(ctx, t, c))
	}
	waitFor(t, "all to wait", func() bool { return page(t, s, "keyturn_watching") == "70" })
	if open := page(t, s, "keyturn_connections"); open == "1" || open == "2" {
		t.Errorf("70 requests wait on %s connections", open)
	}
	stop()
	for _, w := range waiting {
		<-w
	}
}

func waitWith(ctx context.Context, t *testing.T, c *kms.Client) <-chan watched {
	t.Helper()
	in := &kms.WatchSecretsRequest{Secrets: []kms.WatchedSecret{{SecretName: "s"}}}
	now, err := c.WatchSecrets(ctx, in)
	if err != nil || len(now.Changes) != 1 {
		t.Fatalf("%+v, %v", now, err)
	}
	in.Secrets[0].Revision, in.WaitSeconds = now.Changes[0].Revision, 50
	done := make(chan watched, 1)
	go func() {
		_, err := c.WatchSecrets(ctx, in)
		done <- watched{err: err}
	}()
	return done
}

// page returns a figure of the metrics.
func page(t *testing.T, s *keyturntest.Server, name string) string {
	t.Helper()
	r, err := http.Get("http://" + s.HTTPEndpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return value
		}
	}
	t.Fatal(fmt.Errorf("no figure %s, %w", name, lines.Err()))
	return ""
}
