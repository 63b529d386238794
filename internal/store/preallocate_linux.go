package store

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// preallocated remembers the file whose blocks were allocated last, and its size.
type preallocated struct{ file fs.FileInfo }

// update allocates the blocks of the whole file at path. bbolt extends its file without allocating
// blocks, so a later write into it fails if another program has filled the disk, and etcd then ends
// the process. update does nothing on file systems that cannot preallocate.
func (p *preallocated) update(path string) error {
	now, err := os.Stat(path)
	if err != nil {
		return err
	}
	if p.file != nil && os.SameFile(p.file, now) && p.file.Size() == now.Size() {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	p.file = now // a failure is reported once for each size of the file
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, now.Size())
	if err != nil && err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return &fs.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return nil
}
