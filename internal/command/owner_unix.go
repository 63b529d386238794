//go:build unix

package command

import (
	"io/fs"
	"syscall"
)

// fileOwner returns the user whose file it is; -1 when that is not known.
func fileOwner(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}
