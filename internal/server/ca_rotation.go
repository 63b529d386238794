package server

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

// switchHeader is the header of the certificate in next-ca.pem that says when it takes over.
const switchHeader = "Switch-At"

// successor is a CA that takes over at a time. It is kept in one file, key and certificate.
type successor struct {
	issuer
	at time.Time
}

func (s successor) marshal() ([]byte, error) {
	block, _ := pem.Decode(s.certPEM)
	if block == nil {
		return nil, errors.New("the certificate is not PEM")
	}
	block.Headers = map[string]string{switchHeader: s.at.UTC().Format(time.RFC3339)}
	return append(bytes.Clone(s.keyPEM), pem.EncodeToMemory(block)...), nil
}

func parseSuccessor(data []byte) (successor, error) {
	var s successor
	key, rest := pem.Decode(data)
	if key == nil {
		return s, errors.New("it holds no key")
	}
	cert, _ := pem.Decode(rest)
	if cert == nil {
		return s, errors.New("it holds no certificate")
	}
	at, err := time.Parse(time.RFC3339, cert.Headers[switchHeader])
	if err != nil {
		return s, fmt.Errorf("it has no header %s", switchHeader)
	}
	s.at = at
	s.issuer, err = parseIssuer(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Bytes}), pem.EncodeToMemory(key),
	)
	return s, err
}

func (a *authority) nextPath() string { return filepath.Join(a.dir, nextName) }

// resume finds a replacement that is under way, or one that a crash has interrupted after it had
// begun to write the files of the CA that signs. It writes nothing.
func (a *authority) resume() error {
	data, err := os.ReadFile(a.nextPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	next, err := parseSuccessor(data)
	if err != nil {
		return fmt.Errorf("%s: %w", nextName, err)
	}
	if key, err := os.ReadFile(a.keyPath()); err == nil && bytes.Equal(key, next.keyPEM) {
		a.signs, a.unwritten = next.issuer, &next
		return nil
	}
	a.next, a.unbundled = &next, true
	return nil
}

// writeBundle makes ca.pem hold the CA that signs, and then the next one.
func (a *authority) writeBundle(next successor) error {
	data, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	current, _ := pem.Decode(data)
	if current == nil {
		return fmt.Errorf("%s holds no certificate", caName)
	}
	bundle := append(pem.EncodeToMemory(current), next.certPEM...)
	if bytes.Equal(bundle, data) {
		return nil
	}
	return a.writeFile(a.file, bundle)
}

// finish writes the files of a CA that has taken over. It begins no further change after the end of
// ctx: the files may then belong to another server.
func (a *authority) finish(ctx context.Context, next successor) error {
	if err := a.install(ctx, next.issuer); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.forget()
}

// switchLocked takes the next CA when its time has come, and leaves its files to run.
func (a *authority) switchLocked() {
	if a.next == nil || a.now().Before(a.next.at) {
		return
	}
	a.signs, a.unwritten = a.next.issuer, a.next
	a.next, a.leaf, a.unbundled = nil, nil, false
	a.askToWrite()
	a.log.Info("the new local CA has taken over: clients that trust only the previous one no longer connect")
}

// askToWrite makes run write the files at once. It does not wait for that.
func (a *authority) askToWrite() {
	select {
	case a.asked <- struct{}{}:
	default: // run has not begun to write yet
	}
}

// run writes the files where they lag behind the CA in memory, until ctx ends. After a failure it
// tries again every certificatePoll. A write that does not return when ctx ends is left behind: it
// completes at most the file that it has begun, see [authority.finish].
func (a *authority) run(ctx context.Context) {
	t := time.NewTicker(certificatePoll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-a.asked:
		case <-ctx.Done():
			return
		}
		if !doneBefore(ctx, func() { a.logged(a.write(ctx)) }) {
			return
		}
	}
}

// logged logs that the files could not be written, which run tries again. The end of a call or of
// the server is nothing that an operator must act on.
func (a *authority) logged(err error) {
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		a.log.Error("the files of the local CA cannot be written; it is tried again", "dir", a.dir, "err", err)
	}
}

// write writes the files where they lag behind the CA in memory.
func (a *authority) write(ctx context.Context) error {
	a.disk.Lock()
	defer a.disk.Unlock()
	return a.writeOnDisk(ctx)
}

