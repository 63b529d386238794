package server

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileIdentity distinguishes a file from every copy of it, by its inode and the time at which that
// was created, to the nanosecond, which no program can set. It is empty where the file system does
// not keep that time.
func fileIdentity(path string) string {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME|unix.STATX_INO, &s); err != nil ||
		s.Mask&unix.STATX_BTIME == 0 {
		return ""
	}
	return fmt.Sprintf("%d-%d.%09d", s.Ino, s.Btime.Sec, s.Btime.Nsec)
}
