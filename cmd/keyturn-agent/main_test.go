package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/command"
)

// TestCommands verifies that the program has the commands of keyturn that run beside applications,
// with their exit codes.
func TestCommands(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("endpoint: 127.0.0.1:1\nnonsense: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		text string
	}{
		{"version", command.ExitOK, "keyturn-agent " + command.Version},
		{"agent --config " + file + " --check", command.ExitUsage, "nonsense"},
		{"exec --secret app=APP_ --on-change signal:NONE -- true", command.ExitUsage, "keyturn-agent:"},
		{"serve", command.ExitUsage, "keyturn-agent --help"},
	} {
		var out, errs bytes.Buffer
		e := &command.Env{Ctx: t.Context(), Stdin: os.Stdin, Stdout: &out, Stderr: &errs}
		code := run(e, strings.Fields(tt.args))
		if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.text) {
			t.Errorf("keyturn-agent %s: exit code %d, %s%s; want %d and %q", tt.args, code, &out, &errs, tt.code, tt.text)
		}
	}
}
