package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A command is started in two steps, each this program again, so that no other file is needed that
// could be replaced. The supervisor keeps the server's user and waits for the command; the launcher
// drops what the command must not have and becomes it. Each is known by its only argument.
const (
	supervisorName = "keyturn-command-supervisor"
	launcherName   = "keyturn-command-launcher"
)

// launch says what the two steps do. It travels in an environment variable, and holds no secret.
type launch struct {
	File string   `json:"file"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	User User     `json:"user"`
	// Isolate says that the supervisor is the first process of a namespace of its own.
	Isolate bool `json:"isolate"`
}

const launchVariable = "KEYTURN_LAUNCH"

// namespaces are those of an isolated command: it sees no process but its own.
const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS

// waitDelay is how long after the end of its time a command is waited for: the supervisor kills it
// after grace.
const waitDelay = 2 * grace

// limits hold for every command.
var limits = []struct {
	resource int
	value    uint64
}{
	{unix.RLIMIT_CORE, 0},
	{unix.RLIMIT_CPU, 120}, // seconds
	{unix.RLIMIT_FSIZE, 64 << 20},
	{unix.RLIMIT_NOFILE, 256},
}

// maxProcesses bounds the processes of the commands' user; it is not set for the server's own, who
// has others.
const maxProcesses = 512

// prepare makes cmd start a supervisor. What the two steps cannot do is read from the returned
// pipe; it is empty when the command was started.
func (r *runner) prepare(cmd *exec.Cmd, file string, isolate bool) (failure *os.File, close func(), err error) {
	text, err := json.Marshal(launch{
		File:    file,
		Args:    append([]string{r.line.Path}, r.line.Args...),
		Env:     r.line.environment(),
		User:    r.config.User,
		Isolate: isolate,
	})
	if err != nil {
		return nil, nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Path, cmd.Args = "/proc/self/exe", []string{supervisorName}
	cmd.Env = []string{launchVariable + "=" + string(text)}
	cmd.ExtraFiles = []*os.File{write}
	if isolate {
		cmd.SysProcAttr.Cloneflags = namespaces
	}
	return read, func() { _ = write.Close() }, nil
}

// probeTime bounds how long [canIsolate] waits.
const probeTime = 10 * time.Second

// canIsolate reports whether this process can start commands in namespaces of their own. It takes
// the right to administer the system (CAP_SYS_ADMIN), which containers mostly lack.
func canIsolate(ctx context.Context) bool {
	ctx, stop := context.WithTimeout(ctx, probeTime)
	defer stop()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env = []string{
		supervisorName,
	}, []string{
		launchVariable + `={"isolate":true}`,
	} // no file: it ends when it is isolated
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	return cmd.Run() == nil
}

// Both steps must begin before anything else of the program does: they must read no flag, file or
// variable but their own.
func init() {
	if len(os.Args) != 1 {
		return
	}
	switch os.Args[0] {
	case supervisorName:
		runtime.LockOSThread()
		status, err := supervise(os.Getenv(launchVariable))
		if err != nil {
			_, _ = syscall.Write(failureFD, []byte(err.Error())) // a probe has no pipe
			status = 1
		}
		syscall.Exit(status) // os.Exit of a program with the race detector waits a second
	case launcherName:
		runtime.LockOSThread()
		syscall.CloseOnExec(failureFD)
		err := becomeCommand(os.Getenv(launchVariable))
		_, _ = syscall.Write(failureFD, []byte(err.Error())) // the server takes the end of this process for one
		os.Exit(1)
	}
}

// failureFD is the descriptor of the pipe on which both steps say what they cannot do.
const failureFD = 3

func becomeCommand(text string) error {
	var l launch
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	for _, limit := range limits {
		if err := setLimit(limit.resource, limit.value); err != nil {
			return err
		}
	}
	if !l.User.Self {
		if err := setLimit(unix.RLIMIT_NPROC, maxProcesses); err != nil {
			return err
		}
		if err := syscall.Setgroups(nil); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := syscall.Setresgid(l.User.GID, l.User.GID, l.User.GID); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := syscall.Setresuid(l.User.UID, l.User.UID, l.User.UID); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := closeInherited(); err != nil {
		return fmt.Errorf("inherited descriptors: %w", err)
	}
	return syscall.Exec(l.File, l.Args, l.Env)
}

// closeInherited makes the next exec close all descriptors but the standard ones, also the ones
// that the server itself has inherited.
func closeInherited() error {
	err := unix.CloseRange(3, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC) // up to the greatest int32
	if err == nil || !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11, or a filter of system calls
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// setLimit lowers a limit; one that is lower already stays.
func setLimit(resource int, value uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	value = min(value, now.Max)
	// By way of package syscall for the number of files: its own restores the limit before it
	// executes a program otherwise.
	if resource == unix.RLIMIT_NOFILE {
		return syscall.Setrlimit(resource, &syscall.Rlimit{Cur: value, Max: value})
	}
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value})
}
