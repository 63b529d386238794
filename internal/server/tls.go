package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/root"
)

const (
	caYears   = 10
	leafDays  = 90
	renewDays = 30
)

// Files of the local CA, in tlsDir of the data directory.
const (
	tlsDir    = "tls"
	caName    = "ca.pem"
	caKeyName = "ca-key.pem"
	nextName  = "next-ca.pem"
)

// authority is the local CA: made on first run, for servers that have no certificate of their own.
// Its key never leaves the data directory, and a leaf is made anew at each start and before it
// expires, so none is kept.
//
// It is replaced with an overlap. The new CA is made first, and ca.pem then holds both, so that
// clients can learn to trust it; the server's certificate still comes from the old one. When the
// overlap ends, it comes from the new one, and ca.pem contains only the new one.
type authority struct {
	dir, file string
	now       func() time.Time
	log       *slog.Logger
	// names are the names of the leaf; wanted are the names among them that come from settings.
	names, wanted []string

	writeFile func(path string, data []byte) error // by default root.WriteFile

	disk  sync.Mutex    // of the files; taken before mu
	asked chan struct{} // asks run to write

	// mu is not held while a file is read or written, so that no handshake waits for a disk.
	mu    sync.Mutex
	signs issuer
	next  *successor // nil while no replacement is under way
	leaf  *tls.Certificate
	// unbundled says that ca.pem may lack next; unwritten has taken over, and the files do not show it
	// yet. After a crash, the next start takes either from the file of next again.
	unbundled bool
	unwritten *successor
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic("server: " + err.Error()) // crypto/rand never fails
	}
	return n
}

// newAuthority returns the local CA in dir, which open reads or makes.
func newAuthority(dir string, names, wanted []string, now func() time.Time, log *slog.Logger) *authority {
	return &authority{
		dir:    dir,
		file:   filepath.Join(dir, caName),
		now:    now,
		log:    log,
		names:  names,
		wanted: wanted,
		asked:  make(chan struct{}, 1),

		writeFile: root.WriteFile,
	}
}

// open reads the local CA, or makes it. Files that lag behind and cannot be written are left to
// run.
func (a *authority) open() error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return fmt.Errorf("local CA: %w", err)
	}
	if err := a.resume(); err != nil {
		return fmt.Errorf("local CA in %s: %w", a.dir, err)
	}
	if err := a.load(); errors.Is(err, fs.ErrNotExist) {
		made, err := makeAuthority(a.names, a.now())
		if err == nil {
			a.signs, err = made, a.install(context.Background(), made)
		}
		if err != nil {
			return fmt.Errorf("make the local CA: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("local CA in %s: %w", a.dir, err)
	}
	a.logUncovered()
	if _, err := a.certificate(nil); err != nil {
		return err
	}
	a.logged(a.write(context.Background()))
	return nil
}

func (a *authority) keyPath() string { return filepath.Join(a.dir, caKeyName) }

// load reads the CA that signs, unless resume has found it. It is the first in ca.pem.
func (a *authority) load() error {
	if a.signs.cert != nil {
		return nil
	}
	cert, err := os.ReadFile(a.file)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(a.keyPath())
	if err != nil {
		return err
	}
	a.signs, err = parseIssuer(cert, key)
	return err
}

// issuer is a CA that can sign.
type issuer struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

// parseIssuer reads a CA from PEM. Certificates after the first one are left out.
func parseIssuer(certPEM, keyPEM []byte) (issuer, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return issuer{}, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return issuer{}, errors.New("the key is not an ECDSA key")
	}
	first := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})
	return issuer{cert: pair.Leaf, key: key, certPEM: first, keyPEM: keyPEM}, nil
}

