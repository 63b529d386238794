//go:build linux || darwin

package store

import "syscall"

// freeSpace returns how many bytes the file system of dir has left for this process, and whether it
// is read-only; ok is false if that is not known.
func freeSpace(dir string) (free uint64, readOnly, ok bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, false, false
	}
	const readOnlyFlag = 1 // ST_RDONLY and MNT_RDONLY alike
	return fs.Bavail * uint64(fs.Bsize), fs.Flags&readOnlyFlag != 0, true
}
