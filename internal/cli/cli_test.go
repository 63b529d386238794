package cli_test

import (
	"context"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/server"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keyturn": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}})
}

// TestScript types what a user types, against the real program.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               environment,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"waitready": waitReady},
	})
}

func environment(e *testscript.Env) error {
	e.Setenv("KEYTURN_CONFIG_DIR", e.WorkDir+"/config")
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("GORACE", "atexit_sleep_ms=0") // or each command sleeps for a second at its end
	return nil
}

// waitReady waits, for at most 20 seconds, until the server of an admin.json serves.
func waitReady(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: time.Second}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		admin, err := server.ReadAdmin(ts.MkAbs(args[0]))
		if err != nil || admin.HTTPEndpoint == "" {
			continue
		}
		resp, err := client.Get("http://" + admin.HTTPEndpoint + "/readyz")
		if err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
			return
		}
	}
	ts.Fatalf("waited in vain for the server of %s", args[0])
}
