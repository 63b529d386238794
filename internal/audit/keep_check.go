package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

var (
	errAhead    = errors.New("it is named for a record that is not written yet")
	errNoNext   = errors.New("no segment follows its last record: lines were cut off, or the next file is another's")
	errNoRecord = errors.New("it holds no record")
	errChanging = errors.New("it changed while it was read")
	// errNotYet means that the segment behind has no record yet, or a changed one: it is checked
	// later.
	errNotYet = errors.New("the next segment has no valid record yet")
)

func notYet(err error) error {
	if errors.Is(err, errNotYet) {
		return nil
	}
	return err
}

// checked is what the verified lines of a finished segment say.
type checked struct {
	id     fileID
	end    link      // its last record
	next   uint64    // first record of the segment that follows
	newest time.Time // of its records
	size   int64     // on disk, and never more than its lines
	gap    bool      // its first record records a loss
	err    error     // why it does not verify, or does not stand where it must in the chain
}

// fileID changes when a file is replaced or written to: no program can set its change time, except
// by the clock.
type fileID struct {
	dev, ino  uint64
	size      int64
	sec, nsec int64
}

func identify(file string) (fileID, error) {
	info, err := os.Lstat(file)
	if err != nil {
		return fileID{}, err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, errors.ErrUnsupported
	}
	sec, nsec := changeTime(s)
	return fileID{
		dev:  uint64(s.Dev), // int32 on macOS
		ino:  s.Ino,
		size: s.Size,
		sec:  sec,
		nsec: nsec,
	}, nil
}

// check verifies a finished segment, unless it did before and the file is the same. err means that
// it could not be found out.
func (k *keeper) check(ctx context.Context, files []string, i int) (checked, error) {
	id, err := identify(files[i])
	if err != nil {
		return checked{}, err
	}
	if c, ok := k.seen[files[i]]; ok && c.id == id {
		return c, nil
	}
	return k.read(ctx, files, i, func([]byte) error { return nil })
}

// read verifies a finished segment and hands each of its lines over. It begins with the record that
// it is named for, and the record behind its last one is the first of another segment. A segment of
// the time before the trail had a key is as good as the one that follows.
func (k *keeper) read(ctx context.Context, files []string, i int, each func(line []byte) error) (checked, error) {
	file := files[i]
	id, err := identify(file)
	if err != nil {
		return checked{}, err
	}
	head := k.log.Head()
	v := verifier{
		Verification: Verification{Key: k.log.key, Head: &Head{KeyedFrom: head.KeyedFrom}},
		mac:          k.log.key.macer(),
	}
	first := segmentSeq(filepath.Base(file))
	var size int64
	var outer error // not the segment's fault
	err = eachLine(file, func(line []byte, whole bool) error {
		if outer = ctx.Err(); outer != nil {
			return outer
		}
		if err := errors.Join(v.line(file, line, v.report.Records == 0, first), unfinished(whole)); err != nil {
			return err
		}
		size += int64(len(line)) + 1
		outer = each(line)
		return outer
	})
	if outer != nil {
		return checked{}, outer
	}
	if err == nil && v.report.Records == 0 {
		err = errNoRecord
	}
	c := checked{id: id, end: v.end, newest: v.newest, size: min(size, id.size)}
	c.gap = len(v.report.Gaps) > 0 && v.report.Gaps[0].Seq == first
	if err == nil {
		c.next, err = k.follows(ctx, files, i, v.end, head)
	}
	if errors.Is(err, errNotYet) || ctx.Err() != nil {
		return checked{}, errors.Join(ctx.Err(), err)
	}
	if again, idErr := identify(file); idErr != nil || again != id {
		return checked{}, errors.Join(errChanging, idErr)
	}
	if c.err = err; err != nil {
		c = k.refuse(file, c)
	}
	k.seen[file] = c
	return c, nil
}

// follows returns the first record of the segment behind end: the one that is named for it, or one
// that begins with the record of a loss behind end.
func (k *keeper) follows(ctx context.Context, files []string, i int, end link, head Head) (uint64, error) {
	behind := append(append([]string{}, files[i+1:]...), k.inUse)
	for n, file := range behind {
		first := segmentSeq(filepath.Base(file))
		if first <= end.seq {
			continue
		}
		r, err := firstRecord(file, k.mac(first, head))
		if err == nil && r.Seq == 0 && n == len(behind)-1 {
			return 0, errNotYet
		}
		if first == end.seq+1 && n < len(behind)-1 && (err != nil || r.Seq != first) {
			// That one is changed and reported; until it is seen to, nothing vouches for this one.
			if _, err := k.check(ctx, files, i+1+n); err != nil {
				return 0, err
			}
			return 0, errNotYet
		}
		if err != nil || r.Seq != first || first > head.Seq+1 {
			continue
		}
		follows := r.Prev == end.hash && first == end.seq+1
		if !follows && (r.Operation != Gap || !gapFollows(r, end)) {
			continue
		}
		if k.log.key == nil || first >= head.KeyedFrom || n == len(behind)-1 {
			return first, nil
		}
		// Only a record with a MAC vouches for those before it.
		c, err := k.check(ctx, files, i+1+n)
		if err != nil {
			return 0, err
		}
		if c.err == nil {
			return first, nil
		}
	}
	return 0, errNoNext
}

// mac is what the MAC of a record is checked with; nil when it has none.
func (k *keeper) mac(seq uint64, head Head) *macer {
	if seq < head.KeyedFrom {
		return nil
	}
	return k.log.key.macer()
}

var errEnough = errors.New("enough lines were read")

// firstRecord returns the first record of a segment; the zero Record when it has none yet. Its MAC
// is checked unless mac is nil.
func firstRecord(file string, mac *macer) (r Record, err error) {
	err = eachLine(file, func(line []byte, whole bool) (err error) {
		if !whole {
			return errEnough
		}
		if r, err = checkLine(line); err == nil && mac != nil {
			err = checkMAC(mac, line, r)
		}
		if err == nil {
			err = errEnough
		}
		return err
	})
	if err == nil || errors.Is(err, errEnough) {
		return r, nil
	}
	return Record{}, err
}

// refuse reports once that a file is not a finished segment as the server wrote it. Nothing removes
// it.
func (k *keeper) refuse(file string, c checked) checked {
	if old, ok := k.seen[file]; ok && old.err != nil && old.id == c.id {
		return old
	}
	k.log.w.damaged.Add(1)
	k.log.cfg.Logger.Error("a segment of the audit trail was changed after it was written, or is not the server's; "+
		"it stays: "+adviceAfterLoss, "err", fmt.Errorf("%s: %w", filepath.Base(file), c.err))
	return c
}
