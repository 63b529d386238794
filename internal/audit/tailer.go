package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	maxDamaged   = 1000 // segments with damage that are remembered, so that each line is logged once
	maxLogged    = 10   // damaged lines of one segment that are logged
	maxPosition  = 4096 // bytes of the file of an earlier release
)

// tailer reads the trail from a record on, while it grows.
type tailer struct {
	dir  string
	next uint64 // record that is read next
	log  *slog.Logger

	key       *macer         // nil for a trail without a key
	keyedFrom uint64         // the first record that must have a MAC
	missing   *atomic.Uint64 // counts the records that are skipped

	path string // of the open segment; empty when none is
	read int    // how many lines of it were read
	// genuine says that a line of the open segment was written by the server.
	genuine bool
	// foreign are the segments that this batch does not open again: they have no genuine line, or not
	// the next record.
	foreign []string

	// The lines that were logged, so that a line that is read again is not logged again.
	damaged map[uint64]*damaged // by the first record of the segment
	lost    uint64              // the last record

	f    *os.File
	off  int64 // of the next line in a plain segment
	zip  io.ReadCloser
	zbuf *bufio.Reader // of a compressed one
	buf  []byte        // what was read of a plain segment behind off, in this batch
	skip bool          // the rest of an overlong line comes next
}

// damaged is what was logged of a segment with damaged lines.
type damaged struct {
	line  int // the last one that was logged, from 1; 0 for the whole segment
	count int // of the lines that were logged
}

func (t *tailer) close() {
	if t.f != nil {
		_ = t.f.Close()
	}
	if t.zip != nil {
		_ = t.zip.Close()
	}
	t.path, t.read, t.genuine, t.f, t.off, t.zip, t.zbuf, t.buf, t.skip = "", 0, false, nil, 0, nil, nil, nil, false
}

func (t *tailer) seek(next uint64) {
	if next != t.next {
		t.close()
		t.next = next
	}
}

// batch returns lines up to the record upTo, all of which is on disk. When ctx ends, it returns
// what it has.
func (t *tailer) batch(ctx context.Context, upTo uint64) (lines []Line, err error) {
	t.buf = nil // what lies behind the records on disk may have been cut off and written again
	t.foreign = nil
	size := 0
	for t.next <= upTo && len(lines) < maxSinkLines && size < maxSinkBytes && ctx.Err() == nil {
		if t.path == "" {
			if err := t.open(ctx, ""); err != nil {
				return sendable(lines, err)
			}
		}
		text, err := t.line()
		if err != nil {
			if err := t.goOn(ctx, err); err != nil {
				return sendable(lines, err)
			}
			continue
		}
		if seq := lineSeq(text); t.genuine && seq != 0 && seq < t.next {
			continue
		}
		r, err := t.check(text)
		switch {
		case err != nil:
			t.damage(err)
			continue
		case r.Seq < t.next:
			t.genuine = true
			continue
		case r.Seq > upTo: // written by the server, and not on disk yet
			t.close()
			return sendable(lines, t.absent())
		}
		t.genuine = true
		t.missed(r.Seq)
		lines = append(lines, Line{Seq: r.Seq, Time: r.Time, Text: bytes.Clone(text)})
		t.next = r.Seq + 1
		size += len(text)
	}
	return lines, nil
}

// goOn continues after a line that could not be read: behind it, or in the next segment when this
// one has ended or its rest cannot be read.
func (t *tailer) goOn(ctx context.Context, err error) error {
	if !errors.Is(err, io.EOF) {
		t.damage(err)
	}
	if errors.Is(err, errLineTooLong) {
		return nil
	}
	return t.openNext(ctx)
}

// check decodes a line that the server has written.
func (t *tailer) check(text []byte) (Record, error) {
	r, err := checkLine(text)
	switch {
	case err != nil || t.key == nil || r.Seq < t.keyedFrom:
		return r, err
	default:
		return r, checkMAC(t.key, text, r)
	}
}

// sendable puts an error off while there are lines to send.
func sendable(lines []Line, err error) ([]Line, error) {
	if len(lines) > 0 {
		err = nil
	}
	return lines, err
}

