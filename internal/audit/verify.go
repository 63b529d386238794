package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what Verify found. FirstSeq above 1 means that older segments are not here.
type Report struct {
	Records  uint64
	Segments int
	FirstSeq uint64
	LastSeq  uint64
	LastHash string
	// Keyed counts the records whose MAC was verified; KeyedFrom is the first of them, 0 for none.
	Keyed     uint64
	KeyedFrom uint64
	// Newer counts the records that a newer release has written: their chain was verified, their
	// members were not checked.
	Newer uint64
	// Gaps are the losses that the trail itself records.
	Gaps []GapFound
}

// GapFound is a record of a loss.
type GapFound struct {
	Seq  uint64
	Time time.Time
	Loss Loss
	Note string
}

// GapError means that the trail verifies except for losses that it records.
type GapError struct{ Gaps []GapFound }

func (e *GapError) Error() string {
	var b strings.Builder
	b.WriteString("audit: records were lost")
	for _, g := range e.Gaps {
		fmt.Fprintf(&b, "; record %d of %s says %s: %s", g.Seq, g.Time.UTC().Format(time.RFC3339), g.Loss, g.Note)
	}
	b.WriteString(". If you know this loss:")
	for _, g := range e.Gaps {
		fmt.Fprintf(&b, " --known-gap %d", g.Seq)
	}
	return b.String()
}

// Verification says what a trail is held to besides its own chain.
type Verification struct {
	// Key verifies the MACs; nil leaves them out.
	Key *Key
	// Head is what the store knows of the trail; nil leaves out what only it can show: records cut
	// from the end, a rewritten trail, records missing from the beginning.
	Head *Head
	// KnownGaps are the numbers of the gap records that an operator has looked into.
	KnownGaps []uint64
	// InUse permits an unfinished last line: a server is writing.
	InUse bool
}

// Verify checks the chain of a trail, or of one of its segment files, which then starts from its
// own first prev. The error names file, line and what is wrong with the first bad line. It takes no
// lock: next to a writing server it may meet a last line that is just being written.
func Verify(path string) (Report, error) { return Verification{}.Verify(path) }

// Verify checks a trail against everything that v has.
func (v Verification) Verify(path string) (Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Report{}, fmt.Errorf("audit: verify: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = segments(path); err != nil {
			return Report{}, err
		}
		if len(files) == 0 && (v.Head == nil || v.Head.Seq == 0) {
			return Report{}, fmt.Errorf("audit: %s holds no segment", path)
		}
	} else if v.Head != nil {
		return Report{}, errors.New("audit: a single segment cannot be compared with the head of the trail: " +
			"name the directory")
	}
	w := verifier{Verification: v, mac: v.Key.macer()}
	for _, file := range files {
		if err := w.segment(file); err != nil {
			return w.report, w.advice(err)
		}
	}
	if err := w.atEnd(path); err != nil {
		return w.report, err
	}
	if err := w.checkKnownGaps(); err != nil {
		return w.report, err
	}
	known := func(g GapFound) bool { return slices.Contains(v.KnownGaps, g.Seq) }
	unknown := slices.DeleteFunc(slices.Clone(w.report.Gaps), known)
	if len(unknown) > 0 {
		return w.report, &GapError{unknown}
	}
	return w.report, nil
}

// advice says what a line that does not verify means, unless the line may still be being written.
func (v *verifier) advice(err error) error {
	var path *fs.PathError
	if errors.Is(err, errUnfinished) || errors.As(err, &path) {
		return err
	}
	return fmt.Errorf("%w; the trail was changed after it was written, or is damaged: %s", err, adviceAfterLoss)
}

// checkKnownGaps refuses the number of a record that is here and is not a gap record: the operator
// knows of another loss than the trail reports. Retention may have removed a gap record that was
// named for years.
func (v *verifier) checkKnownGaps() error {
	found := "this trail reports no loss"
	if len(v.report.Gaps) > 0 {
		var numbers []string
		for _, g := range v.report.Gaps {
			numbers = append(numbers, strconv.FormatUint(g.Seq, 10))
		}
		found = "the records of a loss are " + strings.Join(numbers, ", ")
	}
	for _, n := range v.KnownGaps {
		isGap := slices.ContainsFunc(v.report.Gaps, func(g GapFound) bool { return g.Seq == n })
		if !isGap && n >= v.report.FirstSeq {
			return fmt.Errorf("audit: --known-gap %d: record %d is not the record of a loss; %s", n, n, found)
		}
	}
	return nil
}

type verifier struct {
	Verification
	mac    *macer
	report Report
	end    link
	seen   bool // a segment came before
	empty  string
	atHead string // hash of the record that the head names
	newest time.Time
}

// atEnd compares the whole with the head.
func (v *verifier) atEnd(path string) error {
	h := v.Head
	switch {
	case h == nil:
		return nil
	case v.report.LastSeq < h.Seq:
		return fmt.Errorf("audit: %s ends with record %d, and the store knows of record %d: "+
			"records were cut off, or an older copy was restored; %s", path, v.report.LastSeq, h.Seq, adviceAfterLoss)
	case h.Seq > 0 && v.atHead != h.Hash && !v.gapBehind(h.Seq):
		return fmt.Errorf("audit: %s has another record %d than the store knows of: the trail was rewritten; %s",
			path, h.Seq, adviceAfterLoss)
	case v.report.FirstSeq > h.First:
		return fmt.Errorf("audit: %s begins with record %d instead of %d: records are missing from the beginning; %s",
			path, v.report.FirstSeq, h.First, adviceAfterLoss)
	}
	return nil
}

