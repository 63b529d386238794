package audit

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Pruned is the operation of the record that retention writes before it removes a segment.
const Pruned = "audit.pruned"

// keepEvery is how often finished segments are checked.
const keepEvery = time.Minute

// Retention says how finished segments are kept. Its zero value keeps them all as they are.
type Retention struct {
	// Compress stores finished segments compressed.
	Compress bool
	// MaxAge removes a segment when its newest record is older; 0 keeps it. A segment that a sink
	// has not taken is kept.
	MaxAge time.Duration
	// MaxBytes removes the oldest segments when all together are larger, also those that a sink has
	// not taken; 0 keeps them.
	MaxBytes int64
	// Taken returns the last record that every sink has; nil means that there are no sinks.
	Taken func() uint64
	// StoreHead stores the head of the trail. A segment is removed only after it returned nil, so
	// that a removal by retention differs from a loss.
	StoreHead func(ctx context.Context) error
}

// Keep compresses and removes finished segments until ctx ends. It runs beside Run.
func (l *Log) Keep(ctx context.Context, r Retention) {
	k := newKeeper(l, r)
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for {
		k.look(ctx)
		select {
		case <-t.C:
		case <-l.w.finished:
		case <-ctx.Done():
			return
		}
	}
}

type keeper struct {
	Retention
	log    *Log
	inUse  string             // path of the segment that was in use when closed listed the others
	seen   map[string]checked // by path; of the files that are there
	failed bool
}

func newKeeper(l *Log, r Retention) *keeper {
	return &keeper{log: l, Retention: r, seen: map[string]checked{}}
}

func (k *keeper) look(ctx context.Context) {
	var err error
	if k.Compress { // first: a compressed segment that was expanded by hand does not make the trail look larger
		err = k.compress(ctx)
	}
	err = errors.Join(err, k.prune(ctx))
	if err != nil && !k.failed && ctx.Err() == nil {
		k.log.cfg.Logger.Warn("finished segments of the audit trail could not be compressed or removed; "+
			"it will be tried again", "err", err)
	}
	k.failed = err != nil
}

// closed lists the finished segments, oldest first. A file that is named for a record behind the
// segment in use is not one of them, and is reported.
func (k *keeper) closed() (files []string, err error) {
	// The writer may begin segments meanwhile: all before the one that is in use now are listed, and
	// none behind the one that is in use afterwards can be listed.
	k.inUse = k.log.w.current()
	all, err := segments(k.log.cfg.Dir)
	if err != nil {
		return nil, err
	}
	inUse, latest := segmentSeq(filepath.Base(k.inUse)), segmentSeq(filepath.Base(k.log.w.current()))
	there := map[string]checked{}
	for _, file := range all {
		if c, ok := k.seen[file]; ok {
			there[file] = c
		}
		switch first := segmentSeq(filepath.Base(file)); {
		case first < inUse:
			files = append(files, file)
		case first > latest:
			there[file] = k.refuse(file, checked{err: errAhead})
		}
	}
	k.seen = there
	return files, nil
}

// prune removes the oldest segments that retention no longer keeps, but never the one in use. It
// removes what the server wrote and nothing else, and decides by verified lines alone.
func (k *keeper) prune(ctx context.Context) error {
	if k.MaxAge <= 0 && k.MaxBytes <= 0 {
		return nil
	}
	files, err := k.closed()
	if err != nil {
		return err
	}
	total, err := k.total(ctx, files)
	if err != nil {
		return err
	}
	for i, file := range files {
		next := k.log.Head().First
		first := segmentSeq(filepath.Base(file))
		c, err := k.check(ctx, files, i)
		switch {
		case err != nil:
			return notYet(err)
		case c.err != nil && first == next:
			return nil // reported
		case c.err != nil:
			continue // reported
		case first < next && c.next <= next:
			// A crash came before the removal, or the file was restored.
			if err := k.removeFiles(file, c); err != nil {
				return err
			}
			continue
		case first != next && !c.gap:
			c.err = fmt.Errorf("the records from %d on are missing before it", next)
			k.seen[file] = k.refuse(file, c)
			return nil
		}
		reason := k.reason(c, total)
		if reason == "" {
			return nil
		}
		if err := k.remove(ctx, file, c, reason); err != nil {
			return err
		}
		total -= c.size
	}
	return nil
}

