package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/root"
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
	block, _ := pem.Decode(s.cert)
	if block == nil {
		return nil, errors.New("the certificate is not PEM")
	}
	block.Headers = map[string]string{switchHeader: s.at.UTC().Format(time.RFC3339)}
	return append(bytes.Clone(s.key), pem.EncodeToMemory(block)...), nil
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
	private, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return s, err
	}
	parsed, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return s, err
	}
	if k, ok := private.(*ecdsa.PrivateKey); !ok || !k.PublicKey.Equal(parsed.PublicKey) {
		return s, errors.New("its key is not the certificate's")
	}
	s.at, s.key = at, pem.EncodeToMemory(key)
	s.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Bytes})
	return s, nil
}

// pair returns the CA as it signs.
func (s successor) pair() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.X509KeyPair(s.cert, s.key)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("the key is not an ECDSA key")
	}
	return pair.Leaf, key, nil
}

func (a *authority) nextPath() string { return filepath.Join(a.dir, nextName) }

// resume finds a replacement that is under way, and finishes one that a crash has interrupted.
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
	if key, err := os.ReadFile(filepath.Join(a.dir, caKeyName)); err == nil && bytes.Equal(key, next.key) {
		return a.finish(next) // the key was replaced already
	}
	a.next = &next
	return a.writeBundle(next)
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
	bundle := append(pem.EncodeToMemory(current), next.cert...)
	if bytes.Equal(bundle, data) {
		return nil
	}
	return root.WriteFile(a.file, bundle)
}

// finish writes the files of a CA that has taken over.
func (a *authority) finish(next successor) error {
	if err := a.install(next.issuer); err != nil {
		return err
	}
	if err := os.Remove(a.nextPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// switchLocked takes the next CA when its time has come, and leaves its files to run.
func (a *authority) switchLocked() {
	if a.next == nil || a.now().Before(a.next.at) {
		return
	}
	cert, key, err := a.next.pair()
	if err != nil {
		a.log.Error("the new local CA could not take over", "err", err)
		return
	}
	a.unwritten = a.next
	a.cert, a.key, a.next, a.leaf = cert, key, nil, nil
	select {
	case a.taken <- struct{}{}:
	default: // run has not begun to write yet
	}
	a.log.Info("the new local CA has taken over: clients that trust only the previous one no longer connect")
}

// run writes the files of a CA that has taken over, until ctx ends. After a failure it tries again
// every certificatePoll.
func (a *authority) run(ctx context.Context) {
	t := time.NewTicker(certificatePoll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-a.taken:
		case <-ctx.Done():
			return
		}
		var err error
		if !doneBefore(ctx, func() { err = a.write() }) {
			return
		}
		if err != nil {
			a.log.Error("the files of the new local CA cannot be written; it is tried again", "err", err)
		}
	}
}

// write writes the files of a CA that has taken over, if there is one.
func (a *authority) write() error {
	a.disk.Lock()
	defer a.disk.Unlock()
	return a.writeOnDisk()
}

// writeOnDisk is [authority.write] with disk locked.
func (a *authority) writeOnDisk() error {
	a.mu.Lock()
	next := a.unwritten
	a.mu.Unlock()
	if next == nil {
		return nil
	}
	if err := a.finish(*next); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unwritten = nil
	return nil
}

// waiting returns the CA that takes over next; nil without one.
func (a *authority) waiting() *successor {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.switchLocked()
	return a.next
}

// rotate makes a CA that takes over after the overlap.
func (a *authority) rotate(overlap time.Duration) (successor, error) {
	a.disk.Lock()
	defer a.disk.Unlock()
	if next := a.waiting(); next != nil {
		return successor{}, fault.New(fault.InUse,
			"A new local CA already waits: it takes over at %s, and clients must trust it by then. "+
				"To replace both CAs at once, stop the server, move the directory tls out of its data directory and start it "+
				"again.",
			next.at.UTC().Format(time.RFC3339))
	}
	if err := a.writeOnDisk(); err != nil {
		return successor{}, err
	}
	made, err := makeAuthority(a.names, a.now())
	if err != nil {
		return successor{}, err
	}
	next := successor{issuer: made, at: a.now().Add(overlap)}
	data, err := next.marshal()
	if err != nil {
		return next, err
	}
	if err := root.WriteFile(a.nextPath(), data); err != nil {
		return next, err
	}
	a.mu.Lock()
	a.next = &next
	a.mu.Unlock()
	if err := a.writeBundle(next); err != nil {
		return next, err
	}
	a.waiting() // it takes over at once without an overlap
	return next, a.writeOnDisk()
}

// rotateCA is the operation RotateLocalCA.
func (s *Server) rotateCA(overlap time.Duration) (kms.RotateLocalCAResponse, error) {
	if s.ca == nil {
		return kms.RotateLocalCAResponse{}, fault.New(fault.InUse,
			"This server has no local CA: its certificate is the operator's own, or it has no TLS listener.")
	}
	next, err := s.ca.rotate(overlap)
	if err != nil {
		return kms.RotateLocalCAResponse{}, err
	}
	return kms.RotateLocalCAResponse{Certificate: string(next.cert), SwitchAt: next.at.UTC()}, nil
}
