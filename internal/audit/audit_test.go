package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))

func testConfig(t testing.TB) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "audit"), Now: func() time.Time { return testTime }}
}

// start opens a trail and runs it until the test ends or stop is called.
func start(t testing.TB, cfg Config) (l *Log, stop func() error) {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- l.Run(ctx) }()
	<-l.Ready()
	stop = sync.OnceValue(func() error { cancel(); return <-result })
	t.Cleanup(func() { _ = stop() })
	return l, stop
}

func call(id string) Record {
	return Record{
		RequestID: id, Phase: Call, Principal: "acs:ram::1:user/app", Operation: "GetSecretValue", Decision: Allow,
		Resource: "acs:kms:cn-hangzhou:1:secret/app/db", Outcome: "ok",
	}
}

func mustAppend(t testing.TB, l *Log, durable bool, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := l.Append(context.Background(), call(id), durable); err != nil {
			t.Fatalf("Append %s: %v", id, err)
		}
	}
}

func mustVerify(t testing.TB, path string, records uint64) Report {
	t.Helper()
	r, err := Verify(path)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if r.Records != records {
		t.Fatalf("Verify found %d records, want %d", r.Records, records)
	}
	return r
}

func readRecords(t testing.TB, dir string) []Record {
	t.Helper()
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []Record
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
	}
	return out
}

// written makes a trail of n records and returns its only segment.
func written(t testing.TB, n int) (cfg Config, segment string, text []byte) {
	t.Helper()
	cfg = testConfig(t)
	l, stop := start(t, cfg)
	for i := range n {
		mustAppend(t, l, false, fmt.Sprint("r", i+1))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	segment = filepath.Join(cfg.Dir, segmentName(1))
	text, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, segment, text
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want one with %q", err, part)
		}
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	l, stop := start(t, cfg)
	full := Record{
		Seq: 99, Time: time.Unix(1, 0), Prev: "x", Hash: "y", // the writer's business
		RequestID: "id", Phase: Intent, Principal: "p", PrincipalType: "ram-user", AccessKeyID: "k", Account: "1",
		Source: "10.0.0.7", UserAgent: strings.Repeat("é", 200) + "<\n", Service: "Kms", APIVersion: "2016-01-20",
		Operation: "PutSecretValue",
		Resource:  strings.Repeat("r", 5000), VersionID: "v1", VersionStage: "ACSCurrent", Decision: Deny, Outcome: "unknown",
		Note:    "a <b> \"c\" \xff",
		Details: Details{{"address", "db:5432"}, {"document", strings.Repeat("d", 2*MaxDetails)}, {"more", "x"}},
	}
	if err := l.Append(context.Background(), full, true); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, false, "second")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := readRecords(t, cfg.Dir)
	want := full
	want.V, want.Details = format,
		Details{{"address", "db:5432"}, {"document", strings.Repeat("d", MaxDetails-len("addressdb:5432document"))},
			{"cut", "true"}}
	want.Seq, want.Time, want.Prev, want.Hash = 1, testTime.UTC(), genesis, got[0].Hash
	want.UserAgent, want.Resource, want.Note = strings.Repeat("é", 128), strings.Repeat("r", maxMember),
		"a <b> \"c\" \ufffd"
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("record differs (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile(filepath.Join(cfg.Dir, segmentName(1)))
	if err != nil {
		t.Fatal(err)
	}
	const wantLine = `{"v":2,"seq":2,"time":"2026-01-02T02:04:05.600Z","request_id":"second","phase":"call",` +
		`"principal":"acs:ram::1:user/app",` +
		`"operation":"GetSecretValue","resource":"acs:kms:cn-hangzhou:1:secret/app/db","decision":"allow","outcome":"ok",`
	line := strings.Split(string(text), "\n")[1]
	if rest := `"prev":"` + got[0].Hash + `","hash":"` + got[1].Hash + `"}`; line != wantLine+rest {
		t.Errorf("line = %s\nwant   %s", line, wantLine+rest)
	}
	r := mustVerify(t, cfg.Dir, 2)
	if diff := cmp.Diff(Report{Records: 2, Segments: 1, FirstSeq: 1, LastSeq: 2, LastHash: got[1].Hash}, r); diff != "" {
		t.Errorf("report differs (-want +got):\n%s", diff)
	}
}

