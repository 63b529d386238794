package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kept runs a keyed trail with n records in small segments, and gives it to test with its keeper.
func kept(t *testing.T, n int, r Retention, test func(l *Log, k *keeper, cfg Config)) {
	t.Helper()
	cfg := testConfig(t)
	cfg.SegmentBytes = 2000
	var log bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	at := testTime
	cfg.Now = func() time.Time { at = at.Add(time.Hour); return at }
	l, stop := resumed(t, cfg, testAnchor(nil))
	for i := range n {
		mustAppend(t, l, true, fmt.Sprint("r", i+1))
	}
	k := newKeeper(l, r)
	l.cfg.Now = func() time.Time { return testTime.Add(time.Duration(n) * time.Hour) }
	test(l, k, cfg)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.Log(log.String())
	}
}

func verifies(t *testing.T, l *Log, dir string) Report {
	t.Helper()
	h := l.Head()
	r, err := Verification{Key: testKey, Head: &h}.Verify(dir)
	if err != nil {
		t.Error(err)
	}
	return r
}

func names(t *testing.T, dir, ext string) (n int) {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if segmentExtOf(f) == ext {
			n++
		}
	}
	return n
}

// TestCompress: finished segments are compressed, the trail verifies as before, a restart continues
// it, and a crash between the two forms of a segment leaves nothing twice.
func TestCompress(t *testing.T) {
	t.Parallel()
	kept(t, 20, Retention{Compress: true}, func(l *Log, k *keeper, cfg Config) {
		before := verifies(t, l, cfg.Dir)
		plain := filepath.Join(cfg.Dir, segmentName(1))
		text, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		k.look(t.Context())
		if names(t, cfg.Dir, segmentExt) != 1 || names(t, cfg.Dir, compressedExt) < 3 {
			t.Errorf("%d plain, %d compressed", names(t, cfg.Dir, segmentExt), names(t, cfg.Dir, compressedExt))
		}
		if after := verifies(t, l, cfg.Dir); after.Records != before.Records || after.LastHash != before.LastHash {
			t.Errorf("%+v, before %+v", after, before)
		}
		if err := os.WriteFile(plain, text, filePerm); err != nil { // as after a crash
			t.Fatal(err)
		}
		verifies(t, l, cfg.Dir)
		k.look(t.Context())
		if _, err := os.Stat(plain); !errors.Is(err, os.ErrNotExist) || k.failed {
			t.Errorf("the plain segment: %v", err)
		}
	})
}

