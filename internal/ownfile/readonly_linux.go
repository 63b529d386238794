package ownfile

import "syscall"

const stReadOnly = 1 // ST_RDONLY

// onReadOnly reports whether path is on a file system that is mounted read-only for this process.
func onReadOnly(path string) bool {
	var s syscall.Statfs_t
	return syscall.Statfs(path, &s) == nil && s.Flags&stReadOnly != 0
}
