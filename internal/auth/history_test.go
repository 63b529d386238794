package auth_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
)

// node is a process that keeps its used nonces in a directory.
type node struct {
	*auth.Nonces
	history *auth.History
	clock   *time.Time
}

func startNode(t *testing.T, dir, boot string, clock *time.Time, first bool) node {
	t.Helper()
	start := *clock
	if first { // nothing was accepted before
		start = time.Time{}
	}
	h, err := auth.OpenHistory(auth.HistoryConfig{
		Dir:   dir,
		Boot:  boot,
		Now:   func() time.Time { return *clock },
		Start: start,
		Log:   slog.New(slog.DiscardHandler),
		Identity: func(path string) string {
			if _, err := os.Stat(path); err != nil {
				return ""
			}
			return path
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return node{auth.NewNonces(0, h, time.Time{}, nil), h, clock}
}

func (n node) use(nonce string, at time.Time) fault.Kind {
	return fault.KindOf(n.Use("k", nonce, at, *n.clock))
}

// TestRestart verifies that no request is accepted again after a stop, a crash of the process, a
// crash of the machine, and in a copy of the directory; and that the first two refuse nothing that
// is new.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		orderly bool
		boot    string
		copied  bool
		knows   bool // what was used before
	}{
		{"an orderly stop", true, "1", false, true},
		{"a crash of the process", false, "1", false, true},
		{"an orderly stop of the machine", true, "2", false, true},
		{"a crash of the machine", false, "2", false, false},
		{"a copy of the directory", true, "1", true, false},
		{"an unknown machine", false, "", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			clock, dir := now, t.TempDir()
			before := startNode(t, dir, "1", &clock, true)
			times := map[string]time.Time{}
			for i := range 40 { // over several files
				clock = now.Add(time.Duration(i) * 20 * time.Second)
				times[fmt.Sprint("old", i)] = clock.Add(-time.Duration(i%3) * time.Minute)
			}
			clock = now
			for i := range 40 {
				clock = now.Add(time.Duration(i) * 20 * time.Second)
				nonce := fmt.Sprint("old", i)
				if kind := before.use(nonce, times[nonce]); kind != fault.OK {
					t.Fatalf("%s: kind %d", nonce, kind)
				}
			}
			if tt.orderly {
				if err := before.history.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if tt.copied {
				to := t.TempDir()
				if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				dir = to
			}
			clock = clock.Add(2 * time.Second)
			after := startNode(t, dir, tt.boot, &clock, false)
			for nonce, at := range times {
				if clock.Sub(at) > auth.Window {
					continue // refused for its time
				}
				want := fault.Replayed
				if !tt.knows {
					want = fault.Throttled // which clients retry
				}
				if kind := after.use(nonce, at); kind != want {
					t.Errorf("%s again: kind %d, want %d", nonce, kind, want)
				}
			}
			if kind := after.use("signed before the start", clock.Add(-time.Second)); (kind == fault.OK) != tt.knows {
				t.Errorf("a new request that was signed before the start: kind %d", kind)
			}
			if kind := after.use("new", clock.Add(time.Second)); kind != fault.OK {
				t.Errorf("a new request: kind %d", kind)
			}
			// The process crashes too, and the next one knows all that both have accepted.
			next := startNode(t, dir, tt.boot, &clock, false)
			if kind := next.use("new", clock.Add(time.Second)); tt.boot != "" && kind != fault.Replayed || kind == fault.OK &&
				tt.boot != "" {
				t.Errorf("a request of the second process again: kind %d", kind)
			}
			if kind := next.use("old39", times["old39"]); kind == fault.OK {
				t.Error("a request of the first process was accepted by the third")
			}
		})
	}
}

// TestHistoryOfTwoKeys verifies that segments whose nonces are hashed with different keys are not
// taken for one history: the key of the newer segment does not find a nonce of the older one, so
// that request would be accepted again.
func TestHistoryOfTwoKeys(t *testing.T) {
	t.Parallel()
	clock, dir, other := now, t.TempDir(), t.TempDir()
	open := func(dir string, start time.Time) node {
		h, err := auth.OpenHistory(auth.HistoryConfig{
			Dir:      dir,
			Boot:     "1",
			Now:      func() time.Time { return clock },
			Start:    start,
			Log:      slog.New(slog.DiscardHandler),
			Identity: func(string) string { return "file" }, // so one may move between directories
		})
		if err != nil {
			t.Fatal(err)
		}
		return node{auth.NewNonces(0, h, time.Time{}, nil), h, &clock}
	}
	if kind := open(dir, time.Time{}).use("a", now); kind != fault.OK {
		t.Fatalf("kind %d", kind)
	}
	clock = now.Add(time.Second)
	if kind := open(other, time.Time{}).use("b", clock); kind != fault.OK {
		t.Fatalf("kind %d", kind)
	}
	if err := os.Rename(filepath.Join(other, "1.nonces"), filepath.Join(dir, "2.nonces")); err != nil {
		t.Fatal(err)
	}
	clock = now.Add(2 * time.Second)
	if kind := open(dir, clock).use("a", now); kind != fault.Throttled {
		t.Errorf("a request of the older segment again: kind %d, want %d", kind, fault.Throttled)
	}
}

// TestHistoryIsBounded verifies that files are removed when all their requests have expired.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	clock, dir := now, t.TempDir()
	n := startNode(t, dir, "1", &clock, true)
	for i := range 200 {
		clock = now.Add(time.Duration(i) * time.Minute)
		if kind := n.use(fmt.Sprint(i), clock); kind != fault.OK {
			t.Fatalf("minute %d: kind %d", i, kind)
		}
		if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) > 9 {
			t.Fatalf("minute %d: %d files, %v", i, len(files), err)
		}
	}
}

