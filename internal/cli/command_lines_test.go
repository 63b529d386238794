package cli

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
)

func TestCommandSettings(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	for _, tt := range []struct {
		name     string
		commands []string
		user     string
		want     string // empty: accepted
	}{
		{"nothing", nil, "", ""},
		{"no user", []string{"a=/bin/true"}, "", "command-user is required"},
		{"twice", []string{"a=/bin/true", "a=/bin/false"}, "64123:64123", "two commands a"},
		{"no command line", []string{"true"}, "64123:64123", "is not NAME=/PATH"},
		{"root", []string{"a=/bin/true"}, "0:0", "other than root"},
		{"the group of root", []string{"a=/bin/true"}, "64123:0", "other than root"},
		{"no such user", []string{"a=/bin/true"}, "no-such-user-at-all", "not a user of this machine"},
		{"self", []string{"a=/bin/true"}, "self", map[bool]string{true: "as root", false: ""}[root]},
		{"another user", []string{"a=/bin/true"}, "64123:64123",
			map[bool]string{true: "", false: "only a server that runs as root"}[root]},
	} {
		set := server.NewSettings()
		set.Commands, set.CommandUser = tt.commands, tt.user
		set.DataDir, set.Logger = data, slog.New(slog.DiscardHandler)
		_, err := commandLines(set)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestMissingCommandIsLogged verifies that the operator reads at the start which command cannot be
// run.
func TestMissingCommandIsLogged(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	user := "self"
	if os.Geteuid() == 0 {
		user = "64123:64123"
	}
	var log strings.Builder
	set := server.NewSettings()
	set.Commands, set.CommandUser = []string{"gone=/no/such/file"}, user
	set.DataDir, set.Logger = data, slog.New(slog.NewTextHandler(&log, nil))
	if _, err := commandLines(set); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"level=WARN", "command=gone", "no such file"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q: %s", part, log.String())
		}
	}
}