func TestAppendRefusesRecord(t *testing.T) {
	t.Parallel()
	l, stop := start(t, testConfig(t))
	for want, r := range map[string]Record{
		"audit: phase is not intent, outcome or call":     {Operation: "X"},
		"audit: decision is not allow, deny or empty":     {Operation: "X", Phase: Call, Decision: "maybe"},
		"audit: record has no operation":                  {Phase: Call},
		"audit: phase is not intent, outcome or call\x00": {Phase: "other", Operation: "X"},
	} {
		wantError(t, l.Append(context.Background(), r, true), strings.TrimRight(want, "\x00"))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l.cfg.Dir, 0)
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SegmentBytes, cfg.SyncEvery = 64<<10, time.Millisecond
	l, stop := start(t, cfg)
	const appenders, each = 32, 100
	var group sync.WaitGroup
	for a := range appenders {
		group.Go(func() {
			for i := range each {
				if err := l.Append(context.Background(), call(fmt.Sprintf("%d/%d", a, i)), (a+i)%3 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	report := mustVerify(t, cfg.Dir, appenders*each)
	if report.Segments < 3 {
		t.Errorf("%d segments, want several", report.Segments)
	}
	next := map[string]int{} // records of one appender stand in its order
	for _, r := range readRecords(t, cfg.Dir) {
		var a, i int
		if _, err := fmt.Sscanf(r.RequestID, "%d/%d", &a, &i); err != nil {
			t.Fatal(err)
		}
		if key := fmt.Sprint(a); next[key] != i {
			t.Fatalf("appender %d: record %d follows %d", a, i, next[key]-1)
		}
		next[fmt.Sprint(a)]++
	}
}

func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	_, segment, text := written(t, 3)
	mustVerify(t, segment, 3)
	bad := filepath.Join(t.TempDir(), segmentName(1))
	for i := range text {
		for bit := range 8 {
			changed := bytes.Clone(text)
			changed[i] ^= 1 << bit
			if err := os.WriteFile(bad, changed, filePerm); err != nil {
				t.Fatal(err)
			}
			_, err := Verify(bad)
			if err == nil {
				t.Fatalf("bit %d of byte %d was changed and Verify says nothing", bit, i)
			}
			line := 1 + bytes.Count(text[:i], []byte{'\n'})
			if !strings.Contains(err.Error(), fmt.Sprintf("%s line %d: ", bad, line)) {
				t.Fatalf("byte %d is in line %d, Verify says %v", i, line, err)
			}
		}
	}
}

func TestLinesMoved(t *testing.T) {
	t.Parallel()
	_, _, text := written(t, 4)
	lines := slices.Collect(bytes.Lines(text))
	_, _, other := written(t, 1) // a line of another trail
	stranger := bytes.Replace(other, []byte("r1"), []byte("rX"), 1)
	file := filepath.Join(t.TempDir(), segmentName(1))
	const broken, malformed = "the chain is broken: prev is not the hash of the record before", "malformed: "
	for _, tt := range []struct {
		name  string
		lines [][]byte
		line  int
		want  string
	}{
		{"removed", [][]byte{lines[0], lines[2], lines[3]}, 2, broken},
		{"first removed", lines[1:], 1, "the file is named for record 1 and begins with 2"},
		{"reordered", [][]byte{lines[0], lines[2], lines[1], lines[3]}, 2, broken},
		{"duplicated", [][]byte{lines[0], lines[1], lines[1], lines[2]}, 3, broken},
		{"inserted", [][]byte{lines[0], stranger, lines[1]}, 2, "the hash differs"},
		{"restarted", [][]byte{lines[0], lines[0]}, 2, broken},
		{"empty line", [][]byte{lines[0], []byte("\n"), lines[1]}, 2, malformed},
		{"no JSON", [][]byte{lines[0], []byte(strings.Repeat("x", 200) + "\n")}, 2, malformed +
			"the line does not end in a hash"},
		{"carriage return", [][]byte{bytes.Replace(lines[0], []byte("\n"), []byte("\r\n"), 1)}, 1, malformed},
		{"two in one line", [][]byte{bytes.TrimSpace(lines[0]), lines[1]}, 1, malformed + "the line is not a record"},
		{"unfinished", [][]byte{lines[0], lines[1][:len(lines[1])-1]}, 2, "the last line is unfinished"},
		{"too long", [][]byte{lines[0], bytes.Repeat([]byte("x"), maxLine+1)}, 2, "longer than any record"},
	} {
		if err := os.WriteFile(file, bytes.Join(tt.lines, nil), filePerm); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(file)
		t.Run(tt.name, func(t *testing.T) { wantError(t, err, tt.want, fmt.Sprintf("audit: %s line %d: ", file, tt.line)) })
	}
}

// A line that somebody forged with the right hash, but without the right members.
func TestForged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "copy")
	const member = `"phase":"call","operation":"X"`
	start := link{hash: genesis}
	for _, tt := range []struct {
		name, body string
		after      link
		want       string
	}{
		{"good", member, start, ""},
		{"unknown member", member + `,"value":"x"`, start, "the line is not a record"},
		{"no phase", `"operation":"X"`, start, "the line is not a record"},
		{"seq 0", member, link{seq: ^uint64(0), hash: genesis}, "the line is not a record"},
		{"first of a chain follows another", member, link{hash: strings.Repeat("1", hashSize)},
			"the first record of a trail follows another"},
		{"prev is no hash", member, link{hash: "x"}, "the line is not a record"},
	} {
		line, _ := appendLine(nil, tt.after, testTime, []byte(tt.body), nil)
		if err := os.WriteFile(file, line, filePerm); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(file); tt.want != "" {
			wantError(t, err, tt.want)
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	first, l := appendLine(nil, start, testTime, []byte(member), nil)
	l.seq++
	second, _ := appendLine(first, l, testTime, []byte(member), nil)
	if err := os.WriteFile(file, second, filePerm); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(file)
	wantError(t, err, "line 2: malformed: the line is not a record")
}

func TestRotation(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.SegmentBytes = 1
	l, stop := start(t, cfg)
	mustAppend(t, l, true, "1", "2")
	mustAppend(t, l, false, "3", "4")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l, stop = start(t, cfg)
	mustAppend(t, l, false, "5")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r := mustVerify(t, l.cfg.Dir, 5)
	if r.Segments != 5 || r.FirstSeq != 1 || r.LastSeq != 5 {
		t.Errorf("report = %+v, want 5 segments of records 1 to 5", r)
	}
	if r := mustVerify(t, filepath.Join(cfg.Dir, segmentName(3)), 1); r.FirstSeq != 3 {
		t.Errorf("FirstSeq = %d, want 3", r.FirstSeq)
	}
	checkSegmentsMissing(t, cfg)
}

func checkSegmentsMissing(t *testing.T, cfg Config) {
	path := func(seq uint64) string { return filepath.Join(cfg.Dir, segmentName(seq)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Remove(path(1))) // kept elsewhere
	if r := mustVerify(t, cfg.Dir, 4); r.FirstSeq != 2 {
		t.Errorf("FirstSeq = %d, want 2", r.FirstSeq)
	}
	must(os.Rename(path(3), path(3)+".gone"))
	_, err := Verify(cfg.Dir)
	wantError(t, err, path(4)+" line 1: gap in segments: record 3 should come next, the file is named for 4")
	must(os.WriteFile(path(3), nil, filePerm))
	_, err = Verify(cfg.Dir)
	wantError(t, err, path(3)+" line 1: the segment is empty and another follows")
	must(os.Rename(path(5), path(3)))
	_, err = Verify(cfg.Dir)
	wantError(t, err, path(3)+" line 1: gap in segments: the file is named for record 3 and begins with 5")
}

func TestVerifyNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Verify(dir)
	wantError(t, err, "audit: "+dir+" holds no segment")
	_, err = Verify(filepath.Join(dir, "none"))
	wantError(t, err, "audit: verify: ")
}

func TestModes(t *testing.T) {
	t.Parallel()
	cfg, _, _ := written(t, 1)
	for path, want := range map[string]fs.FileMode{
		cfg.Dir:                                0o700 | fs.ModeDir,
		filepath.Join(cfg.Dir, segmentName(1)): 0o600,
		filepath.Join(cfg.Dir, lockName):       0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("mode of %s is %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	first, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(cfg)
	wantError(t, err, "another keyturn uses the audit trail "+cfg.Dir+": stop it, or choose another data directory")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, stop := start(t, cfg)
	if err := second.Close(); err != nil { // does nothing to a log that runs
		t.Fatal(err)
	}
	mustAppend(t, second, true, "1")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{})
	wantError(t, err, "audit: no directory is configured")
}

func TestNotRunning(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(context.Background(), call("1"), true); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Append before Run = %v, want ErrNotRunning", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(context.Background(), call("1"), false); !errors.Is(err, ErrStopped) {
		t.Errorf("Append after Run = %v, want ErrStopped", err)
	}
	wantError(t, l.Run(ctx), "audit: Run was called before, or the log is closed")
	if l, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := l.Append(context.Background(), call("1"), false); !errors.Is(err, ErrStopped) {
		t.Errorf("Append after Close = %v, want ErrStopped", err)
	}
	mustVerify(t, cfg.Dir, 0)
}

// Whatever Append promised while the log was being stopped is there, and nobody hangs.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	l, stop := start(t, cfg)
	var group sync.WaitGroup
	var mu sync.Mutex
	promised := map[string]bool{}
	for a := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d/%d", a, i)
				err := l.Append(context.Background(), call(id), i%10 == 0)
				if errors.Is(err, ErrStopped) {
					return
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				promised[id] = true
				mu.Unlock()
			}
		})
	}
	mustAppend(t, l, true, "x", "y", "z")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	for _, r := range readRecords(t, cfg.Dir) {
		delete(promised, r.RequestID)
	}
	if len(promised) > 0 {
		t.Errorf("%d records were promised and are not there", len(promised))
	}
	if _, err := Verify(cfg.Dir); err != nil {
		t.Error(err)
	}
}

