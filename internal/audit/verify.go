package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Report is what Verify found. Whoever keeps LastSeq and LastHash elsewhere can see later whether lines were cut from
// the end or the trail was rewritten. FirstSeq above 1 means that older segments are not here.
type Report struct {
	Records  uint64
	Segments int
	FirstSeq uint64
	LastSeq  uint64
	LastHash string
}

// Verify checks the chain of a trail, or of one of its segment files, which then starts from its own first prev. The
// error names file, line and what is wrong with the first bad line. It takes no lock: next to a writing server it may
// meet a last line that is just being written.
func Verify(path string) (Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Report{}, fmt.Errorf("audit: verify: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = segments(path); err != nil {
			return Report{}, err
		}
		if len(files) == 0 {
			return Report{}, fmt.Errorf("audit: %s holds no segment", path)
		}
	}
	v := verifier{}
	for _, file := range files {
		if err := v.segment(file); err != nil {
			return v.report, err
		}
	}
	return v.report, nil
}

// segments returns the segment files of dir in the order of the chain, which is that of their names.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: list segments: %w", err)
	}
	var files []string
	for _, e := range entries {
		if segmentSeq(e.Name()) != 0 {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

type verifier struct {
	report Report
	end    link
	seen   bool // a segment came before
	empty  string
}

func (v *verifier) segment(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("audit: verify: %w", err)
	}
	defer func() { _ = f.Close() }()
	first := segmentSeq(filepath.Base(file))
	if err := v.begin(file, first); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(f, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			if n == 1 {
				v.empty = file
			}
			return nil
		}
		if err = lineError(err); err == nil {
			err = v.line(line[:len(line)-1], n == 1, first)
		}
		if err != nil {
			return badLine(file, n, err)
		}
	}
}

// begin checks that the segment whose name says first is the next one. Only the last segment may be empty: it is made
// before its first record.
func (v *verifier) begin(file string, first uint64) error {
	if v.empty != "" {
		return badLine(v.empty, 1, errors.New("the segment is empty and another follows"))
	}
	if v.seen && first != v.end.seq+1 {
		return badLine(file, 1, fmt.Errorf("gap in segments: record %d should come next, the file is named for %d", v.end.seq+1, first))
	}
	v.seen = true
	v.report.Segments++
	return nil
}

func (v *verifier) line(line []byte, isFirst bool, first uint64) error {
	r, err := checkLine(line)
	if err != nil {
		return err
	}
	if isFirst && first != 0 && r.Seq != first {
		return fmt.Errorf("gap in segments: the file is named for record %d and begins with %d", first, r.Seq)
	}
	if v.end, err = v.end.follow(r); err != nil {
		return err
	}
	if v.report.Records == 0 {
		v.report.FirstSeq = r.Seq
	}
	v.report.Records++
	v.report.LastSeq, v.report.LastHash = r.Seq, r.Hash
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
