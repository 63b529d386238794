package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

const (
	// settle is how long several changes at once are waited for, so that they cause one restart.
	settle = 200 * time.Millisecond
	// atOnce is the age below which a program that was restarted is taken to have failed by the
	// restart.
	atOnce = 5 * time.Second
	// maxRestarts bounds how often one that ends at once is started again for one change.
	maxRestarts = 5
)

// Exit codes of a shell for programs that could not be started.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// child runs one program with the values of secrets in its environment, and handles a change as
// onChange says.
type child struct {
	args     []string
	base     []string
	secrets  []EnvSecret
	allowed  []string
	world    world
	changed  <-chan struct{}
	onChange string // restart, ignore or signal
	signal   syscall.Signal
	grace    time.Duration
	files    []uintptr
	// terminal reports that the terminal sends its signals to the program itself.
	terminal bool
	log      *slog.Logger
	atOnce   time.Duration // 0 means the constant
	pause    time.Duration // before the first start again; 0 means a second

	path     string
	pid      int // 0 while there is none
	started  time.Time
	env      []string
	versions map[string]string
	release  []func()

	next       *start // what follows when the program has ended; nil means that its end is ours
	restarts   int    // since the last change
	terminated bool
}

// start is an environment that the program is to be started with.
type start struct {
	env      []string
	versions map[string]string
}

// forwarded are the signals that the program gets as if they had been sent to it.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
	syscall.SIGCONT,
}

// fromTerminal are those that a terminal sends to everything in its foreground.
var fromTerminal = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH}

// ending lists the signals that ask the program to terminate.
var ending = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM}

// ExitError is the reason why the program could not be run, with the exit code of a shell for it.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap is the cause.
func (e *ExitError) Unwrap() error { return e.Err }

func (c *child) find() error {
	path, err := exec.LookPath(c.args[0])
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return &ExitError{exitNotFound, fmt.Errorf("there is no program %q", c.args[0])}
	case err != nil && !errors.Is(err, exec.ErrDot):
		return &ExitError{exitNotExecutable, fmt.Errorf("program %q: %w", c.args[0], err)}
	}
	c.path = path
	return nil
}

// run runs the program to its end, and returns its exit code: its own, or 128 and the number of the
// signal that ended it.
func (c *child) run(ctx context.Context) (int, error) {
	if err := c.find(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 64)
	// Ignored signals, as under nohup, stay ignored here and in the program.
	caught := slices.DeleteFunc(slices.Clone(forwarded), signal.Ignored)
	signal.Notify(signals, append(caught, syscall.SIGCHLD)...)
	defer signal.Stop(signals)
	if ctx.Err() != nil { // asked to end before the program was started
		return stopped, nil
	}
	ctx = context.WithoutCancel(ctx) // from here on signals are the program's
	defer func() { c.take(nil) }()
	first, err := c.render(ctx)
	if err != nil {
		return 0, err
	}
	if err := c.start(first); err != nil {
		return 0, err
	}
	return c.loop(ctx, signals)
}

// loop handles signals, changes and the end of the program until nothing is left to run.
func (c *child) loop(ctx context.Context, signals <-chan os.Signal) (int, error) {
	var gather, kill, again timer
	for {
		select {
		case s := <-signals:
			if code, done, err := c.signalled(s, &kill, &again); done || err != nil {
				return code, err
			}
		case <-c.changed:
			gather.set(settle)
		case <-gather.c():
			gather.stop()
			c.change(ctx, &kill, &again)
		case <-kill.c():
			kill.stop()
			c.log.Warn("the program did not end in time and is killed", "grace", c.grace)
			c.send(syscall.SIGKILL)
		case <-again.c():
			again.stop()
			if err := c.start(*c.next); err != nil {
				return 0, err
			}
		}
	}
}

// signalled handles one signal. done reports that nothing runs any longer, with the exit code.
func (c *child) signalled(s os.Signal, kill, again *timer) (code int, done bool, err error) {
	if s != syscall.SIGCHLD {
		if c.pid == 0 && slices.Contains(ending, s) { // between two starts
			return 128 + int(s.(syscall.Signal)), true, nil
		}
		c.forward(s)
		return 0, false, nil
	}
	code, ended := c.reap()
	if !ended {
		return 0, false, nil
	}
	kill.stop()
	done, err = c.ended(code, again)
	return code, done, err
}

// timer is a time.Timer that may be off.
type timer struct{ t *time.Timer }

func (t *timer) set(d time.Duration) {
	t.stop()
	t.t = time.NewTimer(d)
}

func (t *timer) stop() {
	if t.t != nil {
		t.t.Stop()
	}
	t.t = nil
}

