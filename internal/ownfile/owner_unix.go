//go:build unix

package ownfile

import (
	"io/fs"
	"syscall"
)

// owners returns the IDs of the user and the group that a file belongs to.
func owners(info fs.FileInfo) (user, group int) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1
	}
	return int(s.Uid), int(s.Gid)
}