func TestTornTail(t *testing.T) {
	t.Parallel()
	for _, keep := range []int{0, 1, 2} { // whole lines before the torn one
		for _, torn := range []string{"{", `{"seq":3,"time":"2026`, strings.Repeat("\x00", 300<<10)} {
			cfg, segment, text := written(t, 2)
			lines := slices.Collect(bytes.Lines(text))
			if err := os.WriteFile(segment, append(bytes.Join(lines[:keep], nil), torn...), filePerm); err != nil {
				t.Fatal(err)
			}
			l, stop := start(t, cfg)
			mustAppend(t, l, true, "after")
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, cfg.Dir, uint64(keep+2))
			r := readRecords(t, cfg.Dir)[keep]
			want := fmt.Sprintf("cut %d bytes of an unfinished last line from %s", len(torn), segmentName(1))
			if r.Operation != Recovered || r.Note != want || r.Phase != Call {
				t.Errorf("record after recovery = %+v, want %s with note %q", r, Recovered, want)
			}
		}
	}
}

func TestOpenRefusesBadTail(t *testing.T) {
	t.Parallel()
	cfg, segment, text := written(t, 3)
	for want, change := range map[string]func(b []byte){
		"line 3: the hash differs":                           func(b []byte) { b[bytes.LastIndex(b, []byte("r3"))] = 'R' },
		"line 3: malformed: the line does not end in a hash": func(b []byte) { b[len(b)-2] = ' ' },
		"line 4: malformed: the line does not end in a hash": func(b []byte) { b[len(b)-10] = '\n' },
		"line 3: malformed: the line is not a record": func(b []byte) {
			b[bytes.LastIndex(b, []byte("seq"))] = 'S' + 1
		},
		"line 3: malformed: the line is longer than any record": nil,
	} {
		bad := bytes.Clone(text)
		if change == nil {
			two := bytes.LastIndexByte(bad[:len(bad)-1], '\n') + 1
			bad = append(bad[:two], strings.Repeat("x", maxLine+1)+"\n"...)
		} else {
			change(bad)
		}
		if err := os.WriteFile(segment, bad, filePerm); err != nil {
			t.Fatal(err)
		}
		_, err := Open(cfg)
		wantError(t, err, segment+" "+want)
	}
}

