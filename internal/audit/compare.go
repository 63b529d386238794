package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// compare returns what the trail has lost, or "" for nothing. found says which records are
// concerned.
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
	if len(end.files) > 0 {
		if first := segmentSeq(filepath.Base(end.files[0])); first > h.First {
			return LossBeginning, fmt.Sprintf("the trail begins with record %d instead of %d", first, h.First)
		}
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

// compareBehind checks the records from the head on: after a crash there may be some behind it,
// written by the server.
func (l *Log) compareBehind(a *Anchor, files []string) (Loss, string) {
	c := behind{head: *a.Head, key: a.Key.macer()}
	c.at = link{seq: c.head.Seq, hash: c.head.Hash}
	c.known = c.head.Seq == 0
	for i, file := range files {
		if i+1 < len(files) && segmentSeq(filepath.Base(files[i+1])) <= c.head.Seq {
			continue
		}
		err := eachLine(file, c.line)
		switch {
		case errors.Is(err, errReplaced):
			return LossReplaced, fmt.Sprintf("record %d", c.head.Seq)
		case err != nil:
			return LossForked, fmt.Sprintf("%s: %v", filepath.Base(file), err)
		}
	}
	if !c.known {
		return LossReplaced, fmt.Sprintf("record %d is not there", c.head.Seq)
	}
	return "", ""
}

// behind checks the lines of a trail, in order, from its head on.
type behind struct {
	head  Head
	key   *macer
	known bool // the head's own record has passed
	at    link // the last record that has passed
}

func (c *behind) line(line []byte, whole bool) error {
	if seq := lineSeq(line); !whole || seq != 0 && seq < c.head.Seq {
		return nil
	}
	r, err := checkLine(line)
	switch {
	case err != nil:
		return err
	case !c.known && (r.Seq != c.head.Seq || r.Hash != c.head.Hash):
		return errReplaced
	case !c.known:
		c.known = true
		return nil
	}
	if r.Seq >= c.head.KeyedFrom {
		if err := checkMAC(c.key, line, r); err != nil {
			return fmt.Errorf("record %d: %w", r.Seq, err)
		}
	}
	if r.Operation == Gap && r.MAC != "" {
		c.at = link{}
	}
	c.at, err = c.at.follow(r)
	return err
}

var errReplaced = errors.New("another record")

func checkMAC(key *macer, line []byte, r Record) error {
	if r.MAC == "" {
		return errNotKeyed
	}
	return key.check(line, r)
}
