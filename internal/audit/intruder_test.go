package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// The tests of this file play somebody who can write to the directory of the trail and has neither
// the store nor a key.

// plants are what an intruder can put in the place of a file. victim is a file outside.
var plants = map[string]func(path, victim string) error{
	"link":          func(path, victim string) error { return os.Symlink(victim, path) },
	"dangling link": func(path, victim string) error { return os.Symlink(victim+".none", path) },
	"hard link":     func(path, victim string) error { return os.Link(victim, path) },
	"pipe":          func(path, _ string) error { return syscall.Mkfifo(path, filePerm) },
	"directory":     func(path, _ string) error { return os.Mkdir(path, dirPerm) },
	"file":          func(path, _ string) error { return os.WriteFile(path, []byte("x"), filePerm) },
	"sparse file": func(path, _ string) error {
		return errors.Join(os.WriteFile(path, nil, filePerm), os.Truncate(path, 1<<40))
	},
}

// inTime calls do in the goroutine of the test, so do may end the test. When do hangs, inTime ends
// the process with the stacks of all goroutines.
func inTime(t *testing.T, do func()) {
	t.Helper()
	watchdog := time.AfterFunc(support.Patience, func() { panic(t.Name() + " hangs") })
	defer watchdog.Stop()
	do()
}

func victim(t *testing.T) (path string, check func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(path, []byte("precious"), filePerm); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		t.Helper()
		text, err := os.ReadFile(path)
		_, none := os.Lstat(path + ".none")
		if string(text) != "precious" || err != nil || !errors.Is(none, os.ErrNotExist) {
			t.Errorf("the file outside is %q, %v; behind the dangling link: %v", text, err, none)
		}
	}
}

// TestPlantedNextSegment puts something in the place of the next segments and makes the server
// begin one: it writes to none of them, removes none, and goes on.
func TestPlantedNextSegment(t *testing.T) {
	t.Parallel()
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t)
			cfg.SyncEvery = time.Millisecond
			l, stop := resumed(t, cfg, testAnchor(nil))
			mustAppend(t, l, true, "1", "2", "3")
			path, check := victim(t)
			for n := uint64(4); n < 8; n++ {
				if err := plant(filepath.Join(cfg.Dir, segmentName(n)), path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(filepath.Join(cfg.Dir, segmentName(1)), filepath.Join(cfg.Dir, "away")); err != nil {
				t.Fatal(err)
			}
			support.Until(t, "the loss to be noticed without a record", func() bool { return l.Losses() > 0 })
			inTime(t, func() { mustAppend(t, l, true, "after") })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			check()
			aside, err := filepath.Glob(filepath.Join(cfg.Dir, "*.foreign-*"))
			if err != nil || len(aside) == 0 {
				t.Errorf("what was in the way is kept as %v, %v", aside, err)
			}
		})
	}
}

// TestPlantedLastSegment puts something behind the end of a trail that is at rest: Verify says so,
// a start does not hang and records a loss, and numbers do not run ahead.
func TestPlantedLastSegment(t *testing.T) {
	t.Parallel()
	for name, plant := range plants {
		for _, first := range []uint64{900, 1<<64 - 1} {
			t.Run(fmt.Sprint(name, " ", first), func(t *testing.T) {
				t.Parallel()
				cfg, head := anchored(t, 12, 1<<20)
				path, check := victim(t)
				if err := plant(filepath.Join(cfg.Dir, segmentName(first)), path); err != nil {
					t.Fatal(err)
				}
				inTime(t, func() {
					_, err := Verification{Key: testKey, Head: &head}.Verify(cfg.Dir)
					wantError(t, err, "audit: ")
					l, stop := resumed(t, cfg, testAnchor(&head))
					mustAppend(t, l, true, "after")
					if err := stop(); err != nil {
						t.Error(err)
					}
					if h := l.Head(); l.Losses() != 1 || h.Seq < 14 || h.Seq > 1<<32 || h.First != 1 {
						t.Errorf("%d losses, head %+v", l.Losses(), h)
					}
				})
				check()
			})
		}
	}
}

// TestPlantedLock puts something in the place of the lock: nothing outside is opened to write, and
// no start hangs.
func TestPlantedLock(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"link", "dangling link", "hard link", "pipe", "directory"} {
		cfg := testConfig(t)
		if err := os.MkdirAll(cfg.Dir, dirPerm); err != nil {
			t.Fatal(err)
		}
		path, check := victim(t)
		if err := plants[name](filepath.Join(cfg.Dir, lockName), path); err != nil {
			t.Fatal(err)
		}
		inTime(t, func() {
			l, err := Open(cfg)
			if err == nil {
				t.Errorf("%s: Open succeeds", name)
				_ = l.Close()
			}
		})
		check()
	}
}

