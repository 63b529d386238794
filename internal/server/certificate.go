package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/ownfile"
)

// certificatePoll is how often the files of the operator's certificate are read.
const certificatePoll = 10 * time.Second

// ownCertificate is the operator's certificate. Its run reads the files again while the server
// runs; files that cannot be used change nothing. Handshakes and metrics never wait for a disk.
type ownCertificate struct {
	certFile, keyFile string
	trust             ownfile.Trust
	files             func() (*tls.Certificate, error) // reads both; by default read
	log               *slog.Logger
	pair              atomic.Pointer[tls.Certificate]
	asked             chan struct{} // by reload; one request is enough for all who ask

	// For run alone:
	failed   bool   // the last look
	reported string // the failure that was logged last; empty after a success
}

// openCertificate reads the operator's certificate.
func openCertificate(c Config) (*ownCertificate, error) {
	o := &ownCertificate{
		certFile: c.TLSCertFile,
		keyFile:  c.TLSKeyFile,
		trust:    c.Trust,
		log:      c.Logger,
		asked:    make(chan struct{}, 1),
	}
	o.files = o.read
	pair, err := o.files()
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	o.pair.Store(pair)
	return o, nil
}

// read reads both files, if no other user can have written them or read the key.
func (o *ownCertificate) read() (*tls.Certificate, error) {
	if err := o.trust.CheckSecret(o.keyFile); err != nil {
		return nil, err
	}
	if err := o.trust.CheckFile(o.certFile); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	return &pair, err
}

// current returns the certificate for a handshake.
func (o *ownCertificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return o.pair.Load(), nil
}

// leaf returns the certificate itself, without the certificates of its issuers.
func (o *ownCertificate) leaf() *x509.Certificate { return o.pair.Load().Leaf }

// reload makes run read the files now, and log what came of it. It does not wait for that.
func (o *ownCertificate) reload() {
	select {
	case o.asked <- struct{}{}:
	default: // run has not begun to read for the request before
	}
}

// run reads the files every certificatePoll, and when reload asks, until ctx ends.
func (o *ownCertificate) run(ctx context.Context) {
	t := time.NewTicker(certificatePoll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			o.look(ctx, false)
		case <-o.asked:
			o.look(ctx, true)
		case <-ctx.Done():
			return
		}
	}
}

// look reads the files and takes the certificate if it is a new one. It always reads: times and
// sizes do not show every change, and not that a file can be read again. Without a request, a
// failure is logged once, and only if the look before failed too: a look may come between the
// replacements of the two files. When ctx has ended, it does not wait for a disk that does not
// answer.
func (o *ownCertificate) look(ctx context.Context, asked bool) {
	var pair *tls.Certificate
	var err error
	if read := func() { pair, err = o.files() }; !doneBefore(ctx, read) {
		return
	}
	if err != nil {
		if text := err.Error(); asked || o.failed && text != o.reported {
			o.log.Error("the files of the TLS certificate cannot be used; the certificate in use stays until it expires",
				"err", err, "expires", o.leaf().NotAfter.UTC())
			o.reported = text
		}
		o.failed = true
		return
	}
	same := slices.EqualFunc(pair.Certificate, o.pair.Load().Certificate, bytes.Equal)
	switch {
	case !same:
		o.pair.Store(pair)
		o.log.Info("a new TLS certificate is in use", "expires", pair.Leaf.NotAfter.UTC())
	case asked || o.reported != "":
		o.log.Info("the TLS certificate files have not changed", "expires", pair.Leaf.NotAfter.UTC())
	}
	o.failed, o.reported = false, ""
}

// doneBefore calls a function that may wait for a disk without a bound, such as one of a network,
// and reports whether it has returned before ctx ended. If it has not, the caller must not touch
// again what f uses: f goes on until the disk answers or the process ends.
func doneBefore(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
