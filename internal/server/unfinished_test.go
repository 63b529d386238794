package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sign"
)

// powerless makes a user without any policy, and returns an access key of it.
func powerless(t *testing.T, s *keyturntest.Server) sign.Credentials {
	t.Helper()
	users := ram.New(s.Client)
	if _, err := users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: "powerless"}); err != nil {
		t.Fatal(err)
	}
	out, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: "powerless"})
	if err != nil {
		t.Fatal(err)
	}
	return sign.Credentials{AccessKeyID: out.AccessKey.AccessKeyID, AccessKeySecret: out.AccessKey.AccessKeySecret}
}

// clientFrom returns an HTTP client that connects from an address.
func clientFrom(s *keyturntest.Server, address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.RootCAs}, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
	}}
}

// newcomers makes calls over new connections from another address, and returns how many were
// answered.
func newcomers(t *testing.T, s *keyturntest.Server, n int) (answered int) {
	t.Helper()
	for range n {
		h := clientFrom(s, "127.0.0.9")
		c, err := kms.NewClient(kms.Config{Endpoint: s.Endpoint, Credentials: s.Credentials, MaxAttempts: 1, HTTPClient: h})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err == nil {
			answered++
		} else {
			t.Log(err)
		}
		h.CloseIdleConnections()
	}
	return answered
}

// unfinished sends requests over plain connections from 127.0.0.2 whose bodies fill the bound on
// bytes that are held, and never finishes them. before is done on each connection first.
func unfinished(t *testing.T, s *keyturntest.Server, header, path string, before func(net.Conn)) {
	t.Helper()
	const size = 1_048_000
	for i := range conns.DefaultPending/size + 1 {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}).Dial("tcp", s.HTTPEndpoint)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		before(c)
		n := size
		if i == conns.DefaultPending/size {
			n = conns.DefaultPending%size - 1000
		}
		head := "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + header + "Content-Type: " +
			"application/x-www-form-urlencoded\r\nContent-Length: 1048576\r\n\r\n"
		_, _ = io.WriteString(c, head+strings.Repeat("c", max(n-len(head), 1))) // the server may close it at any time
	}
}

// TestUnfinishedBodiesShutNobodyOut verifies that a client which sends bodies and does not finish
// them leaves the server open to others: with a valid request first on each connection, and through
// a trusted proxy.
func TestUnfinishedBodiesShutNobodyOut(t *testing.T) {
	t.Parallel()
	t.Run("key without policy", func(t *testing.T) {
		t.Parallel()
		s := keyturntest.Start(t)
		key := powerless(t, s)
		unfinished(t, s, "", "/?AccessKeyId="+key.AccessKeyID, func(c net.Conn) {
			once := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn,
				error) {
				return unclosed{c}, nil
			}}}
			caller, err := kms.NewClient(kms.Config{
				Endpoint:    "http://" + s.HTTPEndpoint,
				Credentials: key,
				MaxAttempts: 1,
				HTTPClient:  once,
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := caller.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); kms.CodeOf(err) != kms.CodeNoPermission {
				t.Logf("the request before: %v", err)
			}
			once.CloseIdleConnections()
		})
		if got := newcomers(t, s, 20); got != 20 {
			t.Errorf("%d of 20 newcomers were answered", got)
		}
	})
	t.Run("through a proxy", func(t *testing.T) {
		t.Parallel()
		s := keyturntest.Start(t, server.Change(func(c *server.Config) {
			var err error
			if c.Proxies, err = conns.ParseProxies([]string{"127.0.0.2/32"}); err != nil {
				t.Fatal(err)
			}
		}))
		unfinished(t, s, "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n", "/", func(net.Conn) {})
		if got := newcomers(t, s, 20); got != 20 {
			t.Errorf("%d of 20 newcomers were answered", got)
		}
	})
}

// unclosed is a connection that stays open when its HTTP client is done with it.
type unclosed struct{ net.Conn }

func (unclosed) Close() error { return nil }

// TestUnfinishedStreamsTakeBoundedMemory verifies that valid requests on a connection do not excuse
// the unfinished bodies of its other streams.
func TestUnfinishedStreamsTakeBoundedMemory(t *testing.T) {
	s := keyturntest.Start(t)
	key := powerless(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	payload := bytes.Repeat([]byte("c"), 1_040_000)
	var streams sync.WaitGroup
	var sent atomic.Int64
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for range 4 {
		h := clientFrom(s, "127.0.0.2")
		h.Timeout = 0
		h.Transport.(*http.Transport).MaxConnsPerHost = 1
		caller, err := kms.NewClient(kms.Config{Endpoint: s.Endpoint, Credentials: key, MaxAttempts: 1, HTTPClient: h})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if i%8 == 0 {
				bounded, done := context.WithTimeout(ctx, 5*time.Second)
				_, _ = caller.ListSecrets(bounded, &kms.ListSecretsRequest{}) // denied, or cut off with the connection
				done()
			}
			streams.Go(func() {
				body := io.MultiReader(&counted{bytes.NewReader(payload), &sent}, &stalled{ctx})
				r, err := http.NewRequestWithContext(ctx, http.MethodPost,
					fmt.Sprintf("https://%s/?AccessKeyId=%s", s.Endpoint, key.AccessKeyID), body)
				if err != nil {
					t.Error(err)
					return
				}
				r.ContentLength = 1 << 20
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if resp, err := h.Do(r); err == nil {
					_ = resp.Body.Close()
				}
			})
		}
	}
	most := int64(0)
	for range 10 {
		most = max(most, heap()-before)
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d MiB were sent, and the heap grew by %d MiB at most", sent.Load()>>20, most>>20)
	if most > memoryFactor*160<<20 {
		t.Errorf("the heap grew by %d MiB", most>>20)
	}
	if got := newcomers(t, s, 5); got != 5 {
		t.Errorf("%d of 5 newcomers were answered", got)
	}
	cancel()
	streams.Wait()
}

type counted struct {
	r *bytes.Reader
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// stalled never has another byte.
type stalled struct{ ctx context.Context }

func (s *stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, io.ErrUnexpectedEOF
}
