package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// TestHangup sends a running server SIGHUP, as `systemctl reload` does: the server goes on.
func TestHangup(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, log output
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, []string{
			"serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0",
		}, os.Stdin, &out, &log)
	}()
	support.Until(t, "the server to serve", func() bool { return strings.Contains(out.String(), "serves https://") })
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	support.Until(t, "the server to reload", func() bool { return strings.Contains(log.String(), "nothing to reload") })
	select {
	case code := <-ended:
		t.Fatalf("SIGHUP has ended the server with %d", code)
	default:
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit status %d: %s", code, log.String())
	}
}

// TestFirstCommandTrustsTheCertificate runs the command that the first run prints, with a
// certificate of the operator's own CA, and verifies that the next command then trusts the server,
// and does not without the flag.
func TestFirstCommandTrustsTheCertificate(t *testing.T) {
	dir := t.TempDir()
	ca := servers.NewLocalCA(t)
	cert, key := ca.Issue(t, dir, "127.0.0.1")
	authority := filepath.Join(dir, "YOUR-CA.pem")
	if err := os.WriteFile(authority, []byte(ca.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, log output
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, []string{
			"serve", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0",
			"--tls-cert-file", cert, "--tls-key-file", key,
		}, os.Stdin, &out, &log)
	}()
	support.Until(t, "the server to serve", func() bool { return strings.Contains(out.String(), "Keep a copy") })
	_, printed, _ := strings.Cut(out.String(), "\n  keyturn profile import ")
	printed, _, _ = strings.Cut(printed, "  #")
	arguments := strings.Fields(strings.ReplaceAll(printed, "YOUR-CA.pem", authority))
	asPrinted := append([]string{"profile", "import"}, arguments...)
	for name, command := range map[string][]string{
		"as printed":   asPrinted,
		"without a CA": asPrinted[:3],
	} {
		t.Setenv("KEYTURN_CONFIG_DIR", t.TempDir())
		var said output
		if code := cli.Run(ctx, command, os.Stdin, &said, &said); code != 0 {
			t.Errorf("%s: keyturn %s: exit status %d: %s", name, strings.Join(command, " "), code, said.String())
		}
		var listed output
		code := cli.Run(ctx, []string{"secret", "list"}, os.Stdin, &listed, &listed)
		if (code == 0) != (name == "as printed") || code != 0 && !strings.Contains(listed.String(), "certificate") {
			t.Errorf("%s: keyturn secret list: exit status %d: %s", name, code, listed.String())
		}
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit status %d: %s", code, log.String())
	}
}

// output keeps what is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