// writeOnDisk is [authority.write] with disk locked.
func (a *authority) writeOnDisk(ctx context.Context) error {
	a.mu.Lock()
	taken, next := a.unwritten, a.next
	if !a.unbundled {
		next = nil
	}
	a.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	switch {
	case taken != nil:
		if err := a.finish(ctx, *taken); err != nil {
			return err
		}
	case next != nil:
		if err := a.writeBundle(*next); err != nil {
			return err
		}
	default:
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unwritten == taken { // otherwise next has taken over meanwhile
		a.unwritten, a.unbundled = nil, false
	}
	return nil
}

// waiting returns the CA that takes over next; nil without one.
func (a *authority) waiting() *successor {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.switchLocked()
	return a.next
}

// rotate makes a CA that takes over after the overlap. It waits for the disk no longer than ctx.
func (a *authority) rotate(ctx context.Context, overlap time.Duration) (successor, error) {
	if !a.disk.TryLock() {
		return successor{}, fault.New(fault.Unavailable,
			"The files of the local CA are being written: repeat the call. If that lasts, the disk of %s does not answer.",
			a.dir)
	}
	type result struct {
		next successor
		err  error
	}
	made := make(chan result, 1)
	var settled atomic.Bool
	settle := func() bool { return settled.CompareAndSwap(false, true) }
	if !doneBefore(ctx, func() {
		defer a.disk.Unlock()
		next, err := a.replace(ctx, overlap, settle)
		made <- result{next, err}
		if err == nil {
			a.logged(a.writeOnDisk(ctx))
		}
	}) && settle() {
		return successor{}, fault.New(fault.Unavailable,
			"The disk of %s does not answer, so there is no new local CA. Repeat the call when it does; if the server ends "+
				"before, remove %s there.", a.dir, nextName)
	}
	r := <-made
	return r.next, r.err
}

// replace makes the next CA, with disk locked. Once its file is written, the CA exists if settle
// agrees, which it does unless the caller has got an error: the other files are the task of
// [authority.writeOnDisk], now or later. Otherwise nothing changes.
func (a *authority) replace(ctx context.Context, overlap time.Duration, settle func() bool) (successor, error) {
	if next := a.waiting(); next != nil {
		return successor{}, fault.New(fault.InUse,
			"A new local CA already waits: it takes over at %s, and clients must trust it by then. "+
				"To replace both CAs at once, stop the server, move the directory tls out of its data directory and start it "+
				"again.",
			next.at.UTC().Format(time.RFC3339))
	}
	unwritten := func(err error) (successor, error) {
		return successor{}, fault.Wrap(fault.Unavailable, err,
			"The files of the local CA in %s cannot be written, so there is no new CA. Correct that (disk full, read-only, "+
				"rights; Keyturn's log has the reason), and repeat the call.", a.dir)
	}
	if err := a.writeOnDisk(ctx); err != nil {
		return unwritten(err)
	}
	made, err := makeAuthority(a.names, a.now())
	if err != nil {
		return successor{}, err
	}
	next := successor{issuer: made, at: a.now().Add(overlap)}
	data, err := next.marshal()
	if err != nil {
		return successor{}, err
	}
	if err = a.writeFile(a.nextPath(), data); err == nil && !settle() {
		err = ctx.Err()
	}
	if err != nil {
		return unwritten(errors.Join(err, a.forget()))
	}
	a.mu.Lock()
	a.next, a.unbundled = &next, true
	a.switchLocked() // at once without an overlap
	a.mu.Unlock()
	return next, nil
}

// forget removes the file of a CA that no longer waits to take over.
func (a *authority) forget() error {
	if err := os.Remove(a.nextPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// rotateCA is the operation RotateLocalCA.
func (s *Server) rotateCA(ctx context.Context, overlap time.Duration) (kms.RotateLocalCAResponse, error) {
	if s.ca == nil {
		return kms.RotateLocalCAResponse{}, fault.New(fault.InUse,
			"This server has no local CA: its certificate is the operator's own, or it has no TLS listener.")
	}
	next, err := s.ca.rotate(ctx, overlap)
	if err != nil {
		return kms.RotateLocalCAResponse{}, err
	}
	return kms.RotateLocalCAResponse{Certificate: string(next.certPEM), SwitchAt: next.at.UTC()}, nil
}
