// Package agents runs agents for tests: `keyturn agent` in this process, with a file of the
// test's own.
package agents

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// Agent is a running agent.
type Agent struct {
	// KMS and HTTP are host:port of the wire API, which has TLS, and of the interface for programs,
	// which has not.
	KMS, HTTP string
	// CAFile is the certificate authority of the wire API's certificate.
	CAFile string
	// TokenFile holds what callers of the interface for programs send.
	TokenFile string

	config string
	stop   func()
}

// Start starts an agent of a server that holds secrets, and keeps the last known values on disk.
// It ends with the test.
func Start(t testing.TB, s *keyturntest.Server, secrets ...string) *Agent {
	t.Helper()
	dir := t.TempDir()
	authority := servers.NewAuthority(t, dir)
	key := marshal(t, map[string]string{
		"AccessKeyId":     s.Credentials.AccessKeyID,
		"AccessKeySecret": s.Credentials.AccessKeySecret.Reveal(),
	})
	write(t, filepath.Join(dir, "key.json"), key)
	write(t, filepath.Join(dir, "agent.yaml"), marshal(t, map[string]any{ // JSON is YAML
		"endpoint": s.Endpoint, "ca_file": s.CAFile,
		"access_key": map[string]string{"file": filepath.Join(dir, "key.json")}, "secrets": secrets,
		"kms": map[string]any{
			"listen": "127.0.0.1:0", "cert_file": authority.CertFile, "key_file": authority.KeyFile, "any_secret": true,
		},
		"http": map[string]string{"listen": "127.0.0.1:0", "token_file": filepath.Join(dir, "token")},
		"log":  map[string]string{"level": "warn"},
		"last_good": map[string]any{
			"dir": filepath.Join(dir, "last"), "key": map[string]string{"file": filepath.Join(dir, "seal.key")},
		},
	}))
	a := &Agent{CAFile: authority.CAFile, TokenFile: filepath.Join(dir, "token"), config: filepath.Join(dir, "agent.yaml")}
	a.run(t)
	return a
}

// Restart stops the agent and starts it again, at other addresses.
func (a *Agent) Restart(t testing.TB) {
	t.Helper()
	a.stop()
	a.run(t)
}

func (a *Agent) run(t testing.TB) {
	t.Helper()
	places, stop := Run(t, a.config, "kms", "http")
	a.KMS, a.HTTP, a.stop = places["kms"], places["http"], stop
}

// Run runs an agent with a file until stop, or until the test ends. It returns where each role
// (http, kms, status) is served: host:port.
func Run(t testing.TB, config string, roles ...string) (places map[string]string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	var log support.Log
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, []string{"agent", "--config", config}, strings.NewReader(""), in, &log)
		in.Close()
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("the agent ended with code %d:\n%s", code, log.String())
		}
	})
	t.Cleanup(stop)
	found := make(chan map[string]string, 1)
	go func() {
		places := map[string]string{}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if role, at, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "Agent serves "), " at "); ok {
				places[role] = at
			}
			if len(places) == len(roles) {
				found <- places
				break
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case places := <-found:
		for _, role := range roles {
			if places[role] == "" {
				t.Fatalf("the agent serves %v, and not %s", places, role)
			}
		}
		return places, stop
	case <-time.After(support.Patience):
		t.Fatalf("the agent does not say where it serves:\n%s", log.String())
		return nil, nil
	}
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