// gapBehind reports whether a gap record follows the record seq, so that the head was replaced
// after the loss was recorded.
func (v *verifier) gapBehind(seq uint64) bool {
	return slices.ContainsFunc(v.report.Gaps, func(g GapFound) bool { return g.Seq > seq })
}

func (v *verifier) segment(file string) error {
	f, err := openSegment(file)
	if err != nil {
		return fmt.Errorf("audit: verify %s: %w", filepath.Base(file), err)
	}
	defer func() { _ = f.Close() }()
	first := segmentSeq(filepath.Base(file))
	if v.empty != "" {
		return badLine(v.empty, 1, errors.New("the segment is empty and another follows"))
	}
	v.report.Segments++
	lines := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			if n == 1 { // only the last segment may be empty: it is made before its first record
				v.empty = file
				return v.named(file, first)
			}
			return nil
		}
		if errors.Is(err, io.EOF) && v.InUse && (v.Head == nil || v.end.seq >= v.Head.Seq) {
			return nil
		}
		if err = lineError(err); err == nil {
			err = v.line(file, line[:len(line)-1], n == 1, first)
		}
		if err != nil {
			return badLine(file, n, err)
		}
	}
}

// named checks that the segment whose name says first is the next one.
func (v *verifier) named(file string, first uint64) error {
	if v.seen && first != v.end.seq+1 {
		return badLine(file, 1, errGap(v.end.seq+1, first))
	}
	return nil
}

func errGap(next, first uint64) error {
	return fmt.Errorf("gap in segments: record %d should come next, the file is named for %d", next, first)
}

func (v *verifier) line(file string, line []byte, isFirst bool, first uint64) error {
	r, err := checkLine(line)
	if err != nil {
		return err
	}
	if r.V > format {
		v.report.Newer++
	}
	if err := v.keyed(line, r); err != nil {
		return err
	}
	if r.Operation == Gap {
		v.report.Gaps = append(v.report.Gaps, GapFound{
			Seq:  r.Seq,
			Time: r.Time,
			Loss: Loss(r.Outcome),
			Note: r.Note + " (" + r.Details.Get("found") + ")",
		})
		if isFirst && r.Seq > v.end.seq {
			if err := v.foundBefore(r); err != nil {
				return err
			}
			v.end = link{} // what came before is lost: it says so
		}
	}
	if isFirst && first != 0 && v.end.hash != "" && first != v.end.seq+1 {
		return errGap(v.end.seq+1, first)
	}
	if isFirst && first != 0 && r.Seq != first {
		return fmt.Errorf("gap in segments: the file is named for record %d and begins with %d", first, r.Seq)
	}
	if v.end, err = v.end.follow(r); err != nil {
		return err
	}
	v.count(r)
	return nil
}

// count takes a verified record into the report.
func (v *verifier) count(r Record) {
	v.seen = true
	if v.report.Records == 0 {
		v.report.FirstSeq = r.Seq
	}
	v.report.Records++
	if r.Time.After(v.newest) {
		v.newest = r.Time
	}
	v.report.LastSeq, v.report.LastHash = r.Seq, r.Hash
	if v.Head != nil && r.Seq == v.Head.Seq {
		v.atHead = r.Hash
	}
}

// foundBefore checks the records before a gap. Whether all of them may be missing is a matter of
// the head.
func (v *verifier) foundBefore(r Record) error {
	if !v.seen || gapFollows(r, v.end) {
		return nil
	}
	return fmt.Errorf("the records before this gap are not those that it reports: it found record %s",
		r.Details.Get("found_seq"))
}

// gapFollows reports whether end is where the trail ended before the gap r: the records that were
// there when the loss was found, or all that the server knew of, when a file was restored.
func gapFollows(r Record, end link) bool {
	for _, which := range []string{"found", "stored"} {
		seq, hash := r.Details.Get(which+"_seq"), r.Details.Get(which+"_hash")
		if seq == strconv.FormatUint(end.seq, 10) && hash == end.hash && hash != "" {
			return true
		}
	}
	return false
}

// keyed checks the MAC of a record that must have one.
func (v *verifier) keyed(line []byte, r Record) error {
	must := v.report.Keyed > 0
	if v.Head != nil {
		must = r.Seq >= v.Head.KeyedFrom
		if !must {
			return nil // written before the trail had a key, or under another
		}
	}
	if v.mac == nil || !must && r.MAC == "" {
		return nil
	}
	if err := checkMAC(v.mac, line, r); err != nil {
		return err
	}
	if v.report.Keyed == 0 {
		v.report.KeyedFrom = r.Seq
	}
	v.report.Keyed++
	return nil
}

func lineError(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return errUnfinished
	case errors.Is(err, bufio.ErrBufferFull):
		return errLineTooLong
	}
	return err
}

func badLine(file string, n int, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the file is named already
	}
	return fmt.Errorf("audit: %s line %d: %w", file, n, err)
}
