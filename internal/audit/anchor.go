package audit

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Gap is the operation of the record that begins what follows a loss: the trail does not hold the
// records that it should hold. Its outcome says what was found.
const Gap = "audit.gap"

// Adopted is the operation of the record that Resume appends to a trail that was written without a
// key.
const Adopted = "audit.adopted"

// Loss is what was found when a trail was compared with its head. It is a stable token: the outcome
// of a Gap record.
type Loss string

// The losses. lossText says in words what each means.
const (
	LossEmptied    Loss = "emptied"
	LossTruncated  Loss = "truncated"
	LossReplaced   Loss = "replaced"
	LossForked     Loss = "forked"
	LossDamaged    Loss = "damaged"
	LossBeginning  Loss = "beginning-missing"
	LossHead       Loss = "head-missing"
	LossAnotherKey Loss = "another-key"
	LossWhileInUse Loss = "taken-away"
	LossForeign    Loss = "foreign-file"

	adviceAfterLoss = "keep what is left of the trail as evidence, find out who can write to its directory, and compare with the copies in the sinks"
)

var lossText = map[Loss]string{
	LossEmptied:    "the trail's directory holds no record",
	LossTruncated:  "the trail ends before the last record that the store knows of: records were cut off, or an older copy was restored",
	LossReplaced:   "the trail holds another record in the place of the last one that the store knows of: it was rewritten",
	LossForked:     "the records behind the last one that the store knows of were not written by the server",
	LossDamaged:    "the end of the trail cannot be read",
	LossBeginning:  "records are missing from the beginning of the trail, and retention did not remove them",
	LossHead:       "the store has lost what it knew of this trail",
	LossAnotherKey: "the trail was written under the key of another store",
	LossWhileInUse: "the segment in use was taken away or cut while the server ran",
	LossForeign:    "the trail's directory holds a file that has the name of a segment and that the server cannot have written",
}

// Head is what a store keeps of a trail, so that a loss of records is found. It belongs to one
// node.
type Head struct {
	Node string `json:"node"`
	// Seq and Hash are of the last record that is known to be on disk; 0 when there is none.
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
	// First is the first record that must be there: retention has removed those before.
	First uint64 `json:"first"`
	// KeyedFrom is the first record that must have a MAC under the trail's key.
	KeyedFrom uint64 `json:"keyed_from"`
}

// Anchor is what a trail is held to when it resumes.
type Anchor struct {
	Node string
	Key  *Key
	// Head is what was kept last; nil when nothing was.
	Head *Head
	// Expected says that something must have been kept.
	Expected bool
	// Strict refuses to resume after a loss. Otherwise the trail begins anew behind it, with a
	// record that says so.
	Strict bool
}

// LossError means that a strict trail was not resumed.
type LossError struct {
	Loss  Loss
	found string
}

func (e *LossError) Error() string {
	return fmt.Sprintf("audit: %s (%s): %s; then start once without audit-strict", lossText[e.Loss], e.found, adviceAfterLoss)
}

// Peek returns the head of a trail that has none yet, before Resume. A trail whose end cannot be
// read is an error.
func (l *Log) Peek(node string) (Head, error) {
	end, err := findEnd(l.cfg.Dir, nil)
	if err = errors.Join(err, end.err); err != nil {
		return Head{}, err
	}
	h := Head{Node: node, Seq: end.tail.end.seq, Hash: end.tail.end.hash, First: 1, KeyedFrom: end.tail.end.seq + 1}
	if len(end.files) > 0 {
		h.First = segmentSeq(filepath.Base(end.files[0]))
	}
	return h, nil
}

// ending is the end of a trail as it is on disk.
type ending struct {
	files []string
	tail  tail
	err   error  // why the end cannot be read
	least uint64 // no record of the trail has a greater number
	// foreign are the files that have the name of a segment and cannot be one. They are left alone.
	foreign []string
}

// maxAhead bounds how far the name of a segment may be ahead of the head. The server stores the head
// every few seconds.
const maxAhead = 1 << 32

