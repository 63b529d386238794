package secretsmanager_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk/service"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/test/support"
)

// TestOutage verifies that the client answers from memory within the time to live and fails after
// it, and recovers with the server. It does not call a hook that remembers values when a
// connection is refused.
func TestOutage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir))
	create(t, s, "app/db", "value 1")
	create(t, s, "app/long", "value 1")
	line := plug(t, s.Endpoint)
	c := at(s, line.Endpoint)
	c.TTL, c.Remember = map[string]int64{"app/db": 100, "app/long": forever}, true
	a := start(t, c)
	line.cut()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a.reads("app/long", "value 1")
	if got := a.untilFails("app/db"); !strings.Contains(got.Error, "connection refused") {
		t.Errorf("the read fails with %s; want a refused connection", got.Error)
	}
	a.reads("app/long", "value 1")

	again := keyturntest.Start(t, keyturntest.WithDataDir(dir), keyturntest.WithAdmin(s.AccountID, s.Credentials))
	rotate(t, again, "app/db", "v2", "value 2")
	line.restore(again.Endpoint)
	a.untilReads("app/db", "value 2", true)
}

// TestRefused verifies that the client reports a refused connection at once without a retry, and
// that a client that preloads secrets does not start.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	line := plug(t, s.Endpoint)
	line.cut()
	c := at(s, line.Endpoint)
	a := start(t, c)
	if got := a.do("get", "app/db"); !strings.Contains(got.Error, "connection refused") {
		t.Errorf("GetStringValue: %q; want a refused connection", got.Error)
	}
	if n := a.logged("regionInfo", "connection refused"); n != 1 {
		t.Errorf("%d failed attempts in the log, want 1", n)
	}
	if a.logged("Signature=", "SignatureNonce=", "connection refused") == 0 {
		t.Error("the client no longer logs signed requests, but docs/clients/go.md says otherwise")
	}
	c.TTL = map[string]int64{"app/db": forever}
	if ahead := launch(t, c); ahead.built.Error == "" {
		t.Error("a client that loads a secret ahead starts while the server is away")
	}
	line.restore(s.Endpoint)
	a.reads("app/db", "value 1")
}

// front is a proxy that can answer instead of its server.
type front struct {
	*httptest.Server
	asked atomic.Int64
	left  atomic.Int64 // how many answers are still the front's own
}

const always = 1 << 40

func stand(t *testing.T, s *keyturntest.Server, status int, code string, times int64) *front {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.HTTPEndpoint})
	f := &front{}
	f.left.Store(times)
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		if f.left.Add(-1) < 0 {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w,
			`{"RequestId":"4A2B3C4D-0000-0000-0000-000000000000","HostId":"test","Code":%q,"Message":"as told"}`, code)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *front) endpoint() string { return strings.TrimPrefix(f.URL, "https://") }

// errorCodes are the rows of the table in docs/compat.md.
func errorCodes(t *testing.T) map[string]int {
	t.Helper()
	page, err := os.ReadFile("../../docs/compat.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Error codes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	codes := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z.]+)` \\| ([0-9]{3}) \\|").FindAllStringSubmatch(table, -1) {
		codes[row[1]], _ = strconv.Atoi(row[2])
	}
	if len(codes) < 30 {
		t.Fatalf("found %d error codes in docs/compat.md", len(codes))
	}
	return codes
}

// TestErrorCodes verifies which codes the client retries, and how often; its error then hides the
// code. It reports other codes at once.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	retried := map[string]bool{"Rejected.Throttling": true, "ServiceUnavailableTemporary": true, "InternalFailure": true}
	for code, status := range errorCodes(t) {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			f := stand(t, s, status, code, always)
			a := start(t, at(s, f.endpoint()))
			got := a.do("get", "app/db")
			want := int64(1)
			if retried[code] {
				want = 7
				if got.Code != "" || !strings.Contains(got.Error, "Times limit exceeded") {
					t.Errorf("GetStringValue: code %q, %s; want an error that says that it was tried too often", got.Code, got.Error)
				}
			} else if got.Code != code || got.Status != status {
				t.Errorf("GetStringValue: code %q, status %d, %s; want %s, %d", got.Code, got.Status, got.Error, code, status)
			}
			if n := f.asked.Load(); n != want {
				t.Errorf("%d requests; want %d", n, want)
			}
			f.left.Store(0)
			a.reads("app/db", "value 1")
		})
	}
}

// TestHook verifies that a hook that remembers values does not help when the server answers that
// it is unavailable either: the client calls the hook only for another kind of error.
func TestHook(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	f := stand(t, s, http.StatusServiceUnavailable, "ServiceUnavailableTemporary", 0)
	c := at(s, f.endpoint())
	c.TTL, c.Remember = map[string]int64{"app/db": 100}, true
	a := start(t, c)
	a.reads("app/db", "value 1")
	f.left.Store(always)
	a.untilFails("app/db")
}

// TestClose verifies that a closed client continues to refresh its secrets.
func TestClose(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	f := stand(t, s, 0, "", 0)
	c := at(s, f.endpoint())
	c.TTL = map[string]int64{"app/db": 20}
	a := start(t, c)
	if got := a.do("close", ""); got.Error != "" {
		t.Fatal(got.Error)
	}
	before := f.asked.Load()
	support.Until(t, "a closed client to ask again", func() bool { return f.asked.Load() > before+3 })
}

// TestDelays verifies that the client's delays between attempts have no jitter.
func TestDelays(t *testing.T) {
	t.Parallel()
	strategy := &service.FullJitterBackoffStrategy{}
	if err := strategy.Init(); err != nil {
		t.Fatal(err)
	}
	for n, want := range []int64{2000, 4000, 8000, 10000, 10000, 10000, -1} {
		for range 10 {
			if got := strategy.GetWaitTimeExponential(n); got != want {
				t.Fatalf("delay before attempt %d is %d ms, want %d", n+2, got, want)
			}
		}
	}
}

// TestTwoRegions verifies that, with two regions, one temporary refusal by the first ends the
// process. Therefore docs/clients/go.md says to configure one.
func TestTwoRegions(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	f := stand(t, s, http.StatusServiceUnavailable, "ServiceUnavailableTemporary", 1)
	a := start(t, at(s, f.endpoint(), f.endpoint()))
	_, _ = a.say(ask{Op: "get", Name: "app/db"}) // may come before the end
	done := make(chan error, 1)
	go func() { done <- a.cmd.Wait() }()
	var ended bool
	support.Until(t, "the process to end", func() bool {
		select {
		case <-done:
			ended = true
		default:
		}
		return ended
	})
	if !strings.Contains(a.stderr.String(), "negative WaitGroup counter") {
		t.Errorf("the process has written:\n%s\nwant a panic", a.stderr.String())
	}
}