// A crash between the making of a segment and its first record leaves an empty file.
func TestOpenEmptySegment(t *testing.T) {
	t.Parallel()
	cfg, first, _ := written(t, 2)
	empty := func(seq uint64) string {
		t.Helper()
		path := filepath.Join(cfg.Dir, segmentName(seq))
		if err := os.WriteFile(path, nil, filePerm); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrong := empty(4)
	_, err := Open(cfg)
	wantError(t, err, wrong+" line 1: gap in segments: the empty segment is not named for the next record")
	if err := os.Remove(wrong); err != nil {
		t.Fatal(err)
	}
	next := empty(3)
	mustVerify(t, cfg.Dir, 2)
	l, stop := start(t, cfg)
	mustAppend(t, l, false, "3")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, cfg.Dir, 3)
	mustVerify(t, next, 1)

	if err := errors.Join(os.Remove(first), os.Truncate(next, 0)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(cfg)
	wantError(t, err, next+" line 1: gap in segments: the segment is empty and the one before it is missing")
}

func BenchmarkAppend(b *testing.B) {
	for _, durable := range []bool{false, true} {
		b.Run(fmt.Sprintf("durable=%t", durable), func(b *testing.B) {
			cfg := testConfig(b)
			cfg.Logger = slog.New(slog.DiscardHandler)
			l, _ := start(b, cfg)
			r := call("6a3e9c36-1150-4881-84d3-eb8672fcafad")
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := l.Append(context.Background(), r, durable); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	cfg, _, text := written(b, 5000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Verify(cfg.Dir); err != nil {
			b.Fatal(err)
		}
	}
}