// findEnd reads the end of the trail in dir. head is nil when it is not known.
func findEnd(dir string, head *Head) (ending, error) {
	e := ending{tail: tail{end: link{hash: genesis}}}
	all, err := segments(dir)
	if err != nil {
		return e, err
	}
	for _, file := range all {
		info, err := os.Lstat(file)
		if err != nil {
			return e, fmt.Errorf("audit: read segment: %w", err)
		}
		first := segmentSeq(filepath.Base(file))
		if !info.Mode().IsRegular() || head != nil && first > head.Seq && first-head.Seq > maxAhead {
			e.foreign = append(e.foreign, file)
		} else {
			e.files = append(e.files, file)
		}
	}
	files := e.files
	if len(files) == 0 {
		return e, nil
	}
	last := files[len(files)-1]
	e.least = segmentSeq(filepath.Base(last)) - 1
	if e.tail, e.err = readTail(last); e.err == nil && e.tail.whole == 0 {
		e.tail.end, e.err = endBefore(files)
	}
	if e.err != nil {
		lines, err := lineCount(last)
		if errors.Is(err, fs.ErrPermission) {
			return e, err
		}
		if err != nil {
			lines = maxSegment / uint64(sealSize)
		}
		e.least += lines + 1
		return e, nil
	}
	e.least = max(e.least, e.tail.end.seq)
	return e, nil
}

// found returns the last record that can be read: of the last segment, or else of the one before. It
// is zero when neither can be read.
func (e *ending) found() link {
	if e.err == nil {
		return e.tail.end
	}
	if len(e.files) < 2 {
		return link{hash: genesis}
	}
	t, err := readTail(e.files[len(e.files)-2])
	if err != nil {
		return link{}
	}
	return t.end
}

