package cli_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/internal/server"
)

// TestAgentScript types what those type who run an agent, or a program under keyturn exec.
func TestAgentScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/agent",
		RequireExplicitExec: true,
		Setup:               environment,
		Condition: func(name string) (bool, error) {
			if name != "namespaces" {
				return false, errors.New("unknown condition " + name)
			}
			return exec.Command("unshare", "-Urpf", "--mount-proc", "true").Run() == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitready": waitReady,
			"waitfile":  waitFile,
			"exitcode":  exitCode,
			"config":    agentConfig,
			"agentget":  agentGet,
		},
	})
}

// waitFile waits, for at most 20 seconds, until a file matches.
func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[1])
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var data []byte
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if data, _ = os.ReadFile(ts.MkAbs(args[0])); want.Match(data) {
			return
		}
	}
	ts.Fatalf("waited in vain for %q; %s holds %q", args[1], args[0], data)
}

// exitCode runs a command, which must end with that code.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v, want exit code %s", err, args[0])
	}
}

// agentConfig makes an agent's file from NAME.in: ENDPOINT stands for the endpoint in an
// admin.json, DIR for the directory.
func agentConfig(ts *testscript.TestScript, _ bool, args []string) {
	admin, err := server.ReadAdmin(ts.MkAbs(args[1]))
	ts.Check(err)
	text := strings.NewReplacer("ENDPOINT", admin.Endpoint, "DIR", ts.MkAbs(".")).Replace(ts.ReadFile(args[0] + ".in"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// agentGet prints what the agent's HTTP interface answers on run/http.sock, once it answers.
func agentGet(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", ts.MkAbs("run/http.sock"))
		}}}
	u := url.URL{Scheme: "http", Host: "localhost", Path: "/" + args[0]}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		var token []byte
		if token, err = os.ReadFile(ts.MkAbs("token")); err != nil {
			continue
		}
		req := &http.Request{
			Method: http.MethodGet,
			URL:    &u,
			Header: http.Header{"X-Keyturn-Token": {strings.TrimSpace(string(token))}},
		}
		var resp *http.Response
		if resp, err = client.Do(req); err != nil {
			continue
		}
		_, err = io.Copy(ts.Stdout(), resp.Body)
		resp.Body.Close()
		ts.Check(err)
		return
	}
	ts.Fatalf("waited in vain for the agent: %v", err)
}
