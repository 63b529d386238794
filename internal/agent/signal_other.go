//go:build unix && !linux

package agent

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

const openPath = unix.O_RDONLY

// errNoProc says that this system tells too little of other processes.
var errNoProc = errors.New("whose process it is cannot be told on this system; let root own the pid_file")

func signalProcess(pid int, s syscall.Signal, check func() error) error {
	if err := check(); err != nil {
		return err
	}
	return syscall.Kill(pid, s)
}

func userOf(int) (int, error) { return -1, errNoProc }

func runs(int, string) (bool, error) { return false, errNoProc }
