package agent

import (
	"fmt"
	"io/fs"
	"net"

	"golang.org/x/sys/unix"
)

// pathOf is a path to a name in the open directory, whatever the directory's own path leads to.
func (d directory) pathOf(_, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name)
}

// listenUnix makes a socket in the directory.
func (d directory) listenUnix(path, name string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: d.pathOf(path, name), Net: "unix"})
}

// chmodIn sets the mode of the socket at a name in a directory. fchmod does not take a socket, and
// fchmodat follows symbolic links on Linux before 6.6: the descriptor's own path does neither.
func (f *socketFile) chmodIn(d directory, name string, mode fs.FileMode) error {
	fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written through it
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return err
	}
	if !f.is(&s) {
		return f.errReplaced()
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode.Perm()))
}