func lineCount(file string) (n uint64, err error) {
	f, err := openSegment(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines, err := countLines(f)
	return uint64(lines), err
}

// Resume finds the end of the trail, compares it with the anchor, and makes the log ready to
// continue. Without an anchor the trail has no key, and an end that cannot be read is an error. An
// unfinished last line was never acknowledged, so it is cut off, and a record says so. After a loss
// it returns nil, unless the anchor is strict: it is logged, counted and recorded.
func (l *Log) Resume(a *Anchor) error {
	var known *Head
	if a != nil {
		known = a.Head
	}
	end, err := findEnd(l.cfg.Dir, known)
	if err != nil {
		return err
	}
	if a == nil {
		if len(end.foreign) > 0 {
			return badLine(end.foreign[0], 1, errNotRegular)
		}
		if end.err != nil {
			return end.err
		}
		return l.w.continueAt(end)
	}
	l.key, l.w.key = a.Key, a.Key.macer()
	head := Head{Node: a.Node, First: 1, KeyedFrom: end.tail.end.seq + 1}
	if a.Head != nil {
		head = *a.Head
	} else if len(end.files) > 0 {
		head.First = segmentSeq(filepath.Base(end.files[0]))
	}
	loss, found := l.compare(a, end)
	if loss != "" && a.Strict {
		return &LossError{loss, found}
	}
	if loss == "" && end.err != nil {
		return end.err // nothing was ever kept of a trail whose end cannot be read: an operator must look
	}
	after := end.tail.end
	var records []Record
	switch loss {
	case "":
		if err := l.w.continueAt(end); err != nil {
			return err
		}
		if a.Head == nil && after.seq > 0 {
			records = append(records, adoptedRecord(a.Node, after))
		}
	case LossBeginning, LossHead, LossAnotherKey, LossForeign:
		if err := l.w.continueAt(end); err != nil {
			return err
		}
		if loss == LossBeginning {
			head.First = min(segmentSeq(filepath.Base(end.files[0])), after.seq+1)
		}
	default:
		after = link{seq: max(end.least, head.Seq), hash: cmp.Or(head.Hash, genesis)}
		if loss == LossEmptied {
			head.First = after.seq + 1
		}
		if err := l.w.begin(after); err != nil {
			return err
		}
	}
	if loss != "" {
		l.w.lost(loss, found)
		records = append(records, gapRecord(loss, found, a.Node, end.found(), head))
	}
	l.mu.Lock()
	l.head = head
	l.mu.Unlock()
	return l.w.appendFirst(records)
}

func adoptedRecord(node string, end link) Record {
	return Record{
		Phase: Call, PrincipalType: "system", Operation: Adopted, Outcome: "ok",
		Note:    "from here on the records have a MAC, and the store keeps the head of the trail",
		Details: Details{{"node", node}, {"last_seq", strconv.FormatUint(end.seq, 10)}, {"last_hash", end.hash}},
	}
}

func gapRecord(loss Loss, found, node string, end link, head Head) Record {
	return Record{
		Phase: Call, PrincipalType: "system", Operation: Gap, Outcome: string(loss), Note: lossText[loss],
		Details: Details{
			{"node", node}, {"found", found},
			{"found_seq", strconv.FormatUint(end.seq, 10)}, {"found_hash", end.hash},
			{"stored_seq", strconv.FormatUint(head.Seq, 10)}, {"stored_hash", head.Hash},
		},
	}
}

// compare says what the trail has lost; empty when nothing. found tells it in numbers.
func (l *Log) compare(a *Anchor, end ending) (loss Loss, found string) {
	loss, found = l.compareRecords(a, end)
	if loss == "" && end.err == nil && len(end.foreign) > 0 {
		return LossForeign, filepath.Base(end.foreign[0])
	}
	return loss, found
}

func (l *Log) compareRecords(a *Anchor, end ending) (loss Loss, found string) {
	last := end.tail.end
	if a.Head == nil {
		switch {
		case end.err != nil && a.Expected:
			return LossDamaged, end.err.Error()
		case a.Expected:
			return LossHead, fmt.Sprintf("the trail ends with record %d", last.seq)
		case end.err == nil && last.seq > 0 && !lastKeyed(end.files, a.Key):
			return LossAnotherKey, fmt.Sprintf("record %d", last.seq)
		}
		return "", ""
	}
	h := *a.Head
	switch {
	case end.err != nil:
		return LossDamaged, end.err.Error()
	case last.seq == 0 && h.Seq > 0:
		return LossEmptied, fmt.Sprintf("records %d to %d are missing", h.First, h.Seq)
	case last.seq < h.Seq:
		return LossTruncated, fmt.Sprintf("records %d to %d are missing", last.seq+1, h.Seq)
	case last.seq == h.Seq && h.Seq > 0 && last.hash != h.Hash:
		return LossReplaced, fmt.Sprintf("record %d has the hash %s", h.Seq, last.hash)
	case last.seq > h.Seq:
		if loss, found := l.compareBehind(a, end.files); loss != "" {
			return loss, found
		}
	}
	if len(end.files) > 0 && segmentSeq(filepath.Base(end.files[0])) > h.First {
		return LossBeginning, fmt.Sprintf("the trail begins with record %d instead of %d", segmentSeq(filepath.Base(end.files[0])), h.First)
	}
	return "", ""
}

// lastKeyed reports whether the last record of a trail has no MAC, or one under the key.
func lastKeyed(files []string, key *Key) bool {
	ok := true
	for i := len(files) - 1; i >= 0; i-- {
		err := eachLine(files[i], func(line []byte, whole bool) error {
			if !whole {
				return nil
			}
			r, err := checkLine(line)
			ok = err == nil && (r.MAC == "" || key.macer().check(line, r) == nil)
			return nil
		})
		if info, statErr := os.Lstat(files[i]); err != nil || statErr != nil || info.Size() > 0 {
			return ok && err == nil
		}
	}
	return ok
}

// compareBehind looks at the records from the head on: after a crash there may be some behind it,
// written by the server.
func (l *Log) compareBehind(a *Anchor, files []string) (Loss, string) {
	h, key := *a.Head, a.Key.macer()
	at := link{seq: h.Seq, hash: h.Hash}
	known := h.Seq == 0
	for i, file := range files {
		if i+1 < len(files) && segmentSeq(filepath.Base(files[i+1])) <= h.Seq {
			continue
		}
		err := eachLine(file, func(line []byte, whole bool) error {
			if seq := lineSeq(line); !whole || seq != 0 && seq < h.Seq {
				return nil
			}
			r, err := checkLine(line)
			switch {
			case err != nil:
				return err
			case !known && (r.Seq != h.Seq || r.Hash != h.Hash):
				return errReplaced
			case !known:
				known = true
				return nil
			}
			if r.Seq >= h.KeyedFrom {
				if err := checkMAC(key, line, r); err != nil {
					return fmt.Errorf("record %d: %w", r.Seq, err)
				}
			}
			if r.Operation == Gap && r.MAC != "" {
				at = link{}
			}
			at, err = at.follow(r)
			return err
		})
		switch {
		case errors.Is(err, errReplaced):
			return LossReplaced, fmt.Sprintf("record %d", h.Seq)
		case err != nil:
			return LossForked, fmt.Sprintf("%s: %v", filepath.Base(file), err)
		}
	}
	if !known {
		return LossReplaced, fmt.Sprintf("record %d is not there", h.Seq)
	}
	return "", ""
}

var errReplaced = errors.New("another record")

func checkMAC(key *macer, line []byte, r Record) error {
	if r.MAC == "" {
		return errNotKeyed
	}
	return key.check(line, r)
}

// Head is what must be kept of the trail now: all of its records are on disk.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.head
	if end := l.w.onDisk.Load(); end != nil {
		h.Seq, h.Hash = end.seq, end.hash
	}
	return h
}

