package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// within ends the test unless f returns in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits for the disk", what)
	}
}

// TestCertificateOnDeadDisk verifies that a file which cannot be read to its end, such as one of a
// network without its server, keeps neither handshakes nor the end of the server.
func TestCertificateOnDeadDisk(t *testing.T) {
	t.Parallel()
	dead, asked := make(chan struct{}), make(chan struct{})
	defer close(dead)
	o := &ownCertificate{
		log:   slog.New(slog.DiscardHandler),
		asked: make(chan struct{}, 1),
		files: sync.OnceValues(func() (*tls.Certificate, error) {
			close(asked)
			<-dead
			return nil, context.Canceled
		}),
	}
	o.pair.Store(&tls.Certificate{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.run(ctx)
	}()
	o.reload()
	within(t, "the read", func() { <-asked })
	within(t, "a handshake", func() { _, _ = o.current(nil) })
	stop()
	within(t, "the end of the server", func() { <-ended })
}

// TestLocalCAOnDeadDisk verifies that a new local CA takes over while its files cannot be written,
// and that neither handshakes nor the end of the server wait for that.
func TestLocalCAOnDeadDisk(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	at := time.Now()
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
	open := func(dir string) *authority {
		a, err := openAuthority(dir, []string{"localhost"}, nil, now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	dir := t.TempDir()
	a := open(dir)
	old := a.signer()
	next, err := a.rotate(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := next.pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.run(ctx)
	}()
	a.disk.Lock() // as a write that does not return does
	mu.Lock()
	at = at.Add(2 * time.Hour)
	mu.Unlock()
	within(t, "a handshake", func() {
		leaf, err := a.certificate(nil)
		if err != nil || leaf.Leaf.CheckSignatureFrom(want) != nil || leaf.Leaf.CheckSignatureFrom(old) == nil {
			t.Errorf("the certificate is not of the new CA: %v", err)
		}
	})
	within(t, "a second handshake", func() { _, _ = a.certificate(nil) })
	stop()
	within(t, "the end of the server", func() { <-ended })
	if again := open(dir).signer(); !again.Equal(want) {
		t.Error("after a restart another CA signs")
	}
	a.disk.Unlock()
	// run left a write behind that begins now; the files stay until it has ended.
	if err := a.write(); err != nil {
		t.Error(err)
	}
}
