package consumer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
)

func TestGetAllocatesNothing(t *testing.T) {
	f := newFake()
	f.put("db", "v1", "one")
	for name, edit := range map[string]func(*Config){
		"default": nil,
		"bounded": func(c *Config) { c.MaxStale = time.Hour },
	} {
		c, _ := start(t, f, edit)
		mustGet(t, c, "db", "v1")
		ctx := context.Background()
		if n := testing.AllocsPerRun(100, func() {
			if _, err := c.Get(ctx, "db"); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%s: Get allocates %v times, want 0", name, n)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	f := newFake()
	f.put("db", "v1", "one")
	c, _ := start(b, f, nil)
	mustGet(b, c, "db", "v1")
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Get(ctx, "db"); err != nil {
				b.Error(err)
			}
		}
	})
}

func TestFirstGetIsOneRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		f.slow(time.Second)
		c, _ := start(t, f, nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { mustGet(t, c, "db", "v1") })
		}
		wg.Wait()
		if n := len(f.since(time.Time{}, "db")); n != 1 {
			t.Errorf("%d reads for 100 callers, want 1", n)
		}
	})
}

// TestFirstGetIsBounded verifies that a caller waits no longer than its context, and that the read
// continues for the others.
func TestFirstGetIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		f.slow(5 * time.Second)
		c, _ := start(t, f, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := c.Get(ctx, "db"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnavailable) ||
			time.Since(begin) != time.Second {
			t.Errorf("Get = %v after %v, want the deadline after 1s", err, time.Since(begin))
		}
		mustGet(t, c, "db", "v1")
		if n := len(f.since(begin, "db")); n != 1 || time.Since(begin) != 5*time.Second {
			t.Errorf("%d reads in %v, want 1 in 5s", n, time.Since(begin))
		}
	})
}

func TestRefreshInBackground(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.Interval = time.Minute; c.NoPush = true })
		mustGet(t, c, "db", "v1")
		f.put("db", "v2", "two")
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Minute)
		synctest.Wait()
		mustGet(t, c, "db", "v2")
		time.Sleep(2 * time.Hour)
		reads, gaps := f.since(time.Time{}, "db"), map[time.Duration]bool{}
		for i := range reads[1:] {
			gap := reads[i+1].at.Sub(reads[i].at)
			gaps[gap] = true
			if gap < 30*time.Second || gap > time.Minute {
				t.Errorf("reads are %v apart, want 30s to 1m", gap)
			}
		}
		if len(reads) < 120 || len(gaps) < 100 {
			t.Errorf("%d reads in two hours with %d different gaps", len(reads), len(gaps))
		}
	})
}

// TestFailureKeepsTheValue holds for every error that is not about the secret, at every age, and
// that retries back off.
func TestFailureKeepsTheValue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, cause := range []error{
			errAway, problem(429, kms.CodeThrottling), problem(500, kms.CodeInternalFailure), problem(503, kms.CodeUnavailable),
			problem(404, kms.CodeAccessKeyNotFound), problem(403,
				kms.CodeAccessKeyDisabled), problem(400, kms.CodeSignatureDoesNotMatch),
			problem(400, kms.CodeTimestampExpired), problem(404,
				kms.CodeKeyNotFound), problem(404, "HTTP404"), problem(403, "HTTP403"),
		} {
			f := newFake()
			f.put("db", "v1", "hunter2")
			c, l := start(t, f, func(c *Config) { c.NoPush = true })
			mustGet(t, c, "db", "v1")
			f.fail("", cause)
			begin := time.Now()
			time.Sleep(24 * time.Hour)
			mustGet(t, c, "db", "v1")
			if n := len(f.since(begin, "db")); n > 24*60*2/5*2 || n < 24*60/5 {
				t.Errorf("%v: %d reads in a day without an answer", cause, n)
			}
			if c.counters.staleReads.Load() != 1 || !strings.Contains(l.String(), "a stale value is served") ||
				strings.Contains(l.String(), "hunter2") {
				t.Errorf("%v: %d stale reads, log %s", cause, c.counters.staleReads.Load(), l)
			}
			f.fail("", nil)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if s := c.stateOf((*c.entries.Load())["db"], time.Now(),
				*(*c.entries.Load())["db"].confirmed.Load()); s != StateFresh {
				t.Errorf("%v: state %s after the server is back", cause, s)
			}
			c.Close()
		}
	})
}

