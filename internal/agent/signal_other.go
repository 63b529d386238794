//go:build unix && !linux

package agent

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

const openPath = unix.O_RDONLY

// errNoProc is returned where the system does not provide the owner of a process.
var errNoProc = errors.New("the owner of the process cannot be determined on this system; let root own the pid_file")

func signalProcess(pid int, s syscall.Signal, check func() error) error {
	if err := check(); err != nil {
		return err
	}
	return syscall.Kill(pid, s)
}

func userOf(int) (int, error) { return -1, errNoProc }

func runs(int, string) (bool, error) { return false, errNoProc }
