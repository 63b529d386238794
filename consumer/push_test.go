package consumer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/kms"
)

func pushing() *fake {
	f := newFake()
	f.noWatch = nil
	return f
}

// polls returns the long polls since t.
func (f *fake) polls(t time.Time) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(c call) bool { return c.watch == nil || c.at.Before(t) })
}

func settle() { time.Sleep(time.Second); synctest.Wait() }

// TestPush verifies that a change arrives without delay, and that reads are few while nothing
// changes.
func TestPush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, nil)
		told, stop := c.Changes("db")
		defer stop()
		mustGet(t, c, "db", "v1")
		settle()
		if s := c.Status()[0]; !s.Push || s.State != StateFresh {
			t.Errorf("status %+v, want push", s)
		}
		<-told
		begin := time.Now()
		f.put("db", "v2", "two")
		<-told
		mustGet(t, c, "db", "v2")
		if d := time.Since(begin); d != 0 {
			t.Errorf("the change took %v", d)
		}
		settle()
		begin = time.Now()
		time.Sleep(20 * time.Minute)
		if n := len(f.since(begin, "")); n != 0 {
			t.Errorf("%d reads in 20 minutes without a change", n)
		}
		if n := len(f.polls(begin)); n < 46 || n > 50 {
			t.Errorf("%d polls in 20 minutes, want one each 25s", n)
		}
		mustGet(t, c, "db", "v2")
		if n := c.Counters(); n.StaleReads != 0 || n.Pushes != 1 {
			t.Errorf("counters %+v", n)
		}
		time.Sleep(time.Hour)
		if n := len(f.since(begin, "")); n == 0 || n > 3 {
			t.Errorf("%d reads in 80 minutes, want one or two as a precaution", n)
		}
	})
}

// TestPushNeedsNoSecondRead verifies that the first answer causes no reads of versions that are
// known already.
func TestPushNeedsNoSecondRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		var names []string
		for i := range 1010 {
			names = append(names, fmt.Sprintf("s%04d", i))
			f.put(names[i], "v1", "one")
		}
		c, _ := start(t, f, func(c *Config) { c.Secrets = names })
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(f.since(time.Time{}, "")); n != 1010 {
			t.Errorf("%d reads of 1010 secrets", n)
		}
		polls, under := f.polls(time.Time{}), map[string]bool{}
		for _, p := range polls[len(polls)-3:] {
			if len(p.watch.Secrets) > 500 {
				t.Errorf("%d secrets in one poll", len(p.watch.Secrets))
			}
			for _, w := range p.watch.Secrets {
				under[w.SecretName] = true
			}
		}
		if len(under) != 1010 || f.watches != 3 || len(polls) > 30 {
			t.Errorf("%d secrets are watched by %d polls of %d", len(under), f.watches, len(polls))
		}

		// All change at once: the reads are spread, and never more than maxReads at a time.
		begin := time.Now()
		f.mu.Lock()
		for _, name := range names {
			f.secrets[name].VersionID = "v2"
			f.revs[name]++
		}
		close(f.changed)
		f.changed = make(chan struct{})
		f.mu.Unlock()
		time.Sleep(10 * time.Second)
		at := map[time.Time]int{}
		for _, r := range f.since(begin, "") {
			at[r.at]++
		}
		if len(at) < 500 {
			t.Errorf("reads at %d different times", len(at))
		}
		for _, s := range c.Status() {
			if s.VersionID != "v2" {
				t.Fatalf("status %+v", s)
			}
		}
	})
}

// TestPushOfAFailedRead verifies that a poll does not confirm a value while the read of an earlier
// change has failed, and that the read is repeated.
func TestPushOfAFailedRead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.MaxStale = 10 * time.Minute })
		mustGet(t, c, "db", "v1")
		settle()
		f.fail("db", problem(500, kms.CodeInternalFailure))
		f.put("db", "v2", "two")
		time.Sleep(11 * time.Minute)
		if _, err := c.Get(t.Context(), "db"); err == nil || !strings.Contains(err.Error(), ErrExpired.Error()) {
			t.Errorf("Get = %v, want ErrExpired: version v1 was not current for 11 minutes", err)
		}
		if n := len(f.since(time.Time{}, "db")); n < 6 || n > 40 {
			t.Errorf("%d reads", n)
		}
		f.fail("db", nil)
		time.Sleep(4 * time.Minute)
		mustGet(t, c, "db", "v2")
	})
}

