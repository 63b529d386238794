package command

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcherName is the first argument by which this program knows that it is to become a command.
const launcherName = "keyturn-command-launcher"

// launch says what the launcher does before it becomes the command. It travels in an environment
// variable, and holds no secret.
type launch struct {
	File string   `json:"file"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	User User     `json:"user"`
}

const launchVariable = "KEYTURN_LAUNCH"

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

// prepare makes cmd start this program again, which drops what the command must not have and then
// becomes it. What the launcher cannot do is read from the returned pipe; it is empty when the
// command was started.
func (r *runner) prepare(cmd *exec.Cmd, file string) (failure *os.File, close func(), err error) {
	text, err := json.Marshal(launch{File: file, Args: append([]string{r.line.Path}, r.line.Args...), Env: r.line.environment(), User: r.config.User})
	if err != nil {
		return nil, nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd.Path, cmd.Args = "/proc/self/exe", []string{launcherName}
	cmd.Env = []string{launchVariable + "=" + string(text)}
	cmd.ExtraFiles = []*os.File{write}
	return read, func() { _ = write.Close() }, nil
}

// The launcher is this same program, so that it needs no other file that could be replaced. It must
// begin before anything else of the program does: no flag, file or variable but its own is looked
// at.
func init() {
	if len(os.Args) == 1 && os.Args[0] == launcherName {
		become()
	}
}

func become() {
	runtime.LockOSThread()
	pipe := os.NewFile(3, "failure")
	syscall.CloseOnExec(3)
	err := becomeCommand(os.Getenv(launchVariable))
	fmt.Fprint(pipe, err)
	os.Exit(1)
}

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
	return syscall.Exec(l.File, l.Args, l.Env)
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
