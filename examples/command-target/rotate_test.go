//go:build unix

package commandtarget_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
)

// install copies the script to where it may run: the repository may be writable by others.
func install(t *testing.T, source string) (dir, script string) {
	t.Helper()
	for _, program := range []string{"jq", "flock", "sha256sum", "awk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (scripts/test-deps)", program)
		}
	}
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	script = filepath.Join(dir, "rotate.sh")
	// No process starts meanwhile: it would have the file open for writing for a moment, and such a
	// file cannot be run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(script, b, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, script
}

func TestKeyturnRotatesTheKeys(t *testing.T) {
	t.Parallel()
	rotates(t, "rotate.sh", `,"check":true`)
}

// TestProgramsWithoutCheck verifies that a program that was written before the step check, and is
// stored as it was, works unchanged.
func TestProgramsWithoutCheck(t *testing.T) {
	t.Parallel()
	rotates(t, "testdata/rotate-without-check.sh", "")
}

// rotates runs the suite of targets with a program.
func rotates(t *testing.T, source, more string) {
	unread := ""
	if more == "" {
		unread = "the program has no step check"
	}
	dir, script := install(t, source)
	keys := filepath.Join(dir, "keys")
	// The service: it reads the file as it is now.
	login := func(_ context.Context, c target.Credential) (bool, error) {
		b, err := os.ReadFile(keys)
		account, _ := json.Marshal(c.Account)
		want := fmt.Sprintf("%s\t%x", account, sha256.Sum256([]byte(c.Secret.Reveal())))
		return slices.Contains(strings.Split(string(b), "\n"), want), err
	}
	config := func(strategy target.Strategy) string {
		return fmt.Sprintf(`{"command":"rotate","strategy":%q,"password_punctuation":"$%%&*-"%s}`, strategy, more)
	}
	kind := command.Kind(command.Config{
		User:     command.User{Self: true},
		Commands: map[string]command.Line{"rotate": {Path: script, Env: map[string]string{"KEYTURN_KEYS": keys}}},
	})
	adder, err := kind.Open(target.Settings{Name: "adder", Config: []byte(config(target.Overlap))})
	if err != nil {
		t.Fatal(err)
	}
	var accounts atomic.Int32
	for _, strategy := range kind.Strategies {
		t.Run(string(strategy), func(t *testing.T) {
			kind.Strategies = []target.Strategy{strategy}
			targettest.Run(t, targettest.Harness{
				Unguarded: "the program is not asked what an account is",
				Unread:    unread,
				Kind:      kind,
				Config:    func(string) string { return config(strategy) },
				Account: func(t *testing.T) target.Credential {
					n := accounts.Add(1)
					c := target.Credential{
						Account: fmt.Sprintf(`app "%d" \ $(id) ü`, n),
						Secret:  sensitive.New(fmt.Sprintf("first 'key' \"of\" \\n $HOME %d ", n)),
					}
					if err := adder.Apply(t.Context(), target.Change{ID: "first", Strategy: target.Overlap, New: c}); err != nil {
						t.Fatal(err)
					}
					return c
				},
				Login: login,
				Refused: func(account string) target.Credential {
					return target.Credential{Account: account, Secret: sensitive.New("too-short-key")}
				},
			})
		})
	}
}

func TestBadSettingsChangeNothing(t *testing.T) {
	t.Parallel()
	_, script := install(t, "rotate.sh")
	kind := command.Kind(command.Config{
		User:     command.User{Self: true},
		Commands: map[string]command.Line{"rotate": {Path: script}},
	})
	tt, err := kind.Open(target.Settings{Name: "t", Config: []byte(`{"command":"rotate","strategy":"overlap"}`)})
	if err != nil {
		t.Fatal(err)
	}
	err = tt.Apply(t.Context(), target.Change{
		ID:       "c",
		Strategy: target.Overlap,
		New:      target.Credential{Account: "a", Secret: sensitive.New("a-key-that-is-long-enough")},
	})
	if target.ClassOf(err) != target.Unreachable || !strings.Contains(fmt.Sprint(err), "the script failed") {
		t.Errorf("without KEYTURN_KEYS: class %v, %v", target.ClassOf(err), err)
	}
}

