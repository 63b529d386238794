package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervise starts the launcher and returns the exit status of the command that it becomes, or 128
// and the number of the signal that ended it. Nothing that the command has started is left then:
// isolated, all of it ends with this process, the first of its namespace. Otherwise this process
// becomes the parent of what is orphaned below it, and kills it.
func supervise(text string) (status int, err error) {
	var l launch
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return 0, fmt.Errorf("launch: %w", err)
	}
	if l.Isolate {
		err = ownProc()
	} else {
		err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	if err != nil || l.File == "" {
		return 0, err
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM) // the command, in the same process group, gets it too
	pid, err := syscall.ForkExec("/proc/self/exe", []string{launcherName}, &syscall.ProcAttr{
		Env:   []string{launchVariable + "=" + text},
		Files: []uintptr{0, 1, 2, failureFD},
	})
	if err != nil {
		return 0, fmt.Errorf("start the launcher: %w", err)
	}
	for fd := range failureFD + 1 {
		_ = syscall.Close(fd) // the command alone reads, answers and keeps them open
	}
	ended := make(chan syscall.WaitStatus, 1)
	go func() { ended <- waitFor(pid) }()
	var ws syscall.WaitStatus
	select {
	case ws = <-ended:
	case <-terminated:
		select {
		case ws = <-ended:
		case <-time.After(grace):
			_ = syscall.Kill(pid, syscall.SIGKILL) // not reaped yet, so the number is its own
			ws = <-ended
		}
	}
	if !l.Isolate {
		killDescendants()
	}
	if ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return ws.ExitStatus(), nil
}

// ownProc mounts a /proc that shows the processes of this namespace alone, in no other mount
// namespace.
func ownProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// waitFor reaps children until one has ended.
func waitFor(pid int) syscall.WaitStatus {
	for {
		var ws syscall.WaitStatus
		p, err := syscall.Wait4(-1, &ws, 0, nil)
		if p == pid || err != nil && !errors.Is(err, syscall.EINTR) {
			return ws
		}
	}
}

// killTime bounds killDescendants: one that starts processes faster than they are killed must not
// keep the server waiting.
const killTime = grace / 2

// killDescendants kills the children of this process until there are none: what they leave behind
// becomes its children.
func killDescendants() {
	for deadline := time.Now().Add(killTime); time.Now().Before(deadline); {
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // not reaped yet, so the number is its own
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if errors.Is(err, syscall.ECHILD) {
				return
			}
			if err == nil && pid == 0 {
				break // some are still ending
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// children are the processes whose parent this one is.
func children() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// "PID (NAME) STATE PARENT …"; the name can hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(os.Getpid()) {
			list = append(list, pid)
		}
	}
	return list
}
