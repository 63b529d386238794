package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/ownfile"
)

// certificatePoll is how often a handshake looks whether the files of the certificate have changed.
const certificatePoll = 10 * time.Second

// ownCertificate is the operator's certificate, which is read again once its files have changed.
// Files that cannot be used change nothing: the certificate before stays in use.
type ownCertificate struct {
	certFile, keyFile string
	trust             ownfile.Trust
	now               func() time.Time
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate // guarded by mu
	files  [2]fs.FileInfo   // guarded by mu; as they were when they were read last
	lookAt time.Time        // guarded by mu
}

// openCertificate reads the operator's certificate.
func openCertificate(c Config) (*ownCertificate, error) {
	o := &ownCertificate{certFile: c.TLSCertFile, keyFile: c.TLSKeyFile, trust: c.Trust, now: c.Now, log: c.Logger}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookAt, o.files = o.now().Add(certificatePoll), o.statLocked()
	return o, o.readLocked()
}

func (o *ownCertificate) readLocked() error {
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate: %w", err)
	}
	o.pair = &pair
	return nil
}

func (o *ownCertificate) statLocked() (files [2]fs.FileInfo) {
	for i, path := range []string{o.certFile, o.keyFile} {
		files[i], _ = os.Stat(path) // one that is missing differs from one that is there
	}
	return files
}

// current returns the certificate, and reads it again if its files have changed.
func (o *ownCertificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.now().Before(o.lookAt) {
		o.lookLocked()
	}
	return o.pair, nil
}

// leaf returns the certificate itself, without the certificates of its issuers.
func (o *ownCertificate) leaf() *x509.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pair.Leaf
}

// reload reads the certificate again if its files have changed.
func (o *ownCertificate) reload() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookLocked()
}

func (o *ownCertificate) lookLocked() {
	o.lookAt = o.now().Add(certificatePoll)
	files := o.statLocked()
	if sameFile(files[0], o.files[0]) && sameFile(files[1], o.files[1]) {
		return
	}
	o.files = files // those that cannot be used are reported once
	err := o.trust.CheckSecret(o.keyFile)
	if err == nil {
		err = o.trust.CheckFile(o.certFile)
	}
	if err == nil {
		err = o.readLocked()
	}
	if err != nil {
		o.log.Error("the TLS certificate has changed and cannot be used; the one before stays in use until it expires",
			"err", err, "expires", o.pair.Leaf.NotAfter.UTC())
		return
	}
	o.log.Info("the TLS certificate was read again", "expires", o.pair.Leaf.NotAfter.UTC())
}

// sameFile reports whether a file is as it was.
func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
