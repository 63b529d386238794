package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
)

// collector is an HTTP sink's endpoint that keeps the numbers of the records it got.
type collector struct {
	mu  sync.Mutex
	got map[uint64]int // guarded by mu
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var lines []struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.NewDecoder(r.Body).Decode(&lines); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range lines {
		c.got[l.Seq]++
	}
}

// has reports whether the records first to last arrived, and how often the first one did.
func (c *collector) has(first, last uint64) (all bool, times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq := first; seq <= last; seq++ {
		if c.got[seq] == 0 {
			return false, c.got[first]
		}
	}
	return true, c.got[first]
}

func lastRecord(t *testing.T, s *keyturntest.Server) uint64 {
	t.Helper()
	head, err := s.Client.DescribeAuditTrail(t.Context(), &kms.DescribeAuditTrailRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return uint64(head.Sequence)
}

// TestSinkPosition verifies that files beside the trail neither end a sink nor make it run ahead,
// nor make the server write elsewhere: the store has the position. A position that an earlier
// release noted is taken over once, unless it is behind the end of the trail.
func TestSinkPosition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &collector{got: map[uint64]int{}}
	endpoint := httptest.NewServer(c)
	t.Cleanup(endpoint.Close)
	start := func() *keyturntest.Server {
		return keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(func(c *server.Config) {
			c.AuditSinks = []audit.Sink{&audit.HTTP{URL: endpoint.URL}}
		}))
	}
	file := filepath.Join(dir, "audit", "sink-http.json")
	key, err := os.ReadFile(filepath.Join(dir, "root.key"))
	if err == nil {
		t.Fatal("the data directory is not new")
	}
	put := func(text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"v":1,"seq":99999999}`) // a position behind the end, and a new store
	for round := range 4 {
		switch round {
		case 1: // the store has the position: no file is read
			put(`{"v":1,"seq":99999999}`)
		case 2:
			err = syscall.Mkfifo(file+".tmp", 0o600)
		case 3:
			if err = os.Remove(file + ".tmp"); err == nil {
				err = os.Symlink("../root.key", file+".tmp")
			}
		}
		if err != nil && round > 0 {
			t.Fatal(err)
		}
		s := start()
		if round == 0 {
			if key, err = os.ReadFile(filepath.Join(dir, "root.key")); err != nil {
				t.Fatal(err)
			}
		}
		create(t, s, string(rune('a'+round)), "value")
		last := lastRecord(t, s)
		waitFor(t, "every record to arrive", func() bool { all, _ := c.has(1, last); return all })
		if got := metric(t, s, `keyturn_audit_sink_missed_records_total{sink="http"}`); got != "0" {
			t.Errorf("%s records are missed", got)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, times := c.has(1, last); times != 1 {
			t.Errorf("round %d: the first record was sent %d times", round, times)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("the file with the position is still there: %v", err)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, "root.key")); err != nil || string(now) != string(key) {
		t.Errorf("the root key was changed: %v", err)
	}
}
