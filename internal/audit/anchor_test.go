package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var testKey = NewKey(bytes.Repeat([]byte{7}, 32))

func testAnchor(h *Head) *Anchor {
	return &Anchor{Node: "n1", Key: testKey, Head: h, Expected: h != nil}
}

// resumed takes a trail, resumes it and runs it.
func resumed(t testing.TB, cfg Config, a *Anchor) (l *Log, stop func() error) {
	t.Helper()
	l, err := Lock(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Resume(a); err != nil {
		_ = l.Close()
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- l.Run(ctx) }()
	<-l.Ready()
	return l, func() error { cancel(); return <-result }
}

// anchored makes a keyed trail of n records in segments of at most size bytes, and returns the head
// that a store keeps of it.
func anchored(t testing.TB, n int, size int64) (Config, Head) {
	t.Helper()
	cfg := testConfig(t)
	cfg.SegmentBytes = size
	l, stop := resumed(t, cfg, testAnchor(nil))
	for i := range n {
		mustAppend(t, l, true, fmt.Sprint("r", i+1))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return cfg, l.Head()
}

// forge rewrites a trail as somebody can who has no key: every line gets the hashes that it needs.
func forge(t testing.TB, dir string, change func(lines [][]byte) [][]byte) {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	end := link{hash: genesis}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out []byte
		for _, line := range change(slices.Collect(bytes.Lines(text))) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			r, err := checkLine(line)
			if err != nil {
				t.Fatal(err)
			}
			body, _, _ := bytes.Cut(line, []byte(`,"prev":`))
			body = append(bytes.Clone(body), `,"prev":"`+end.hash+`"`...)
			if r.MAC != "" {
				body = append(body, macKey+r.MAC+`"`...)
			}
			end = link{seq: r.Seq, hash: lineHash(nil, end.hash, body)}
			out = append(append(out, body...), hashKey+end.hash+"\"}\n"...)
		}
		if err := os.WriteFile(file, out, filePerm); err != nil {
			t.Fatal(err)
		}
	}
}

func rewriteLast(t testing.TB, dir string, change func(lines [][]byte) [][]byte) {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := files[len(files)-1]
	text, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(last, bytes.Join(change(slices.Collect(bytes.Lines(text))), nil), filePerm); err != nil {
		t.Fatal(err)
	}
}

// losses are the ways in which somebody who can write to the directory takes records away or
// changes them, without the key.
func losses(t testing.TB) []struct {
	name   string
	do     func(dir string)
	want   Loss
	verify string // what Verify says with the key and the head
} {
	return []struct {
		name   string
		do     func(dir string)
		want   Loss
		verify string
	}{
		{"last lines cut", func(dir string) {
			rewriteLast(t, dir, func(l [][]byte) [][]byte { return l[:len(l)-1] })
		}, LossTruncated, "records were cut off"},
		{"last segment removed", func(dir string) {
			files, _ := segments(dir)
			if err := os.Remove(files[len(files)-1]); err != nil {
				t.Fatal(err)
			}
		}, LossTruncated, "records were cut off"},
		{"everything deleted", func(dir string) {
			files, _ := segments(dir)
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}, LossEmptied, "records were cut off"},
		{"rewritten without a key", func(dir string) {
			forge(t, dir, func(l [][]byte) [][]byte {
				for i := range l {
					l[i] = bytes.Replace(l[i], []byte("user/app"), []byte("user/you"), 1)
					var r Record
					if err := json.Unmarshal(l[i], &r); err != nil {
						t.Fatal(err)
					}
					body := l[i][:len(l[i])-1-sealSize]
					l[i] = []byte(string(body) + hashKey + lineHash(nil, r.Prev, body) + "\"}\n")
				}
				return l
			})
		}, LossReplaced, "the MAC differs"},
		{"continued without a key", func(dir string) {
			rewriteLast(t, dir, func(l [][]byte) [][]byte {
				var r Record
				if err := json.Unmarshal(l[len(l)-1], &r); err != nil {
					t.Fatal(err)
				}
				line, _ := appendLine(nil, link{r.Seq, r.Hash}, testTime, []byte(`"phase":"call","operation":"GetSecretValue"`),
					nil)
				return append(l, line)
			})
		}, LossForked, "has no MAC"},
		{"continued under another key", func(dir string) {
			rewriteLast(t, dir, func(l [][]byte) [][]byte {
				var r Record
				if err := json.Unmarshal(l[len(l)-1], &r); err != nil {
					t.Fatal(err)
				}
				line, _ := appendLine(nil, link{r.Seq, r.Hash}, testTime, []byte(`"phase":"call","operation":"GetSecretValue"`),
					NewKey(make([]byte, 32)).macer())
				return append(l, line)
			})
		}, LossForked, "the MAC differs"},
		{"first segment dropped", func(dir string) {
			files, _ := segments(dir)
			if err := os.Remove(files[0]); err != nil {
				t.Fatal(err)
			}
		}, LossBeginning, "missing from the beginning"},
		{"last line damaged", func(dir string) {
			rewriteLast(t, dir, func(l [][]byte) [][]byte {
				l[len(l)-1] = bytes.Replace(l[len(l)-1], []byte("GetSecret"), []byte("SetSecret"), 1)
				return l
			})
		}, LossDamaged, "the hash differs"},
	}
}