// TestBackOffOfReads holds the times between reads of a secret that fails, with the longest draw.
func TestBackOffOfReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.Interval = time.Minute; c.NoPush = true })
		c.draw = func() float64 { return 1 }
		mustGet(t, c, "db", "v1")
		f.fail("", errAway)
		begin := time.Now().Add(1)
		time.Sleep(10 * time.Minute)
		var gaps []time.Duration
		reads := f.since(begin, "db")
		for i := range reads[1:] {
			gaps = append(gaps, reads[i+1].at.Sub(reads[i].at))
		}
		want := []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9, 32e9, 60e9, 60e9}
		for i, w := range want {
			if gaps[i] != w {
				t.Fatalf("gaps %v, want %v", gaps, want)
			}
		}
	})
}

func TestRetryAfterIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		busy := &kms.Error{
			HTTPStatus: 429,
			Code:       kms.CodeThrottling,
			Header:     map[string][]string{"X-Acs-Retry-After": {"45000"}},
		}
		f.fail("", busy)
		if err := c.Refresh(t.Context(), "db"); !errors.Is(err, kms.ErrThrottling) {
			t.Fatalf("Refresh = %v", err)
		}
		begin := time.Now().Add(1)
		for range 40 {
			time.Sleep(time.Second)
			_ = c.Refresh(t.Context(), "db")
		}
		if n := len(f.since(begin, "db")); n != 0 {
			t.Errorf("%d reads in the 40s in which the server asked for none", n)
		}
	})
}

// TestNegativeAnswerNeedsASecond verifies that one answer "absent" or "denied" changes nothing,
// that two in quick succession count as one, and that the value returns automatically.
func TestNegativeAnswerNeedsASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for cause, want := range map[error]error{
			problem(404, kms.CodeResourceNotFound):       ErrAbsent,
			problem(409, kms.CodeResourceInDeleteWindow): ErrAbsent,
			problem(403, kms.CodeNoPermission):           ErrDenied,
		} {
			f := newFake()
			f.put("db", "v1", "one")
			c, _ := start(t, f, func(c *Config) { c.NoPush = true })
			mustGet(t, c, "db", "v1")
			f.fail("db", cause)
			time.Sleep(2 * time.Second)
			for range 2 { // the second within the gap
				if err := c.Refresh(t.Context(), "db"); !errors.Is(err, want) {
					t.Fatalf("Refresh = %v, want %v", err, want)
				}
				mustGet(t, c, "db", "v1")
			}
			f.fail("db", nil)
			time.Sleep(confirmGap)
			synctest.Wait()
			mustGet(t, c, "db", "v1") // the second read disagreed

			f.fail("db", cause)
			time.Sleep(time.Minute * 5)
			time.Sleep(confirmGap)
			synctest.Wait()
			if s, err := c.Get(t.Context(), "db"); !errors.Is(err, want) || !errors.Is(err, cause) || s != nil {
				t.Errorf("Get = %v, %v; want %v", s, err, want)
			}
			f.fail("db", nil)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			mustGet(t, c, "db", "v1")
			c.Close()
		}
	})
}

