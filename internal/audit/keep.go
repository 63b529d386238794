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

// keepEvery is how often finished segments are looked at.
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
	// that a removal by retention can be told from a loss.
	StoreHead func(ctx context.Context) error
}

// Keep compresses and removes finished segments until ctx ends. It runs beside Run.
func (l *Log) Keep(ctx context.Context, r Retention) {
	k := keeper{log: l, Retention: r, refused: map[string]bool{}}
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
	log     *Log
	refused map[string]bool // segments that did not verify: they stay as they are
	failed  bool
}

func (k *keeper) look(ctx context.Context) {
	err := k.prune(ctx)
	if k.Compress {
		err = errors.Join(err, k.compress(ctx))
	}
	if err != nil && !k.failed && ctx.Err() == nil {
		k.log.cfg.Logger.Warn("finished segments of the audit trail could not be compressed or removed; it will be tried again", "err", err)
	}
	k.failed = err != nil
}

// closed lists the finished segments, oldest first, and the first record of the one that follows
// each.
func (k *keeper) closed() (files []string, next []uint64, err error) {
	all, err := segments(k.log.cfg.Dir)
	if err != nil || len(all) < 2 {
		return nil, nil, err
	}
	for _, file := range all[1:] {
		next = append(next, segmentSeq(filepath.Base(file)))
	}
	return all[:len(all)-1], next, nil
}

// prune removes the oldest segments that retention no longer keeps. One is always left.
func (k *keeper) prune(ctx context.Context) error {
	if k.MaxAge <= 0 && k.MaxBytes <= 0 {
		return nil
	}
	files, next, err := k.closed()
	if err != nil {
		return err
	}
	total := dirBytes(k.log.cfg.Dir)
	for i, file := range files {
		reason, err := k.reason(file, next[i], files, i, total)
		if err != nil || reason == "" {
			return err
		}
		size, err := k.remove(ctx, file, next[i], reason)
		if err != nil {
			return err
		}
		total -= size
	}
	return nil
}

// reason says why a segment is removed; empty when it is kept.
func (k *keeper) reason(file string, next uint64, files []string, i int, total int64) (string, error) {
	if k.MaxBytes > 0 && total > k.MaxBytes {
		return "size", nil
	}
	if k.MaxAge <= 0 || k.Taken != nil && k.Taken() < next-1 {
		return "", nil
	}
	following := k.log.w.current()
	if i+1 < len(files) {
		following = files[i+1]
	}
	// The record that follows is as new as the newest of this segment, or newer.
	at, err := firstTime(following)
	if err != nil || at.IsZero() || k.log.cfg.Now().Sub(at) <= k.MaxAge {
		return "", err
	}
	return "age", nil
}

// remove records the removal, stores that the records are no longer to be there, and removes the
// segment.
func (k *keeper) remove(ctx context.Context, file string, next uint64, reason string) (size int64, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	name := filepath.Base(file)
	details := Details{
		{"segment", name}, {"reason", reason},
		{"first", strconv.FormatUint(segmentSeq(name), 10)}, {"last", strconv.FormatUint(next-1, 10)},
	}
	if k.Taken != nil {
		if taken := k.Taken(); taken < next-1 {
			details = append(details, Detail{"not_taken_from", strconv.FormatUint(taken+1, 10)})
			k.log.cfg.Logger.Error("audit records were removed before every sink had them: make the sink work, or room for more", "segment", name)
		}
	}
	r := Record{Phase: Call, PrincipalType: "system", Operation: Pruned, Outcome: "ok", Details: details}
	if err := k.log.Append(ctx, r, true); err != nil {
		return 0, err
	}
	k.log.mu.Lock()
	k.log.head.First = max(k.log.head.First, next)
	k.log.mu.Unlock()
	if k.StoreHead != nil {
		if err := k.StoreHead(ctx); err != nil {
			return 0, err
		}
	}
	// A crash may have left it in both forms.
	plain := filepath.Join(k.log.cfg.Dir, segmentName(segmentSeq(name)))
	for _, f := range []string{plain, plain + ".gz"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	return info.Size(), nil
}

// firstTime returns the time of the first record of a segment; zero when there is none.
func firstTime(file string) (at time.Time, err error) {
	enough := errors.New("enough")
	err = eachLine(file, func(line []byte, whole bool) error {
		if !whole {
			return enough
		}
		r, err := checkLine(line)
		if err != nil {
			return err
		}
		at = r.Time
		return enough
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return at, err
}

// compress stores each finished segment compressed, after it was verified.
func (k *keeper) compress(ctx context.Context) error {
	files, next, err := k.closed()
	if err != nil {
		return err
	}
	var errs []error
	for i, file := range files {
		if ctx.Err() != nil {
			break
		}
		if segmentExtOf(file) == compressedExt || k.refused[file] {
			continue
		}
		err := k.compressOne(ctx, file, next[i])
		if errors.Is(err, errNotVerified) {
			k.refused[file] = true
			k.log.w.damaged.Add(1)
			k.log.cfg.Logger.Error("a segment of the audit trail was changed after it was written: "+adviceAfterLoss, "err", err)
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

var errNotVerified = errors.New("the segment does not verify")

// compressOne verifies a segment while it compresses it. The plain one is removed when the
// compressed one is on disk.
func (k *keeper) compressOne(ctx context.Context, file string, next uint64) error {
	tmp := file + ".tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, filePerm)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return errors.Join(err, out.Close())
	}
	v := verifier{Verification: Verification{Key: k.log.key, Head: &Head{KeyedFrom: k.log.Head().KeyedFrom}}, mac: k.log.key.macer()}
	first := segmentSeq(filepath.Base(file))
	err = eachLine(file, func(line []byte, whole bool) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := v.line(file, line, v.report.Records == 0, first); err != nil || !whole {
			return fmt.Errorf("%w: %w", errNotVerified, errors.Join(err, unfinished(whole)))
		}
		_, err := z.Write(append(line, '\n'))
		return err
	})
	if err == nil && v.end.seq > next-1 {
		err = fmt.Errorf("%w: it holds record %d, and the next one begins with %d", errNotVerified, v.end.seq, next)
	}
	err = errors.Join(err, z.Close())
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", filepath.Base(file), err), os.Remove(tmp))
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
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Bytes is what the trail takes on disk.
func (l *Log) Bytes() int64 { return dirBytes(l.cfg.Dir) }

// Damaged counts the finished segments that were found changed when they were to be compressed.
func (l *Log) Damaged() uint64 { return l.w.damaged.Load() }
