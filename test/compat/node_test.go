package compat_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
)

const (
	installTimeout = 3 * time.Minute
	nodeTimeout    = 2 * time.Minute
)

// TestNode plays the scenario through the official Node clients, each against a server of its own.
func TestNode(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, so the Node clients are not tested", tool)
		}
	}
	install(t)
	for _, name := range []string{"kms20160120", "openapi-client", "pop-core GET", "pop-core POST"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now().UTC().Truncate(time.Second)
			s := startFixed(t, now)
			ctx, cancel := context.WithTimeout(t.Context(), nodeTimeout)
			defer cancel()
			cmd := exec.CommandContext(ctx, "node", "--test", "--test-reporter=spec", "compat.test.js")
			cmd.Dir = "node"
			robot := newRobot(t, s)
			cmd.Env = append(os.Environ(),
				"KEYTURN_CLIENT="+name, "KEYTURN_ENDPOINT="+s.Endpoint, "KEYTURN_REGION="+region, "KEYTURN_ACCOUNT="+account,
				"KEYTURN_ACCESS_KEY_ID="+right.AccessKeyID, "KEYTURN_ACCESS_KEY_SECRET="+right.AccessKeySecret.Reveal(),
				"KEYTURN_ROBOT_KEY="+robot.AccessKeyID, "KEYTURN_ROBOT_SECRET="+robot.AccessKeySecret.Reveal(),
				"KEYTURN_NOW="+now.Format(wire.TimeFormat), "NODE_EXTRA_CA_CERTS="+s.CAFile,
			)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("node --test: %v\n%s", err, failures(string(out)))
			}
			_, figures, ok := strings.Cut(string(out), "FIGURES ")
			if !ok {
				t.Fatalf("node --test has not reported its figures:\n%s", out)
			}
			figures, _, _ = strings.Cut(figures, "\n")
			t.Log(figures)
		})
	}
}

// installing lets one test install at a time.
var installing sync.Mutex

// install runs npm ci unless the modules of this lock file are there.
func install(t *testing.T) {
	t.Helper()
	installing.Lock()
	defer installing.Unlock()
	// so that go test forgets its result when the script changes
	if _, err := os.ReadFile(filepath.Join("node", "compat.test.js")); err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile(filepath.Join("node", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	stamp := filepath.Join("node", "node_modules", ".keyturn-lock")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == string(lock) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = "node"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.WriteFile(stamp, lock, 0o644); err != nil {
		t.Fatal(err)
	}
}

// failures is the part of the report that names what failed.
func failures(report string) string {
	if _, after, ok := strings.Cut(report, "failing tests:"); ok {
		return after
	}
	return report
}
