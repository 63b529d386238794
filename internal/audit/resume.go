package audit

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
)

// Resume finds the end of the trail, compares it with the anchor, and makes the log ready to
// continue. Without an anchor the trail has no key, and its end must be readable. An
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
	head := a.headAt(end)
	loss, found := l.compare(a, end)
	if loss != "" && a.Strict {
		return &LossError{loss, found}
	}
	if loss == "" && end.err != nil {
		return end.err // no head of this trail was ever stored, so it cannot continue: an operator must act
	}
	head, records, err := l.w.restart(a, end, head, loss)
	if err != nil {
		return err
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

// headAt returns the stored head, or the one of a trail that has none yet and ends at end.
func (a *Anchor) headAt(end ending) Head {
	if a.Head != nil {
		return *a.Head
	}
	head := Head{Node: a.Node, First: 1, KeyedFrom: end.tail.end.seq + 1}
	if len(end.files) > 0 {
		head.First = segmentSeq(filepath.Base(end.files[0]))
	}
	return head
}

// restart makes the writer ready after the comparison with the anchor. It returns the head that
// holds from now on, and a record to write first if the trail was adopted.
//
// After a loss that leaves the end in place, the trail continues there. Otherwise it begins anew
// behind every record that is known, so that no number is given twice.
func (w *writer) restart(a *Anchor, end ending, head Head, loss Loss) (Head, []Record, error) {
	after := end.tail.end
	switch loss {
	case "":
		if err := w.continueAt(end); err != nil {
			return head, nil, err
		}
		if a.Head == nil && after.seq > 0 {
			return head, []Record{adoptedRecord(a.Node, after)}, nil
		}
		return head, nil, nil
	case LossBeginning, LossHead, LossAnotherKey, LossForeign:
		if loss == LossBeginning {
			head.First = min(segmentSeq(filepath.Base(end.files[0])), after.seq+1)
		}
		return head, nil, w.continueAt(end)
	}
	after = link{seq: max(end.least, head.Seq), hash: cmp.Or(head.Hash, genesis)}
	if loss == LossEmptied {
		head.First = after.seq + 1
	}
	return head, nil, w.begin(after)
}

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
