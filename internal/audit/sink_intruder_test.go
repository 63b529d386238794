package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// forgedLine is a line with the right hash that somebody without the trail's key has written.
func forgedLine(seq uint64) []byte {
	line, _ := appendLine(nil, link{seq: seq - 1, hash: genesis}, testTime, []byte(`"phase":"call","operation":"Forged"`),
		nil)
	return line
}

// TestSinkGetsNoForgery changes and adds lines as a program can that writes to the trail's
// directory and has no key. No forged line arrives, the records around it do, and the sink does not
// run ahead.
func TestSinkGetsNoForgery(t *testing.T) {
	t.Parallel()
	for name, forged := range map[string]func(second []byte) []byte{
		"changed": func(l []byte) []byte {
			return bytes.Replace(l, []byte(`"operation":"`), []byte(`"operation":"X`), 1)
		},
		"right hash":      func([]byte) []byte { return forgedLine(2) },
		"ahead":           func([]byte) []byte { return []byte(`{"seq":1000000000000}` + "\n") },
		"ahead, hashed":   func([]byte) []byte { return forgedLine(1e12) },
		"one line more":   func(l []byte) []byte { return slices.Concat(forgedLine(1e12), l) },
		"one line before": func(l []byte) []byte { return slices.Concat(forgedLine(2), l) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := &lineSink{}
			kept(t, 20, Retention{}, func(l *Log, _ *keeper, cfg Config) {
				file := filepath.Join(cfg.Dir, segmentName(1))
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				lines := bytes.SplitAfter(text, []byte("\n"))
				whole := bytes.Contains(forged(lines[1]), lines[1])
				lines[1] = forged(lines[1])
				if err := os.WriteFile(file, bytes.Join(lines, nil), filePerm); err != nil {
					t.Fatal(err)
				}
				var log bytes.Buffer
				f := l.Forward(sink, 0)
				drain(t, f, slog.New(slog.NewTextHandler(&log, nil)))
				missed := uint64(1)
				if whole {
					missed = 0
				}
				if f.Taken() != 20 || f.Missed() != missed || len(sink.got) != 20-int(missed) {
					t.Errorf("taken %d, missed %d, got %d records", f.Taken(), f.Missed(), len(sink.got))
				}
				for _, line := range sink.got {
					var r Record
					if json.Unmarshal(line.Text, &r) != nil || testKey.macer().check(line.Text, r) != nil {
						t.Errorf("the sink got a line that the server has not written: %s", line.Text)
					}
				}
				if !strings.Contains(log.String(), "level=ERROR") {
					t.Errorf("no error is logged:\n%s", log.String())
				}
			})
		})
	}
}

// TestSinkPassesPlantedSegments puts files with names of segments between the real ones. They delay
// and cost nothing.
func TestSinkPassesPlantedSegments(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(path string) error{
		"pipe":    func(path string) error { return syscall.Mkfifo(path, filePerm) },
		"link":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"empty":   func(path string) error { return os.WriteFile(path, nil, filePerm) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte("{\"seq\":1}\n"), filePerm) },
		"forged":  func(path string) error { return os.WriteFile(path, forgedLine(2), filePerm) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := &lineSink{}
			kept(t, 20, Retention{}, func(l *Log, _ *keeper, cfg Config) {
				for _, seq := range []uint64{2, 3} {
					if err := plant(filepath.Join(cfg.Dir, segmentName(seq))); err != nil {
						t.Fatal(err)
					}
				}
				f := l.Forward(sink, 2)
				drain(t, f, slog.New(slog.DiscardHandler))
				if f.Missed() != 0 || len(sink.got) != 18 {
					t.Errorf("missed %d, got %d records, want 18", f.Missed(), len(sink.got))
				}
			})
		})
	}
}

// TestSinkContinuesBehindBadCompression cuts and replaces a compressed segment: the sink gets what
// is behind it.
func TestSinkContinuesBehindBadCompression(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(b []byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"garbage": func([]byte) []byte { return []byte("no segment") },
		"empty":   func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := &lineSink{}
			kept(t, 20, Retention{Compress: true}, func(l *Log, k *keeper, cfg Config) {
				k.look(t.Context())
				file := filepath.Join(cfg.Dir, strings.TrimSuffix(segmentName(1), segmentExt)+compressedExt)
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, spoil(b), filePerm); err != nil {
					t.Fatal(err)
				}
				f := l.Forward(sink, 0)
				drain(t, f, slog.New(slog.DiscardHandler))
				if n := uint64(len(sink.got)); f.Taken() != 20 || n+f.Missed() != 20 || n < 10 {
					t.Errorf("taken %d, missed %d, got %d records", f.Taken(), f.Missed(), n)
				}
			})
		})
	}
}

