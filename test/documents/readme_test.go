// Package documents_test runs the commands of README.md as they are printed.
package documents_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/test/support"
)

var binary string

func TestMain(m *testing.M) { os.Exit(support.RunWithKeyturn(m, &binary)) }

// blocks returns the fenced sh blocks of a section of README.md.
func blocks(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var list []string
	for _, part := range strings.Split(rest, "\n```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		list = append(list, block)
	}
	return list
}

// TestFiveMinutes verifies that every command of README's five-minute tour works as printed. Only
// the build and the two ports differ: another program may have these.
func TestFiveMinutes(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed, so the tour is not tested")
	}
	dir, ports := t.TempDir(), support.FreePorts(t, 2)
	redis := ports[1]
	if err := os.Symlink(filepath.Dir(binary), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("make build\n", "", "7443", ports[0], "6390", redis)
	environment := append(os.Environ(), "HOME="+dir, "KEYTURN_CONFIG_DIR="+filepath.Join(dir, "config"))
	shell := func(script string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", replace.Replace(script))
		cmd.Dir, cmd.Env = dir, environment
		return cmd
	}

	const previous = "REDISCLI_AUTH=first-password redis-cli -p 6390 --user app ping"
	tour := blocks(t, "Five minutes")
	if len(tour) < 4 {
		t.Fatalf("README.md has %d blocks of commands", len(tour))
	}
	server := shell(strings.Replace(tour[0], "keyturn serve", "exec keyturn serve", 1))
	var log support.Log
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("sh", "-c", `kill "$(cat "$1")"`, "sh", filepath.Join(dir, "redis.pid")).Run()
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	})
	admin := filepath.Join(dir, "data", "admin.json")
	support.Retry(t, func() error {
		if _, err := os.Stat(admin); err != nil || !strings.Contains(log.String(), "serves") {
			return fmt.Errorf("the server does not serve (%v):\n%s", err, log.String())
		}
		return nil
	})
	for _, block := range tour[1:] {
		out, err := shell("export PATH=$PWD/bin:$PATH\n" + block).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, block, out)
		}
		t.Logf("%s\n%s", block, out)
		if strings.Contains(block, previous) && !strings.Contains(string(out), "PONG") {
			t.Errorf("in the grace period, the previous password is refused:\n%s", out)
		}
	}
	support.Retry(t, func() error {
		if out, _ := shell(previous).CombinedOutput(); strings.Contains(string(out), "PONG") {
			return errors.New("after the grace period, the previous password logs in")
		}
		return nil
	})
}
