// Package durability_test runs the real binary, kills it, fills its disk, and holds that what it has acknowledged is there.
package durability_test

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

const startLimit = 30 * time.Second

var binary string

// TestMain builds the binary once.
func TestMain(m *testing.M) { os.Exit(support.RunWithKeyturn(m, &binary)) }

// child is a running `keyturn serve`.
type child struct {
	cmd       *exec.Cmd
	log       *output
	announced *output
	exited    chan struct{} // closed when it has ended
	client    *kms.Client
	endpoint  string
	stop      func()
}

// output keeps what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer  // guarded by mu
	some chan struct{} // closed with the first line
}

func newOutput() *output { return &output{some: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if bytes.IndexByte(b, '\n') >= 0 && bytes.IndexByte(o.text.Bytes(), '\n') < 0 {
		close(o.some)
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// launch starts the process and returns at once.
func launch(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	c := &child{log: newOutput(), announced: newOutput(), exited: make(chan struct{})}
	c.cmd = exec.Command(binary, append([]string{
		"serve", "--data-dir", dir, "--listen", "", "--listen-http", "127.0.0.1:0",
	}, args...)...)
	c.cmd.Stdout, c.cmd.Stderr = c.announced, c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = c.cmd.Wait() // killed, as a rule
		close(c.exited)
	}()
	c.stop = sync.OnceFunc(func() {
		_ = c.cmd.Process.Kill() // ended already, or it ends now
		<-c.exited
	})
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			t.Logf("the log of the server, which ended with %v:\n%s", c.cmd.ProcessState, c.log)
		}
	})
	return c
}

// start starts a server and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	c := launch(t, dir, args...)
	limit := time.After(startLimit)
	select {
	case <-c.announced.some: // so the endpoint in admin.json is of this process
	case <-c.exited:
		t.Fatalf("the server ended at its start:\n%s", c.log)
	case <-limit:
		t.Fatalf("the server has not started in %v:\n%s", startLimit, c.log)
	}
	admin, err := server.ReadAdmin(filepath.Join(dir, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.endpoint = admin.HTTPEndpoint
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for status, _ := c.page("/readyz"); status != http.StatusOK; status, _ = c.page("/readyz") {
		select {
		case <-tick.C:
		case <-c.exited:
			t.Fatalf("the server ended at its start:\n%s", c.log)
		case <-limit:
			t.Fatalf("the server was not ready in %v:\n%s", startLimit, c.log)
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	c.client, err = kms.NewClient(kms.Config{
		Endpoint: "http://" + c.endpoint, MaxAttempts: 1, HTTPClient: &http.Client{Transport: transport, Timeout: startLimit},
		Credentials: sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// page reads one of the operator's pages; status is 0 when nobody answers.
func (c *child) page(path string) (status int, body string) { return support.Page(c.endpoint, path) }
