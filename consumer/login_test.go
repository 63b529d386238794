package consumer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errRejected = errors.New("password authentication failed")

func isRejected(err error) bool { return errors.Is(err, errRejected) }

// target accepts some versions, and counts.
type target struct {
	mu                 sync.Mutex
	accepts            map[string]bool
	takes              time.Duration
	tried              []string
	rejections         []time.Time
	underWay, together int
}

func (g *target) accept(versions ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.accepts = map[string]bool{}
	for _, v := range versions {
		g.accepts[v] = true
	}
}

func (g *target) login(_ context.Context, s *Secret) error {
	g.mu.Lock()
	g.tried = append(g.tried, s.VersionID)
	g.underWay++
	g.together = max(g.together, g.underWay)
	takes := g.takes
	g.mu.Unlock()
	time.Sleep(takes)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.underWay--
	if g.accepts[s.VersionID] {
		return nil
	}
	g.rejections = append(g.rejections, time.Now())
	return fmt.Errorf("connect: %w", errRejected)
}

func (g *target) takeTried() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	tried := g.tried
	g.tried = nil
	return tried
}

// TestLoginOrder holds the order current, current after a read, candidate, previous, each at most
// once.
func TestLoginOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, tt := range []struct {
			name    string
			server  string // the version that is current by now
			pending string
			accepts string
			want    string // versions that are tried
			outcome string
			reads   int
		}{
			{"current", "v1", "", "v1", "v1", LoginCurrent, 0},
			{"rotated meanwhile", "v2", "", "v2", "v1 v2", LoginRefreshed, 1},
			{"candidate", "v1", "v2", "v2", "v1 v2", LoginCandidate, 2},
			{"previous", "v1", "v2", "v0", "v1 v2 v0", LoginPrevious, 3},
			{"previous, no candidate", "v1", "", "v0", "v1 v0", LoginPrevious, 3},
			{"new, candidate, previous", "v2", "v3", "v0", "v1 v2 v3 v0", LoginPrevious, 4},
			{"none", "v1", "v2", "", "v1 v2 v0", LoginRejected, 3},
		} {
			f, g := newFake(), &target{}
			f.put("db", "v1", "one")
			c, l := start(t, f, func(c *Config) { c.NoPush = true })
			mustGet(t, c, "db", "v1")
			time.Sleep(2 * time.Second)
			f.put("db", tt.server, "x")
			f.stage("db", "ACSPending", tt.pending, "hunter2")
			f.stage("db", "ACSPrevious", "v0", "hunter2")
			g.accept(tt.accepts)
			begin := time.Now()
			s, err := c.Login(t.Context(), "db", isRejected, g.login)
			if got := strings.Join(g.takeTried(), " "); got != tt.want {
				t.Errorf("%s: tried %s, want %s", tt.name, got, tt.want)
			}
			reads := f.since(begin, "db")
			if tt.outcome == LoginRejected {
				if s != nil || !errors.Is(err, errRejected) ||
					!strings.Contains(err.Error(), "no other version to try after v1 (current), v2 (candidate), v0 (previous)") {
					t.Errorf("%s: Login = %v, %v", tt.name, s, err)
				}
			} else if err != nil || s.VersionID != tt.accepts || c.Counters().Logins[tt.outcome] != 1 {
				t.Errorf("%s: Login = %v, %v, counters %v", tt.name, s, err, c.Counters().Logins)
			}
			if n := c.Counters().Logins[LoginRejected]; int(n) != len(g.rejections) {
				t.Errorf("%s: %d rejections counted, want %d", tt.name, n, len(g.rejections))
			}
			if tt.name != "new, candidate, previous" && len(reads) != tt.reads {
				t.Errorf("%s: %d reads, want %d", tt.name, len(reads), tt.reads)
			}
			if strings.Contains(l.String(), "hunter2") ||
				tt.outcome == LoginCandidate && !strings.Contains(l.String(), "as=candidate") {
				t.Errorf("%s: log %s", tt.name, l)
			}
			c.Close()
		}
	})
}

