package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// renewal is an operator's certificate that is in use, and what renews it.
type renewal struct {
	*testing.T
	ca                *servers.LocalCA
	own               *ownCertificate
	certFile, keyFile string
	log               support.Log
}

// renew runs f with a certificate in use. Time passes only while f sleeps.
func renew(t *testing.T, f func(r *renewal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &renewal{T: t, ca: servers.NewLocalCA(t)}
		r.certFile, r.keyFile = r.ca.Issue(t, t.TempDir(), "localhost")
		var err error
		r.own, err = openCertificate(Config{
			TLSCertFile: r.certFile,
			TLSKeyFile:  r.keyFile,
			Logger:      slog.New(slog.NewTextHandler(&r.log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			r.own.run(ctx)
			close(ended)
		}()
		f(r)
		stop()
		<-ended
	})
}

// looks lets the files be read n times, and returns what was logged.
func (r *renewal) looks(n int) string {
	time.Sleep(time.Duration(n) * certificatePoll)
	synctest.Wait()
	return r.log.Take()
}

// hangUp asks as SIGHUP does, and returns what was logged.
func (r *renewal) hangUp() string {
	r.own.reload()
	synctest.Wait()
	return r.log.Take()
}

// served returns the certificate of a handshake.
func (r *renewal) served() *x509.Certificate {
	r.Helper()
	pair, err := r.own.current(nil)
	if err != nil {
		r.Fatal(err)
	}
	return pair.Leaf
}

// want fails the test unless the log has lines with the words, one after the other, and no other.
func (r *renewal) want(when, log string, words ...string) {
	r.Helper()
	lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	ok := len(words) == 0 && log == "" || len(lines) == len(words)
	for i, w := range words {
		ok = ok && strings.Contains(lines[i], w)
	}
	if !ok {
		r.Errorf("%s: logged %q, want lines with %q", when, log, words)
	}
}

const (
	isNew    = `level=INFO msg="a new TLS certificate is in use"`
	isSame   = `level=INFO msg="the TLS certificate files have not changed"`
	isUnused = `level=ERROR msg="the files of the TLS certificate cannot be used;`
)

// TestCertificateIsRenewed replaces the two files as programs that renew certificates do. Without a
// handshake and without a signal, the server takes the new certificate, even if a look falls
// between the two files.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	renew(t, func(r *renewal) {
		first := r.served()
		r.want("nothing changed", r.looks(3))
		cert, key := r.ca.Issue(t, t.TempDir(), "localhost")
		replace(t, key, r.keyFile)
		r.want("the key alone is new", r.looks(1))
		if !r.served().Equal(first) {
			t.Error("the certificate is not the one before, although the new one is not there yet")
		}
		replace(t, cert, r.certFile)
		r.want("both are new", r.looks(1), isNew)
		if now := r.own.leaf(); now.Equal(first) || !now.NotAfter.After(first.NotAfter) {
			t.Errorf("the certificate in use expires at %v, as the one before", now.NotAfter)
		}
		r.want("afterwards", r.looks(3))
	})
}

// TestCertificateIsTriedAgain verifies that a certificate that could not be read is used once it
// can be, whether or not its file has changed meanwhile, and that the log says once why it is not.
func TestCertificateIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		damage, repair func(r *renewal) error
		why            string
	}{
		"a key that others can read": {
			func(r *renewal) error { return os.Chmod(r.keyFile, 0o644) },
			func(r *renewal) error { return os.Chmod(r.keyFile, 0o600) },
			"chmod 600",
		},
		"a certificate that is not there yet": {
			func(r *renewal) error { return os.Rename(r.certFile, r.certFile+".later") },
			func(r *renewal) error { return os.Rename(r.certFile+".later", r.certFile) },
			"no such file",
		},
	} {
		for _, signal := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, signal %v", name, signal), func(t *testing.T) {
				t.Parallel()
				renew(t, func(r *renewal) {
					first := r.served()
					cert, key := r.ca.Issue(t, t.TempDir(), "localhost")
					replace(t, key, r.keyFile)
					replace(t, cert, r.certFile)
					if err := tt.damage(r); err != nil {
						t.Fatal(err)
					}
					log := r.looks(20)
					r.want("it cannot be used", log, isUnused)
					if !strings.Contains(log, tt.why) || !r.served().Equal(first) {
						t.Errorf("another certificate, or not the reason %q: %s", tt.why, log)
					}
					if err := tt.repair(r); err != nil {
						t.Fatal(err)
					}
					if signal {
						r.want("it can be used, SIGHUP", r.hangUp(), isNew)
					} else {
						r.want("it can be used", r.looks(1), isNew)
					}
					if r.served().Equal(first) {
						t.Error("the new certificate is not served")
					}
				})
			})
		}
	}
}