// TestDoubtOutlastsAnOutage verifies that an outage between two answers "absent" neither confirms
// nor clears the first.
func TestDoubtOutlastsAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		f.fail("db", problem(404, kms.CodeResourceNotFound))
		time.Sleep(2 * time.Second)
		_ = c.Refresh(t.Context(), "db")
		f.fail("db", errAway)
		time.Sleep(time.Hour)
		mustGet(t, c, "db", "v1")
		f.fail("db", problem(404, kms.CodeResourceNotFound))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if _, err := c.Get(t.Context(), "db"); !errors.Is(err, ErrAbsent) {
			t.Errorf("Get = %v, want ErrAbsent", err)
		}
	})
}

// TestUnknownNameIsNotHammered verifies that an application that asks in a loop for a secret that
// does not exist causes few reads, and that such names do not stay in memory.
func TestUnknownNameIsNotHammered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for cause, want := range map[error]error{
			problem(404, kms.CodeResourceNotFound): ErrAbsent,
			problem(403, kms.CodeNoPermission):     ErrDenied,
			errAway:                                ErrUnavailable,
		} {
			f := newFake()
			f.fail("db", cause)
			c, _ := start(t, f, nil)
			begin := time.Now()
			for time.Since(begin) < 10*time.Minute {
				if _, err := c.Get(t.Context(), "db"); !errors.Is(err, want) || !errors.Is(err, cause) {
					t.Fatalf("Get = %v, want %v", err, want)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if n := len(f.since(begin, "db")); n > 25 {
				t.Errorf("%v: %d reads in ten minutes", want, n)
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if n := len(*c.entries.Load()); n != 0 {
				t.Errorf("%v: %d names are still remembered", want, n)
			}
			f.fail("db", nil)
			f.put("db", "v1", "one")
			mustGet(t, c, "db", "v1")
			c.Close()
		}
	})
}

func TestMaxStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.MaxStale = 10 * time.Minute; c.NoPush = true })
		if c.config.Interval != 10*time.Minute/3 {
			t.Errorf("interval %v, want a third of MaxStale", c.config.Interval)
		}
		mustGet(t, c, "db", "v1")
		f.fail("", errAway)
		time.Sleep(10 * time.Minute)
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Second)
		if s, err := c.Get(t.Context(), "db"); !errors.Is(err, ErrExpired) || s != nil {
			t.Errorf("Get = %v, %v; want ErrExpired", s, err)
		}
		f.fail("", nil)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		mustGet(t, c, "db", "v1")
	})
}

func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		f.put("db", "v2", "two")
		begin := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := c.Refresh(t.Context(), "db"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		mustGet(t, c, "db", "v2")
		if n := len(f.since(begin.Add(1), "db")); n != 1 || time.Since(begin) != time.Second {
			t.Errorf("%d reads in %v, want 1, a second after the one before", n, time.Since(begin))
		}
		for range 100 {
			if err := c.Refresh(t.Context(), "db"); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begin); d < 100*time.Second {
			t.Errorf("101 reads one after the other in %v, want at least a second each", d)
		}
	})
}

// TestRefreshSeesWhatIsNewer verifies that Refresh does not share a read that began before it.
func TestRefreshSeesWhatIsNewer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Minute)
		f.slow(3 * time.Second)
		go func() { _ = c.Refresh(context.Background(), "db") }()
		time.Sleep(time.Second)
		begin := time.Now()
		if err := c.Refresh(t.Context(), "db"); err != nil || time.Since(begin) != 5*time.Second {
			t.Errorf("Refresh = %v after %v, want a read of its own, after 2s + 3s", err, time.Since(begin))
		}
	})
}

