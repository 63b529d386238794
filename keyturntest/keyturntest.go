// Package keyturntest starts a Keyturn server inside a Go test, in milliseconds: the real server
// with its embedded store in a directory of the test, on loopback, stopped when the test ends.
// Package consumer/consumertest needs no server, for tests of an application that only reads
// secrets.
package keyturntest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

const startTimeout = 30 * time.Second

// Server is a running server.
type Server struct {
	// Endpoint and HTTPEndpoint are host:port of the TLS and of the plain listener.
	Endpoint, HTTPEndpoint string
	// MetricsEndpoint is host:port of the listener of the metrics; empty without one.
	MetricsEndpoint string
	// AccountID, Region and Credentials are the administrator's.
	AccountID, Region string
	Credentials       sign.Credentials
	// CAFile is the certificate of the local CA, for clients that read a file; RootCAs is the same
	// for Go.
	CAFile  string
	RootCAs *x509.CertPool
	// DataDir is where the server keeps everything.
	DataDir string
	// Client calls the server over TLS as its administrator.
	Client *kms.Client

	transport *http.Transport
	stop      func() error
}

// Stop stops the server before the test ends. It returns what went wrong.
func (s *Server) Stop() error { return s.stop() }

// Option changes how a server is started.
type Option func(*server.Config)

// WithTime gives the server another clock.
func WithTime(now func() time.Time) Option { return func(c *server.Config) { c.Now = now } }

// WithRegion gives the server a region; the default is "local".
func WithRegion(region string) Option { return func(c *server.Config) { c.Region = region } }

// WithAdmin fixes the account (16 digits) and the administrator's access key, which are random
// otherwise.
func WithAdmin(accountID string, credentials sign.Credentials) Option {
	return func(c *server.Config) { c.AccountID, c.Admin = accountID, credentials }
}

// WithRequestIDs gives the server another source of request IDs.
func WithRequestIDs(next func() string) Option { return func(c *server.Config) { c.NewID = next } }

// WithDataDir keeps everything in dir, so that a second Start goes on where the first one was
// stopped. Changes are then on disk before they are answered, as in production.
func WithDataDir(dir string) Option {
	return func(c *server.Config) { c.DataDir, c.NoSync = dir, false }
}

// Start starts a server and fails the test when it cannot. The server is stopped when the test
// ends.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	c := server.Config{Listen: "127.0.0.1:0", ListenHTTP: "127.0.0.1:0", NoSync: true}
	for _, o := range options {
		o(&c)
	}
	if c.DataDir == "" {
		c.DataDir = t.TempDir()
	}
	s, err := start(c)
	if err != nil {
		t.Fatalf("start a server: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop the server: %v", err)
		}
	})
	return s
}

func start(c server.Config) (*Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	node, err := server.New(ctx, c)
	if err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(runCtx) }()
	select {
	case <-node.Ready():
	case err := <-done:
		stop()
		return nil, err
	}
	admin, _ := node.Admin()
	s := &Server{
		Endpoint: node.Endpoint(), HTTPEndpoint: node.HTTPEndpoint(), MetricsEndpoint: node.MetricsEndpoint(), AccountID: admin.AccountID, Region: admin.Region,
		Credentials: sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret},
		CAFile:      node.CAFile(), DataDir: c.DataDir,
	}
	s.stop = sync.OnceValue(func() error {
		if s.transport != nil {
			s.transport.CloseIdleConnections() // or the server waits a second for them
		}
		stop()
		return <-done
	})
	return s, s.connect(c.Now)
}

func (s *Server) connect(now func() time.Time) error {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return err
	}
	s.RootCAs = x509.NewCertPool()
	s.RootCAs.AppendCertsFromPEM(pem)
	s.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.RootCAs, MinVersion: tls.VersionTLS13, Time: now}, ForceAttemptHTTP2: true}
	s.Client, err = kms.NewClient(kms.Config{
		Endpoint: s.Endpoint, Credentials: s.Credentials, Now: now,
		HTTPClient: &http.Client{Transport: s.transport, Timeout: startTimeout},
	})
	return err
}