// total is what the segments that verify take on disk. It reads them only when the apparent sizes
// are above the limit, and returns 0 otherwise.
func (k *keeper) total(ctx context.Context, files []string) (n int64, err error) {
	if k.MaxBytes <= 0 || dirBytes(k.log.cfg.Dir) <= k.MaxBytes {
		return 0, nil
	}
	if info, err := os.Lstat(k.inUse); err == nil {
		n = min(info.Size(), k.log.cfg.SegmentBytes)
	}
	for i := range files {
		c, err := k.check(ctx, files, i)
		if notYet(err) != nil {
			return 0, err
		}
		if err == nil && c.err == nil {
			n += c.size
		}
	}
	return n, nil
}

// reason says why a segment is removed; empty when it is kept.
func (k *keeper) reason(c checked, total int64) string {
	switch {
	case k.MaxBytes > 0 && total > k.MaxBytes:
		return "size"
	case k.MaxAge <= 0 || k.Taken != nil && k.Taken() < c.end.seq:
		return ""
	case k.log.cfg.Now().Sub(c.newest) > k.MaxAge:
		return "age"
	}
	return ""
}

// remove records the removal, stores that the records are no longer to be there, and removes the
// segment.
func (k *keeper) remove(ctx context.Context, file string, c checked, reason string) error {
	name, last := filepath.Base(file), c.end.seq
	details := Details{
		{"segment", name}, {"reason", reason},
		{"first", strconv.FormatUint(segmentSeq(name), 10)}, {"last", strconv.FormatUint(last, 10)},
	}
	if k.Taken != nil {
		if taken := k.Taken(); taken < last {
			details = append(details, Detail{"not_taken_from", strconv.FormatUint(taken+1, 10)})
			k.log.cfg.Logger.Error("audit records were removed before every sink had them: "+
				"make the sink work, or room for more", "segment", name)
		}
	}
	r := Record{Phase: Call, PrincipalType: "system", Operation: Pruned, Outcome: "ok", Details: details}
	if err := k.log.Append(ctx, r, true); err != nil {
		return err
	}
	former := k.log.beginWith(c.next)
	if k.StoreHead != nil {
		if err := k.StoreHead(ctx); err != nil {
			k.log.beginWith(former) // nothing is removed that the store still expects
			return err
		}
	}
	return k.removeFiles(file, c)
}

// beginWith sets the first record that must be there, and returns the former one.
func (l *Log) beginWith(first uint64) (former uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	former, l.head.First = l.head.First, first
	return former
}

// removeFiles removes a segment, which a crash may have left in both forms. One that has changed
// since it was checked stays.
func (k *keeper) removeFiles(file string, c checked) error {
	if id, err := identify(file); err != nil || id != c.id {
		return errors.Join(fmt.Errorf("%s has changed since it was verified", filepath.Base(file)), err)
	}
	plain := filepath.Join(k.log.cfg.Dir, segmentName(segmentSeq(filepath.Base(file))))
	for _, f := range []string{plain, plain + ".gz"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// compress stores each finished segment compressed, after it was verified.
func (k *keeper) compress(ctx context.Context) error {
	files, err := k.closed()
	if err != nil {
		return err
	}
	var errs []error
	for i, file := range files {
		if ctx.Err() != nil {
			break
		}
		if segmentExtOf(file) == compressedExt {
			continue
		}
		if id, err := identify(file); err == nil && k.seen[file].err != nil && k.seen[file].id == id {
			continue // reported
		}
		if err := notYet(k.compressOne(ctx, files, i)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
		}
	}
	return errors.Join(errs...)
}

// compressOne verifies a segment while it compresses it. The plain one is removed when the
// compressed one is on disk.
func (k *keeper) compressOne(ctx context.Context, files []string, i int) (err error) {
	file := files[i]
	tmp := file + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	out, err := createNew(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.Remove(tmp); !errors.Is(removeErr, os.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return errors.Join(err, out.Close())
	}
	c, err := k.read(ctx, files, i, func(line []byte) error {
		_, err := z.Write(append(line, '\n'))
		return err
	})
	err = errors.Join(err, z.Close())
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil || c.err != nil {
		return err
	}
	if err := os.Rename(tmp, file+".gz"); err != nil {
		return err
	}
	if err := syncDir(k.log.cfg.Dir); err != nil {
		return err
	}
	return os.Remove(file)
}

func unfinished(whole bool) error {
	if whole {
		return nil
	}
	return errUnfinished
}

// dirBytes is what the segments take on disk.
func dirBytes(dir string) (n int64) {
	files, err := segments(dir)
	if err != nil {
		return 0
	}
	for _, f := range files {
		if info, err := os.Lstat(f); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// Bytes is what the trail takes on disk.
func (l *Log) Bytes() int64 { return dirBytes(l.cfg.Dir) }

// Damaged counts the finished segments that were found changed when they were to be compressed.
func (l *Log) Damaged() uint64 { return l.w.damaged.Load() }
