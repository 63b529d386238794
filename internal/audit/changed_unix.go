//go:build !darwin && !freebsd && !netbsd

package audit

import "syscall"

// changeTime returns when the file or its description changed last.
func changeTime(s *syscall.Stat_t) (sec, nsec int64) { return s.Ctim.Unix() }
