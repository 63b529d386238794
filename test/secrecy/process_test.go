// Package secrecy_test drives the whole product with marked values, in every operation and in every way to fail that it can
// reach, and looks for them in every byte that was written: store, write-ahead log, audit trail, logs, errors, metrics, output.
package secrecy_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

const startLimit = 30 * time.Second

var program string

// TestMain builds the binary once.
func TestMain(m *testing.M) { os.Exit(support.RunWithKeyturn(m, &program)) }

// product is a running `keyturn serve` and the place where it and the command line keep everything.
type product struct {
	t              *testing.T
	dir            string // of data, home and configuration
	admin          server.Admin
	stdout, stderr support.Log
	stop           func()
}

func (p *product) data() string { return filepath.Join(p.dir, "data") }

// command prepares a command of the product.
func (p *product) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir = p.dir
	c.Env = []string{"HOME=" + p.dir, "KEYTURN_CONFIG_DIR=" + filepath.Join(p.dir, "config"), "PATH=" + os.Getenv("PATH")}
	return c
}

// run runs a command of the command line. It must succeed or fail, as ok says.
func (p *product) run(ok bool, stdin string, args ...string) (stdout, stderr string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), startLimit)
	defer cancel()
	c := p.command(ctx, args...)
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	if err := c.Run(); (err == nil) != ok {
		p.t.Errorf("keyturn %.60q: %v, %.300s", args, err, errs.String())
	}
	return out.String(), errs.String()
}

// start starts the server and waits until it is ready.
func start(t *testing.T) *product {
	t.Helper()
	p := &product{t: t, dir: t.TempDir()}
	c := p.command(context.WithoutCancel(t.Context()), "serve", "--data-dir", p.data(),
		"--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--log-level", "debug")
	c.Stdout, c.Stderr = &p.stdout, &p.stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	p.stop = sync.OnceFunc(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server has ended with %v:\n%s", err, p.stderr.String())
			}
		case <-time.After(startLimit):
			_ = c.Process.Kill()
			t.Error("the server does not stop")
		}
	})
	t.Cleanup(p.stop)
	p.await()
	return p
}

// await waits until the server answers that it is ready.
func (p *product) await() {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(startLimit); ; {
		var err error
		if p.admin, err = server.ReadAdmin(filepath.Join(p.data(), "admin.json")); err == nil && p.admin.HTTPEndpoint != "" {
			if status, _ := p.page("/readyz"); status == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-limit:
			p.t.Fatalf("the server is not ready after %v:\n%s", startLimit, p.stderr.String())
		}
	}
}

func (p *product) page(path string) (status int, body string) {
	return support.Page(p.admin.HTTPEndpoint, path)
}

func (p *product) credentials() sign.Credentials {
	return sign.Credentials{AccessKeyID: p.admin.AccessKeyID, AccessKeySecret: p.admin.AccessKeySecret}
}
