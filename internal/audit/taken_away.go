package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lost counts and logs a loss.
func (w *writer) lost(loss Loss, found string) {
	w.losses.Add(1)
	w.log.Error("the audit trail has lost records: "+adviceAfterLoss,
		"loss", string(loss), "what", lossText[loss], "found", found, "dir", w.dir)
}

// remember notes which file the segment is.
func (w *writer) remember() {
	path := filepath.Join(w.dir, w.name)
	w.file.Store(&path)
	w.info, _ = statOf(w.f) // nil turns lookForLoss off
}

// current is the path of the segment in use.
func (w *writer) current() string {
	if path := w.file.Load(); path != nil {
		return *path
	}
	return ""
}

// whole reports whether the open segment still has a name and all that was written to it. It costs
// less than lookForLoss, which also finds that the name is another file's.
func (w *writer) whole() bool {
	f, ok := w.f.(*os.File)
	if !ok {
		return false
	}
	var s syscall.Stat_t
	return syscall.Fstat(int(f.Fd()), &s) == nil && s.Nlink > 0 && s.Size >= w.size
}

// lookForLoss notices that the segment in use was removed, replaced or cut, and continues in a new
// one.
func (w *writer) lookForLoss() {
	if w.info == nil || w.broken != nil {
		return
	}
	info, err := os.Lstat(filepath.Join(w.dir, w.name))
	if err == nil && os.SameFile(info, w.info) && info.Size() >= w.size || err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	w.settle()
	if w.broken != nil {
		return
	}
	_ = w.takenAway() // noted there; the next caller sees it too
}

// takenAway records that the segment in use is no longer there as it was written, and continues in
// a new one.
func (w *writer) takenAway() error {
	end, name, found := w.end, w.name, w.foundOnDisk()
	w.lost(LossWhileInUse, name)
	err := os.MkdirAll(w.dir, dirPerm)
	if err == nil {
		err = w.begin(end)
	}
	if err == nil {
		w.broken, w.unsynced = nil, w.unsynced[:0]
		e := newEntry()
		if err = e.set(gapRecord(LossWhileInUse, name, "", found, Head{Seq: end.seq, Hash: end.hash}), true); err == nil {
			err = w.writeLines([]*entry{e})
		}
	}
	if err != nil {
		w.broken = err
	}
	answer(w.waiting, errors.Join(fmt.Errorf("audit: segment %s was taken away", name), err))
	w.waiting = nil
	w.note(err)
	return err
}

// foundOnDisk returns the end of what is left of the trail when the segment in use was taken away.
// A file that cannot be read does not count.
func (w *writer) foundOnDisk() link {
	if t, err := readTail(filepath.Join(w.dir, w.name)); err == nil && t.end.hash != "" && t.end.seq < w.end.seq {
		return t.end
	}
	return w.start
}