// TestPlantedTemporary puts something in the place of the temporary file of a compression.
func TestPlantedTemporary(t *testing.T) {
	t.Parallel()
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			kept(t, 20, Retention{Compress: true}, func(l *Log, k *keeper, cfg Config) {
				path, check := victim(t)
				if err := plant(filepath.Join(cfg.Dir, segmentName(1)+".tmp"), path); err != nil {
					t.Fatal(err)
				}
				inTime(t, func() { k.look(t.Context()) })
				check()
				verifies(t, l, cfg.Dir)
				if names(t, cfg.Dir, compressedExt) < 3 {
					t.Error("nothing is compressed")
				}
			})
		})
	}
}

// aged returns a line with another year and the hash that belongs to it, which needs no key.
func aged(line []byte) []byte {
	i := bytes.Index(line, []byte(`"time":"`)) + len(`"time":"`)
	body := slices.Concat(line[:i], []byte("2001"), line[i+4:len(line)-sealSize])
	p := bytes.LastIndex(body, []byte(`"prev":"`)) + len(`"prev":"`)
	sum := sha256.Sum256(slices.Concat(body[p:p+hashSize], []byte("\n"), body, []byte("}")))
	return fmt.Appendf(body, `,"hash":"%s"}`, hex.EncodeToString(sum[:]))
}

// tampering changes a directory and returns the file that it has planted, if any.
type tampering func(t *testing.T, dir string, files []string) (planted string)

// TestRetentionIsNotFooled: retention removes and skips nothing because of what others put into the
// directory, and what they put there stays.
func TestRetentionIsNotFooled(t *testing.T) {
	t.Parallel()
	year := 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		r      Retention
		before tampering
	}{
		"a sparse file before the segment in use": {Retention{MaxBytes: 1 << 30}, func(
			t *testing.T, dir string, files []string,
		) string {
			first := segmentSeq(filepath.Base(files[len(files)-1]))
			return sparse(t, filepath.Join(dir, segmentName(first-1)))
		}},
		"a sparse file before all": {Retention{MaxBytes: 1 << 30}, func(t *testing.T, dir string, files []string) string {
			return sparse(t, filepath.Join(dir, segmentName(2)))
		}},
		"first lines that say that they are old": {Retention{MaxAge: year},
			func(t *testing.T, _ string, files []string) string {
				for _, file := range files[1:] {
					text, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					line, rest, _ := bytes.Cut(text, []byte("\n"))
					if err := os.WriteFile(file, slices.Concat(aged(line), []byte("\n"), rest), filePerm); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = os.WriteFile(file, text, filePerm) })
				}
				return ""
			}},
		"a file with a later name": {Retention{MaxBytes: 1 << 30, MaxAge: year}, func(
			t *testing.T, dir string, _ []string,
		) string {
			return sparse(t, filepath.Join(dir, segmentName(1<<40)))
		}},
		"a later name and a record": {Retention{MaxAge: year}, func(t *testing.T, dir string, files []string) string {
			text, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			line, _, _ := bytes.Cut(text, []byte("\n"))
			file := filepath.Join(dir, segmentName(1<<40))
			if err := os.WriteFile(file, append(aged(line), '\n'), filePerm); err != nil {
				t.Fatal(err)
			}
			return file
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kept(t, 20, tt.r, func(l *Log, k *keeper, cfg Config) {
				files, err := segments(cfg.Dir)
				if err != nil {
					t.Fatal(err)
				}
				planted := tt.before(t, cfg.Dir, files)
				k.StoreHead = func(context.Context) error { return nil }
				inTime(t, func() { k.look(t.Context()); k.look(t.Context()) })
				for _, file := range files {
					if _, err := os.Stat(file); err != nil {
						t.Errorf("retention has removed a segment: %v", err)
					}
				}
				if h := l.Head(); h.First != 1 {
					t.Errorf("the trail is to begin with record %d", h.First)
				}
				if l.Damaged() == 0 {
					t.Error("nothing is reported")
				}
				if _, err := os.Lstat(planted); planted != "" && err != nil {
					t.Errorf("what was planted is gone: %v", err)
				}
			})
		})
	}
}