func TestTTLSteers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			`{"ttl":20000}`:   20 * time.Second,
			`{"ttl":1}`:       time.Second,
			`{"ttl":1e300}`:   24 * time.Hour,
			`{"ttl":-5}`:      5 * time.Minute,
			`{"ttl":"20000"}`: 5 * time.Minute,
			`plain`:           5 * time.Minute,
			`[1]`:             5 * time.Minute,
			`{"ttl":null}`:    5 * time.Minute,
		} {
			f := newFake()
			f.put("db", "v1", value)
			c, _ := start(t, f, func(c *Config) { c.NoPush = true })
			c.draw = func() float64 { return 1 }
			mustGet(t, c, "db", "v1")
			begin := time.Now()
			time.Sleep(want - time.Millisecond)
			synctest.Wait()
			if n := len(f.since(begin.Add(1), "db")); n != 0 {
				t.Errorf("%s: %d reads before %v", value, n, want)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := len(f.since(begin.Add(1), "db")); n != 1 {
				t.Errorf("%s: %d reads after %v", value, n, want)
			}
			c.Close()
		}
	})
}

// TestTTLIsBounded verifies that a value cannot set an interval in which it would expire.
func TestTTLIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", `{"ttl":86400000}`)
		c, _ := start(t, f, func(c *Config) { c.NoPush = true; c.MaxStale = time.Minute })
		for range 600 {
			mustGet(t, c, "db", "v1")
			time.Sleep(time.Second)
		}
	})
}

// TestAgeOfTheFuture verifies that, under MaxStale, a value confirmed by a clock that was ahead
// counts as expired.
func TestAgeOfTheFuture(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		for bound, want := range map[time.Duration]string{0: StateFresh, time.Hour: StateExpired} {
			c, _ := start(t, f, func(c *Config) { c.MaxStale = bound })
			mustGet(t, c, "db", "v1")
			if got := c.stateOf((*c.entries.Load())["db"], time.Now(), time.Now().Round(0).Add(time.Hour)); got != want {
				t.Errorf("bound %v: confirmed in an hour is %s, want %s", bound, got, want)
			}
			c.Close()
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		f.put("slow", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.Secrets = []string{"db"}; c.Instance = "" })
		mustGet(t, c, "db", "v1")
		f.slow(time.Minute)
		waiting := make(chan error, 1)
		go func() {
			_, err := c.Get(context.Background(), "slow")
			waiting <- err
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		for range 2 {
			if err := c.Close(); err != nil || time.Since(begin) > 2*time.Second {
				t.Errorf("Close = %v after %v", err, time.Since(begin))
			}
		}
		if err := <-waiting; !errors.Is(err, ErrClosed) {
			t.Errorf("a waiting Get = %v, want ErrClosed", err)
		}
		mustGet(t, c, "db", "v1")
		for _, name := range []string{"slow", "other"} {
			if _, err := c.Get(t.Context(), name); !errors.Is(err, ErrClosed) {
				t.Errorf("Get(%q) = %v, want ErrClosed", name, err)
			}
			if err := c.Refresh(t.Context(), name); !errors.Is(err, ErrClosed) {
				t.Errorf("Refresh(%q) = %v, want ErrClosed", name, err)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := New(t.Context(), Config{
		Interval:   time.Millisecond,
		MaxStale:   time.Second,
		LoginLimit: -1,
		Instance:   "a b",
		Secrets:    []string{"", strings.Repeat("x", 193)},
	})
	for _, want := range []string{
		"Client is missing; NewClient makes one",
		"Interval is 1ms; it must be at least 1s",
		"MaxStale is 1s; it must be 0 for no bound, or at least 10s",
		"LoginLimit is -1", "Instance must be 1 to 64 of", "not 0", "not 193",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to say %q", err, want)
		}
	}
	_, err = New(t.Context(), Config{Client: newFake(), Interval: time.Minute, MaxStale: time.Minute})
	if err == nil || !strings.Contains(err.Error(), "make Interval at most half of MaxStale") {
		t.Errorf("New = %v, want it to name Interval", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, Config{Client: newFake()}); !errors.Is(err, context.Canceled) {
		t.Errorf("New with a context that has ended = %v", err)
	}
	if name := newInstance(); len(name) > maxInstance || strings.ContainsFunc(name, notInName) || name == newInstance() {
		t.Errorf("instance %q is no name, or not random", name)
	}
}
