package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// conform holds a freshly started target to what Target promises, and stops it.
func conform(t *testing.T, target Target) {
	t.Helper()
	ctx := t.Context()
	a, b := credential(t, target), credential(t, target)

	rejected(t, "A before any registration", target.Login(ctx, a))
	works(t, "register A", target.Register(ctx, a))
	works(t, "login A", target.Login(ctx, a))
	works(t, "register A again", target.Register(ctx, a))
	works(t, "login A after the second registration", target.Login(ctx, a))
	rejected(t, "B before its registration", target.Login(ctx, b))

	works(t, "register B", target.Register(ctx, b))
	works(t, "login B", target.Login(ctx, b))
	rejected(t, "A after B is registered", target.Login(ctx, a))

	wrongData(t, target, b)
	works(t, "login B after wrong data", target.Login(ctx, b))
	crowd(t, target, b)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	unanswered(t, "login under an ended context", target.Login(ended, b))
	if err := target.Register(ended, a); err == nil {
		t.Error("Register under an ended context succeeded")
	}
	works(t, "login B after the ended context", target.Login(ctx, b))

	works(t, "close", target.Close())
	works(t, "close again", target.Close())
	unanswered(t, "login B at a stopped target", target.Login(ctx, b))
	unanswered(t, "login A at a stopped target", target.Login(ctx, a))
	if err := target.Register(ctx, a); err == nil {
		t.Error("Register at a stopped target succeeded")
	}
}

// password is long enough that no error can hold part of it by chance.
func password() sensitive.Value { return sensitive.New(rand.Text() + `<&>'"\$!`) }

func credential(t *testing.T, target Target) sensitive.Value {
	t.Helper()
	data, err := target.NewCredential(password())
	if err != nil {
		t.Fatal(err)
	}
	if text := data.Reveal(); !json.Valid([]byte(text)) || strings.Contains(text, "\n") ||
		strings.Contains(text, `u003c`) {
		t.Error("NewCredential does not answer plain compact JSON")
	}
	return data
}

func works(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func rejected(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrRejected) {
		t.Fatalf("%s: %v; want ErrRejected", what, err)
	}
}

func unanswered(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, ErrRejected) {
		t.Errorf("%s: %v; want an error other than ErrRejected", what, err)
	}
}

// wrongData spoils every member of good data in turn. The errors must be neither a "no" of the
// target, which was not asked, nor quote what they complain of.
func wrongData(t *testing.T, target Target, good sensitive.Value) {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal([]byte(good.Reveal()), &members); err != nil {
		t.Fatal(err)
	}
	wrong := map[string]string{
		"no JSON":       "hunter2-marker",
		"another shape": `["hunter2-marker"]`,
		"another type":  `{"AccountName":5,"UserName":5}`,
		"nothing":       "",
	}
	for name := range members {
		spoiled := map[string]string{}
		for k, v := range members {
			spoiled[k] = v
		}
		spoiled[name] = "hunter2-marker é"
		text, err := json.Marshal(spoiled)
		if err != nil {
			t.Fatal(err)
		}
		wrong["wrong "+name] = string(text)
	}
	for name, text := range wrong {
		for call, err := range map[string]error{
			"Login":    target.Login(t.Context(), sensitive.New(text)),
			"Register": target.Register(t.Context(), sensitive.New(text)),
		} {
			if err == nil || errors.Is(err, ErrRejected) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s with %s: %v; want a clear error without the input", call, name, err)
			}
		}
	}
	for _, bad := range []string{"", "with space", "pässword", "line\n"} {
		if _, err := target.NewCredential(sensitive.New(bad)); err == nil ||
			!strings.Contains(err.Error(), "generated password") {
			t.Errorf("NewCredential accepts a password that is not printable ASCII: %v", err)
		}
	}
}

// crowd logs in from many goroutines, as the consumers of the demo do.
func crowd(t *testing.T, target Target, data sensitive.Value) {
	t.Helper()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 3 {
				if err := target.Login(t.Context(), data); err != nil {
					t.Errorf("login among others: %v", err)
				}
			}
		})
	}
	group.Wait()
}

