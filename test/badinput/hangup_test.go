package badinput_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/test/support"
)

// recorded is how many calls the lines of a trail stand for, changes once. The last line may be
// unfinished.
func recorded(t *testing.T, lines []byte) (n int) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var r audit.Record
		if !bytes.HasSuffix(line, []byte{'\n'}) || json.Unmarshal(line, &r) != nil || r.Phase == audit.Intent {
			continue
		}
		n += support.Calls(t, r.Note)
	}
	return n
}

// TestHangUp verifies that callers who hang up once they have sent a request do not bypass the
// audit trail, and that the log does not report each of them.
func TestHangUp(t *testing.T) {
	t.Parallel()
	log, dir := &support.Log{}, t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}))
	k := kit{s, new(atomic.Int64)}
	const each = 100
	requests := map[string]func() string{
		"DescribeRegions": func() string { return k.raw("GET /?Action=DescribeRegions HTTP/1.1") }, // not signed
		"GetSecretValue":  func() string { return k.v3("GetSecretValue", params{"SecretName": "none"}, nil) },
		"UpdateSecret": func() string {
			return k.v3("UpdateSecret", params{"SecretName": "none", "Description": "text"}, nil)
		},
	}
	var all sync.WaitGroup
	for _, request := range requests {
		all.Go(func() {
			for range each {
				conn, err := net.DialTimeout("tcp", s.HTTPEndpoint, 10*time.Second)
				if err == nil {
					_, err = io.WriteString(conn, request())
					_ = conn.Close() // before any answer, as a rule
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	trail := filepath.Join(dir, "audit", "00000000000000000001.jsonl")
	support.Retry(t, func() error {
		data, err := os.ReadFile(trail)
		if n := recorded(t, data); err == nil && n < each*len(requests) {
			err = fmt.Errorf("%d of %d calls are in the trail:\n%s\nthe log:\n%s", n, each*len(requests), data, log.Tail())
		}
		return err
	})
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(log.String()) {
		// A slow store is the fault of a busy machine, not of a caller.
		slow := strings.Contains(line, "msg=store event=") && strings.Contains(line, "took too long")
		if !slow && (strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN")) {
			t.Errorf("the log reports callers who hang up:\n%.2000s", line)
		}
	}
}
