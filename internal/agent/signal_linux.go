package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openPath opens a directory that may be entered and not listed, too.
const openPath = unix.O_PATH

// signalProcess sends a signal to a process after check. A descriptor holds the process meanwhile,
// so that its number cannot be given to another one.
func signalProcess(pid int, s syscall.Signal, check func() error) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := check(); err != nil {
		return err
	}
	return unix.PidfdSendSignal(fd, s, nil, 0)
}

// userOf returns the real user of a process.
func userOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1, syscall.ESRCH
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				return strconv.Atoi(f[0])
			}
		}
	}
	return -1, errors.New("its user is not known")
}

// runs reports whether a process runs an executable.
func runs(pid int, executable string) (bool, error) {
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false, err
	}
	want, err := os.Stat(executable)
	if err != nil {
		return false, err
	}
	return os.SameFile(running, want), nil
}
