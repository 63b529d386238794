//go:build unix

package server

import "syscall"

// openFiles is how many files the process may open. The Go runtime raises the soft limit to the
// hard one when a process starts.
func openFiles() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return uint64(l.Cur), nil
}
