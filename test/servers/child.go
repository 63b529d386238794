package servers

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

const (
	startAttempts = 5 // a free port may be taken by another process before the child binds it
	startTimeout  = 20 * time.Second
	stopTimeout   = 10 * time.Second
	pollEvery     = 10 * time.Millisecond
)

// child is a server process that runs until stop.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    support.Log
}

// startChild starts a server and waits until ready succeeds. Where the system can, the server
// dies with this process.
func startChild(cmd *exec.Cmd, ready func() error) (*child, error) {
	c := &child{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &c.log, &c.log, time.Second
	if err := startBound(cmd, c.exited); err != nil {
		return nil, err
	}
	if err := c.await(ready); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// startBound starts a process that leads a group of its own and dies with this one, where the
// system can. It closes exited when the process has ended.
func startBound(cmd *exec.Cmd, exited chan struct{}) error {
	bind(cmd)
	started := make(chan error, 1)
	go func() {
		// Linux ties the signal of bind to the thread that started the child, so the thread has to live
		// as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its output
		}
	}()
	return <-started
}

func (c *child) await(ready func() error) error {
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.exited:
			return fmt.Errorf("%s ended at once: %s", filepath.Base(c.cmd.Path), c.log.Tail())
		case <-deadline.C:
			return fmt.Errorf("%s is not ready: %w: %s", filepath.Base(c.cmd.Path), err, c.log.Tail())
		}
	}
}

// stop ends the server in order, and after a while by force.
func (c *child) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = c.cmd.Process.Signal(sig) // fails only when the process has gone
		t := time.NewTimer(stopTimeout)
		select {
		case <-c.exited:
			t.Stop()
			return nil
		case <-t.C:
		}
	}
	return fmt.Errorf("%s, process %d, does not stop", filepath.Base(c.cmd.Path), c.cmd.Process.Pid)
}

// listening returns nil when a server accepts connections at an address.
func listening(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// program finds an executable, also where users have no PATH to, and skips the test when there is
// none.
func program(t testing.TB, name, debian string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name, "/usr/lib/openldap/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed (Debian package %s)", name, debian)
	return ""
}