func sparse(t *testing.T, file string) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(file, nil, filePerm), os.Truncate(file, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCutSegmentIsNotCompressed cuts a finished segment at the end of a line: it is reported and
// stays as it is, and retention does not remove it.
func TestCutSegmentIsNotCompressed(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Retention{
		"compress": {Compress: true},
		"age":      {MaxAge: time.Hour},
		"size":     {MaxBytes: 3000},
	} {
		t.Run(name, func(t *testing.T) {
			kept(t, 20, r, func(l *Log, k *keeper, cfg Config) {
				file := filepath.Join(cfg.Dir, segmentName(1))
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				cut := text[:bytes.LastIndexByte(text[:len(text)-1], '\n')+1]
				if err := os.WriteFile(file, cut, filePerm); err != nil {
					t.Fatal(err)
				}
				k.look(t.Context())
				after, err := os.ReadFile(file)
				if err != nil || !bytes.Equal(after, cut) {
					t.Errorf("%d bytes of %d, %v", len(after), len(cut), err)
				}
				if first := l.Head().First; l.Damaged() != 1 || first != 1 {
					t.Errorf("%d reported; the trail is to begin with record %d", l.Damaged(), first)
				}
			})
		})
	}
}

// TestCompressedBomb: a small compressed file is not read for longer than a segment can be,
// wherever it stands.
func TestCompressedBomb(t *testing.T) {
	t.Parallel()
	lines := map[string]string{
		"empty lines": "\n", "short lines": strings.Repeat("x", sealSize+1) + "\n", "no line": strings.Repeat("x", 1000),
	}
	for name, text := range lines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, head := anchored(t, 12, 1<<20)
			file := filepath.Join(cfg.Dir, strings.Replace(segmentName(13), segmentExt, compressedExt, 1))
			var member bytes.Buffer
			z := gzip.NewWriter(&member)
			_, err := z.Write(bytes.Repeat([]byte(text), 1<<20/len(text)))
			if err := errors.Join(err, z.Close()); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, bytes.Repeat(member.Bytes(), maxSegment>>20+2), filePerm); err != nil {
				t.Fatal(err)
			}
			read := 0
			_ = eachLine(file, func(line []byte, _ bool) error { read += len(line) + 1; return nil })
			if read > maxSegment {
				t.Errorf("%d bytes are read", read)
			}
			_, err = Verification{Key: testKey, Head: &head}.Verify(cfg.Dir)
			wantError(t, err, "audit: ")
			l, stop := resumed(t, cfg, testAnchor(&head))
			if err := stop(); err != nil || l.Losses() != 1 {
				t.Errorf("%d losses, %v", l.Losses(), err)
			}
		})
	}
}

