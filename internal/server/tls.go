package server

import (
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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// authority is the local CA: made on first run, for servers that have no certificate of their own. Its key never leaves
// the data directory, and a leaf is made anew at each start and before it expires, so none is kept.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
	now  func() time.Time
	// names are what the leaf is for.
	names []string

	mu   sync.Mutex
	leaf *tls.Certificate // guarded by mu
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic("server: " + err.Error()) // crypto/rand never fails
	}
	return n
}

// openAuthority reads the local CA in dir, or makes it.
func openAuthority(dir string, names []string, now func() time.Time) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	a := &authority{file: filepath.Join(dir, caName), now: now, names: names}
	keyFile := filepath.Join(dir, caKeyName)
	pair, err := tls.LoadX509KeyPair(a.file, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		// The key is written first: a certificate without its key is made anew, since nothing can have trusted it yet.
		if err := makeAuthority(a.file, keyFile, now()); err != nil {
			return nil, fmt.Errorf("make the local CA: %w", err)
		}
		pair, err = tls.LoadX509KeyPair(a.file, keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("local CA in %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("local CA in %s: the key is not an ECDSA key", dir)
	}
	a.cert, a.key = pair.Leaf, key
	_, err = a.certificate(nil)
	return a, err
}

func makeAuthority(certFile, keyFile string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Keyturn local CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := root.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return err
	}
	return root.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// certificate returns the server's certificate, and makes a new one in time.
func (a *authority) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leaf != nil && a.now().Before(a.leaf.Leaf.NotAfter.AddDate(0, 0, -renewDays)) {
		return a.leaf, nil
	}
	leaf, err := a.issue()
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	a.leaf = leaf
	return leaf, nil
}

func (a *authority) issue() (*tls.Certificate, error) {
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
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// certificateNames are the names under which this machine is called: loopback, its host name, and what it listens on.
func certificateNames(listen string, more []string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
			names = append(names, host)
		}
	}
	names = append(names, more...)
	slices.Sort(names)
	return slices.Compact(names)
}

// suites are those of TLS 1.2: forward secrecy and authenticated encryption only. Those of TLS 1.3 are all of that kind.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsConfig is the configuration of the TLS listener, and the file with the CA that clients need to trust; empty when
// the certificate is one of the operator's own.
func tlsConfig(c Config) (config *tls.Config, caFile string, err error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, NextProtos: []string{"h2", "http/1.1"}}
	if c.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, "", fmt.Errorf("TLS certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
		return config, "", nil
	}
	a, err := openAuthority(filepath.Join(c.DataDir, tlsDir), certificateNames(c.Listen, c.TLSNames), c.Now)
	if err != nil {
		return nil, "", err
	}
	config.GetCertificate = a.certificate
	return config, a.file, nil
}