func (t *timer) c() <-chan time.Time {
	if t.t == nil {
		return nil
	}
	return t.t.C
}

func (c *child) render(ctx context.Context) (start, error) {
	names := make([]string, len(c.secrets))
	for i, s := range c.secrets {
		names[i] = s.Name
	}
	values, err := c.world.values(ctx, names)
	if err != nil {
		return start{}, err
	}
	env, err := Environment(c.base, c.secrets, c.allowed, values)
	if err != nil {
		return start{}, err
	}
	s := start{env, map[string]string{}}
	for name, v := range values {
		s.versions[name] = v.VersionID
	}
	return s, nil
}

func (c *child) start(s start) error {
	c.take(s.versions) // before it could be seen to run with them
	pid, err := syscall.ForkExec(c.path, c.args, &syscall.ProcAttr{Env: s.env, Files: c.files})
	if err != nil {
		code := exitNotExecutable
		if errors.Is(err, fs.ErrNotExist) {
			code = exitNotFound
		}
		return &ExitError{code, fmt.Errorf("start %s: %w", c.path, err)}
	}
	c.pid, c.started, c.env, c.next = pid, time.Now(), s.env, nil
	return nil
}

// take reports these versions as those that the program uses.
func (c *child) take(versions map[string]string) {
	var held []func()
	for name, version := range versions {
		held = append(held, c.world.hold(name, version))
	}
	for _, release := range c.release {
		release()
	}
	c.release, c.versions = held, versions
}

func (c *child) send(s syscall.Signal) {
	if c.pid == 0 {
		return
	}
	if err := syscall.Kill(c.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.log.Error("signal not sent", "signal", s.String(), "err", err)
	}
}

func (c *child) forward(s os.Signal) {
	if slices.Contains(ending, s) && s != syscall.SIGHUP {
		c.next = nil // when it is ending for a restart, its end is now wanted, and is ours
	}
	if c.terminal && slices.Contains(fromTerminal, s) {
		return
	}
	c.terminated = c.terminated || s == syscall.SIGTERM
	c.send(s.(syscall.Signal))
}

// reap waits for the program. As the first process of a container it also reaps every orphan.
func (c *child) reap() (code int, ended bool) {
	which := c.pid
	if os.Getpid() == 1 {
		which = -1
	}
	for {
		if which == 0 {
			return code, ended
		}
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(which, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || pid <= 0:
			return code, ended
		case pid != c.pid:
			continue
		case status.Exited():
			code = status.ExitStatus()
		case status.Signaled():
			code = 128 + int(status.Signal())
		default:
			continue
		}
		c.pid, ended = 0, true
		if which != -1 {
			return code, ended
		}
	}
}

// ended decides what follows the end of the program.
func (c *child) ended(code int, again *timer) (done bool, err error) {
	if c.next != nil { // it was asked to end
		next := *c.next
		c.restarts = 1
		return false, c.start(next)
	}
	limit := c.atOnce
	if limit == 0 {
		limit = atOnce
	}
	if c.terminated || code == 0 || c.restarts == 0 || time.Since(c.started) > limit || c.restarts > maxRestarts {
		return true, nil
	}
	pause := c.pause
	if pause == 0 {
		pause = time.Second
	}
	pause <<= c.restarts - 1
	pause = pause/2 + rand.N(pause/2+1)
	c.log.Warn("the program ended at once after its restart, and is started again", "code", code, "in", pause, "attempt",
		c.restarts)
	c.restarts++
	c.next = &start{c.env, c.versions}
	again.set(pause)
	return false, nil
}

// change does what a change of a secret asks for. When there is no complete environment, the
// program goes on as it is.
func (c *child) change(ctx context.Context, kill, again *timer) {
	if c.onChange == "ignore" || c.terminated {
		return
	}
	s, err := c.render(ctx)
	if err != nil {
		c.log.Error("the program is left as it is: there is no complete environment for it", "err", err)
		return
	}
	switch {
	case c.pid == 0: // it waits to be started again
		c.next, c.restarts = &s, 1
		again.set(0)
	case c.next != nil: // it is ending
		c.next = &s
	case slices.Equal(s.env, c.env):
		c.take(s.versions)
	case c.onChange == "signal":
		c.log.Info("a secret has changed; the program is notified", "versions", versionsText(s.versions), "signal",
			c.signal.String())
		c.send(c.signal)
		c.env = s.env
		c.take(s.versions)
	default:
		c.log.Info("a secret has changed; the program is restarted", "versions", versionsText(s.versions))
		c.next = &s
		c.send(syscall.SIGTERM)
		kill.set(c.grace)
	}
}
