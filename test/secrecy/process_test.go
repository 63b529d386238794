// Package secrecy_test drives the whole product with marked values, in every operation and in
// every way to fail that it can reach, and looks for them in every byte that was written: store,
// write-ahead log, audit trail, logs, errors, metrics, output.
package secrecy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

var program string

// TestMain builds the binary once.
func TestMain(m *testing.M) { os.Exit(support.RunWithKeyturn(m, &program)) }

// product is a running `keyturn serve` and the place where it and the command line keep everything.
type product struct {
	t      *testing.T
	dir    string // of data, home and configuration
	admin  server.Admin
	server *support.Child
	stdout support.Log
	stop   func()
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
	ctx, cancel := context.WithTimeout(p.t.Context(), support.Patience)
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
	cmd := p.command(context.WithoutCancel(t.Context()), "serve", "--data-dir", p.data(),
		"--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--log-level", "debug")
	p.server = support.StartChild(t, cmd, func(line string) { _, _ = fmt.Fprintln(&p.stdout, line) })
	p.stop = sync.OnceFunc(func() {
		_ = p.server.Process.Signal(syscall.SIGTERM) // it may have ended
		if p.server.Stop(t); p.server.Err != nil {
			t.Errorf("the server has ended with %v:\n%s", p.server.Err, p.server.Log.Tail())
		}
	})
	t.Cleanup(p.stop)
	p.await()
	return p
}

// await waits until the server answers that it is ready.
func (p *product) await() {
	p.t.Helper()
	support.Retry(p.t, func() (err error) {
		p.admin, err = server.ReadAdmin(filepath.Join(p.data(), "admin.json"))
		if err != nil {
			return err
		}
		if status, body := p.page("/readyz"); status != http.StatusOK {
			return fmt.Errorf("the server is not ready: %d %s\n%s", status, body, p.server.Log.Tail())
		}
		return nil
	})
}

func (p *product) page(path string) (status int, body string) {
	return support.Page(p.admin.HTTPEndpoint, path)
}

func (p *product) credentials() sign.Credentials { return nodes.Credentials(p.admin) }