// TestCompressedTamper changes a byte of a compressed segment, and a segment before it is
// compressed.
func TestCompressedTamper(t *testing.T) {
	t.Parallel()
	kept(t, 20, Retention{Compress: true}, func(l *Log, k *keeper, cfg Config) {
		second, err := segments(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(second[1])
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(text)
		copy(changed[bytes.LastIndex(changed, []byte("user/app")):], "user/you")
		if err := os.WriteFile(second[1], changed, filePerm); err != nil {
			t.Fatal(err)
		}
		k.look(t.Context())
		k.look(t.Context())
		if _, err := os.Stat(second[1]); err != nil || l.Damaged() != 1 {
			t.Errorf("%d segments found changed, %v", l.Damaged(), err)
		}
		if err := os.WriteFile(second[1], text, filePerm); err != nil {
			t.Fatal(err)
		}
		zipped := second[0] + ".gz"
		if text, err = os.ReadFile(zipped); err != nil {
			t.Fatal(err)
		}
		content := func() (all []byte) {
			_ = eachLine(zipped, func(line []byte, _ bool) error { all = append(append(all, line...), '\n'); return nil })
			return all
		}
		whole := content()
		for i := 0; i < len(text); i += 5 {
			changed := bytes.Clone(text)
			changed[i] ^= 0x10
			if err := os.WriteFile(zipped, changed, filePerm); err != nil {
				t.Fatal(err)
			}
			h := l.Head()
			if r, err := (Verification{Key: testKey, Head: &h}).Verify(cfg.Dir); err == nil && !bytes.Equal(content(), whole) {
				t.Fatalf("byte %d was changed, and Verify says %+v", i, r)
			}
		}
		if err := os.WriteFile(zipped, text, filePerm); err != nil {
			t.Fatal(err)
		}
		verifies(t, l, cfg.Dir)
	})
}

// TestRetention removes old segments: recorded, stored in the head before, no alarm, and an alarm
// for one more.
func TestRetention(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]Retention{
		"age": {MaxAge: 10 * time.Hour}, "size": {MaxBytes: 5000}, "compressed": {Compress: true, MaxAge: 10 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			stored := Head{}
			kept(t, 20, r, func(l *Log, k *keeper, cfg Config) {
				if r.Compress {
					if err := k.compress(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				k.StoreHead = func(context.Context) error { stored = l.Head(); return nil }
				k.look(t.Context())
				report := verifies(t, l, cfg.Dir)
				if report.FirstSeq < 5 || report.FirstSeq > 15 || stored.First != report.FirstSeq {
					t.Errorf("%+v, stored %+v", report, stored)
				}
				records := readPlain(t, cfg.Dir)
				if last := records[len(records)-1]; last.Operation != Pruned ||
					last.Details.Get("last") != fmt.Sprint(report.FirstSeq-1) {
					t.Errorf("the removal is recorded as %+v", last)
				}
				files, err := segments(cfg.Dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(files[0]); err != nil {
					t.Fatal(err)
				}
				h := l.Head()
				_, err = Verification{Key: testKey, Head: &h}.Verify(cfg.Dir)
				wantError(t, err, "missing from the beginning")
			})
		})
	}
}

// readPlain returns the records of the segment in use.
func readPlain(t *testing.T, dir string) (out []Record) {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = eachLine(files[len(files)-1], func(line []byte, _ bool) error {
		r, err := checkLine(line)
		out = append(out, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRetentionWaits: nothing is removed while the store does not take the head, and by age nothing
// that a sink does not have.
func TestRetentionWaits(t *testing.T) {
	t.Parallel()
	kept(t, 20, Retention{MaxAge: 10 * time.Hour}, func(l *Log, k *keeper, cfg Config) {
		k.StoreHead = func(context.Context) error { return errors.New("no store") }
		k.look(t.Context())
		k.look(t.Context()) // nor is anything at the next try
		if r := verifiesFrom(t, cfg.Dir); r.FirstSeq != 1 || !k.failed {
			t.Errorf("%+v", r)
		}
	})
	kept(t, 20, Retention{MaxAge: 10 * time.Hour, Taken: func() uint64 { return 0 }}, func(_ *Log, k *keeper, cfg Config) {
		k.look(t.Context())
		if r := verifiesFrom(t, cfg.Dir); r.FirstSeq != 1 {
			t.Errorf("%+v", r)
		}
	})
	kept(t, 20, Retention{MaxBytes: 5000, Taken: func() uint64 { return 2 }}, func(_ *Log, k *keeper, cfg Config) {
		k.look(t.Context())
		records := readPlain(t, cfg.Dir)
		if last := records[len(records)-1]; last.Operation != Pruned || last.Details.Get("not_taken_from") != "3" {
			t.Errorf("the removal of what no sink has is recorded as %+v", last)
		}
	})
}

func verifiesFrom(t *testing.T, dir string) Report {
	t.Helper()
	r, err := Verify(dir)
	if err != nil {
		t.Error(err)
	}
	return r
}

// TestKeepRuns has Keep do its work beside Run: a segment that is finished is compressed.
func TestKeepRuns(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SegmentBytes = 2000
	l, stop := resumed(t, cfg, testAnchor(nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Keep(ctx, Retention{Compress: true}) }()
	for i := range 20 {
		mustAppend(t, l, true, fmt.Sprint(i))
	}
	for deadline := time.Now().Add(time.Minute); names(t, cfg.Dir, compressedExt) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is compressed within a minute")
		}
	}
	cancel()
	<-done
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	h := l.Head()
	if _, err := (Verification{Key: testKey, Head: &h}).Verify(cfg.Dir); err != nil {
		t.Error(err)
	}
	again, stop := resumed(t, cfg, testAnchor(&h))
	if err := stop(); err != nil || again.Losses() != 0 {
		t.Errorf("%d losses, %v", again.Losses(), err)
	}
	if entries, err := os.ReadDir(cfg.Dir); err != nil || strings.Contains(fmt.Sprint(entries), ".tmp") {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
