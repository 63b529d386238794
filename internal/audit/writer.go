package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	filePerm = 0o600
	dirPerm  = 0o700

	// maxUnsynced bounds the bytes kept for a second try; beyond it they are put on disk at once.
	maxUnsynced = 8 << 20
)

// file is what the writer needs of a segment; tests put a failing one in its place.
type file interface {
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// openFile opens a segment; create makes a new one.
func openFile(name string, create bool) (f file, err error) {
	if create {
		f, err = createNew(name)
	} else {
		f, err = openRegular(name, os.O_RDWR)
	}
	if err != nil {
		return nil, err // and no typed nil
	}
	return f, nil
}

// writer appends to the last segment. One goroutine owns it; an fsync runs beside it, so that a
// read does not wait for the disk because of a change.
//
// After a failed fsync the kernel may have dropped the pages and call the next fsync a success. So
// the bytes written since the last good one are kept, and repair writes them again.
type writer struct {
	dir          string
	segmentBytes int64
	now          func() time.Time
	log          *slog.Logger
	open         func(name string, create bool) (file, error)

	f        file
	name     string
	end      link
	start    link // what the first record of the segment follows; zero when that is not known
	key      *macer
	endSync  link                 // the last record that the sync under way covers
	onDisk   atomic.Pointer[link] // endOnDisk, for others
	rotated  chan struct{}        // has a token after a segment was finished
	info     os.FileInfo          // which file f is; nil when that is not known
	losses   atomic.Uint64
	damaged  atomic.Uint64
	file     atomic.Pointer[string] // path of the segment in use
	finished chan struct{}          // has a token after a segment was finished and the next has a record, for Keep
	fresh    bool                   // no record was written since begin
	size     int64                  // length of the whole records in f; nothing behind it counts
	synced   int64                  // length that is on disk
	unsynced []byte                 // what lies between the two
	broken   error                  // set when f must be repaired before it is used
	failing  atomic.Bool            // the last batch or sync failed, and the log says so; Failing reads it

	buf     []byte
	waiting []*entry // written, and wait for a sync to begin
	running []*entry // wait for the sync under way
	upTo    int64    // what that sync covers
	done    chan error
	syncing bool
}

// write appends the batch. It answers callers that want no sync at once, and the others when their
// records are on disk.
func (w *writer) write(batch []*entry) {
	err := w.ready()
	if err == nil {
		err = w.writeLines(batch)
	}
	w.note(err)
	for _, e := range batch {
		switch {
		case err != nil || !e.durable:
			e.done <- err
		default:
			w.waiting = append(w.waiting, e)
		}
	}
	if len(w.waiting) > 0 || len(w.unsynced) > maxUnsynced {
		w.startSync()
	}
}

func (w *writer) writeLines(batch []*entry) error {
	end := w.end
	w.buf = w.buf[:0]
	for _, e := range batch {
		w.buf, end = appendLine(w.buf, end, w.now(), e.members, w.key)
	}
	n, err := w.f.WriteAt(w.buf, w.size)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		// The part of the batch that arrived is cut off again: now, or before the next batch if the disk
		// fails.
		if cutErr := w.f.Truncate(w.size); cutErr != nil {
			w.broken = cutErr
		}
		return fmt.Errorf("audit: write %s: %w", w.name, err)
	}
	w.end = end
	w.size += int64(len(w.buf))
	w.unsynced = append(w.unsynced, w.buf...)
	if w.fresh { // Keep verifies a segment by the first record of the next
		w.fresh = false
		signal(w.finished)
	}
	return nil
}

