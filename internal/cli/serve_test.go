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

// TestFirstCommandTrustsTheCertificate verifies that the command that the first run prints works
// with a certificate of the operator's own CA.
func TestFirstCommandTrustsTheCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := servers.NewLocalCA(t).Issue(t, dir, "127.0.0.1")
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
	if want := "admin.json --ca-file YOUR-CA.pem  #"; !strings.Contains(out.String(), want) {
		t.Errorf("the server has printed\n%s\nand not %q", out.String(), want)
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
