package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startAttempts = 3 // a free port may be taken by another process before the child binds it
	startTimeout  = 30 * time.Second
	pollEvery     = 20 * time.Millisecond
)

// Account is an account of the operating system that a child runs under.
type Account struct{ UID, GID int }

// ServiceAccount is the account for a server that does not run as root: the first of the names that
// exists. It is nil, which means our own, when this process is not root.
func ServiceAccount(names ...string) (*Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
		return &Account{uid, gid}, nil
	}
	return nil, fmt.Errorf(
		"the server does not run as root, and there is no account %s; run as another account",
		strings.Join(names, " nor "),
	)
}

// Own gives files and directories to the account; nothing to do for a nil one.
func (a *Account) Own(paths ...string) error {
	if a == nil {
		return nil
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Chown(path, a.UID, a.GID))
	}
	return errors.Join(errs...)
}

// Daemon is a child process that runs until Stop or Kill.
type Daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    *tail
}

// StartDaemon starts cmd as the account, nil for our own. Where the system can, the child gets the
// signal when this process dies, so that a killed demo or test leaves no server behind. What the
// child writes goes to log too, if there is one.
func StartDaemon(cmd *exec.Cmd, as *Account, onDeath syscall.Signal, log io.Writer) (*Daemon, error) {
	d := &Daemon{cmd: cmd, exited: make(chan struct{}), log: &tail{also: log}}
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
			_ = cmd.Wait() // how it ended is in its log, and Stop does not depend on it
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return d, nil
}

// Stop sends the signals in turn, waiting a while after each, and at last kills the process group.
func (d *Daemon) Stop(signals ...syscall.Signal) error {
	for _, sig := range signals {
		_ = d.cmd.Process.Signal(sig) // fails only when the process has gone
		if d.gone(5 * time.Second) {
			return nil
		}
	}
	return d.Kill()
}

// Kill ends the process and its group at once, as kill -9 does, and waits until the process is
// gone.
func (d *Daemon) Kill() error {
	killGroup(d.cmd.Process)
	if d.gone(5 * time.Second) {
		return nil
	}
	return fmt.Errorf("%s, process %d, does not stop", filepath.Base(d.cmd.Path), d.cmd.Process.Pid)
}

func (d *Daemon) gone(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-d.exited:
		return true
	case <-t.C:
		return false
	}
}

// Ready asks probe again and again until it succeeds, the daemon ends, or the context does.
func (d *Daemon) Ready(ctx context.Context, probe func(context.Context) error) error {
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

// startOnPort calls start, which starts a daemon and waits until it is ready: with fresh ports a
// few times when *port is 0, because another process may take one first, and otherwise with that
// port until the context ends, because what a killed server leaves in the system may be in the way
// for a moment.
func startOnPort(ctx context.Context, port *int, start func() error) error {
	fixed := *port != 0
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for attempt := 1; ; attempt++ {
		if !fixed {
			var err error
			if *port, err = FreePort(); err != nil {
				return err
			}
		}
		err := start()
		if err == nil || ctx.Err() != nil || !fixed && attempt == startAttempts {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// tail keeps the end of what a child wrote, to say why it did not start.
type tail struct {
	also io.Writer
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
	if t.also != nil {
		return t.also.Write(p)
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

// FreePort finds a port on loopback for a child that cannot choose one itself.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// MakeDir makes a directory of our own in dir, which it makes as well when there is none.
func MakeDir(dir, pattern string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(abs, pattern)
}

// makeDirFor makes a directory in dir that belongs to the account. When the account cannot reach
// dir, the directory is made among the temporary files instead.
func makeDirFor(as *Account, dir, name string) (string, error) {
	made, err := MakeDir(dir, name+"-")
	if err != nil {
		return "", err
	}
	if as != nil && !reachable(made) {
		_ = os.Remove(made) // it is empty
		if made, err = os.MkdirTemp("", "keyturn-"+name+"-"); err != nil {
			return "", err
		}
	}
	return made, as.Own(made)
}

// makeSocketDirFor makes a directory for sockets that belongs to the account. Its path must be
// short: a Unix address holds about 100 bytes.
func makeSocketDirFor(as *Account, pattern string) (string, error) {
	short := os.TempDir()
	if len(short) > 50 {
		short = "/tmp"
	}
	made, err := os.MkdirTemp(short, pattern)
	if err != nil {
		return "", err
	}
	return made, as.Own(made)
}

// reachable reports whether every account may pass through the directories above dir.
func reachable(dir string) bool {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if parent == filepath.Dir(parent) {
			return true
		}
	}
}

// Environment is that of this process without what would steer the child, such as PGDATA or PGPORT.
func Environment(prefix string) []string {
	out := []string{"LC_ALL=C"}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, prefix) && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			out = append(out, kv)
		}
	}
	return out
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// runLocked runs cmd to its end on one thread: see StartDaemon.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}
