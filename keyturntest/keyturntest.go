// Package keyturntest starts a Keyturn server inside a Go test, in milliseconds. It is the real
// server, with its embedded store in a directory of the test, on a loopback address. The server
// stops when the test ends. An application that only reads secrets can be tested without a server,
// with package consumer/consumertest.
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
	// Endpoint is host:port of the listener with TLS, HTTPEndpoint of the one without.
	Endpoint, HTTPEndpoint string
	// MetricsEndpoint is host:port of the listener of the metrics; empty if there is none.
	MetricsEndpoint string
	// AccountID, Region and Credentials belong to the administrator.
	AccountID, Region string
	Credentials       sign.Credentials
	// CAFile is the certificate of the local CA, for clients that read a file. RootCAs contains the
	// same certificate.
	CAFile  string
	RootCAs *x509.CertPool
	// DataDir is the directory of all data of the server.
	DataDir string
	// Client calls the server over TLS as its administrator.
	Client *kms.Client

	transport *http.Transport
	stop      func() error
}

// Stop stops the server before the test ends, and returns the error of the server.
func (s *Server) Stop() error { return s.stop() }

// Option changes how [Start] starts a server. The functions of this package whose names begin with
// With return Options.
type Option interface {
	// Apply changes the configuration of the server. Start calls it.
	Apply(config any)
}

// WithTime replaces the clock of the server.
func WithTime(now func() time.Time) Option {
	return server.Change(func(c *server.Config) { c.Now = now })
}

// WithRegion sets the region of the server. The default is "local".
func WithRegion(region string) Option {
	return server.Change(func(c *server.Config) { c.Region = region })
}

// WithAdmin sets the account (16 digits) and the access key of the administrator. Both are random
// by default.
func WithAdmin(accountID string, credentials sign.Credentials) Option {
	return server.Change(func(c *server.Config) { c.AccountID, c.Admin = accountID, credentials })
}

// WithRequestIDs replaces the source of request IDs, which are random by default.
func WithRequestIDs(next func() string) Option {
	return server.Change(func(c *server.Config) { c.NewID = next })
}

// WithDataDir keeps all data in dir, so that a second [Start] continues with the data of the first.
// The server then writes each change to disk before it answers, as in production.
func WithDataDir(dir string) Option {
	return server.Change(func(c *server.Config) { c.DataDir, c.NoSync = dir, false })
}

// Start starts a server, and stops it when the test ends. If either fails, the test fails.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	c := server.Config{Listen: "127.0.0.1:0", ListenHTTP: "127.0.0.1:0", NoSync: true}
	for _, o := range options {
		o.Apply(&c)
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
		Endpoint:        node.Endpoint(),
		HTTPEndpoint:    node.HTTPEndpoint(),
		MetricsEndpoint: node.MetricsEndpoint(),
		AccountID:       admin.AccountID,
		Region:          admin.Region,
		Credentials:     sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret},
		CAFile:          node.CAFile(),
		DataDir:         c.DataDir,
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
	s.transport = &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: s.RootCAs, MinVersion: tls.VersionTLS13, Time: now},
		ForceAttemptHTTP2: true,
	}
	s.Client, err = kms.NewClient(kms.Config{
		Endpoint:    s.Endpoint,
		Credentials: s.Credentials,
		Now:         now,
		HTTPClient:  &http.Client{Transport: s.transport, Timeout: startTimeout},
	})
	return err
}