// TestPushKeepsRetryAfter verifies that a push does not cause a read before the time that the
// server asked for.
func TestPushKeepsRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, nil)
		mustGet(t, c, "db", "v1")
		settle()
		f.fail("db", &kms.Error{
			HTTPStatus: 429,
			Code:       kms.CodeThrottling,
			Header:     map[string][]string{"X-Acs-Retry-After": {"30000"}},
		})
		f.put("db", "v2", "two")
		settle()
		f.fail("db", nil)
		begin := time.Now()
		f.put("db", "v3", "three")
		time.Sleep(28 * time.Second)
		if n := len(f.since(begin, "db")); n != 0 {
			t.Errorf("%d reads before the server asked for", n)
		}
		time.Sleep(3 * time.Second)
		mustGet(t, c, "db", "v3")
	})
}

// TestFewPollsForAChange verifies that a change costs two polls: the one that delivers it, and one
// that reports the new version.
func TestFewPollsForAChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, nil)
		mustGet(t, c, "db", "v1")
		settle()
		f.slow(150 * time.Millisecond)
		begin := time.Now()
		f.put("db", "v2", "two")
		settle()
		mustGet(t, c, "db", "v2")
		if polls := f.polls(begin); len(polls) != 1 || polls[0].watch.Secrets[0].VersionID != "v2" {
			t.Errorf("%d polls after the change", len(polls))
		}
	})
}

// TestReadsComeBackWithPolls verifies that reads that have backed off are repeated soon after a
// poll is answered again, also for secrets without a value.
func TestReadsComeBackWithPolls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		f.fail("late", errAway)
		var all []*Consumer
		for range 10 {
			c, _ := start(t, f, func(c *Config) { c.Interval = 12 * time.Hour; c.Secrets = []string{"db", "late"} })
			mustGet(t, c, "db", "v1")
			all = append(all, c)
		}
		settle()
		f.fail("", errAway)
		time.Sleep(24 * time.Hour)
		f.fail("late", nil)
		f.put("late", "v1", "one")
		f.fail("", nil)
		time.Sleep(pollLimit + 2*time.Second)
		for _, c := range all {
			mustGet(t, c, "late", "v1")
			if s := c.Status()[0]; s.State != StateFresh || !s.Push {
				t.Errorf("status %+v a minute after the server is back", s)
			}
		}
	})
}

// TestPollThatSaysNothing verifies that an answer to a poll without a revision confirms nothing.
func TestPollThatSaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		f.put("db", "v1", "one")
		r := &restless{fake: f, empty: true}
		c, _ := start(t, r, nil)
		mustGet(t, c, "db", "v1")
		f.fail("db", errAway)
		time.Sleep(2 * time.Hour)
		if s := c.Status()[0]; s.State != StateStale {
			t.Errorf("status %+v, want stale", s)
		}
	})
}

// TestPushOfAbsence verifies that a pushed absence needs a second answer too, and that the return
// of the secret is pushed.
func TestPushOfAbsence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.Secrets = []string{"db", "later"} })
		mustGet(t, c, "db", "v1")
		settle()
		f.mu.Lock()
		kept := f.secrets["db"]
		delete(f.secrets, "db")
		f.touchLocked("db")
		f.mu.Unlock()
		settle()
		mustGet(t, c, "db", "v1")
		time.Sleep(confirmGap)
		if _, err := c.Get(t.Context(), "db"); err == nil || c.Status()[0].State != StateAbsent {
			t.Errorf("Get = %v, status %+v", err, c.Status()[0])
		}
		time.Sleep(time.Hour)
		begin := time.Now()
		f.put("db", kept.VersionID, "one")
		f.put("later", "v1", "one")
		synctest.Wait()
		mustGet(t, c, "db", "v1")
		mustGet(t, c, "later", "v1")
		if d := time.Since(begin); d != 0 {
			t.Errorf("the return took %v", d)
		}
	})
}