// begin starts a target and tells how long that took. A machine without the programs skips the
// test.
func begin(t *testing.T, start func(context.Context) (Target, error)) Target {
	t.Helper()
	began := time.Now()
	target, err := start(t.Context())
	if errors.Is(err, sandbox.ErrNoPostgres) || errors.Is(err, sandbox.ErrNoOpenSSH) {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { works(t, "close", target.Close()) })
	t.Logf("%s: started in %v", target.Name(), time.Since(began).Round(time.Millisecond))
	return target
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := begin(t, func(ctx context.Context) (Target, error) { return StartPostgres(ctx, dir) })
	p := target.(*postgres)
	if !strings.HasPrefix(target.Name(), "PostgreSQL 1") || !strings.Contains(target.Name(), ", role app, 127.0.0.1:") {
		t.Errorf("Name = %q", target.Name())
	}
	if got := target.Registration(); got != "ALTER ROLE app PASSWORD 'SCRAM-SHA-256$…'" {
		t.Errorf("Registration = %q", got)
	}
	conform(t, target)
	gone(t, p.Dir, p.Sockets)
}

func TestSSHHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := begin(t, sshHostIn(dir))
	if !strings.HasPrefix(target.Name(), "SSH host in this process, account app, 127.0.0.1:") {
		t.Errorf("Name = %q", target.Name())
	}
	if got := target.Registration(); got != "authorized_keys of app replaced" {
		t.Errorf("Registration = %q", got)
	}
	conform(t, target)
	gone(t, target.(*sshHost).dir)
}

func sshHostIn(dir string) func(context.Context) (Target, error) {
	return func(ctx context.Context) (Target, error) { return StartSSHHost(ctx, dir) }
}

func TestOpenSSH(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a directory with spaces, 100 %")
	target := begin(t, func(ctx context.Context) (Target, error) { return StartOpenSSH(ctx, dir) })
	if !strings.HasPrefix(target.Name(), "OpenSSH ") || !strings.Contains(target.Name(), ", account ") {
		t.Errorf("Name = %q", target.Name())
	}
	if got := target.Registration(); !strings.HasPrefix(got, "authorized_keys of ") {
		t.Errorf("Registration = %q", got)
	}
	m, err := target.Managed(t.Context())
	works(t, "make the account of the engine", err)
	works(t, "log in to it", m.Login(t.Context(), m.Data))
	conform(t, target)
	gone(t, target.(*openSSH).Dir, target.(*openSSH).second.Dir)
}

func gone(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

// A start that has no time leaves nothing behind.
func TestStartUnderEndedContext(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, start := range map[string]func(context.Context, string) (Target, error){"PostgreSQL": StartPostgres, "OpenSSH": StartOpenSSH} {
		dir := t.TempDir()
		target, err := start(ended, dir)
		if errors.Is(err, sandbox.ErrNoPostgres) || errors.Is(err, sandbox.ErrNoOpenSSH) {
			t.Logf("skipped: %v", err)
			continue
		}
		if err == nil || target != nil {
			t.Errorf("%s started under an ended context: %v", name, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 0 {
			t.Errorf("%s left %v behind (%v)", name, left, err)
		}
	}
}

// A host with another key is not the host that was asked for, and its answer is no fact about the
// key.
func TestSSHHostKeyIsPinned(t *testing.T) {
	t.Parallel()
	start := sshHostIn(t.TempDir())
	one, other := begin(t, start).(*sshHost), begin(t, start).(*sshHost)
	data := credential(t, one)
	works(t, "register", one.Register(t.Context(), data))
	// The other host has not seen the data before, so it opens the sealed key itself.
	works(t, "register at the other host", other.Register(t.Context(), data))
	works(t, "login at the other host", other.Login(t.Context(), data))
	one.address = other.address
	err := one.Login(t.Context(), data)
	unanswered(t, "login at another host", err)
	if err != nil && !strings.Contains(err.Error(), "its host key is not the one known") {
		t.Errorf("error %q does not say that the host is another", err)
	}
}

// Connections that break off before an answer are outages.
func TestSilentTarget(t *testing.T) {
	t.Parallel()
	silent := support.Serve(t, func(net.Conn) {})

	host := begin(t, sshHostIn(t.TempDir())).(*sshHost)
	host.address = silent.String()
	unanswered(t, "SSH", host.Login(t.Context(), credential(t, host)))

	p := &postgres{&sandbox.Postgres{Port: silent.Port}}
	data := credential(t, p)
	err := p.Login(t.Context(), data)
	unanswered(t, "PostgreSQL", err)
	if err != nil && !strings.Contains(err.Error(), "without an answer") && !strings.Contains(err.Error(), "reset") {
		t.Errorf("error %q", err)
	}
}