// TestLoginLimit verifies that a target that locks accounts sees no more rejections in a minute
// than allowed, however often callers log in: many at once, in a loop, through Login and through
// Failed.
func TestLoginLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{takes: 50 * time.Millisecond}
		f.put("db", "v1", "one")
		f.stage("db", "ACSPrevious", "v0", "zero")
		f.stage("db", "ACSPending", "v2", "two")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true; c.LoginLimit = 5 })
		begin := time.Now()
		limited := 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for time.Since(begin) < 10*time.Minute {
					_, err := c.Login(context.Background(), "db", isRejected, g.login)
					mu.Lock()
					if errors.Is(err, ErrLoginLimit) {
						limited++
					} else if !errors.Is(err, errRejected) {
						t.Errorf("Login = %v", err)
					}
					mu.Unlock()
					time.Sleep(500 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		for i := range g.rejections[5:] {
			if d := g.rejections[i+5].Sub(g.rejections[i]); d < time.Minute {
				t.Fatalf("6 rejections within %v", d)
			}
		}
		if len(g.rejections) < 40 || g.together > 5 || limited == 0 || c.Counters().Logins[LoginLimited] == 0 {
			t.Errorf("%d rejections, %d together, %d limited", len(g.rejections), g.together, limited)
		}
		if n := len(f.since(begin, "db")); n > 300 {
			t.Errorf("%d reads in ten minutes of rejections", n)
		}
	})
}

// TestLoginPoolIsNotHeldUp verifies that the limit bounds only the number of concurrent logins
// while logins succeed.
func TestLoginPoolIsNotHeldUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{takes: 50 * time.Millisecond}
		f.put("db", "v1", "one")
		g.accept("v1")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		begin := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := c.Login(context.Background(), "db", isRejected, g.login); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if d := time.Since(begin); d != time.Second || g.together != 5 {
			t.Errorf("100 logins took %v, %d together; want 5 at a time in 1s", d, g.together)
		}
		if n := len(f.since(begin.Add(1), "db")); n != 0 {
			t.Errorf("%d reads", n)
		}
	})
}

// TestLoginOverAChange verifies that, when a pool logs in at the moment at which a password is
// replaced, no login fails and few are rejected.
func TestLoginOverAChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for name, promoted := range map[string]time.Duration{"at once": 0, "a second later": time.Second} {
			f, g := newFake(), &target{takes: 50 * time.Millisecond}
			f.put("db", "v1", "one")
			f.stage("db", "ACSPending", "v2", "two")
			g.accept("v1")
			c, _ := start(t, f, func(c *Config) { c.NoPush = true })
			mustGet(t, c, "db", "v1")
			time.Sleep(time.Minute)
			begin := time.Now()
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 30 * time.Millisecond)
					if _, err := c.Login(context.Background(), "db", isRejected, g.login); err != nil {
						t.Errorf("%s: login %d after %v: %v", name, i, time.Since(begin), err)
					}
				})
			}
			time.Sleep(500 * time.Millisecond)
			g.accept("v2")
			time.Sleep(promoted)
			f.promote("db")
			wg.Wait()
			if len(g.rejections) > 5 {
				t.Errorf("%s: %d logins were rejected", name, len(g.rejections))
			}
			c.Close()
		}
	})
}

// TestLoginRemembersWhatWorks verifies that not every connection of a pool is rejected first while
// only the candidate or the previous version works.
func TestLoginRemembersWhatWorks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{}
		f.put("db", "v1", "one")
		f.stage("db", "ACSPending", "v2", "two")
		g.accept("v2")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true; c.Interval = time.Hour })
		for range 50 {
			if _, err := c.Login(t.Context(), "db", isRejected, g.login); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if len(g.rejections) != 1 {
			t.Errorf("%d rejections of 50 logins, want 1", len(g.rejections))
		}
		f.put("db", "v2", "two")
		f.stage("db", "ACSPending", "", "")
		if err := c.Refresh(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		if s, err := c.Login(t.Context(), "db", isRejected, g.login); err != nil || s != mustGet(t, c, "db", "v2") {
			t.Errorf("Login after the promotion = %v, %v", s, err)
		}
	})
}

// TestLoginOfPromotedCandidate verifies that a candidate that was rejected moments before it became
// current is tried again.
func TestLoginOfPromotedCandidate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{}
		f.put("db", "v1", "one")
		f.stage("db", "ACSPending", "v2", "two")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		if _, err := c.Login(t.Context(), "db", isRejected, g.login); !isRejected(err) {
			t.Fatal(err)
		}
		g.accept("v2")
		f.put("db", "v2", "two")
		f.stage("db", "ACSPending", "", "")
		time.Sleep(time.Second)
		if s, err := c.Login(t.Context(), "db", isRejected, g.login); err != nil || s.VersionID != "v2" {
			t.Errorf("Login = %v, %v", s, err)
		}
	})
}

func TestLoginOtherErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		down := errors.New("connection refused")
		for range 50 {
			if _, err := c.Login(t.Context(), "db",
				isRejected, func(context.Context, *Secret) error { return down }); err != down {
				t.Fatalf("Login = %v, want the error as it is", err)
			}
		}
		if n := c.Counters().Logins; n[LoginFailed] != 50 || n[LoginRejected] != 0 {
			t.Errorf("counters %v", n)
		}
		if _, err := c.Login(t.Context(), "other", isRejected, nil); !errors.Is(err, ErrAbsent) {
			t.Errorf("Login without a secret = %v", err)
		}
		// The server is errAway: there is nothing else to try, and the answer comes at once.
		g := &target{}
		f.fail("", errAway)
		time.Sleep(2 * time.Second)
		begin := time.Now()
		_, err := c.Login(t.Context(), "db", isRejected, g.login)
		if !isRejected(err) || !errors.Is(err, ErrUnavailable) || time.Since(begin) != 0 || len(g.rejections) != 1 {
			t.Errorf("Login while the server is away = %v after %v, %d rejections", err, time.Since(begin), len(g.rejections))
		}
		func() {
			defer func() { _ = recover() }()
			_, _ = c.Login(t.Context(), "db", isRejected, func(context.Context, *Secret) error { panic("x") })
		}()
		if e := (*c.entries.Load())["db"]; e.logins.underWay != 0 {
			t.Errorf("%d logins are under way after a panic", e.logins.underWay)
		}
	})
}

// TestLoginWaitsNoLongerThanItsContext holds it for the wait for other logins.
func TestLoginWaitsNoLongerThanItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{takes: time.Minute}
		f.put("db", "v1", "one")
		g.accept("v1")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true; c.LoginLimit = 1 })
		go func() { _, _ = c.Login(context.Background(), "db", isRejected, g.login) }()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Login(ctx, "db", isRejected, g.login); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Login = %v, want the deadline", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

func TestFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true; c.LoginLimit = 6 })
		s := mustGet(t, c, "db", "v1")
		time.Sleep(time.Minute)
		f.put("db", "v2", "two")
		f.stage("db", "ACSPending", "v3", "three")
		f.stage("db", "ACSPrevious", "v1", "one")
		var err error
		for _, want := range []string{"v2", "v3"} {
			if s, err = c.Failed(t.Context(), "db", s.VersionID, errRejected); err != nil || s.VersionID != want {
				t.Fatalf("Failed = %v, %v; want %s", s, err, want)
			}
		}
		c.Worked("db", "v3")
		c.Worked("db", "v9")
		c.Worked("other", "v9")
		if n := c.Counters().Logins; n[LoginCandidate] != 1 || n[LoginRejected] != 2 || n[LoginCurrent] != 0 {
			t.Errorf("counters %v", n)
		}
		// All were rejected a moment ago, so there is none to offer.
		if s, err := c.Failed(t.Context(), "db", "v3", errRejected); s != nil || !isRejected(err) ||
			!strings.Contains(err.Error(), "no other version to try") {
			t.Errorf("Failed = %v, %v", s, err)
		}
		for range 3 {
			_, err = c.Failed(t.Context(), "db", "v2", errRejected)
		}
		if !errors.Is(err, ErrLoginLimit) || !isRejected(err) {
			t.Errorf("Failed for the sixth time = %v, want ErrLoginLimit", err)
		}
		c.Worked("db", "v2")
		if n := c.Counters().Logins; n[LoginRefreshed] != 1 {
			t.Errorf("counters %v", n)
		}
	})
}

// TestLoginAroundAPromotion verifies that a promotion between the read of the current version and
// the read of the candidate does not leave a login without the version that works.
func TestLoginAroundAPromotion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, g := newFake(), &target{}
		f.put("db", "v1", "one")
		f.stage("db", "ACSPending", "v2", "two")
		g.accept("v2")
		c, _ := start(t, f, func(c *Config) { c.NoPush = true })
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Minute)
		var once sync.Once
		f.mu.Lock()
		f.onRead = func(stage string) {
			if stage == "ACSPending" {
				once.Do(func() { f.promote("db") })
			}
		}
		f.mu.Unlock()
		if s, err := c.Login(t.Context(), "db", isRejected, g.login); err != nil || s.VersionID != "v2" ||
			len(g.rejections) != 1 {
			t.Errorf("Login = %v, %v with %d rejections", s, err, len(g.rejections))
		}
	})
}