// makeAuthority makes a CA that is good for these names alone, and for servers alone: its key is of
// no use for anything else, even where it is trusted.
func makeAuthority(names []string, now time.Time) (issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issuer{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject: pkix.Name{CommonName: "Keyturn local CA",
			SerialNumber: now.UTC().Format("20060102T150405Z")},
		NotBefore:                   now.Add(-time.Hour),
		NotAfter:                    now.AddDate(caYears, 0, 0),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			if short := ip.To4(); short != nil {
				ip = short
			}
			template.PermittedIPRanges = append(template.PermittedIPRanges,
				&net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
		} else {
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, strings.TrimPrefix(name, "*."))
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return issuer{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return issuer{}, err
	}
	return parseIssuer(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	)
}

// install writes the files of a CA that signs. The key is written first: a certificate without its
// key is made anew at the first start, since nothing can have trusted it yet, and resume finishes a
// replacement.
func (a *authority) install(ctx context.Context, i issuer) error {
	if err := a.writeFile(a.keyPath(), i.keyPEM); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return a.writeFile(a.file, i.certPEM)
}

// covers reports whether the CA may sign for a name.
func covers(ca *x509.Certificate, name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		return len(ca.PermittedIPRanges) == 0 ||
			slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) })
	}
	return len(ca.PermittedDNSDomains) == 0 || slices.ContainsFunc(ca.PermittedDNSDomains, func(d string) bool {
		return strings.EqualFold(d, name) || strings.HasSuffix(strings.ToLower(name), "."+strings.ToLower(d))
	})
}

// logUncovered logs the names that the CA was not made for. The certificate is made without them.
func (a *authority) logUncovered() {
	for _, name := range a.names {
		switch {
		case covers(a.signs.cert, name):
		case slices.Contains(a.wanted, name):
			a.log.Error("the local CA was not made for a name of the settings, so the server's certificate does not have it: "+
				"run keyturn ca rotate", "name", name)
		default:
			a.log.Warn("the local CA was not made for the host name, so the server's certificate does not have it", "name", name)
		}
	}
}

// signer returns the certificate of the CA that signs.
func (a *authority) signer() *x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.signs.cert
}

// certificate returns the server's certificate, and makes a new one in time.
func (a *authority) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.switchLocked()
	if a.leaf != nil && a.now().Before(a.leaf.Leaf.NotAfter.AddDate(0, 0, -renewDays)) {
		return a.leaf, nil
	}
	leaf, err := a.issueLocked()
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	a.leaf = leaf
	return leaf, nil
}

func (a *authority) issueLocked() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Keyturn"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, leafDays),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range a.names {
		if !covers(a.signs.cert, name) {
			continue
		}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.signs.cert, key.Public(), a.signs.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// certificateNames are the names under which this machine is called: loopback, its host name, and
// what it listens on. wanted are those that settings name.
func certificateNames(listen string, more []string) (names, wanted []string) {
	names = []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	wanted = slices.Clone(more)
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
			wanted = append(wanted, host)
		}
	}
	names = append(names, wanted...)
	slices.Sort(names)
	return slices.Compact(names), wanted
}

// suites are the cipher suites for TLS 1.2: only suites with forward secrecy and authenticated
// encryption. Every suite of TLS 1.3 has both.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsConfig is the configuration of the TLS listener, with the operator's own certificate or the
// local CA that clients need to trust; the other one is nil.
func tlsConfig(c Config) (config *tls.Config, own *ownCertificate, ca *authority, err error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, NextProtos: []string{"h2", "http/1.1"}}
	if c.TLSCertFile != "" {
		if own, err = openCertificate(c); err != nil {
			return nil, nil, nil, err
		}
		config.GetCertificate = own.current
		return config, own, nil, nil
	}
	names, wanted := certificateNames(c.Listen, c.TLSNames)
	a := newAuthority(filepath.Join(c.DataDir, tlsDir), names, wanted, c.Now, c.Logger)
	if err := a.open(); err != nil {
		return nil, nil, nil, err
	}
	config.GetCertificate = a.certificate
	return config, nil, a, nil
}
