package cli

import (
	"errors"

	"golang.org/x/sys/unix"
)

// keepMemory keeps the memory of this process from core dumps and from debuggers of the same user.
// Children start with the limit on core files too.
func keepMemory() error {
	return errors.Join(
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}),
	)
}