// Losses counts the losses that this process has found.
func (l *Log) Losses() uint64 { return l.w.losses.Load() }

// Rotated receives after a segment was finished.
func (l *Log) Rotated() <-chan struct{} { return l.w.rotated }

// continueAt makes the writer ready to append behind the end.
func (w *writer) continueAt(end ending) error {
	if len(end.files) == 0 || segmentExtOf(end.files[len(end.files)-1]) != segmentExt {
		return w.begin(end.tail.end)
	}
	last := end.files[len(end.files)-1]
	f, err := w.open(last, false)
	if errors.Is(err, errNotRegular) && end.tail.size == end.tail.whole {
		return w.begin(end.tail.end) // it has a second name, as a copy by links has: it is left as it is
	}
	if err != nil {
		return fmt.Errorf("audit: open segment: %w", err)
	}
	w.f, w.name, w.end, w.size, w.synced = f, filepath.Base(last), end.tail.end, end.tail.whole, end.tail.whole
	w.start = startOf(last)
	w.remember()
	return w.cutTail(end.tail.size - end.tail.whole)
}

// startOf returns what the first record of a segment follows; zero when that is not known.
func startOf(file string) (l link) {
	r, err := firstRecord(file, nil)
	if err != nil || r.Seq == 0 {
		return link{}
	}
	return link{seq: r.Seq - 1, hash: r.Prev}
}

// appendFirst writes records before Run.
func (w *writer) appendFirst(records []Record) error {
	var batch []*entry
	for _, r := range records {
		e := newEntry()
		if err := e.set(r, true); err != nil {
			return err
		}
		batch = append(batch, e)
	}
	if len(batch) > 0 {
		if err := w.writeLines(batch); err != nil {
			return err
		}
	}
	return w.flushFirst()
}

// lost counts and logs a loss.
func (w *writer) lost(loss Loss, found string) {
	w.losses.Add(1)
	w.log.Error("the audit trail has lost records: "+adviceAfterLoss, "loss", string(loss), "what", lossText[loss], "found", found, "dir", w.dir)
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

// takenAway records that the segment in use is no longer there as it was written, and continues in a
// new one.
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

// lineSeq returns the number of a line's record without decoding the line; 0 when it is not where
// it belongs.
func lineSeq(line []byte) uint64 {
	const key = `"seq":`
	for i := 0; i < min(len(line), 24); i++ {
		if n := len(key); i+n < len(line) && string(line[i:i+n]) == key {
			end := i + n
			for end < len(line) && line[end] >= '0' && line[end] <= '9' {
				end++
			}
			seq, err := strconv.ParseUint(string(line[i+n:end]), 10, 64)
			if err != nil {
				return 0
			}
			return seq
		}
	}
	return 0
}

// eachLine calls visit for each line of a segment, without its newline. whole is false for a last
// line without one.
func eachLine(file string, visit func(line []byte, whole bool) error) error {
	f, err := openSegment(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return visit(line, false)
		case errors.Is(err, bufio.ErrBufferFull):
			return errLineTooLong
		case err != nil:
			return err
		}
		if err := visit(line[:len(line)-1], true); err != nil {
			return err
		}
	}
}
