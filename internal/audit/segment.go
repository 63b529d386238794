package audit

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// compressedExt is what a segment's name has when it was compressed.
const compressedExt = segmentExt + ".gz"

// segmentExtOf returns how a segment file is stored: segmentExt or compressedExt.
func segmentExtOf(file string) string {
	if strings.HasSuffix(file, compressedExt) {
		return compressedExt
	}
	return segmentExt
}

// segments returns the segment files of dir in the order of the chain. Of a segment that is there
// both plain and compressed, because a crash came before the removal of the plain one, the plain
// one counts.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit: list segments: %w", err)
	}
	var files []string
	for _, e := range entries { // sorted by name, so the plain one comes first
		seq := segmentSeq(e.Name())
		if seq == 0 || len(files) > 0 && segmentSeq(filepath.Base(files[len(files)-1])) == seq {
			continue
		}
		files = append(files, filepath.Join(dir, e.Name()))
	}
	slices.Sort(files)
	return files, nil
}

// openSegment opens a segment for reading; a compressed one is read as what it was before.
func openSegment(file string) (io.ReadCloser, error) {
	f, _, err := openPlain(file)
	if err != nil {
		return nil, err
	}
	if segmentExtOf(file) == segmentExt {
		return &segmentFile{Reader: &bounded{f, maxSegment}, file: f}, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("not a compressed segment: %w", err), f.Close())
	}
	return &segmentFile{Reader: &bounded{z, maxSegment}, file: f}, nil
}

// segmentFile is a segment open for reading, as its plain text.
type segmentFile struct {
	io.Reader
	file *os.File
}

func (s *segmentFile) Close() error { return s.file.Close() }