// TestAcknowledgement holds what each poll says of versions, and that what changes is said at once.
func TestAcknowledgement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, _ := start(t, f, func(c *Config) { c.Instance = "app-1" })
		mustGet(t, c, "db", "v1")
		settle()
		said := func() string {
			polls := f.polls(time.Time{})
			w := polls[len(polls)-1].watch
			return fmt.Sprintf("%s %s %s %s %t",
				w.Consumer, w.Secrets[0].Revision, w.Secrets[0].VersionID, w.Secrets[0].OldestVersionID, w.Leaving)
		}
		want := func(want string) {
			t.Helper()
			settle()
			if got := said(); got != want {
				t.Errorf("the last poll says %q, want %q", got, want)
			}
		}
		want("app-1 r1 v1  false")
		release := c.Hold("db", "v1")
		f.put("db", "v2", "two")
		want("app-1 r2 v2 v1 false")
		n := len(f.polls(time.Time{}))
		for range 100 {
			c.Hold("db", "v2")()
		}
		settle()
		if more := len(f.polls(time.Time{})) - n; more != 0 {
			t.Errorf("%d polls for connections of the current version", more)
		}
		release()
		want("app-1 r2 v2  false")
		begin := time.Now()
		if err := c.Close(); err != nil || time.Since(begin) != 0 {
			t.Errorf("Close = %v after %v", err, time.Since(begin))
		}
		if got := said(); got != "app-1 r2 v2  true" {
			t.Errorf("the last poll says %q, want that the consumer leaves", got)
		}
	})
}

// hung takes every long poll and answers none that leaves.
type hung struct{ *fake }

func (h hung) WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	if in.Leaving {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.fake.WatchSecrets(ctx, in)
}

func TestCloseIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := pushing()
		f.put("db", "v1", "one")
		c, l := start(t, hung{f}, nil)
		mustGet(t, c, "db", "v1")
		settle()
		begin := time.Now()
		if err := c.Close(); err != nil || time.Since(begin) != leaveTimeout {
			t.Errorf("Close = %v after %v, want %v", err, time.Since(begin), leaveTimeout)
		}
		if !strings.Contains(l.String(), "could not be notified that this consumer leaves") {
			t.Errorf("log %s", l)
		}
	})
}

// TestNoPush verifies that secrets of an endpoint without long polls are read at intervals, that
// the consumer tries a long poll rarely, and that it uses long polls once they work.
func TestNoPush(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, cause := range []error{
			problem(404, kms.CodeActionNotFound), problem(400, kms.CodeUnsupportedOperation), problem(403, "HTTP403"),
			problem(501, "HTTP501"),
		} {
			f := newFake()
			f.noWatch = cause
			f.put("db", "v1", "one")
			c, _ := start(t, f, nil)
			begin := time.Now()
			mustGet(t, c, "db", "v1")
			time.Sleep(24 * time.Hour)
			if n := len(f.polls(begin)); n < 24 || n > 49 {
				t.Errorf("%v: asked %d times in a day", cause, n)
			}
			if n := len(f.since(begin, "db")); n < 288 || n > 577 || c.Counters().StaleReads != 0 {
				t.Errorf("%v: %d reads in a day", cause, n)
			}
			f.mu.Lock()
			f.noWatch = nil
			f.mu.Unlock()
			time.Sleep(time.Hour)
			if s := c.Status()[0]; !s.Push {
				t.Errorf("%v: status %+v after the endpoint has long polls", cause, s)
			}
			f.put("db", "v2", "two")
			synctest.Wait()
			mustGet(t, c, "db", "v2")
			c.Close()
		}
	})
}

// TestRotationIsPolledFor verifies that a rotation at a known time is noticed soon without push.
func TestRotationIsPolledFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake()
		at := time.Now().Add(3 * time.Hour)
		next := func(at time.Time) func(*kms.GetSecretValueResponse) {
			return func(s *kms.GetSecretValueResponse) { s.NextRotationDate = at }
		}
		f.put("db", "v1", "one", next(at))
		c, _ := start(t, f, func(c *Config) { c.Interval = 30 * time.Minute })
		mustGet(t, c, "db", "v1")
		time.Sleep(time.Until(at) + time.Minute) // the rotation takes a minute
		f.put("db", "v2", "two", next(at.Add(24*time.Hour)))
		time.Sleep(30 * time.Second)
		mustGet(t, c, "db", "v2")
		begin := time.Now()
		time.Sleep(time.Hour)
		if n := len(f.since(begin, "db")); n > 5 {
			t.Errorf("%d reads in the hour after the rotation", n)
		}
	})
}

// cutting is a proxy that lets no request wait longer than limit.
type cutting struct {
	*fake
	limit time.Duration
	err   error
}

