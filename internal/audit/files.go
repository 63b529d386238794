package audit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Others may be able to write to the directory of the trail, such as a program that ships logs. So
// no file in it is opened by way of a link or waits to be opened as a named pipe does, no file that
// was there before is taken for a new one, and no file is read without a bound.

const (
	// maxSegment is more than the largest segment, plain: a new one begins behind SegmentBytes, of
	// which maxSegmentBytes is the most, and one batch may cross that line.
	maxSegment      = maxSegmentBytes + maxBatch*maxLine
	maxSegmentBytes = 64 << 20

	// safeOpen is for every file of the directory.
	safeOpen = syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
)

var (
	errNotRegular = errors.New("not a regular file with one name: it is a link, a pipe, a device or a directory")
	errTooLarge   = errors.New("larger than any segment of a trail")
)

// openRegular opens a file of the directory that is there. flag is os.O_RDONLY or os.O_RDWR. A
// link, and anything else that is not a regular file, is errNotRegular; to write, so is a file that
// has a second name.
func openRegular(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|safeOpen, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.EISDIR) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !(info.Mode().IsRegular() && (flag == os.O_RDONLY || hasOneName(info))) {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// hasOneName reports whether a file has no second name, which may be outside of the directory.
func hasOneName(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && s.Nlink <= 1
}

// createNew makes a file of the directory; one that is there, also a link, is os.ErrExist.
func createNew(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|safeOpen, filePerm)
}

// setAside renames what has the name of a file that the server is to make. It follows no link, and
// nothing is lost.
func setAside(path string) (name string, err error) {
	name = filepath.Base(path) + ".foreign-" + rand.Text()
	return name, os.Rename(path, filepath.Join(filepath.Dir(path), name))
}

// openPlain opens a plain segment for reading.
func openPlain(path string) (*os.File, int64, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxSegment {
		err = &fs.PathError{Op: "open", Path: path, Err: errTooLarge}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// bounded reads at most left bytes, and returns errTooLarge when there are more.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// checkSegmentBytes bounds a setting, so that maxSegment holds.
func checkSegmentBytes(n int64) error {
	if n > maxSegmentBytes {
		return fmt.Errorf("audit: a segment of %d bytes is too large: %d is the most", n, int64(maxSegmentBytes))
	}
	return nil
}