// TestClockThatComesBack verifies that no request is accepted again when the clock was ahead for so
// long that files were removed, whether the server ran then or was started then, and that new
// requests are accepted afterwards.
func TestClockThatComesBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		ahead     time.Duration
		restarted bool // while the clock was ahead
		accepts   bool // a new request that was signed before the last start
	}{
		{"while the server runs", 50 * time.Minute, false, true},
		{"at a start", 50 * time.Minute, true, true},
		{"by a year", 365 * 24 * time.Hour, false, true},
		{"by a year at a start", 365 * 24 * time.Hour, true, true},
		{"by a year, for long", 365 * 24 * time.Hour, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			clock, dir := now, t.TempDir()
			n := startNode(t, dir, "1", &clock, true)
			must := func(nonce string, at time.Time) {
				t.Helper()
				if kind := n.use(nonce, at); kind != fault.OK {
					t.Fatalf("%s: kind %d", nonce, kind)
				}
			}
			must("old", now)
			clock = now.Add(tt.ahead)
			if tt.restarted {
				n = startNode(t, dir, "1", &clock, false)
			}
			must("ahead", clock)
			if !tt.accepts {
				for i := range 60 { // until the files of this time are removed too
					clock = clock.Add(time.Minute)
					must(fmt.Sprint("ahead", i), clock)
				}
			}
			clock = now.Add(time.Minute)
			n = startNode(t, dir, "1", &clock, false)
			if kind := n.use("old", now); kind == fault.OK {
				t.Error("a request was accepted again once the clock had come back")
			}
			if kind := n.use("signed before", clock.Add(-time.Second)); (kind == fault.OK) != tt.accepts {
				t.Errorf("a new request that was signed before the start: kind %d", kind)
			}
			must("new", clock.Add(time.Second))
		})
	}
}

// TestHistoryOfManyRequests verifies that a file of several windows is read whole.
func TestHistoryOfManyRequests(t *testing.T) {
	t.Parallel()
	const many = 20_000
	clock, dir := now, t.TempDir()
	n := startNode(t, dir, "1", &clock, true)
	var wg sync.WaitGroup
	for first := range 4 {
		wg.Go(func() {
			for i := first; i < many; i += 4 {
				if kind := n.use(fmt.Sprint(i), clock); kind != fault.OK {
					t.Errorf("%d: kind %d", i, kind)
				}
			}
		})
	}
	wg.Wait()
	next := startNode(t, dir, "1", &clock, false)
	for i := range many {
		if kind := next.use(fmt.Sprint(i), clock); kind != fault.Replayed {
			t.Fatalf("%d after a crash: kind %d", i, kind)
		}
	}
	if kind := next.use("new", clock); kind != fault.OK {
		t.Errorf("a new request: kind %d", kind)
	}
}

// TestHistoryThatShrinks verifies that the server survives a file that another program has cut off.
func TestHistoryThatShrinks(t *testing.T) {
	t.Parallel()
	clock, dir := now, t.TempDir()
	n := startNode(t, dir, "1", &clock, true)
	if err := os.Truncate(filepath.Join(dir, "1.nonces"), 0); err != nil {
		t.Fatal(err)
	}
	if kind := n.use("a", clock); kind != fault.OK {
		t.Errorf("a request that cannot be written down: kind %d", kind)
	}
	if kind := n.use("a", clock); kind != fault.Replayed {
		t.Errorf("the same again: kind %d", kind)
	}
	used := clock
	clock = clock.Add(2 * time.Second)
	next := startNode(t, dir, "1", &clock, false)
	if kind := next.use("a", used); kind != fault.Throttled {
		t.Errorf("the same after a restart: kind %d", kind)
	}
}

// TestHistoryThatFails verifies that the server goes on, and that the next start does not trust
// what is left.
func TestHistoryThatFails(t *testing.T) {
	t.Parallel()
	clock, dir := now, t.TempDir()
	n := startNode(t, dir, "1", &clock, true)
	if kind := n.use("a", clock); kind != fault.OK {
		t.Fatalf("kind %d", kind)
	}
	if err := os.RemoveAll(dir); err != nil { // the next file cannot be made
		t.Fatal(err)
	}
	clock = clock.Add(10 * time.Minute)
	if kind := n.use("b", clock); kind != fault.OK {
		t.Errorf("a request that cannot be written down: kind %d", kind)
	}
	if kind := n.use("b", clock); kind != fault.Replayed {
		t.Errorf("the same again: kind %d", kind)
	}
	used := clock
	clock = clock.Add(2 * time.Second)
	next := startNode(t, dir, "1", &clock, false)
	if kind := next.use("b", used); kind != fault.Throttled {
		t.Errorf("the same after a restart: kind %d", kind)
	}
}