// damage logs once that the line read last is not sent, or that the rest of the segment cannot be
// read. A process that can write to the directory can make any number of such lines, so it logs the
// first ones of a segment; what the sink does not get for them, missed logs.
func (t *tailer) damage(err error) {
	segment := segmentSeq(filepath.Base(t.path))
	d := t.damaged[segment]
	switch {
	case d == nil && len(t.damaged) >= maxDamaged:
		return
	case d == nil:
		if t.damaged == nil {
			t.damaged = map[uint64]*damaged{}
		}
		d = &damaged{line: -1}
		t.damaged[segment] = d
	}
	if t.read <= d.line || d.count >= maxLogged {
		return
	}
	d.line = t.read
	d.count++
	log := t.log.With("segment", filepath.Base(t.path), "line", t.read, "behind", t.next-1)
	log.Error("a line of the audit trail is damaged, and the sink does not get it", "err", err)
	if d.count == maxLogged {
		log.Error("more damaged lines of this segment are not logged")
	}
	if d.count == 1 && len(t.damaged) == maxDamaged {
		log.Error("damaged lines in other segments are not logged")
	}
}

// missed logs once which records before seq the trail does not have, so the sink does not get them.
func (t *tailer) missed(seq uint64) {
	if seq > t.next && seq-1 > t.lost {
		t.missing.Add(seq - max(t.next, t.lost+1))
		t.lost = seq - 1
		t.log.Error("audit records were removed or lost before the sink had them", "first", t.next, "last", seq-1)
	}
}

func (t *tailer) absent() error { return fmt.Errorf("audit: record %d is not in the trail", t.next) }

// openNext opens the segment behind the open one. From a segment that does not lead to the next
// record it goes back to another one that should have it: the open one may hold a copy of genuine
// lines. A record that no other segment has is missing.
func (t *tailer) openNext(ctx context.Context) error {
	after := t.path
	files, err := segments(t.dir)
	if err != nil {
		return err
	}
	leads := slices.ContainsFunc(files, func(f string) bool { return segmentSeq(filepath.Base(f)) == t.next })
	if !t.genuine || !leads {
		t.foreign = append(t.foreign, after)
		after = ""
	}
	t.close()
	return t.open(ctx, after)
}

// open opens the segment with the next record, or the one that follows the segment after. It passes
// over files that no segment can be.
func (t *tailer) open(ctx context.Context, after string) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		files, err := segments(t.dir)
		if err != nil {
			return err
		}
		chosen := ""
		for _, f := range files {
			first := segmentSeq(filepath.Base(f))
			switch {
			case slices.Contains(t.foreign, f):
			case after != "" && first <= segmentSeq(filepath.Base(after)):
			case chosen == "" || after == "" && first <= t.next:
				chosen = f
			}
		}
		if chosen == "" {
			return t.absent()
		}
		t.path = chosen
		if err = t.openFile(); err == nil {
			return nil
		}
		if !isForeign(err) {
			t.path = ""
			return err
		}
		t.damage(err)
		t.path = ""
		t.foreign = append(t.foreign, chosen)
	}
}

// isForeign reports whether an error of opening a file means that it is no segment.
func isForeign(err error) bool {
	for _, is := range []error{errNotRegular, errTooLarge, gzip.ErrHeader, gzip.ErrChecksum, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

func (t *tailer) openFile() (err error) {
	if segmentExtOf(t.path) != compressedExt {
		t.f, _, err = openPlain(t.path)
		return err
	}
	if t.zip, err = openSegment(t.path); err == nil {
		t.zbuf = bufio.NewReaderSize(t.zip, maxLine)
	}
	return err
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
		if t.off > maxSegment { // it grew after it was opened
			return nil, errTooLarge
		}
		chunk := make([]byte, 64<<10)
		n, err := t.f.ReadAt(chunk, t.off+int64(len(t.buf)))
		t.buf = append(t.buf, chunk[:n]...)
		if n == 0 {
			return nil, errors.Join(io.EOF, err)
		}
	}
}
