// Package durability_test runs the real binary, kills it, fills its disk, and verifies that
// everything it has acknowledged is there.
package durability_test

import (
	"net/http"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

var binary string

// TestMain builds the binary once.
func TestMain(m *testing.M) { os.Exit(support.RunWithKeyturn(m, &binary)) }

// child is a running `keyturn serve`.
type child struct {
	*support.Child
	announced chan struct{} // closed with its first line
	client    *kms.Client
	endpoint  string
}

// launch starts the process and returns at once.
func launch(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	arguments := []string{"serve", "--data-dir", dir, "--listen", "", "--listen-http", "127.0.0.1:0"}
	c := &child{announced: make(chan struct{})}
	first := sync.OnceFunc(func() { close(c.announced) })
	c.Child = support.StartChild(t, exec.Command(binary, append(arguments, args...)...), func(string) { first() })
	t.Cleanup(func() {
		c.Kill()
		if t.Failed() {
			t.Logf("the log of the server, which ended with %v:\n%s", c.ProcessState, c.Log.String())
		}
	})
	return c
}

// start starts a server and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *child {
	t.Helper()
	c := launch(t, dir, args...)
	c.Await(t, c.announced) // so the endpoint in admin.json is of this process
	admin := nodes.ReadAdmin(t, dir)
	c.endpoint = admin.HTTPEndpoint
	support.Until(t, "the server to be ready", func() bool {
		if !c.Running() {
			t.Fatalf("the server ended at its start:\n%s", c.Log.Tail())
		}
		status, _ := c.page("/readyz")
		return status == http.StatusOK
	})
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	var err error
	c.client, err = kms.NewClient(kms.Config{
		Endpoint:    "http://" + c.endpoint,
		MaxAttempts: 1,
		HTTPClient:  &http.Client{Transport: transport, Timeout: support.Patience},
		Credentials: nodes.Credentials(admin),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// page reads one of the operator's pages; status is 0 when there is no answer.
func (c *child) page(path string) (status int, body string) { return support.Page(c.endpoint, path) }
