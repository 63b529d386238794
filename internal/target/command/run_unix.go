//go:build unix

package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

// grace is how long a command has between SIGTERM and SIGKILL, and its output to end after it.
const grace = 2 * time.Second

// maxSaid is how much is kept of the end of what a command writes to standard error.
const maxSaid = 8 << 10

var errLong = fmt.Errorf("the answer is longer than %d bytes", plugin.MaxAnswer)

// run starts the executable and waits for it. An answer is one that a command gave which ended by itself.
func (r *runner) run(ctx context.Context, file, what string, message []byte, secrets []sensitive.Value) (plugin.Answer, error) {
	var out answer
	said := tail{keep: maxSaid}
	cmd := exec.CommandContext(ctx, file)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	failure, started, err := r.prepare(cmd, file)
	if err != nil {
		return plugin.Answer{}, notStarted(what, err, secrets)
	}
	err = cmd.Start()
	started()
	if failure != nil {
		defer failure.Close()
	}
	if err != nil {
		return plugin.Answer{}, notStarted(what, err, secrets)
	}
	if failure != nil {
		// It ends when the launcher becomes the command, or ends itself.
		if text, _ := io.ReadAll(io.LimitReader(failure, maxSaid)); len(text) > 0 {
			_ = cmd.Wait() // the launcher has ended
			return plugin.Answer{}, target.Failed(target.Denied, "", fmt.Sprintf("%s: the command did not start: %s", what, text), secrets...)
		}
	}
	err = cmd.Wait()
	// Whatever it has left behind; fails when nobody is left.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	text := said.text(secrets)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return plugin.Answer{JSON: out.b, MayBeOK: true, Proven: true, Said: text}, nil
	case ctx.Err() != nil:
		return plugin.Answer{}, target.NoAnswer(what, ctx.Err(), secrets...)
	case errors.As(err, &exit) && exit.ExitCode() == 1 && len(out.b) > 0 && !out.long:
		return plugin.Answer{JSON: out.b, Code: "exit status 1", Proven: true, Said: text}, nil
	case out.long:
		err = errLong
	case errors.Is(err, exec.ErrWaitDelay):
		err = errors.New("the command ended, and something that it started kept its output open")
	}
	if text != "" {
		text = ": " + text
	}
	return plugin.Answer{}, target.Failed(target.Unknown, "", what+": "+err.Error()+text, secrets...)
}

// notStarted classifies an error of starting: no process has run. What is wrong with the file a person must mend, for a
// machine that is out of processes or memory one may wait.
func notStarted(what string, err error, secrets []sensitive.Value) error {
	class := target.Unreachable
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.ENOTDIR) {
		class = target.Denied
	}
	return target.Failed(class, "", fmt.Sprintf("%s: the command did not start: %v", what, reason(err)), secrets...)
}

// answer keeps standard output up to the limit, and breaks it off there.
type answer struct {
	b    []byte
	long bool
}

func (a *answer) Write(p []byte) (int, error) {
	if len(a.b)+len(p) > plugin.MaxAnswer {
		a.long = true
		return 0, errLong
	}
	a.b = append(a.b, p...)
	return len(p), nil
}

// tail keeps the end of standard error.
type tail struct {
	keep int
	b    []byte
	cut  bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - t.keep; extra > 0 {
		t.b, t.cut = append(t.b[:0], t.b[extra:]...), true
	}
	return len(p), nil
}

// text is the end of what was said, without secrets. Where the beginning has been cut off, as much goes with it as the end of a
// secret could fill, in its longest spelling.
func (t *tail) text(secrets []sensitive.Value) string {
	text := target.Scrub(string(t.b), secrets...)
	if t.cut {
		longest := 0
		for _, s := range secrets {
			longest = max(longest, 6*s.Len())
		}
		text = text[min(longest, len(text)):]
	}
	return target.CleanEnd(text, secrets...)
}

type sort string

const (
	isExecutable sort = "executable file"
)

// trusted refuses a file or directory that somebody else than root and our own user could replace or change.
func trusted(name, file string, want sort) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, reason(err))
	}
	for at := file; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("%s: %q: %w", name, at, reason(err))
		}
		mode := info.Mode()
		if at == file && (want == isExecutable && (!mode.IsRegular() || mode.Perm()&0o111 == 0)) {
			return fmt.Errorf("%s: %q is no %s", name, at, want)
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
			return fmt.Errorf("%s: %q belongs to another user than root and the server's, who could change what is run", name, at)
		}
		if mode.Perm()&0o022 != 0 && (!mode.IsDir() || mode&os.ModeSticky == 0) {
			return fmt.Errorf("%s: %q can be written by others than its owner (mode %04o); use chmod go-w", name, at, mode.Perm())
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// reason is an error of the file system without the call and the name, which its sentence tells already.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