// TestOldPosition reads what an earlier release noted, and is not stopped by what others put there.
func TestOldPosition(t *testing.T) {
	t.Parallel()
	l, err := Open(testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	path := l.oldPosition("http")
	for i, c := range []struct {
		put  func() error
		want uint64
		fail bool
	}{
		{put: func() error { return nil }},
		{put: func() error { return os.WriteFile(path, []byte("{\"v\":1,\"seq\":7}\n"), filePerm) }, want: 7},
		{put: func() error { return os.WriteFile(path, []byte("{"), filePerm) }, fail: true},
		{put: func() error { return os.WriteFile(path, bytes.Repeat([]byte(" "), 1<<20), filePerm) }, fail: true},
		{put: func() error { return syscall.Mkfifo(path, filePerm) }, fail: true},
		{put: func() error { return os.Symlink("/dev/zero", path) }, fail: true},
	} {
		if err := c.put(); err != nil {
			t.Fatal(err)
		}
		seq, err := l.OldPosition("http")
		if seq != c.want || (err != nil) != c.fail {
			t.Errorf("%d: %d, %v", i, seq, err)
		}
		if err := l.RemoveOldPosition("http"); err != nil {
			t.Fatal(err)
		}
	}
}

// lineSink keeps the lines.
type lineSink struct {
	memorySink
	got []Line
}

func (s *lineSink) Send(_ context.Context, lines []Line) (uint64, error) {
	s.got = append(s.got, lines...)
	if len(s.got) == 0 {
		return 0, nil
	}
	return s.got[len(s.got)-1].Seq, nil
}

// drain sends until the sink has everything.
func drain(t *testing.T, f *Forwarder, log *slog.Logger) {
	t.Helper()
	r := f.tailer(log)
	defer r.close()
	for range 100 {
		if f.Lag() == 0 {
			return
		}
		if _, err := f.step(t.Context(), &r); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal(fmt.Errorf("%d records are left", f.Lag()))
}

// TestSinkLogsFewDamagedLines plants a segment of many short lines: the sink gets every record, the
// log stays short, and reading ends with its context.
func TestSinkLogsFewDamagedLines(t *testing.T) {
	t.Parallel()
	kept(t, 20, Retention{}, func(l *Log, _ *keeper, cfg Config) {
		junk := bytes.Repeat([]byte("x\n"), 200_000)
		if err := os.WriteFile(filepath.Join(cfg.Dir, segmentName(3)), junk, filePerm); err != nil {
			t.Fatal(err)
		}
		sink := &lineSink{}
		f := l.Forward(sink, 2)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		r := f.tailer(slog.New(slog.DiscardHandler))
		if lines, err := r.batch(ended, 20); len(lines) != 0 || r.read != 0 {
			t.Errorf("%d records, %d lines were read, %v", len(lines), r.read, err)
		}
		r.close()
		var log bytes.Buffer
		drain(t, f, slog.New(slog.NewTextHandler(&log, nil)))
		if f.Missed() != 0 || len(sink.got) != 18 {
			t.Errorf("missed %d, got %d records, want 18", f.Missed(), len(sink.got))
		}
		if got := bytes.Count(log.Bytes(), []byte("\n")); got == 0 || got > 20 {
			t.Errorf("%d lines in the log", got)
		}
	})
}

// TestSinkReadsNoGrownSegment makes a planted segment larger than any while it is open.
func TestSinkReadsNoGrownSegment(t *testing.T) {
	t.Parallel()
	kept(t, 20, Retention{}, func(l *Log, _ *keeper, cfg Config) {
		planted := filepath.Join(cfg.Dir, segmentName(3))
		if err := os.WriteFile(planted, []byte("x\n"), filePerm); err != nil {
			t.Fatal(err)
		}
		f := l.Forward(&lineSink{}, 2)
		r := f.tailer(slog.New(slog.DiscardHandler))
		defer r.close()
		if err := r.open(t.Context(), ""); err != nil || r.path != planted {
			t.Fatalf("opened %s, %v", r.path, err)
		}
		if err := os.Truncate(planted, 1<<42); err != nil {
			t.Fatal(err)
		}
		lines, err := r.batch(t.Context(), 20)
		if err != nil || len(lines) != 18 {
			t.Errorf("%d records, %v", len(lines), err)
		}
	})
}