// TestKnownTakenAwayHidesNothingElse: the segment in use is taken away and put back, and the
// operator accepts that. Then the records in front of the gap must all be there, or all be away as
// they were.
func TestKnownTakenAwayHidesNothingElse(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SyncEvery, cfg.SegmentBytes = time.Millisecond, 2000
	l, stop := resumed(t, cfg, testAnchor(nil))
	for names(t, cfg.Dir, segmentExt) < 3 {
		mustAppend(t, l, true, "")
	}
	mustAppend(t, l, true, "1", "2") // the third is begun with the record that no longer fits
	files, err := segments(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	file := files[2]
	if err := os.Rename(file, file+".x"); err != nil {
		t.Fatal(err)
	}
	support.Until(t, "the loss to be noticed without a record", func() bool { return l.Losses() > 0 })
	mustAppend(t, l, true, "after")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	head := l.Head()
	_, err = Verification{Key: testKey, Head: &head}.Verify(cfg.Dir)
	var gap *GapError
	if !errors.As(err, &gap) || len(gap.Gaps) != 1 {
		t.Fatalf("error %v", err)
	}
	known := []Verification{
		{Key: testKey, Head: &head, KnownGaps: []uint64{gap.Gaps[0].Seq}},
		{Head: &head, KnownGaps: []uint64{gap.Gaps[0].Seq}}, // as with --online
	}
	for i, v := range known {
		if _, err := v.Verify(cfg.Dir); err != nil {
			t.Errorf("taken away, %d: %v", i, err)
		}
	}
	if err := os.Rename(file+".x", file); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines, before := slices.Collect(bytes.Lines(whole)), startOf(file)
	for i, v := range known {
		if _, err := v.Verify(cfg.Dir); err != nil {
			t.Errorf("put back, %d: %v", i, err)
		}
		for n := 1; n < len(lines); n++ {
			if err := os.WriteFile(file, bytes.Join(lines[:n], nil), filePerm); err != nil {
				t.Fatal(err)
			}
			_, err = v.Verify(cfg.Dir)
			wantError(t, err, "are not those that it reports")
		}
		// The same numbers, invented and chained.
		var invented []byte
		prev := before
		for range lines {
			e := newEntry()
			if err := e.set(call("invented"), false); err != nil {
				t.Fatal(err)
			}
			invented, prev = appendLine(invented, prev, testTime, e.members, NewKey(make([]byte, 32)).macer())
		}
		if err := os.WriteFile(file, invented, filePerm); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(cfg.Dir); err == nil {
			t.Errorf("invented, %d: Verify holds", i)
		}
		if err := os.WriteFile(file, whole, filePerm); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullSegmentTakenAway renames the segment in use away when it is full: the loss is found
// before the next one is begun.
func TestFullSegmentTakenAway(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SyncEvery, cfg.SegmentBytes = time.Hour, 1
	l, stop := resumed(t, cfg, testAnchor(nil))
	mustAppend(t, l, true, "1")
	file := filepath.Join(cfg.Dir, segmentName(1))
	if err := os.Rename(file, file+".x"); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, true, "2")
	if err := stop(); err != nil || l.Losses() != 1 {
		t.Errorf("%d losses, %v", l.Losses(), err)
	}
}

// TestExpandedSegmentsAreNotPruned: somebody expands the compressed segments. They are compressed
// again before the size of the trail is looked at.
func TestExpandedSegmentsAreNotPruned(t *testing.T) {
	t.Parallel()
	kept(t, 40, Retention{Compress: true}, func(l *Log, k *keeper, cfg Config) {
		k.StoreHead = func(context.Context) error { return nil }
		k.look(t.Context())
		k.MaxBytes = dirBytes(cfg.Dir) + 2000
		files, err := segments(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files[:len(files)-1] {
			var plain []byte
			err := eachLine(file, func(line []byte, _ bool) error { plain = append(append(plain, line...), '\n'); return nil })
			if err != nil {
				t.Fatal(err)
			}
			err = errors.Join(os.WriteFile(strings.TrimSuffix(file, ".gz"), plain, filePerm), os.Remove(file))
			if err != nil {
				t.Fatal(err)
			}
		}
		k.look(t.Context())
		if h := l.Head(); h.First != 1 {
			t.Errorf("the trail is to begin with record %d", h.First)
		}
	})
}

// TestSecondNameOfTheLastSegment: a copy by links, as backup programs make, gives the last segment
// a second name. The start leaves it as it is and continues in a new one.
func TestSecondNameOfTheLastSegment(t *testing.T) {
	t.Parallel()
	cfg, head := anchored(t, 5, 1<<20)
	if err := os.Link(filepath.Join(cfg.Dir, segmentName(1)), filepath.Join(t.TempDir(), "backup")); err != nil {
		t.Fatal(err)
	}
	l, stop := resumed(t, cfg, testAnchor(&head))
	mustAppend(t, l, true, "after")
	if err := stop(); err != nil || l.Losses() != 0 {
		t.Errorf("%d losses, %v", l.Losses(), err)
	}
	now := l.Head()
	if r, err := (Verification{Key: testKey, Head: &now}).Verify(cfg.Dir); err != nil || r.Records != 6 {
		t.Errorf("%d records, %v", r.Records, err)
	}
}

// TestSinkPassesCopiedLines: somebody puts a copy of genuine lines into a file that is named inside
// another segment. The sink gets every record all the same.
func TestSinkPassesCopiedLines(t *testing.T) {
	t.Parallel()
	for _, planted := range []uint64{2, 3, 4} {
		kept(t, 20, Retention{}, func(l *Log, _ *keeper, cfg Config) {
			text, err := os.ReadFile(filepath.Join(cfg.Dir, segmentName(1)))
			if err != nil {
				t.Fatal(err)
			}
			lines := slices.Collect(bytes.Lines(text))
			for name, copied := range map[string][]byte{"an earlier line": lines[0], "its own line": lines[planted-1]} {
				if len(lines) < int(planted) {
					t.Fatalf("the first segment has %d records", len(lines))
				}
				if err := os.WriteFile(filepath.Join(cfg.Dir, segmentName(planted)), copied, filePerm); err != nil {
					t.Fatal(err)
				}
				sink := &lineSink{}
				f := l.Forward(sink, planted)
				r := f.tailer(slog.New(slog.DiscardHandler))
				for range 20 {
					if _, err := f.step(t.Context(), &r); err != nil {
						t.Error(err)
					}
				}
				if len(sink.got) == 0 || sink.got[0].Seq != planted+1 || f.Missed() != 0 {
					t.Errorf("%s at %d: the sink got %d records and missed %d", name, planted, len(sink.got), f.Missed())
				}
			}
		})
	}
}
