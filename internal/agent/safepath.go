package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links on the way to a directory.
const maxLinks = 40

// directory is an open directory. What is done in it happens there, whatever its path leads to
// meanwhile.
type directory struct{ fd int }

func (d directory) close() { _ = unix.Close(d.fd) } // nothing was written through it

// openDirectory opens the directory at a path, one step after the other. A symbolic link is
// followed only if no other user than root and the agent's own can have made it: the user of an
// application could otherwise lead the agent, which may be root, elsewhere.
func openDirectory(path string) (directory, error) {
	d, err := openRoot()
	if err != nil {
		return directory{}, err
	}
	links := 0
	rest := strings.Split(path, "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		next, err := unix.Openat(d.fd, name, openPath|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			d.close()
			d = directory{next}
			continue
		}
		if !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			d.close()
			return directory{}, fmt.Errorf("open %s: %s: %w", path, name, err)
		}
		target, err := d.trustedLink(name)
		if err == nil && links == maxLinks {
			err = unix.ELOOP
		}
		if err != nil {
			d.close()
			return directory{}, fmt.Errorf("open %s: %s: %w", path, name, err)
		}
		links++
		if strings.HasPrefix(target, "/") {
			d.close()
			if d, err = openRoot(); err != nil {
				return directory{}, err
			}
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return d, nil
}

func openRoot() (directory, error) {
	fd, err := unix.Open("/", openPath|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return directory{}, fmt.Errorf("open /: %w", err)
	}
	return directory{fd}, nil
}

// trustedLink returns where a symbolic link leads, if only root and our own user can have
// made it.
func (d directory) trustedLink(name string) (string, error) {
	var link unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &link, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", err
	}
	if link.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", unix.ENOTDIR
	}
	if !ours(link.Uid) || !d.onlyOurs() {
		return "", errors.New("is a symbolic link that another user may have made")
	}
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(d.fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// onlyOurs reports whether only root and our own user can replace what is in the directory of
// root or our own user. In one with the sticky bit others can only add.
func (d directory) onlyOurs() bool {
	var s unix.Stat_t
	if unix.Fstat(d.fd, &s) != nil {
		return false
	}
	return ours(s.Uid) && (s.Mode&0o022 == 0 || s.Mode&unix.S_ISVTX != 0)
}

// ours reports whether a user is root or the agent's own.
func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// open opens a file in the directory for reading; a symbolic link is refused.
func (d directory) open(name string) (*os.File, unix.Stat_t, error) {
	var s unix.Stat_t
	// Without O_NONBLOCK a named pipe would be waited for.
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, s, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Fstat(fd, &s); err != nil {
		_ = f.Close()
		return nil, s, err
	}
	if s.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = f.Close()
		return nil, s, fmt.Errorf("%s is not a regular file", name)
	}
	return f, s, nil
}

// readIn reads a file of at most most bytes by way of its directory.
func readIn(path string, most int64) ([]byte, unix.Stat_t, error) {
	d, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	defer d.close()
	f, s, err := d.open(filepath.Base(path))
	if err != nil {
		return nil, s, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, s, err
}

// isRegularOrAbsent refuses a name that is taken by something else than a file.
func (d directory) isRegularOrAbsent(name string) error {
	var s unix.Stat_t
	err := unix.Fstatat(d.fd, name, &s, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil && s.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", name)
	}
	return err
}

// create makes a new file of mode 0600.
func (d directory) create(name string) (*os.File, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (d directory) rename(from, to string) error { return unix.Renameat(d.fd, from, d.fd, to) }

func (d directory) remove(name string) { _ = unix.Unlinkat(d.fd, name, 0) } // it may have been renamed

// sync has the directory's entries written to the disk, where the file system can.
func (d directory) sync() {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // a directory that may be entered and not listed
	}
	_ = unix.Fsync(fd)
	_ = unix.Close(fd)
}