// TestHangupSaysWhatCameOfIt verifies that the log answers each SIGHUP: the certificate is a new
// one, the same one, or could not be read and why.
func TestHangupSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	renew(t, func(r *renewal) {
		first := r.served()
		r.want("the same", r.hangUp(), isSame)
		cert, key := r.ca.Issue(t, t.TempDir(), "localhost")
		replace(t, cert, r.certFile)
		for range 2 {
			log := r.hangUp()
			r.want("the certificate alone is new", log, isUnused)
			if !strings.Contains(log, "private key does not match public key") || !r.served().Equal(first) {
				t.Errorf("another certificate, or no reason: %s", log)
			}
		}
		r.want("later", r.looks(5))
		replace(t, key, r.keyFile)
		r.want("both are new", r.hangUp(), isNew)
		if r.served().Equal(first) {
			t.Error("the new certificate is not served")
		}
		if err := os.Chmod(r.keyFile, 0o644); err != nil {
			t.Fatal(err)
		}
		r.want("the key in use was opened to others", r.looks(5), isUnused)
		if err := os.Chmod(r.keyFile, 0o600); err != nil {
			t.Fatal(err)
		}
		r.want("it was closed again", r.looks(5), isSame)
	})
}

// TestReloadOfARunningServer renews the certificate of a server and asks as SIGHUP does.
func TestReloadOfARunningServer(t *testing.T) {
	t.Parallel()
	ca := servers.NewLocalCA(t)
	certFile, keyFile := ca.Issue(t, t.TempDir(), "localhost")
	s := newNode(t, Config{Listen: "127.0.0.1:0", TLSCertFile: certFile, TLSKeyFile: keyFile})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.PEM))
	served := func() *x509.Certificate {
		conn, err := tls.Dial("tcp", s.Endpoint(), &tls.Config{RootCAs: roots, ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	<-s.Ready()
	first := served()
	cert, key := ca.Issue(t, t.TempDir(), "localhost")
	replace(t, key, keyFile)
	replace(t, cert, certFile)
	s.Reload()
	support.Until(t, "the new certificate to be served", func() bool { return !served().Equal(first) })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMetricsOfTheProcess verifies that what does not exist or is not known is absent: the time at
// which a certificate expires without TLS, and the room on a disk. A number in their place would
// trigger alerts.
func TestMetricsOfTheProcess(t *testing.T) {
	t.Parallel()
	ca := servers.NewLocalCA(t)
	certFile, keyFile := ca.Issue(t, t.TempDir(), "localhost")
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		config Config
		expiry func(s *Server) time.Time // nil without TLS
	}{
		"no TLS": {config: Config{ListenHTTP: "127.0.0.1:0"}},
		"local CA": {
			config: Config{Listen: "127.0.0.1:0"},
			expiry: func(s *Server) time.Time { return s.ca.signer().NotAfter },
		},
		"operator's certificate": {
			config: Config{Listen: "127.0.0.1:0", TLSCertFile: certFile, TLSKeyFile: keyFile},
			expiry: func(*Server) time.Time { return pair.Leaf.NotAfter },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.config.Version = "1.2.3"
			s := newNode(t, tt.config)
			defer func() {
				if err := s.release(); err != nil {
					t.Error(err)
				}
			}()
			values := scrape(s)
			got, ok := values["keyturn_certificate_expiry_timestamp_seconds"]
			switch {
			case tt.expiry == nil && ok:
				t.Errorf("the certificate expires at %s, without TLS", got)
			case tt.expiry != nil && got != fmt.Sprint(float64(tt.expiry(s).Unix())):
				t.Errorf("the certificate expires at %q, want %v", got, float64(tt.expiry(s).Unix()))
			}
			builds := 0
			for name, value := range values {
				if strings.HasPrefix(name, "keyturn_build_info{") {
					builds++
					if !strings.Contains(name, `version="1.2.3"`) || !strings.Contains(name, `go="go1.`) || value != "1" {
						t.Errorf("%s %s", name, value)
					}
				}
			}
			if builds != 1 {
				t.Errorf("keyturn_build_info is there %d times", builds)
			}
			const room = "keyturn_audit_disk_free_bytes"
			if free, err := strconv.ParseFloat(values[room], 64); err != nil || free <= 0 {
				t.Errorf("the disk of the trail has %q bytes", values[room])
			}
			s.config.AuditDir = filepath.Join(s.config.AuditDir, "gone")
			if free, ok := scrape(s)[room]; ok {
				t.Errorf("a disk that is not there has %s bytes", free)
			}
		})
	}
}

// scrape returns the metrics of a server by name and labels.
func scrape(s *Server) map[string]string {
	page, values := httptest.NewRecorder(), map[string]string{}
	s.operatorPages().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && name != "#" {
			values[name] = value
		}
	}
	return values
}

// newNode opens a server with a new data directory.
func newNode(t *testing.T, c Config) *Server {
	t.Helper()
	c.DataDir, c.NoSync = t.TempDir(), true
	s, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
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
