package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

const lockName = "lock"

var (
	errMissing = errors.New("gap in segments: the segment is empty and the one before it is missing")
	errNamed   = errors.New("gap in segments: the empty segment is not named for the next record")
)

// makeDir makes the directory and its name durable. One that exists keeps its mode: an operator may
// let a shipper's group read it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return fmt.Errorf("audit: make directory: %w", err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("audit: sync directory: %w", err)
	}
	return nil
}

// lock keeps other processes off the trail. The kernel lets go of it when the file is closed,
// however that happens.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := createNew(path)
	if errors.Is(err, os.ErrExist) {
		f, err = openRegular(path, os.O_RDWR)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("another keyturn uses the audit trail %s: stop it, or choose another data directory", dir)
	}
	return nil, fmt.Errorf("audit: lock %s: %w", dir, err)
}

// Reserve keeps servers off the trail in dir until release is called. A directory that is not there
// is not made.
func Reserve(dir string) (release func(), err error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return func() {}, nil
	}
	held, err := lock(dir)
	if err != nil {
		return nil, err
	}
	return func() { _ = held.Close() }, nil
}

// endBefore returns the end of the chain when the last segment has no record yet.
func endBefore(files []string) (link, error) {
	last := files[len(files)-1]
	first := segmentSeq(filepath.Base(last))
	if len(files) == 1 {
		if first != 1 {
			return link{}, badLine(last, 1, errMissing)
		}
		return link{hash: genesis}, nil
	}
	t, err := readTail(files[len(files)-2])
	if err != nil {
		return link{}, err
	}
	if t.whole != t.size || t.end.seq+1 != first {
		return link{}, badLine(last, 1, errNamed)
	}
	return t.end, nil
}

// cutTail cuts torn bytes off the segment. The sync comes even when there are none: what a process
// wrote before it was killed is not on disk for sure.
func (w *writer) cutTail(torn int64) error {
	if torn > 0 {
		if err := w.f.Truncate(w.size); err != nil {
			return fmt.Errorf("audit: cut unfinished line: %w", err)
		}
		e := newEntry()
		if err := e.set(recoveredRecord(w.name, torn), true); err != nil {
			return err
		}
		if err := w.writeLines([]*entry{e}); err != nil {
			return err
		}
	}
	return w.flushFirst()
}

func (w *writer) flushFirst() error {
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("audit: sync %s: %w", w.name, err)
	}
	w.synced, w.unsynced = w.size, w.unsynced[:0]
	w.reached(w.end)
	return nil
}

// tail is the end of a segment: size bytes, of which the first whole end in a newline.
type tail struct {
	end         link
	whole, size int64
}

// readTail reads the last whole line of a segment and checks it. The lines before are Verify's
// business: a server should not read 64 MiB before it starts.
func readTail(name string) (tail, error) {
	if segmentExtOf(name) == compressedExt {
		return readCompressedTail(name)
	}
	f, size, err := openPlain(name)
	if err != nil {
		return tail{}, fmt.Errorf("audit: read segment: %w", err)
	}
	defer func() { _ = f.Close() }()
	t := tail{size: size}
	if t.whole, err = afterNewline(f, t.size); err != nil || t.whole == 0 {
		return t, err
	}
	start, err := afterNewline(f, t.whole-1)
	if err != nil {
		return t, err
	}
	t.end, err = readLine(f, start, t.whole-1)
	if err == nil {
		return t, nil
	}
	n, countErr := countLines(io.NewSectionReader(f, 0, t.whole))
	if countErr != nil {
		return t, countErr
	}
	return t, badLine(name, n, err)
}

func readLine(f io.ReaderAt, start, end int64) (link, error) {
	if end-start > maxLine {
		return link{}, errLineTooLong
	}
	line := make([]byte, end-start)
	if _, err := f.ReadAt(line, start); err != nil {
		return link{}, err
	}
	r, err := checkLine(line)
	if err != nil {
		return link{}, err
	}
	return link{}.follow(r)
}

// afterNewline returns the offset behind the last newline in the first n bytes, 0 when there is
// none.
func afterNewline(f io.ReaderAt, n int64) (int64, error) {
	chunk := make([]byte, 64<<10)
	for n > 0 {
		size := min(n, int64(len(chunk)))
		if _, err := f.ReadAt(chunk[:size], n-size); err != nil {
			return 0, fmt.Errorf("audit: read segment: %w", err)
		}
		if i := bytes.LastIndexByte(chunk[:size], '\n'); i >= 0 {
			return n - size + int64(i) + 1, nil
		}
		n -= size
	}
	return 0, nil
}

func countLines(r io.Reader) (lines int, err error) {
	chunk := make([]byte, 64<<10)
	for {
		k, err := r.Read(chunk)
		lines += bytes.Count(chunk[:k], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, fmt.Errorf("audit: read segment: %w", err)
		}
	}
}

func readCompressedTail(name string) (t tail, err error) {
	var last []byte
	n := 0
	err = eachLine(name, func(line []byte, whole bool) error {
		n++
		t.size += int64(len(line)) + 1
		if !whole {
			return errUnfinished
		}
		if len(line) <= sealSize {
			return errNoHash
		}
		last = append(last[:0], line...)
		return nil
	})
	t.whole = t.size
	if err == nil && n > 0 {
		var r Record
		if r, err = checkLine(last); err == nil {
			t.end, err = link{}.follow(r)
		}
	}
	if err != nil {
		return t, badLine(name, n, err)
	}
	return t, nil
}
