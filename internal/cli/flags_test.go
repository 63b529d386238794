package cli

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/command"
)

// profileless are the commands that call no server, or are run with a profile in another way:
// profile is about the profiles themselves, kms reads its arguments itself, and agent has an access
// key of its own. The script user.txtar verifies that kms and profile follow the environment.
var profileless = []string{"serve", "kms", "agent", "version", "completion", "__complete", "profile"}

// extra are arguments without which a command does not come to call a server.
var extra = map[string][]string{
	"audit verify":  {"--online"},
	"secret put":    {"--file", "flags_test.go"},
	"exec":          {"--wait", "1s"},
	"target update": {"--description", "x"},
}

// onFiles are the commands of a group that call no server.
var onFiles = []string{"root-key prepare"}

// TestEveryCommandUsesItsProfile runs every command with the flags of its group, and once more with
// the profile in the environment, and verifies that it calls the server of that profile and no
// other, and that it knows the form of its output.
func TestEveryCommandUsesItsProfile(t *testing.T) {
	var given, current atomic.Int64
	dir := t.TempDir()
	t.Setenv("KEYTURN_CONFIG_DIR", dir)
	all := command.Profiles{Current: "current", Profiles: map[string]command.Profile{
		"given":   {Endpoint: refusing(t, &given), AccessKeyID: "id", AccessKeySecret: "secret"},
		"current": {Endpoint: refusing(t, &current), AccessKeyID: "id", AccessKeySecret: "secret"},
	}}
	if err := all.Write(filepath.Join(dir, "profiles.json")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "argument")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	commands := 0
	for _, leaf := range newTestParser(t, &env{stdout: null, stderr: null}).Model.Leaves(false) {
		path := strings.TrimPrefix(leaf.FullPath(), "keyturn ")
		if slices.ContainsFunc(profileless, func(p string) bool { return path == p || strings.HasPrefix(path, p+" ") }) {
			continue
		}
		commands++
		for variable, flags := range map[string][]string{"": {"--profile", "given"}, "given": nil} {
			t.Setenv(command.ProfileVariable, variable)
			if hasFlag(leaf, "output") {
				flags = append(flags, "--output", "json")
			}
			args := slices.Concat(strings.Fields(path), flags, extra[path], arguments(leaf, file))
			e := &env{ctx: t.Context(), stdin: null, stdout: null, stderr: null, raw: null, rawErr: null}
			selected, err := newTestParser(t, e).Parse(args)
			if err != nil {
				t.Errorf("keyturn %s: %v", path, err)
				continue
			}
			before := given.Load()
			err = selected.Run()
			if given.Load() == before && !slices.Contains(onFiles, path) {
				t.Errorf("keyturn %s with %s=%q has not called the server of its profile: %v; add what it needs to extra",
					strings.Join(args, " "), command.ProfileVariable, variable, err)
			}
			if hasFlag(leaf, "output") && !e.json() {
				t.Errorf("keyturn %s has lost --output", path)
			}
		}
	}
	if current.Load() != 0 {
		t.Errorf("%d calls went to the server of the current profile instead of the given one", current.Load())
	}
	if commands < 50 {
		t.Errorf("only %d commands were run", commands)
	}
}

// TestNoFlagIsHidden verifies that a command line can set each flag of a command: of two flags with
// one name, the parser takes the one of the program, or of the group, first.
func TestNoFlagIsHidden(t *testing.T) {
	t.Parallel()
	for _, leaf := range newTestParser(t, &env{stdout: io.Discard, stderr: io.Discard}).Model.Leaves(false) {
		seen := map[string]bool{}
		for _, group := range leaf.AllFlags(false) {
			for _, f := range group {
				names := append([]string{f.Name}, f.Aliases...)
				if f.Short != 0 {
					names = append(names, string(f.Short))
				}
				for _, name := range names {
					if seen[name] {
						t.Errorf("%s has two flags %s", leaf.FullPath(), name)
					}
					seen[name] = true
				}
			}
		}
	}
}

// TestOrdered verifies that help and the flags of a group may stand before a command, together too.
func TestOrdered(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                               "--help",
		"help rotation status":           "rotation status --help",
		"--profile p help rotation":      "rotation --help",
		"--profile p help":               "--help",
		"--output=json -o json secret x": "secret --output=json -o json x",
		"--other help":                   "--other help",
	} {
		if got := strings.Join(ordered(strings.Fields(given)), " "); got != want {
			t.Errorf("keyturn %s: %q, want %q", given, got, want)
		}
	}
}

// refusing returns the endpoint of a server that counts calls and refuses them.
func refusing(t *testing.T, calls *atomic.Int64) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		http.Error(w, `{"Code":"Forbidden.NoPermission","Message":"refused"}`, http.StatusForbidden)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func hasFlag(leaf *kong.Node, name string) bool {
	for _, flags := range leaf.AllFlags(false) {
		if slices.ContainsFunc(flags, func(f *kong.Flag) bool { return f.Name == name }) {
			return true
		}
	}
	return false
}

func newTestParser(t *testing.T, e *env) *kong.Kong {
	t.Helper()
	parser, err := newParser(e)
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// arguments fills what a command requires.
func arguments(leaf *kong.Node, file string) []string {
	var args []string
	value := func(v *kong.Value) string {
		switch {
		case v.Enum != "":
			return strings.Split(strings.TrimPrefix(v.Enum, ","), ",")[0]
		case v.Tag.Type == "existingfile" || v.Tag.Type == "path" || v.Tag.PlaceHolder == "FILE":
			return file
		case v.Name == "command":
			return "true"
		}
		return "x"
	}
	for _, flags := range leaf.AllFlags(false) {
		for _, f := range flags {
			if f.Required {
				args = append(args, "--"+f.Name, value(f.Value))
			}
		}
	}
	if hasFlag(leaf, "yes") {
		args = append(args, "--yes")
	}
	for _, p := range leaf.Positional {
		args = append(args, value(p))
	}
	return args
}
