package servers

import (
	"os"
	"path/filepath"
	"testing"
)

// Authority is a certificate authority for one test, and one server's certificate by it.
type Authority struct {
	// CA is the authority's certificate in PEM.
	CA string
	// CAFile, CertFile and KeyFile are paths; the certificate is for localhost and the loopback
	// addresses.
	CAFile, CertFile, KeyFile string
}

// NewAuthority makes an authority and a server's certificate in a directory.
func NewAuthority(t testing.TB, dir string) *Authority {
	t.Helper()
	ca := NewLocalCA(t)
	a := &Authority{CA: ca.PEM, CAFile: filepath.Join(dir, "ca.pem")}
	writeFile(t, a.CAFile, a.CA)
	a.CertFile, a.KeyFile = ca.Issue(t, dir, "localhost", "127.0.0.1", "::1")
	return a
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
