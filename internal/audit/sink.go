package audit

import (
	"bufio"
	"bytes"
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

const (
	maxSinkLines = 500     // of one batch
	maxSinkBytes = 1 << 20 // of one batch, but for a single longer line
	sinkEvery    = time.Second
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	sinkTimeout  = 30 * time.Second
)

// Line is a record on its way to a sink, as it stands in the trail.
type Line struct {
	Seq  uint64
	Time time.Time
	Text []byte // without the newline
}

// Sink takes a copy of the trail. It is used by one goroutine.
type Sink interface {
	// Name tells sinks apart: 1 to 32 lower-case letters.
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

// Forwarder copies the trail to one sink, each record at least once. The trail itself is the queue:
// what the sink has is noted in a file beside the segments, so a restart continues there, and
// memory holds one batch.
type Forwarder struct {
	log   *Log
	sink  Sink
	taken atomic.Uint64
	sent  atomic.Uint64
	down  atomic.Bool
}

// position is what the file beside the segments holds.
type position struct {
	Format int    `json:"v"`
	Seq    uint64 `json:"seq"`
}

// Forward makes a forwarder. Its sink begins with the first record of the trail, or where an
// earlier one of that name stopped.
func (l *Log) Forward(s Sink) (*Forwarder, error) {
	f := &Forwarder{log: l, sink: s}
	data, err := os.ReadFile(f.path())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("audit: position of sink %s: %w", s.Name(), err)
	}
	var p position
	if json.Unmarshal(data, &p) != nil || p.Format != 1 {
		return nil, fmt.Errorf("audit: %s does not hold the position of a sink: remove it to send the whole trail again", f.path())
	}
	f.taken.Store(p.Seq)
	return f, nil
}

func (f *Forwarder) path() string {
	return filepath.Join(f.log.cfg.Dir, "sink-"+f.sink.Name()+".json")
}

// Name is the sink's.
func (f *Forwarder) Name() string { return f.sink.Name() }

// Taken is the last record that the sink has.
func (f *Forwarder) Taken() uint64 { return f.taken.Load() }

// Sent is the last record that was handed to the sink, which may not have confirmed it yet.
func (f *Forwarder) Sent() uint64 { return f.sent.Load() }

// Lag counts the records on disk that the sink does not have yet.
func (f *Forwarder) Lag() uint64 {
	head := f.log.Head().Seq
	return head - min(head, f.taken.Load())
}

// Down reports whether the sink failed when it was last tried.
func (f *Forwarder) Down() bool { return f.down.Load() }

// Run forwards until ctx ends. It returns when the sink is closed.
func (f *Forwarder) Run(ctx context.Context) {
	defer func() { _ = f.sink.Close() }() // what it has is noted
	r := tailer{dir: f.log.cfg.Dir, next: f.taken.Load() + 1, log: f.log.cfg.Logger.With("sink", f.sink.Name())}
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

// step sends one batch and notes what the sink has.
func (f *Forwarder) step(ctx context.Context, r *tailer) (n int, err error) {
	lines, err := r.batch(f.log.Head().Seq)
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
		if werr := f.note(taken); werr != nil {
			r.log.Warn("the position of the audit sink was not noted; records may be sent again after a restart", "err", werr)
		}
	}
	return len(lines), err
}

// note writes the position. It is not synced: an older one only sends more again.
func (f *Forwarder) note(seq uint64) error {
	data, err := json.Marshal(position{Format: 1, Seq: seq})
	if err != nil {
		return err
	}
	tmp := f.path() + ".tmp"
	if err := os.WriteFile(tmp, append(data, '\n'), filePerm); err != nil {
		return err
	}
	return os.Rename(tmp, f.path())
}

// tailer reads the trail from a record on, while it grows.
type tailer struct {
	dir  string
	next uint64 // record that is read next
	log  *slog.Logger

	path string // of the open segment; empty when none is
	read int    // how many lines of it were read

	// What was logged, so that a line that is read again is not logged again.
	damaged place
	lost    uint64 // the last record

	f    *os.File
	off  int64 // of the next line in a plain segment
	zip  io.ReadCloser
	zbuf *bufio.Reader // of a compressed one
	buf  []byte        // what was read of a plain segment behind off, in this batch
	skip bool          // the rest of an overlong line comes next
}

// place is a line of the trail.
type place struct {
	segment uint64 // its first record
	line    int    // from 1
}

func (t *tailer) close() {
	if t.f != nil {
		_ = t.f.Close()
	}
	if t.zip != nil {
		_ = t.zip.Close()
	}
	t.path, t.read, t.f, t.off, t.zip, t.zbuf, t.buf, t.skip = "", 0, nil, 0, nil, nil, nil, false
}

func (t *tailer) seek(next uint64) {
	if next != t.next {
		t.close()
		t.next = next
	}
}

// batch returns lines up to the record upTo, all of which is on disk.
func (t *tailer) batch(upTo uint64) (lines []Line, err error) {
	t.buf = nil // what lies behind the records on disk may have been cut off and written again
	size := 0
	for t.next <= upTo && len(lines) < maxSinkLines && size < maxSinkBytes {
		if t.path == "" {
			if err := t.open(""); err != nil {
				return sendable(lines, err)
			}
		}
		text, err := t.line()
		if errors.Is(err, io.EOF) {
			after := t.path
			t.close()
			if err := t.open(after); err != nil {
				return sendable(lines, err)
			}
			continue
		}
		if errors.Is(err, errLineTooLong) {
			t.damage(err)
			continue
		}
		if err != nil {
			return sendable(lines, err)
		}
		var f frame
		if json.Unmarshal(text, &f) != nil {
			t.damage(errJSON)
			continue
		}
		if f.Seq < t.next {
			continue
		}
		t.missed(f.Seq)
		lines = append(lines, Line{Seq: f.Seq, Time: f.Time, Text: bytes.Clone(text)})
		t.next = f.Seq + 1
		size += len(text)
	}
	return lines, nil
}

// sendable puts an error off while there are lines to send.
func sendable(lines []Line, err error) ([]Line, error) {
	if len(lines) > 0 {
		err = nil
	}
	return lines, err
}

// damage logs once that the line read last is not sent.
func (t *tailer) damage(err error) {
	at := place{segmentSeq(filepath.Base(t.path)), t.read}
	if at.segment < t.damaged.segment || at.segment == t.damaged.segment && at.line <= t.damaged.line {
		return
	}
	t.damaged = at
	t.log.Error("a line of the audit trail is damaged, and the sink does not get it",
		"segment", filepath.Base(t.path), "line", at.line, "behind", t.next-1, "err", err)
}

// missed logs once which records before seq the trail does not have, so the sink does not get them.
func (t *tailer) missed(seq uint64) {
	if seq > t.next && seq-1 > t.lost {
		t.lost = seq - 1
		t.log.Error("audit records were removed or lost before the sink had them", "first", t.next, "last", seq-1)
	}
}

// open opens the segment with the next record, or the one that follows the segment after.
func (t *tailer) open(after string) error {
	files, err := segments(t.dir)
	if err != nil {
		return err
	}
	chosen := ""
	for _, f := range files {
		first := segmentSeq(filepath.Base(f))
		switch {
		case after != "" && first <= segmentSeq(filepath.Base(after)):
		case chosen == "" || after == "" && first <= t.next:
			chosen = f
		}
	}
	if chosen == "" {
		return fmt.Errorf("audit: record %d is not in the trail", t.next)
	}
	if segmentExtOf(chosen) == compressedExt {
		if t.zip, err = openSegment(chosen); err != nil {
			return err
		}
		t.zbuf = bufio.NewReaderSize(t.zip, maxLine)
	} else if t.f, err = os.Open(chosen); err != nil {
		return err
	}
	t.path = chosen
	return nil
}

// line returns the next whole line, or io.EOF at the end of the segment. It returns errLineTooLong
// for a line that is longer than any record; the next call continues behind that line.
func (t *tailer) line() ([]byte, error) {
	for {
		text, err := t.piece()
		switch {
		case errors.Is(err, errLineTooLong) && !t.skip:
			t.skip = true
			t.read++
			return nil, err
		case errors.Is(err, errLineTooLong):
		case err != nil:
			return nil, err
		case t.skip:
			t.skip = false
		default:
			t.read++
			return text, nil
		}
	}
}

// piece returns what comes before the next newline. It returns errLineTooLong, and drops what it
// has read, when maxLine bytes have none.
func (t *tailer) piece() ([]byte, error) {
	if t.zbuf != nil {
		text, err := t.zbuf.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, errLineTooLong
		case err != nil:
			return nil, err
		}
		return text[:len(text)-1], nil
	}
	for {
		if i := bytes.IndexByte(t.buf, '\n'); i >= 0 {
			text := t.buf[:i]
			t.buf, t.off = t.buf[i+1:], t.off+int64(i)+1
			return text, nil
		}
		if len(t.buf) > maxLine {
			t.buf, t.off = nil, t.off+int64(len(t.buf))
			return nil, errLineTooLong
		}
		chunk := make([]byte, 64<<10)
		n, err := t.f.ReadAt(chunk, t.off+int64(len(t.buf)))
		t.buf = append(t.buf, chunk[:n]...)
		if n == 0 {
			return nil, errors.Join(io.EOF, err)
		}
	}
}