// signal puts a token into a channel of size 1, unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ready makes the segment fit to take a batch.
func (w *writer) ready() error {
	if !w.whole() || w.size >= w.segmentBytes { // check a full segment before leaving it
		w.lookForLoss()
	}
	if w.broken != nil {
		if err := w.repair(); err != nil {
			return err
		}
	}
	if len(w.unsynced) > 2*maxUnsynced {
		w.settle() // the disk is slower than the callers: they wait for it
	}
	if w.size < w.segmentBytes {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.begin(w.end)
}

// begin makes the segment for the record after end. What has its name already is renamed: an
// earlier try has left it, whose records were never acknowledged, or it is not the server's.
func (w *writer) begin(end link) error {
	name := segmentName(end.seq + 1)
	path := filepath.Join(w.dir, name)
	f, err := w.open(path, true)
	if errors.Is(err, os.ErrExist) {
		var aside string
		if aside, err = setAside(path); err == nil {
			w.log.Error("the audit trail's next file was there already, and was renamed", "segment", name, "renamed_to", aside)
			f, err = w.open(path, true)
		}
	}
	if err != nil {
		return fmt.Errorf("audit: open segment: %w", err)
	}
	if err = syncDir(w.dir); err != nil {
		_ = f.Close()
		_ = os.Remove(path) // it is empty, and the next try makes it again
		return fmt.Errorf("audit: begin segment %s: %w", name, err)
	}
	if w.f != nil {
		_ = w.f.Close() // flushed: nothing is left to lose
	}
	w.f, w.name, w.end, w.start, w.size, w.synced = f, name, end, end, 0, 0
	w.remember()
	w.fresh = true
	signal(w.rotated)
	return nil
}

// errAnotherFile means that the segment in use has lost its name to another file.
var errAnotherFile = errors.New("another file has its name")

// statOf describes an open segment; nil when that is not known, as of a file that a test made.
func statOf(f file) (os.FileInfo, error) {
	if s, ok := f.(interface{ Stat() (os.FileInfo, error) }); ok {
		return s.Stat()
	}
	return nil, errors.ErrUnsupported
}

// repair opens the segment anew, cuts off what does not count, and writes again what may not have
// reached the disk.
func (w *writer) repair() error {
	w.settle()
	err := w.reopen()
	if errors.Is(err, errAnotherFile) || errors.Is(err, errNotRegular) || errors.Is(err, os.ErrNotExist) {
		return w.takenAway()
	}
	if err != nil {
		err = fmt.Errorf("audit: repair segment %s: %w", w.name, err)
	} else {
		w.broken, w.synced, w.unsynced = nil, w.size, w.unsynced[:0]
		w.reached(w.end)
	}
	answer(w.waiting, err)
	w.waiting = nil
	w.note(err)
	return err
}

func (w *writer) reopen() error {
	f, err := w.open(filepath.Join(w.dir, w.name), false)
	if err != nil {
		return err
	}
	if info, statErr := statOf(f); w.info != nil && statErr == nil && !os.SameFile(info, w.info) {
		_ = f.Close()
		return errAnotherFile
	}
	if err = f.Truncate(w.size); err == nil && len(w.unsynced) > 0 {
		_, err = f.WriteAt(w.unsynced, w.synced)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	_ = w.f.Close()
	w.f = f
	w.remember()
	return nil
}

// tick puts on disk what has been waiting since the last tick. It also repairs a trail to which no
// call writes, and notices that the segment was taken away or cut while the server runs.
func (w *writer) tick() {
	w.lookForLoss()
	switch {
	case w.broken != nil:
		_ = w.repair() // noted there; the next caller sees it too
	case w.synced < w.size:
		w.startSync()
	}
}

// startSync begins an fsync that covers all written so far, unless one is under way.
func (w *writer) startSync() {
	if w.syncing {
		return
	}
	w.syncing, w.upTo, w.endSync = true, w.size, w.end
	w.running, w.waiting = w.waiting, nil
	f := w.f
	go func() { w.done <- f.Sync() }()
}

// finish answers those who waited for the sync that ended with err. When it failed, what came after
// it is not on disk either.
func (w *writer) finish(err error) {
	w.syncing = false
	if err != nil {
		err = fmt.Errorf("audit: sync %s: %w", w.name, err)
		w.broken = err
		answer(w.waiting, err)
		w.waiting = nil
		w.note(err)
	} else {
		rest := copy(w.unsynced, w.unsynced[w.upTo-w.synced:])
		w.unsynced, w.synced = w.unsynced[:rest], w.upTo
		w.reached(w.endSync)
	}
	answer(w.running, err)
	w.running = nil
}

// reached notes that all records up to end are on disk.
func (w *writer) reached(end link) { w.onDisk.Store(&end) }

// settle waits for the sync under way.
func (w *writer) settle() {
	if w.syncing {
		w.finish(<-w.done)
	}
}

// flush puts everything on disk and answers everybody.
func (w *writer) flush() error {
	w.settle()
	if w.broken != nil {
		return w.repair()
	}
	if w.synced < w.size {
		w.startSync()
		w.settle()
	}
	return w.broken
}

// note logs when the trail stops and when it goes on. The errors between reach the callers.
func (w *writer) note(err error) {
	switch {
	case err != nil && !w.failing.Load():
		w.log.Error("audit trail cannot be written", "dir", w.dir, "segment", w.name, "err", err)
	case err == nil && w.failing.Load():
		w.log.Info("audit trail is written again", "dir", w.dir, "segment", w.name)
	}
	w.failing.Store(err != nil)
}

func answer(entries []*entry, err error) {
	for _, e := range entries {
		e.done <- err
	}
}

// syncDir makes the names in dir survive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
