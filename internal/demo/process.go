package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startAttempts = 3 // a free port may be taken by another process before the child binds it
	pollEvery     = 20 * time.Millisecond
)

// osAccount is the account of the operating system under which a child runs, nil for our own.
type osAccount struct{ uid, gid int }

// daemon is a child process that runs until stop.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    *tail
}

// startDaemon starts cmd as the account. Where the system can, the child gets the signal when this process
// dies, so that a killed demo leaves no server behind.
func startDaemon(cmd *exec.Cmd, as *osAccount, onDeath syscall.Signal) (*daemon, error) {
	d := &daemon{cmd: cmd, exited: make(chan struct{}), log: &tail{}}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = d.log, d.log, time.Second
	detach(cmd, as, onDeath)
	started := make(chan error, 1)
	go func() {
		// Linux ties the signal to the thread that started the child, not to the process. This
		// goroutine keeps that thread alive as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(d.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log, and stop does not depend on it
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return d, nil
}

// stop sends the signals in turn, waiting a while after each, and at last kills the process group.
func (d *daemon) stop(signals ...syscall.Signal) error {
	for _, sig := range signals {
		_ = d.cmd.Process.Signal(sig) // fails only when the process has gone
		if d.gone(5 * time.Second) {
			return nil
		}
	}
	killGroup(d.cmd.Process)
	if d.gone(5 * time.Second) {
		return nil
	}
	return fmt.Errorf("%s, process %d, does not stop", filepath.Base(d.cmd.Path), d.cmd.Process.Pid)
}

func (d *daemon) gone(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-d.exited:
		return true
	case <-t.C:
		return false
	}
}

// ready asks probe again and again until it succeeds, the daemon ends, or the context does.
func (d *daemon) ready(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.exited:
			return fmt.Errorf("%s ended at once: %s", filepath.Base(d.cmd.Path), d.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w)", filepath.Base(d.cmd.Path), err, ctx.Err())
		}
	}
}

// tail keeps the end of what a child wrote, to say why it did not start.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(string(t.text)); s != "" {
		return s
	}
	return "it wrote nothing"
}

// freePort finds a port on loopback for a child that cannot choose one itself.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// makeDir makes a directory of our own in dir, which it makes as well when there is none.
func makeDir(dir, pattern string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(abs, pattern)
}

// environment is that of this process without what would steer the child, such as PGDATA or PGPORT.
func environment(prefix string) []string {
	out := []string{"LC_ALL=C"}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, prefix) && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			out = append(out, kv)
		}
	}
	return out
}

// safeReason says why a connection failed. Errors of drivers may quote their configuration, errors of the
// network hold addresses only; of the former nothing is kept.
func safeReason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	return errors.New("the target broke off without an answer")
}
