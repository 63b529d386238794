package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketFile is a Unix socket that this agent has made. The user of an application may own its
// directory and put another file in its place: every change names the file by its inode.
type socketFile struct {
	path     string
	dev, ino uint64
}

// listenSocket creates a socket with a mode and moves it to its path. It is created in a directory
// that no other user can enter, so it is never open to more users than the mode permits, and no
// other user can replace it before its inode is known.
func listenSocket(path string, mode fs.FileMode) (*net.UnixListener, socketFile, error) {
	file := socketFile{path: path}
	d, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, file, err
	}
	defer d.close()
	name := filepath.Base(path)
	if err := d.removeStaleSocket(name, path); err != nil {
		return nil, file, err
	}
	private := "." + rand.Text()[:10] // short: some systems take 104 bytes of a socket's path
	if err := unix.Mkdirat(d.fd, private, 0o700); err != nil {
		return nil, file, fmt.Errorf("make a directory beside %s: %w", path, err)
	}
	defer func() { _ = unix.Unlinkat(d.fd, private, unix.AT_REMOVEDIR) }() // it is empty then
	in, err := d.enterOwn(private)
	if err != nil {
		return nil, file, fmt.Errorf("make a socket for %s: %w", path, err)
	}
	defer in.close()
	listener, err := in.listenUnix(filepath.Join(filepath.Dir(path), private), "s")
	if err != nil {
		return nil, file, fmt.Errorf("listen on %s: %w", path, err)
	}
	listener.SetUnlinkOnClose(false) // it knows the path before the move
	if err = file.identify(in, "s"); err == nil {
		err = file.chmodIn(in, "s", mode)
	}
	if err == nil {
		err = unix.Renameat(in.fd, "s", d.fd, name)
	}
	if err != nil {
		_ = listener.Close()
		in.remove("s")
		return nil, file, fmt.Errorf("make the socket %s: %w", path, err)
	}
	return listener, file, nil
}

// enterOwn opens a directory that this process has just created: it belongs to its user, and no
// other user can enter it.
func (d directory) enterOwn(name string) (directory, error) {
	fd, err := unix.Openat(d.fd, name, openPath|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return directory{}, err
	}
	var s unix.Stat_t
	err = unix.Fstat(fd, &s)
	if err == nil && (int(s.Uid) != unix.Geteuid() || s.Mode&0o077 != 0) {
		err = errors.New("another user has replaced the directory that was made for it")
	}
	if err != nil {
		_ = unix.Close(fd)
		return directory{}, err
	}
	return directory{fd}, nil
}

// removeStaleSocket removes a socket without a listener, as after a crash.
func (d directory) removeStaleSocket(name, path string) error {
	var s unix.Stat_t
	err := unix.Fstatat(d.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case s.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", d.pathOf(filepath.Dir(path), name), time.Second)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return unix.Unlinkat(d.fd, name, 0)
}

func (f *socketFile) identify(d directory, name string) error {
	var s unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	f.dev, f.ino = uint64(s.Dev), s.Ino
	return nil
}

// is reports whether a file is this socket.
func (f *socketFile) is(s *unix.Stat_t) bool {
	return s.Mode&unix.S_IFMT == unix.S_IFSOCK && uint64(s.Dev) == f.dev && s.Ino == f.ino
}

// chmod sets the mode of the socket, if it is still at its path.
func (f *socketFile) chmod(mode fs.FileMode) error {
	d, err := openDirectory(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	defer d.close()
	return f.chmodIn(d, filepath.Base(f.path), mode)
}

func (f *socketFile) errReplaced() error {
	return fmt.Errorf("%s is no longer the socket that this agent has made: remove it and restart the agent", f.path)
}

// remove removes the socket, if it is still at its path.
func (f *socketFile) remove() {
	d, err := openDirectory(filepath.Dir(f.path))
	if err != nil {
		return // the directory was removed or replaced
	}
	defer d.close()
	var s unix.Stat_t
	name := filepath.Base(f.path)
	if unix.Fstatat(d.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && f.is(&s) {
		d.remove(name)
	}
}
