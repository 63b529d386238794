//go:build linux

package command_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
)

// running reports whether a process runs that has text in its arguments.
func running(t *testing.T, text string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), text) {
			return true
		}
	}
	return false
}

// TestNothingOutlivesACommand verifies that processes which a command moves to a session of their
// own have ended when its answer is taken, with namespaces and without, and also when its time is
// over.
func TestNothingOutlivesACommand(t *testing.T) {
	t.Parallel()
	other := command.User{UID: 64131, GID: 64131}
	for i, tt := range []struct {
		name string
		kind func(command.Config) target.Kind
		user command.User
	}{
		{"with namespaces", command.Kind, other},
		{"without namespaces", command.KindWithoutNamespaces, other},
		{"of the server's user", command.Kind, command.User{Self: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if os.Geteuid() != 0 && !tt.user.Self {
				t.Skip("only root can run a command as another user")
			}
			started := writable(t)
			// The arguments of sleep tell the test's processes from all others.
			mark := fmt.Sprintf("6%d.%d", i, os.Getpid())
			file := shared(t, `#!/bin/bash
leave() { setsid sleep "$1" </dev/null >/dev/null 2>&1 & }
leave "$2"; ( setsid bash -c 'trap "" TERM; sleep "$0" & wait; sleep "$0"' "$2" >/dev/null 2>&1 & )
if read -r message && [[ $message == *retire* ]]; then trap '' TERM; : >"$1/started"; while :; do sleep 1; done; fi
echo '{"result":"ok"}'
`)
			if _, err := exec.LookPath("setsid"); err != nil {
				t.Fatal(err)
			}
			c := command.Config{
				Commands: map[string]command.Line{"it": {Path: file, Args: []string{started, mark}}},
				User:     tt.user,
			}
			system, err := tt.kind(
				c,
			).Open(
				target.Settings{Name: "crm", Config: []byte(`{"command":"it","strategy":"overlap"}`)},
			)
			if err != nil {
				t.Fatal(err)
			}
			if err := system.Apply(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			if running(t, mark) {
				t.Error("a process that the command has started runs after its end")
			}
			ctx, cancel := contextUntil(t, filepath.Join(started, "started"))
			defer cancel()
			if err := system.Retire(ctx, change); target.ClassOf(err) != target.Unknown {
				t.Errorf("a command whose time is over: %v", err)
			}
			if running(t, mark) {
				t.Error("a process that the command has started runs after its time")
			}
		})
	}
}

// TestCommandsSeeNoOther verifies that a command sees no process of another one that runs as the
// same user at the same time, whose memory it could read.
func TestCommandsSeeNoOther(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a command as another user")
	}
	dir := writable(t)
	waits := shared(t, `#!/bin/sh
: >"$1/waits"; i=0
while [ ! -e "$1/looked" ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done
echo '{"result":"ok"}'
`)
	looks := shared(t, `#!/bin/sh
i=0
while [ ! -e "$1/waits" ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done
seen=
for p in /proc/[0-9]*; do
  if tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -q "$2"; then seen="$seen process"; fi
  if [ -r "$p/mem" ] && [ "$p" != /proc/$$ ] && [ "$(awk '/^PPid/{print $2}' "$p/status")" != $$ ]; then seen="$seen memory"; fi
done 2>/dev/null
: >"$1/looked"
printf '{"result":"denied","message":"saw%s"}' "$seen"
`)
	c := command.Config{
		Commands: map[string]command.Line{
			"waits": {Path: waits, Args: []string{dir, "keyturn-waits-mark"}},
			"looks": {Path: looks, Args: []string{dir, "keyturn-waits-[m]ark"}},
		},
		User: command.User{UID: 64132, GID: 64132},
	}
	if !c.Isolates(t.Context()) {
		t.Skip("the server can make no namespaces here: commands run one at a time")
	}
	kind := command.Kind(c)
	open := func(name string) target.Target {
		system, err := kind.Open(
			target.Settings{Name: "crm", Config: []byte(`{"command":"` + name + `","strategy":"overlap"}`)},
		)
		if err != nil {
			t.Fatal(err)
		}
		return system
	}
	waiting, looking := open("waits"), open("looks")
	done := make(chan error, 1)
	go func() { done <- waiting.Apply(t.Context(), change) }()
	if err := looking.Apply(t.Context(), change); fmt.Sprint(err) != "set of target crm: denied: saw" {
		t.Errorf("beside another command: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCommandInheritsNoFile verifies that a command gets no file that the process which started the
// server, or the server itself, has left open.
func TestCommandInheritsNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "left-open-marker")
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CREAT, 0o600) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	system, dir := openScript(t, `ls -l /proc/$$/fd >"$KEYTURN_OUT/fd"; echo '{"result":"ok"}'`)
	if err := system.Apply(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "fd"))
	if err != nil || !strings.Contains(string(b), " 1 -> ") || strings.Contains(string(b), "left-open-marker") {
		t.Errorf("descriptors of the command, %v:\n%s", err, b)
	}
}

// TestLinkOfAnotherUser verifies that a symbolic link to the executable which another user has
// made, or can replace, is refused although the file that it leads to is root's.
func TestLinkOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	_, file := script(t, "exit 0")
	dir := filepath.Dir(file)
	deploy, loose := filepath.Join(dir, "deploy"), filepath.Join(dir, "loose")
	if err := errors.Join(
		os.Symlink("it", filepath.Join(dir, "own")),
		os.Symlink("it", filepath.Join(dir, "foreign")), os.Lchown(filepath.Join(dir, "foreign"), 64133, 64133),
		os.Mkdir(deploy, 0o755), os.Symlink(file, filepath.Join(deploy, "current")), os.Chown(deploy, 64133, 64133),
		os.Symlink("deploy/current", filepath.Join(dir, "by-way")),
		os.Mkdir(loose, 0o755), os.Symlink(file, filepath.Join(loose, "current")), os.Chmod(loose, 0o777),
	); err != nil {
		t.Fatal(err)
	}
	for path, good := range map[string]bool{"it": true, "own": true, "foreign": false, "deploy/current": false, "by-way": false, "loose/current": false} {
		if err := (command.Line{Path: filepath.Join(dir, path)}).Check(); good != (err == nil) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// contextUntil returns a context that ends when a file is there.
func contextUntil(t *testing.T, file string) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if _, err := os.Stat(file); err == nil {
				cancel()
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return ctx, func() { cancel(); <-watched }
}

// writable returns a directory in which every user can write.
func writable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "keyturn-command-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}
