package auth

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
)

// windowSize is a multiple of every page size in use and of recordSize.
const windowSize = 3 << 16

// window is a mapped part of a file of records, so that storing one takes no system call. The part
// has its blocks before it is mapped: on most file systems a full disk fails then. Where it does
// not, and when the file has shrunk or its disk fails, the fault of the store is an error.
type window struct {
	data   []byte
	start  int64        // the offset of data in the file
	stored atomic.Int64 // the offset in data of what is free
}

// openWindow writes the first bytes of an empty file and maps its first part.
func openWindow(file *os.File, first []byte) (*window, error) {
	if _, err := file.WriteAt(append(first, make([]byte, windowSize-len(first))...), 0); err != nil {
		return nil, err
	}
	w := &window{}
	w.stored.Store(int64(len(first)))
	return w, w.mapAt(file, 0)
}

func (w *window) mapAt(file *os.File, start int64) error {
	data, err := syscall.Mmap(int(file.Fd()), start, windowSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	w.data, w.start = data, start
	return nil
}

// next makes room: it maps the part of the file that follows. The caller must be the only user of
// w.
func (w *window) next(file *os.File) error {
	start := w.start + windowSize
	if _, err := file.WriteAt(make([]byte, windowSize), start); err != nil {
		return err
	}
	if err := w.close(); err != nil {
		return err
	}
	w.stored.Store(0)
	return w.mapAt(file, start)
}

// store stores a record; it returns false when there is no room. Many may store at a time.
func (w *window) store(r record) (ok bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, fmt.Errorf("store in a mapped file: %v", p)
		}
	}()
	at := w.stored.Add(recordSize) - recordSize
	if at+recordSize > int64(len(w.data)) {
		return false, nil
	}
	b := r.encode()
	copy(w.data[at:], b[:])
	return true, nil
}

// end returns the offset of the free part of the file. The caller must store nothing further.
func (w *window) end() int64 { return w.start + min(w.stored.Load(), windowSize) }

// close unmaps the window, which may be closed already.
func (w *window) close() error {
	if w.data == nil {
		return nil
	}
	data := w.data
	w.data = nil
	return os.NewSyscallError("munmap", syscall.Munmap(data))
}