// opened returns a target of the example with a file of keys.
func opened(t *testing.T, strategy target.Strategy, lines ...string) (tt target.Target, file string) {
	t.Helper()
	dir, script := install(t, "rotate.sh")
	file = filepath.Join(dir, "keys")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kind := command.Kind(command.Config{
		User:     command.User{Self: true},
		Commands: map[string]command.Line{"rotate": {Path: script, Env: map[string]string{"KEYTURN_KEYS": file}}},
	})
	tt, err := kind.Open(target.Settings{
		Name:   "t",
		Config: fmt.Appendf(nil, `{"command":"rotate","strategy":%q,"check":true}`, strategy),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tt, file
}

func key(account, secret string) target.Credential {
	return target.Credential{Account: account, Secret: sensitive.New(secret)}
}

// keyLine is what the file says of a key.
func keyLine(c target.Credential, rights string) string {
	account, _ := json.Marshal(c.Account)
	line := fmt.Sprintf("%s\t%x", account, sha256.Sum256([]byte(c.Secret.Reveal())))
	if rights != "" {
		line += "\t" + rights
	}
	return line
}

// TestRightsAreCarriedOver verifies that a new key may do exactly what the key that it replaces may
// do, with each strategy, and that a key whose rights are not known is not made.
func TestRightsAreCarriedOver(t *testing.T) {
	t.Parallel()
	const narrow, wide = "scope=read;from=10.0.0.0/8", "scope=write"
	one, two := key("app", "the-first-key-of-the-account"), key("app", "the-second-key-of-the-account")
	next, other := key("app", "the-next-key-of-the-account"), key("app_b", "the-key-of-the-other-account")
	for _, strategy := range []target.Strategy{target.Overlap, target.Single} {
		tt, file := opened(t, strategy, keyLine(two, wide), keyLine(one, narrow))
		for range 2 {
			if err := tt.Apply(t.Context(), target.Change{ID: "c", Strategy: strategy, New: next, Old: one}); err != nil {
				t.Fatal(err)
			}
			has(t, file, keyLine(next, narrow), true)
			has(t, file, keyLine(two, wide), strategy == target.Overlap)
		}
	}
	tt, file := opened(t, target.Double, keyLine(one, wide), keyLine(other, narrow))
	change := target.Change{ID: "c", Strategy: target.Double, New: next, Old: other}
	for _, step := range []func() error{
		func() error {
			return tt.Retire(t.Context(), target.Change{ID: "b", Strategy: target.Double, New: other, Old: one})
		},
		func() error { return tt.Apply(t.Context(), change) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		has(t, file, keyLine(one, wide), false)
		has(t, file, keyLine(other, narrow), true)
	}
	has(t, file, keyLine(next, wide), true)

	tt, _ = opened(t, target.Overlap, keyLine(one, wide), keyLine(two, narrow))
	change = target.Change{ID: "c", Strategy: target.Overlap, New: next, Old: key("app", "a-key-that-is-gone")}
	if err := tt.Apply(t.Context(), change); target.ClassOf(err) != target.Denied ||
		!strings.Contains(fmt.Sprint(err), "different rights") {
		t.Errorf("without the old key: class %v, %v", target.ClassOf(err), err)
	}
}

func has(t *testing.T, file, line string, want bool) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || slices.Contains(strings.Split(string(b), "\n"), line) != want {
		t.Fatalf("%v; the file has, want %q %v:\n%s", err, line, want, b)
	}
}

// TestWhatTheCheckFinds verifies the findings of the example.
func TestWhatTheCheckFinds(t *testing.T) {
	t.Parallel()
	one, two := key("app", "the-first-key-of-the-account"), key("app", "the-second-key-of-the-account")
	other := key("app_b", "the-key-of-the-other-account")
	for _, tt := range []struct {
		name     string
		strategy target.Strategy
		lines    []string
		partner  string
		want     string
	}{
		{"nothing", target.Overlap, []string{keyLine(one, "")}, "", "[]"},
		{
			"rights and others", target.Overlap, []string{keyLine(one, "r"), keyLine(two, "")}, "",
			"[rights-kept note app other-keys note app]",
		},
		{
			"others go", target.Single, []string{keyLine(one, ""), keyLine(two, "")}, "",
			"[other-keys-go needs-consent app]",
		},
		{"not there", target.Single, []string{keyLine(other, "")}, "", "[no-such-key impossible app]"},
		{
			"equal partner", target.Double, []string{keyLine(one, "r"), keyLine(other, "r")}, "app_b",
			"[rights-kept note app]",
		},
		{
			"other partner", target.Double, []string{keyLine(one, ""), keyLine(other, "r")}, "app_b",
			"[partner-differs needs-consent app_b]",
		},
		{"no partner", target.Double, []string{keyLine(one, "")}, "app_b", "[no-such-account impossible app_b]"},
	} {
		system, _ := opened(t, tt.strategy, tt.lines...)
		request := target.CheckRequest{Current: one, Partner: tt.partner}
		findings, err := system.(target.Checker).CheckAccount(t.Context(), request)
		got := []string{}
		for _, f := range findings {
			got = append(got, strings.TrimPrefix(f.Code, "plugin-"), string(f.Verdict), f.Account)
		}
		if err != nil || fmt.Sprint(got) != tt.want {
			t.Errorf("%s: %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}
