//go:build unix && !linux

package agent

import (
	"io/fs"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pathOf is the path of a name in a directory. Without /proc it is looked up again.
func (directory) pathOf(path, name string) string { return filepath.Join(path, name) }

// listenUnix makes a socket in the directory.
func (d directory) listenUnix(path, name string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: d.pathOf(path, name), Net: "unix"})
}

// chmodIn sets the mode of the socket at a name in a directory. It follows no symbolic link.
func (f *socketFile) chmodIn(d directory, name string, mode fs.FileMode) error {
	var s unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if !f.is(&s) {
		return f.errReplaced()
	}
	return unix.Fchmodat(d.fd, name, uint32(mode.Perm()), unix.AT_SYMLINK_NOFOLLOW)
}
