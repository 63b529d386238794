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

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

// grace is the time that a command has between SIGTERM and SIGKILL, and that its output has to end
// afterwards.
const grace = 2 * time.Second

// maxSaid is how much is kept of the end of what a command writes to standard error.
const maxSaid = 8 << 10

var errLong = fmt.Errorf("the answer is longer than %d bytes", plugin.MaxAnswer)

// run starts the executable and waits for it. An answer is one that a command gave which ended by
// itself.
func (r *runner) run(
	ctx context.Context, file, what string, isolate bool, message []byte, secrets []sensitive.Value,
) (plugin.Answer, error) {
	var out answer
	said := tail{keep: maxSaid}
	cmd := exec.CommandContext(ctx, file)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = waitDelay
	failure, started, err := r.prepare(cmd, file, isolate)
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
			return plugin.Answer{}, target.Failed(
				target.Denied, "", fmt.Sprintf("%s: the command did not start: %s", what, fault.Foreign(string(text))), secrets...,
			)
		}
	}
	err = cmd.Wait()
	// Whatever it has left behind; fails when nobody is left.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	text := said.text(secrets)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return plugin.Answer{
			JSON:    out.b,
			MayBeOK: true,
			Proven:  true,
			Said:    text,
		}, nil
	case ctx.Err() != nil:
		return plugin.Answer{}, target.NoAnswer(what, ctx.Err(), secrets...)
	case errors.As(err, &exit) && exit.ExitCode() == 1 && len(out.b) > 0 && !out.long:
		return plugin.Answer{
			JSON:   out.b,
			Code:   "exit status 1",
			Proven: true,
			Said:   text,
		}, nil
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

// notStarted classifies an error of starting a command: no process has run. A wrong file is Denied,
// because an operator must correct it; a lack of processes or memory is Unreachable, because it may
// pass.
func notStarted(what string, err error, secrets []sensitive.Value) error {
	class := target.Unreachable
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOEXEC) ||
		errors.Is(err, syscall.ENOTDIR) {
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

// text is the end of what was said, without secrets. Where the beginning has been cut off, as much
// goes with it as the end of a secret could fill, in its longest spelling.
func (t *tail) text(secrets []sensitive.Value) string {
	text := target.Scrub(string(t.b), secrets...)
	if t.cut {
		longest := 0
		for _, s := range secrets {
			longest = max(longest, 6*s.Len())
		}
		text = text[min(longest, len(text)):]
	}
	return target.SaidAtEnd(text, secrets...)
}

// checkExecutable returns the file that a path leads to, if nobody but root and this process's user
// could have chosen or changed it.
func checkExecutable(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("%q: %w", path, reason(err))
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("%q: %w", path, reason(err))
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return "", fmt.Errorf("%q is no executable file", real)
	}
	// Each link and each directory on the way, and that to where the links lead now.
	if err := errors.Join(ownfile.CheckFile(path), ownfile.CheckFile(real)); err != nil {
		return "", fmt.Errorf("the executable: %w", err)
	}
	return real, nil
}

// reason returns an error of the file system without the call and the name, which the caller's text
// has already.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