func (p *cutting) WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	p.mu.Lock()
	limit := p.limit
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p.fake.WatchSecrets(ctx, in)
	if ctx.Err() == context.DeadlineExceeded {
		return nil, p.err
	}
	return out, err
}

// TestProxyThatCuts verifies that polls become short enough for a proxy that cuts them off, but not
// shorter than the floor, and later longer again.
func TestProxyThatCuts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, tt := range []struct {
			limit time.Duration
			err   error
			waits []int
		}{
			{10 * time.Second, problem(504, "HTTP504"), []int{25, 12, 6, 6, 6}},
			{20 * time.Second, errAway, []int{25, 12, 12}},
			{2 * time.Second, problem(502, "HTTP502"), []int{25, 12, 6, 5, 5, 5}},
		} {
			f := pushing()
			f.put("db", "v1", "one")
			p := &cutting{fake: f, limit: tt.limit, err: tt.err}
			c, l := start(t, p, nil)
			mustGet(t, c, "db", "v1")
			time.Sleep(100 * time.Second)
			if got := strings.Contains(l.String(), "are not pushed"); got == (tt.limit == 20*time.Second) {
				t.Errorf("limit %v: log %s; one poll that is cut off is not the end of push", tt.limit, l)
			}
			var waits []int
			for _, call := range f.polls(time.Time{})[1:] { // the first brings the revision
				waits = append(waits, call.watch.WaitSeconds)
			}
			if got := waits[:len(tt.waits)]; !slices.Equal(got, tt.waits) {
				t.Errorf("limit %v: waits %v, want %v", tt.limit, got, tt.waits)
			}
			f.mu.Lock()
			p.limit = time.Hour
			f.mu.Unlock()
			time.Sleep(20 * time.Minute)
			polls := f.polls(time.Time{})
			if last := polls[len(polls)-1].watch.WaitSeconds; last != 25 {
				t.Errorf("limit %v: wait %d without the proxy, want 25", tt.limit, last)
			}
			c.Close()
		}
	})
}

// restless answers every poll at once: with a change that never comes to rest, or with nothing.
type restless struct {
	*fake
	empty bool
	n     int
}

func (r *restless) WatchSecrets(_ context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	out := &kms.WatchSecretsResponse{}
	if !r.empty {
		out.Changes = []kms.SecretChange{{
			SecretName: in.Secrets[0].SecretName,
			Revision:   fmt.Sprint(r.n),
			State:      kms.StateCurrent,
			VersionID:  "v1",
		}}
	}
	return out, nil
}

func TestRestlessEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for empty, most := range map[bool]int{false: 615, true: 60} {
			f := newFake()
			f.put("db", "v1", "one")
			r := &restless{fake: f, empty: empty}
			c, _ := start(t, r, nil)
			mustGet(t, c, "db", "v1")
			time.Sleep(10 * time.Minute)
			c.Close()
			if r.n > most || r.n < 10 {
				t.Errorf("empty %t: %d polls in ten minutes, want at most %d", empty, r.n, most)
			}
		}
	})
}

// TestStorm verifies that many consumers do not return at the same moment as the server, but return
// soon.
func TestStorm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const consumers = 100
		f := pushing()
		f.put("db", "v1", "one")
		for range consumers {
			c, _ := start(t, f, func(c *Config) { c.Secrets = []string{"db"} })
			defer c.Close()
		}
		time.Sleep(time.Minute)
		for _, outage := range []time.Duration{time.Second, 10 * time.Minute} {
			f.fail("", errAway)
			time.Sleep(outage)
			back := time.Now()
			f.fail("", nil)
			f.put("db", fmt.Sprint("v", outage), "two")
			time.Sleep(2 * pollLimit)
			synctest.Wait()
			f.mu.Lock()
			revision, under := fmt.Sprint("r", f.revs["db"]), f.watches
			f.mu.Unlock()
			together := map[time.Duration]int{}
			for _, p := range f.polls(back) {
				if p.watch.Secrets[0].Revision != revision {
					together[p.at.Sub(back).Truncate(100*time.Millisecond)]++
				}
			}
			most := slices.Max(slices.Collect(maps.Values(together)))
			if reads := len(f.since(back, "db")); most > consumers/4 || under != consumers || reads < consumers ||
				reads > 2*consumers {
				t.Errorf("after %v: %d of %d reconnect within 100ms, %d are back, %d reads", outage, most, consumers, under, reads)
			}
			time.Sleep(time.Minute)
		}
	})
}