// TestLossIsFound takes records away while the server is down: Verify finds it, the next start
// finds and records it, and Verify finds that record.
func TestLossIsFound(t *testing.T) {
	t.Parallel()
	for _, tt := range losses(t) {
		t.Run(tt.name, func(t *testing.T) {
			cfg, head := anchored(t, 12, 2000)
			intact := Verification{Key: testKey, Head: &head}
			if r, err := intact.Verify(cfg.Dir); err != nil || r.Records != 12 || r.Keyed != 12 || r.Segments < 3 {
				t.Fatalf("before: %+v, %v", r, err)
			}
			tt.do(cfg.Dir)
			_, err := intact.Verify(cfg.Dir)
			wantError(t, err, tt.verify)
			var log bytes.Buffer
			cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			strict := testAnchor(&head)
			strict.Strict = true
			refused, err := Lock(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var loss *LossError
			if err := refused.Resume(strict); !errors.As(err, &loss) || loss.Loss != tt.want {
				t.Errorf("a strict start says %v, want %s", err, tt.want)
			}
			_ = refused.Close()
			l, stop := resumed(t, cfg, testAnchor(&head))
			mustAppend(t, l, true, "after")
			if l.Losses() != 1 || !strings.Contains(log.String(), "level=ERROR") ||
				!strings.Contains(log.String(), "loss="+string(tt.want)) {
				t.Errorf("losses %d, log %s", l.Losses(), log.String())
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			now := l.Head()
			records := readRecords(t, cfg.Dir)
			gap := records[len(records)-2]
			if gap.Operation != Gap || gap.Outcome != string(tt.want) || gap.Seq <= head.Seq {
				t.Errorf("the gap is recorded as %+v", gap)
			}
			_, err = Verification{Key: testKey, Head: &now}.Verify(cfg.Dir)
			if err == nil {
				t.Error("Verify accepts the trail after the loss")
			}
			repaired := tt.want == LossTruncated || tt.want == LossEmptied || tt.want == LossBeginning
			if _, err := (Verification{Key: testKey, Head: &now,
				KnownGaps: []uint64{gap.Seq}}).Verify(cfg.Dir); (err == nil) != repaired {
				t.Errorf("with the gap known: %v", err)
			}
			again, stop := resumed(t, cfg, testAnchor(&now))
			if again.Losses() != 0 {
				t.Error("the next start finds the same loss again")
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestKnownGapHidesNothingElse cuts more records in front of a gap that is known.
func TestKnownGapHidesNothingElse(t *testing.T) {
	t.Parallel()
	cfg, head := anchored(t, 12, 1<<20)
	cutLast := func(l [][]byte) [][]byte { return l[:len(l)-2] }
	rewriteLast(t, cfg.Dir, cutLast)
	l, stop := resumed(t, cfg, testAnchor(&head))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	now := l.Head()
	v := Verification{Key: testKey, Head: &now, KnownGaps: []uint64{13}}
	if _, err := v.Verify(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	files, err := segments(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(bytes.Lines(text))
	if err := os.WriteFile(files[0], bytes.Join(cutLast(lines), nil), filePerm); err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(cfg.Dir)
	wantError(t, err, "are not those that it reports")
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(cfg.Dir)
	wantError(t, err, "missing from the beginning")
}

// TestCrashIsNoLoss continues a trail whose records are ahead of the head that the store has.
func TestCrashIsNoLoss(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SegmentBytes = 2000
	l, stop := resumed(t, cfg, testAnchor(nil))
	empty := l.Head()
	var heads []Head
	for i := range 12 {
		mustAppend(t, l, true, fmt.Sprint("r", i+1))
		heads = append(heads, l.Head())
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, h := range append(heads, empty) {
		if h.KeyedFrom != 1 || h.First != 1 {
			t.Fatalf("head %+v", h)
		}
		l, stop := resumed(t, cfg, testAnchor(&h))
		if err := stop(); err != nil || l.Losses() != 0 {
			t.Fatalf("head %d: %d losses, %v", h.Seq, l.Losses(), err)
		}
	}
	mustVerify(t, cfg.Dir, 12)
}

// TestHeadIsOnDisk has a disk that takes no sync: what is not on disk is not in the head.
func TestHeadIsOnDisk(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SyncEvery = time.Hour
	l, stop := resumed(t, cfg, testAnchor(nil))
	mustAppend(t, l, true, "durable")
	durable := l.Head()
	mustAppend(t, l, false, "read")
	if h := l.Head(); durable.Seq != 1 || h != durable {
		t.Errorf("head %+v after a record that is not on disk, %+v before", h, durable)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if h := l.Head(); h.Seq != 2 {
		t.Errorf("head %+v after the stop", h)
	}
}

// TestHeadMissing resumes a trail whose head has gone from the store.
func TestHeadMissing(t *testing.T) {
	t.Parallel()
	cfg, _ := anchored(t, 3, 1<<20)
	a := testAnchor(nil)
	a.Expected = true
	l, stop := resumed(t, cfg, a)
	if err := stop(); err != nil || l.Losses() != 1 {
		t.Errorf("%d losses, %v", l.Losses(), err)
	}
	if r := readRecords(t, cfg.Dir); r[3].Operation != Gap || r[3].Outcome != string(LossHead) {
		t.Errorf("recorded as %+v", r[3])
	}
}

// TestAnotherStore gives the trail of one store to another.
func TestAnotherStore(t *testing.T) {
	t.Parallel()
	cfg, _ := anchored(t, 3, 1<<20)
	a := testAnchor(nil)
	a.Key = NewKey(bytes.Repeat([]byte{8}, 32))
	l, stop := resumed(t, cfg, a)
	if err := stop(); err != nil || l.Losses() != 1 {
		t.Errorf("%d losses, %v", l.Losses(), err)
	}
	h := l.Head()
	if _, err := (Verification{Key: a.Key, Head: &h, KnownGaps: []uint64{4}}).Verify(cfg.Dir); err != nil {
		t.Error(err)
	}
}

// TestTakenAwayWhileRunning removes, replaces and cuts the segment under a running server.
func TestTakenAwayWhileRunning(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(dir string) error{
		"directory removed": os.RemoveAll,
		"segment removed":   func(dir string) error { return os.Remove(filepath.Join(dir, segmentName(1))) },
		"segment cut":       func(dir string) error { return os.Truncate(filepath.Join(dir, segmentName(1)), 0) },
		"segment replaced": func(dir string) error {
			file := filepath.Join(dir, segmentName(1))
			text, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file+".x", text[:bytes.IndexByte(text, '\n')+1], filePerm)
			}
			return errors.Join(err, os.Rename(file+".x", file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.SyncEvery = time.Millisecond
			l, stop := resumed(t, cfg, testAnchor(nil))
			mustAppend(t, l, true, "1", "2", "3")
			if err := do(cfg.Dir); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(time.Minute); l.Losses() == 0; {
				_ = l.Append(t.Context(), call("x"), true) // its error is that of the segment that is gone
				if time.Now().After(deadline) {
					t.Fatal("not noticed within a minute")
				}
			}
			mustAppend(t, l, true, "after")
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			records := readRecords(t, cfg.Dir)
			i := slices.IndexFunc(records, func(r Record) bool { return r.Operation == Gap })
			if i < 0 || records[i].Outcome != string(LossWhileInUse) || records[len(records)-1].RequestID != "after" {
				t.Errorf("records %+v", records)
			}
			h := l.Head()
			_, err := Verification{Key: testKey, Head: &h}.Verify(cfg.Dir)
			wantError(t, err, "audit: ")
		})
	}
}

// TestTrailOfFormat1 continues a trail that release 0.1.0 wrote, without key and format version.
func TestTrailOfFormat1(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	if err := os.MkdirAll(cfg.Dir, dirPerm); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(cfg.Dir, os.DirFS(filepath.Join("testdata", "format1"))); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, cfg.Dir, 10)
	l, stop := resumed(t, cfg, testAnchor(nil))
	mustAppend(t, l, true, "new")
	if err := stop(); err != nil || l.Losses() != 0 {
		t.Fatalf("%d losses, %v", l.Losses(), err)
	}
	h := l.Head()
	r, err := Verification{Key: testKey, Head: &h}.Verify(cfg.Dir)
	if err != nil || r.Records != 12 || r.Keyed != 2 || r.KeyedFrom != 11 || h.KeyedFrom != 11 {
		t.Errorf("%+v, %v", r, err)
	}
	if records := readRecords(t, cfg.Dir); records[10].Operation != Adopted {
		t.Errorf("record 11 is %+v", records[10])
	}
}

// TestNewerRelease verifies and continues a trail whose last line a newer release has written.
func TestNewerRelease(t *testing.T) {
	t.Parallel()
	cfg, head := anchored(t, 2, 1<<20)
	newer := func(v int, middle string) []byte {
		mac := testKey.macer()
		body := fmt.Appendf(nil, `{"v":%d,"seq":3,"time":"2030-01-02T03:04:05.000Z",%s,"prev":"%s"`, v, middle, head.Hash)
		body = append(mac.append(append(body, macKey...), head.Hash, body), '"')
		return fmt.Appendf(body, `%s%s"}`+"\n", hashKey, lineHash(nil, head.Hash, body))
	}
	file := filepath.Join(cfg.Dir, segmentName(1))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, newer(3, `"phase":7,"who":{"a":[1]},"details":"x"`)...),
		filePerm); err != nil {
		t.Fatal(err)
	}
	r, err := Verification{Key: testKey, Head: &head}.Verify(cfg.Dir)
	if err != nil || r.Newer != 1 || r.Records != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	l, stop := resumed(t, cfg, testAnchor(&head))
	mustAppend(t, l, true, "older again")
	if err := stop(); err != nil || l.Losses() != 0 {
		t.Errorf("%d losses, %v", l.Losses(), err)
	}
	changed := bytes.Replace(newer(3, `"phase":7`), []byte(`"phase":7`), []byte(`"phase":8`), 1)
	if err := os.WriteFile(file, append(bytes.Clone(text), changed...), filePerm); err != nil {
		t.Fatal(err)
	}
	_, err = Verify(cfg.Dir)
	wantError(t, err, "the hash differs")
	if err := os.WriteFile(file, append(bytes.Clone(text), newer(3, `"seq":"x"`)...), filePerm); err != nil {
		t.Fatal(err)
	}
	_, err = Verify(cfg.Dir)
	wantError(t, err, "written by a newer release (format 3)")
}
