package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
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
// network without its server, delays neither handshakes nor the shutdown.
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

// openCA opens the local CA in a directory, with a clock that move moves. write writes its files
// unless it is nil.
func openCA(
	t *testing.T, dir string, write func(string, []byte) error,
) (a *authority, move func(time.Duration)) {
	t.Helper()
	var mu sync.Mutex
	at := time.Now()
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
	a = newAuthority(dir, []string{"localhost"}, nil, now, slog.New(slog.DiscardHandler))
	if write != nil {
		a.writeFile = write
	}
	if err := a.open(); err != nil {
		t.Fatal(err)
	}
	return a, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		at = at.Add(d)
	}
}

// runCA runs a CA until stop.
func runCA(t *testing.T, a *authority) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.run(ctx)
	}()
	return func() {
		t.Helper()
		cancel()
		within(t, "the shutdown", func() { <-ended })
	}
}

// deadDisk makes every write of a CA wait until revive; began gets the path of each.
func deadDisk(a *authority) (began <-chan string, revive func()) {
	paths, dead := make(chan string, 10), make(chan struct{})
	write := a.writeFile
	a.writeFile = func(path string, data []byte) error {
		paths <- filepath.Base(path)
		<-dead
		return write(path, data)
	}
	return paths, sync.OnceFunc(func() { close(dead) })
}

// TestLocalCAOnDeadDisk verifies that a new local CA takes over while its files cannot be written,
// that neither handshakes nor the shutdown wait for that, and that the write which is left behind
// removes nothing that another server needs.
func TestLocalCAOnDeadDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, move := openCA(t, dir, nil)
	old := a.signer()
	want, err := a.rotate(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	began, revive := deadDisk(a)
	defer revive()
	stop := runCA(t, a)
	move(2 * time.Hour)
	handshake := func() {
		leaf, err := a.certificate(nil)
		if err != nil || leaf.Leaf.CheckSignatureFrom(want.cert) != nil || leaf.Leaf.CheckSignatureFrom(old) == nil {
			t.Errorf("the certificate is not of the new CA: %v", err)
		}
	}
	within(t, "a handshake", handshake)
	within(t, "the write", func() { <-began })
	within(t, "a handshake during the write", handshake)
	within(t, "the metrics", func() { _ = a.signer() })
	stop()
	again, _ := openCA(t, dir, nil)
	if !again.waiting().cert.Equal(want.cert) {
		t.Error("after a restart another CA waits")
	}
	revive()
	a.disk.Lock() // waits for the end of the abandoned write
	defer a.disk.Unlock()
	if _, err := os.Stat(again.nextPath()); err != nil {
		t.Errorf("a write of the server before has removed the file of the next CA: %v", err)
	}
}

// TestRotateLocalCAOnDeadDisk verifies that a call whose file cannot be written ends with its
// context, that it leaves one write behind however often it is repeated, and that no CA takes over
// about which the caller does not know.
func TestRotateLocalCAOnDeadDisk(t *testing.T) {
	t.Parallel()
	a, move := openCA(t, t.TempDir(), nil)
	old := a.signer()
	began, revive := deadDisk(a)
	defer revive()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	for _, want := range []string{"does not answer", "are being written", "are being written"} {
		within(t, "the call", func() {
			if _, err := a.rotate(ctx, 0); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), want) {
				t.Errorf("rotate: %v, want %q", err, want)
			}
		})
	}
	revive()
	a.disk.Lock()
	move(time.Hour)
	if a.waiting() != nil || !a.signer().Equal(old) {
		t.Error("a CA takes over although the call failed")
	}
	if _, err := os.Stat(a.nextPath()); err == nil {
		t.Error("the file of a CA that does not take over is left")
	}
	a.disk.Unlock()
	if _, err := a.rotate(t.Context(), time.Hour); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// TestRotateLocalCAAfterItsCall verifies that files which are not written because the call has
// ended are no error that an operator must act on, and that the next turn of run writes them.
func TestRotateLocalCAAfterItsCall(t *testing.T) {
	t.Parallel()
	a, _ := openCA(t, t.TempDir(), nil)
	var log bytes.Buffer
	a.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	now := a.now
	a.now = func() time.Time {
		if _, err := os.Stat(a.nextPath()); err == nil { // the CA is made, and its other files are next
			<-ctx.Done()
		}
		return now()
	}
	made, err := a.rotate(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a.disk.Lock() // waits for the end of the write
	if log.Len() > 0 {
		t.Errorf("the log has\n%s", &log)
	}
	a.disk.Unlock()
	a.now = now
	if err := a.write(t.Context()); err != nil { // as run does
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(a.file)
	if err != nil || !bytes.Contains(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.cert.Raw})) {
		t.Errorf("%s does not have the new CA: %v", a.file, err)
	}
}

// TestLocalCAOnFullDisk verifies, for each file, that a call either fails and changes nothing, or
// returns the CA that takes over; and that the server starts although the files lag behind.
func TestLocalCAOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, overlap := range []time.Duration{0, time.Hour} {
		for _, full := range []string{nextName, caName, caKeyName} {
			t.Run(full+" "+overlap.String(), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				a, move := openCA(t, dir, nil)
				old := a.signer()
				write := a.writeFile
				failing := func(path string, data []byte) error {
					if filepath.Base(path) == full {
						return syscall.ENOSPC
					}
					return write(path, data)
				}
				a.writeFile = failing
				made, err := a.rotate(t.Context(), overlap)
				if (err != nil) != (full == nextName) || err != nil && fault.KindOf(err) != fault.Unavailable {
					t.Fatalf("rotate: %v", err)
				}
				want := made.cert
				if err != nil {
					want = old
				}
				move(2 * time.Hour)
				if leaf, err := a.certificate(nil); err != nil || leaf.Leaf.CheckSignatureFrom(want) != nil {
					t.Errorf("after the overlap another CA signs (%v)", err)
				}
				if full == nextName {
					return
				}
				if _, err := a.rotate(t.Context(), 0); overlap > 0 && fault.KindOf(err) != fault.Unavailable {
					t.Errorf("another call: %v", err)
				}
				if err := a.write(t.Context()); err == nil {
					t.Error("the files could be written")
				}
				again, later := openCA(t, dir, failing)
				later(2 * time.Hour)
				if leaf, err := again.certificate(nil); err != nil || leaf.Leaf.CheckSignatureFrom(want) != nil {
					t.Errorf("after a restart another CA signs (%v)", err)
				}
			})
		}
	}
}
