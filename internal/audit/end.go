package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// ending is the end of a trail as it is on disk.
type ending struct {
	files []string
	tail  tail
	err   error  // why the end cannot be read
	least uint64 // no record of the trail has a greater number
	// foreign are the files that have the name of a segment and cannot be one. They are left alone.
	foreign []string
}

// maxAhead bounds how far the name of a segment may be ahead of the head. The server stores the
// head every few seconds.
const maxAhead = 1 << 32

// findEnd reads the end of the trail in dir. head is nil when it is not known.
func findEnd(dir string, head *Head) (ending, error) {
	e := ending{tail: tail{end: link{hash: genesis}}}
	all, err := segments(dir)
	if err != nil {
		return e, err
	}
	for _, file := range all {
		info, err := os.Lstat(file)
		if err != nil {
			return e, fmt.Errorf("audit: read segment: %w", err)
		}
		first := segmentSeq(filepath.Base(file))
		if !info.Mode().IsRegular() || head != nil && first > head.Seq && first-head.Seq > maxAhead {
			e.foreign = append(e.foreign, file)
		} else {
			e.files = append(e.files, file)
		}
	}
	files := e.files
	if len(files) == 0 {
		return e, nil
	}
	last := files[len(files)-1]
	e.least = segmentSeq(filepath.Base(last)) - 1
	if e.tail, e.err = readTail(last); e.err == nil && e.tail.whole == 0 {
		e.tail.end, e.err = endBefore(files)
	}
	if e.err != nil {
		lines, err := lineCount(last)
		if errors.Is(err, fs.ErrPermission) {
			return e, err
		}
		if err != nil {
			lines = maxSegment / uint64(sealSize)
		}
		e.least += lines + 1
		return e, nil
	}
	e.least = max(e.least, e.tail.end.seq)
	return e, nil
}

// found returns the last record that can be read: of the last segment, or else of the one before.
// It is zero when neither can be read.
func (e *ending) found() link {
	if e.err == nil {
		return e.tail.end
	}
	if len(e.files) < 2 {
		return link{hash: genesis}
	}
	t, err := readTail(e.files[len(e.files)-2])
	if err != nil {
		return link{}
	}
	return t.end
}

func lineCount(file string) (n uint64, err error) {
	f, err := openSegment(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines, err := countLines(f)
	return uint64(lines), err
}

// lineSeq returns the number of a line's record without decoding the line; 0 when it is not where
// it belongs.
func lineSeq(line []byte) uint64 {
	const key = `"seq":`
	for i := 0; i < min(len(line), 24); i++ {
		if n := len(key); i+n < len(line) && string(line[i:i+n]) == key {
			end := i + n
			for end < len(line) && line[end] >= '0' && line[end] <= '9' {
				end++
			}
			seq, err := strconv.ParseUint(string(line[i+n:end]), 10, 64)
			if err != nil {
				return 0
			}
			return seq
		}
	}
	return 0
}

// eachLine calls visit for each line of a segment, without its newline. whole is false for a last
// line without one.
func eachLine(file string, visit func(line []byte, whole bool) error) error {
	f, err := openSegment(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return visit(line, false)
		case errors.Is(err, bufio.ErrBufferFull):
			return errLineTooLong
		case err != nil:
			return err
		}
		if err := visit(line[:len(line)-1], true); err != nil {
			return err
		}
	}
}
