package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Line is a record on its way to a sink, as it stands in the trail.
type Line struct {
	Seq  uint64
	Time time.Time
	Text []byte // without the newline
}

// Sink takes a copy of the trail. It is used by one goroutine.
type Sink interface {
	// Name identifies the sink: 1 to 32 lower-case letters.
	Name() string
	// Destination is the URL or host:port that the sink connects to; empty when it connects nowhere.
	// Nothing else of the server may connect there.
	Destination() string
	// Send hands lines over and returns the number of the last record that the sink surely has, of
	// this call or of an earlier one; 0 when that is not known of any. lines may be empty. After an
	// error the caller sends again everything behind that record.
	Send(ctx context.Context, lines []Line) (taken uint64, err error)
	Close() error
}

// Forwarder copies the trail to one sink, each record at least once. The trail itself is the queue,
// so memory holds one batch. A line is sent when the server has written it: its hash and its MAC
// are right, and its record is on disk and not yet sent.
type Forwarder struct {
	log    *Log
	sink   Sink
	taken  atomic.Uint64
	sent   atomic.Uint64
	missed atomic.Uint64
	down   atomic.Bool
}

// Forward makes a forwarder. taken is the last record that the sink has; 0 begins with the first
// record of the trail. The trail must have been resumed. A record behind the end of the trail is
// one that no sink can have: the forwarder begins with the first one and logs an error.
func (l *Log) Forward(s Sink, taken uint64) *Forwarder {
	if head := l.Head().Seq; taken > head {
		l.cfg.Logger.Error("the position of an audit sink is behind the end of the trail: the whole trail is sent again",
			"sink", s.Name(), "position", taken, "last", head)
		taken = 0
	}
	f := &Forwarder{log: l, sink: s}
	f.taken.Store(taken)
	return f
}

// oldPosition is the file beside the segments in which earlier releases kept what a sink has.
func (l *Log) oldPosition(sink string) string {
	return filepath.Join(l.cfg.Dir, "sink-"+sink+".json")
}

// OldPosition returns the position of a sink that an earlier release has stored, or 0. A process
// that can write to the directory can change it, so the caller reads it once.
func (l *Log) OldPosition(sink string) (uint64, error) {
	f, size, err := openPlain(l.oldPosition(sink))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("audit: position of sink %s: %w", sink, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPosition+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("audit: position of sink %s: %w", sink, err)
	}
	var p struct {
		Format int    `json:"v"`
		Seq    uint64 `json:"seq"`
	}
	if size > maxPosition || json.Unmarshal(data, &p) != nil || p.Format != 1 {
		return 0, fmt.Errorf("audit: %s does not hold the position of a sink", f.Name())
	}
	return p.Seq, nil
}

// RemoveOldPosition removes the file that OldPosition reads.
func (l *Log) RemoveOldPosition(sink string) error {
	err := os.Remove(l.oldPosition(sink))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Name returns the name of the sink.
func (f *Forwarder) Name() string { return f.sink.Name() }

// Taken returns the number of the last record that the sink has.
func (f *Forwarder) Taken() uint64 { return f.taken.Load() }

// Sent returns the number of the last record that was handed to the sink, which may not have
// confirmed it yet.
func (f *Forwarder) Sent() uint64 { return f.sent.Load() }

// Lag counts the records on disk that the sink does not have yet.
func (f *Forwarder) Lag() uint64 {
	head := f.log.Head().Seq
	return head - min(head, f.taken.Load())
}

// Missed counts the records that the sink did not get, because the trail on disk no longer has them
// as they were written.
func (f *Forwarder) Missed() uint64 { return f.missed.Load() }

// Down reports whether the sink failed when it was last tried.
func (f *Forwarder) Down() bool { return f.down.Load() }

// tailer reads the trail from the first record on that the sink does not have.
func (f *Forwarder) tailer(log *slog.Logger) tailer {
	return tailer{
		dir: f.log.cfg.Dir, next: f.taken.Load() + 1, log: log, missing: &f.missed,
		key: f.log.key.macer(), keyedFrom: f.log.Head().KeyedFrom,
	}
}

// Run forwards until ctx ends. It returns when the sink is closed.
func (f *Forwarder) Run(ctx context.Context) {
	defer func() { _ = f.sink.Close() }() // what it has is known
	r := f.tailer(f.log.cfg.Logger.With("sink", f.sink.Name()))
	defer func() { r.close() }()
	backoff := firstBackoff
	for ctx.Err() == nil {
		n, err := f.step(ctx, &r)
		wait := sinkEvery
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			if !f.down.Swap(true) {
				r.log.Warn("the audit sink does not take records; they are sent when it does", "err", err)
			}
			r.seek(f.taken.Load() + 1)
			wait = backoff/2 + rand.N(backoff/2)
			backoff = min(2*backoff, lastBackoff)
		default:
			if f.down.Swap(false) {
				r.log.Info("the audit sink takes records again")
			}
			backoff = firstBackoff
			if n > 0 {
				continue
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// step sends one batch.
func (f *Forwarder) step(ctx context.Context, r *tailer) (n int, err error) {
	lines, err := r.batch(ctx, f.log.Head().Seq)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, sinkTimeout)
	defer cancel()
	taken, err := f.sink.Send(ctx, lines)
	if err == nil {
		f.sent.Store(r.next - 1)
	}
	if taken > f.taken.Load() {
		f.taken.Store(taken)
	}
	return len(lines), err
}
