package server

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/servers"
)

// TestCertificateIsReadAgain renews the operator's certificate while the server runs, as a client
// of an ACME CA does. Files that cannot be used leave the one before in use.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	ca, now := servers.NewLocalCA(t), time.Now()
	certFile, keyFile := ca.Issue(t, t.TempDir(), "localhost")
	own, err := openCertificate(Config{
		TLSCertFile: certFile,
		TLSKeyFile:  keyFile,
		Now:         func() time.Time { return now },
		Logger:      slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	served := func(after time.Duration) *x509.Certificate {
		t.Helper()
		now = now.Add(after)
		pair, err := own.current(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	first := served(0)
	renewed, renewedKey := ca.Issue(t, t.TempDir(), "localhost")
	replace(t, renewedKey, keyFile) // for a while the two files do not fit together
	if !served(time.Minute).Equal(first) || strings.Count(log.String(), "cannot be used") != 1 {
		t.Errorf("a key without its certificate: another certificate, or no error: %s", log.String())
	}
	replace(t, renewed, certFile)
	if !served(time.Second).Equal(first) {
		t.Error("the files are read at each handshake")
	}
	second := served(time.Minute)
	if second.Equal(first) || !strings.Contains(log.String(), "was read again") {
		t.Fatalf("the renewed certificate is not served: %s", log.String())
	}
	for _, readable := range []bool{true, false} {
		next, nextKey := ca.Issue(t, t.TempDir(), "localhost")
		replace(t, next, certFile)
		replace(t, nextKey, keyFile)
		if readable {
			if err := os.Chmod(keyFile, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		own.reload() // as for SIGHUP, it does not wait
		if used := !served(0).Equal(second); used == readable {
			t.Errorf("a key that others can read: %v; used: %v", readable, used)
		}
	}
}

// replace puts a copy of a file in the place of another one, as programs that renew certificates
// do.
func replace(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}
