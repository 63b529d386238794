package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

func pool(t *testing.T, path string) (p *x509.CertPool, certificates int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p = x509.NewCertPool()
	p.AppendCertsFromPEM(data)
	return p, bytes.Count(data, []byte("BEGIN CERTIFICATE"))
}

func handshake(s *keyturntest.Server, trusted *x509.CertPool, now func() time.Time) error {
	conn, err := tls.Dial("tcp", s.Endpoint, &tls.Config{
		RootCAs:    trusted,
		ServerName: "localhost",
		MinVersion: tls.VersionTLS13,
		Time:       now,
	})
	if err == nil {
		err = conn.Close()
	}
	return err
}

// TestRotateLocalCA replaces the local CA with an overlap, through restarts: a client that trusts
// the old bundle is served until the end of the overlap, one that trusts the bundle of the overlap
// before and after, and one with the new CA alone after it.
func TestRotateLocalCA(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock(time.Now())
	start := func() *keyturntest.Server {
		return keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(now.Now))
	}
	s := start()
	file := filepath.Join(dir, "tls", "ca.pem")
	before, _ := pool(t, file)
	out, err := s.Client.RotateLocalCA(t.Context(), &kms.RotateLocalCARequest{OverlapDays: 7})
	if err != nil || !out.SwitchAt.Equal(now.Now().Add(7*24*time.Hour).UTC().Truncate(time.Second)) {
		t.Fatalf("RotateLocalCA: %+v, %v", out, err)
	}
	if _, err := s.Client.RotateLocalCA(t.Context(),
		&kms.RotateLocalCARequest{}); kms.CodeOf(err) != kms.CodeResourceInUse {
		t.Errorf("a second rotation during the first: %v", err)
	}
	both, n := pool(t, file)
	after := x509.NewCertPool()
	if n != 2 || !after.AppendCertsFromPEM([]byte(out.Certificate)) {
		t.Errorf("ca.pem has %d certificates during the overlap, want 2", n)
	}
	served := func(when string, old, during, fresh bool) {
		t.Helper()
		for name, c := range map[string]struct {
			trusted *x509.CertPool
			want    bool
		}{"the old CA": {before, old}, "both": {both, during}, "the new CA": {after, fresh}} {
			if err := handshake(s, c.trusted, now.Now); (err == nil) != c.want {
				t.Errorf("%s, a client that trusts %s: %v, want it served: %v", when, name, err, c.want)
			}
		}
	}
	served("at once", true, true, false)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	now.Add(6 * 24 * time.Hour)
	s = start()
	served("a day before the end, after a restart", true, true, false)
	now.Add(25 * time.Hour)
	served("after the end", false, true, true)
	support.Until(t, "ca.pem has the new CA alone", func() bool { _, n := pool(t, file); return n == 1 })
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	s = start()
	served("after another restart", false, true, true)
	if _, err := os.Stat(filepath.Join(dir, "tls", "next-ca.pem")); err == nil {
		t.Error("next-ca.pem is still there")
	}
}

// TestRotateLocalCACutOff starts in each state in which a crash can leave the end of an overlap.
func TestRotateLocalCACutOff(t *testing.T) {
	t.Parallel()
	for _, cut := range []string{"made", "key replaced", "certificate replaced"} {
		t.Run(cut, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock(time.Now())
			s := keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(now.Now))
			in := func(name string) string { return filepath.Join(dir, "tls", name) }
			read := func(name string) []byte {
				data, err := os.ReadFile(in(name))
				if err != nil {
					t.Fatal(err)
				}
				return data
			}
			write := func(name string, data []byte) {
				if err := os.WriteFile(in(name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			oldBundle := read("ca.pem")
			out, err := s.Client.RotateLocalCA(t.Context(), &kms.RotateLocalCARequest{OverlapDays: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			key, _ := pem.Decode(read("next-ca.pem"))
			switch cut {
			case "made":
				write("ca.pem", oldBundle)
			case "certificate replaced":
				write("ca.pem", []byte(out.Certificate))
				fallthrough
			case "key replaced":
				write("ca-key.pem", pem.EncodeToMemory(key))
			}
			now.Add(25 * time.Hour)
			s = keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithTime(now.Now))
			fresh := x509.NewCertPool()
			fresh.AppendCertsFromPEM([]byte(out.Certificate))
			if err := handshake(s, fresh, now.Now); err != nil {
				t.Errorf("a client that trusts the new CA: %v", err)
			}
		})
	}
}

// TestLocalCAIsGoodForItsNamesAlone signs with the key of the local CA like a thief of that
// key.
func TestLocalCAIsGoodForItsNamesAlone(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	pair, err := tls.LoadX509KeyPair(s.CAFile, filepath.Join(s.DataDir, "tls", "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		host  string
		usage x509.ExtKeyUsage
		ok    bool
	}{
		"its own name":       {"localhost", x509.ExtKeyUsageServerAuth, true},
		"a bank":             {"bank.example.test", x509.ExtKeyUsageServerAuth, false},
		"its name as client": {"localhost", x509.ExtKeyUsageClientAuth, false},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1),
			Subject:      pkix.Name{CommonName: tt.host},
			DNSNames:     []string{tt.host},
			NotBefore:    time.Now().Add(-time.Minute),
			NotAfter:     time.Now().Add(time.Hour),
			KeyUsage:     x509.KeyUsageDigitalSignature,
			ExtKeyUsage:  []x509.ExtKeyUsage{tt.usage},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, pair.Leaf, key.Public(), pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: s.RootCAs, DNSName: tt.host, KeyUsages: []x509.ExtKeyUsage{tt.usage}})
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v, want it accepted: %v", name, err, tt.ok)
		}
	}
}
