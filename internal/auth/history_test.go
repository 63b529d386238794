package auth_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	c := auth.HistoryConfig{
		Dir: dir, Boot: boot, Now: func() time.Time { return *clock }, Start: *clock, Log: slog.New(slog.DiscardHandler),
		Identity: func(path string) string {
			if _, err := os.Stat(path); err != nil {
				return ""
			}
			return path
		},
	}
	if first {
		c.Start = time.Time{}
	}
	h, err := auth.OpenHistory(c)
	if err != nil {
		t.Fatal(err)
	}
	return node{auth.NewNonces(0, h, time.Time{}, nil), h, clock}
}

func (n node) use(nonce string, at time.Time) fault.Kind {
	return fault.KindOf(n.Use("k", nonce, at, *n.clock))
}

// TestRestart verifies that no request is accepted again after a stop, a crash of the process, a crash of the machine, and
// in a copy of the directory; and that the first two refuse nothing that is new.
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
			if kind := next.use("new", clock.Add(time.Second)); tt.boot != "" && kind != fault.Replayed || kind == fault.OK && tt.boot != "" {
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
			Identity: filepath.Base, // so a segment may move between directories
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
	if err := os.CopyFS(dir, os.DirFS(other)); err != nil {
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

// TestHistoryThatFails verifies that the server goes on, and that the next start does not trust what is left.
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
