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
func install(t *testing.T) (dir, script string) {
	t.Helper()
	for _, program := range []string{"jq", "flock", "sha256sum", "awk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (scripts/test-deps)", program)
		}
	}
	b, err := os.ReadFile("rotate.sh")
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
	dir, script := install(t)
	keys := filepath.Join(dir, "keys")
	// The service: it reads the file as it is now.
	login := func(_ context.Context, c target.Credential) (bool, error) {
		b, err := os.ReadFile(keys)
		account, _ := json.Marshal(c.Account)
		want := fmt.Sprintf("%s\t%x", account, sha256.Sum256([]byte(c.Secret.Reveal())))
		return slices.Contains(strings.Split(string(b), "\n"), want), err
	}
	config := func(strategy target.Strategy) string {
		return fmt.Sprintf(`{"command":"rotate","strategy":%q,"password_punctuation":"$%%&*-"}`, strategy)
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
	_, script := install(t)
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
