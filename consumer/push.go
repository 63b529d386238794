package consumer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	maxWatched = 500 // secrets of one long poll
	// pollWait is how long a long poll waits for a change. pollFloor is the least wait if a proxy
	// cuts polls off, and pollGrace how late the answer may be.
	pollWait, pollFloor, pollGrace = 25 * time.Second, 5 * time.Second, 10 * time.Second
	// pollLimit bounds the back-off of long polls, so that push returns soon after the server.
	pollLimit = time.Minute
	// askAgain is how long to wait before the next poll of an endpoint without long polls.
	askAgain = time.Hour
	// coalesce is how long to collect changed versions before the poll that reports them replaces
	// the current one.
	coalesce = 100 * time.Millisecond
	// pollBurst polls may start at once, and one more each second: an endpoint that answers at once
	// must not be overloaded.
	pollBurst = 10
	// manyChanges is the number of changes above which the reads that follow are spread, by spread
	// for each secret.
	manyChanges, spread = 8, 5 * time.Millisecond
	leaveTimeout        = 2 * time.Second
	// restoreAfter is the number of polls in a row that must not be cut off before the wait becomes
	// longer again.
	restoreAfter = 20
)

// group is the secrets that one long poll watches. Its goroutine (watch) runs one poll at a time.
type group struct {
	restarts chan struct{} // the versions that the poll reported are out of date

	mu      sync.Mutex
	members map[string]*entry // guarded by mu

	// Only the goroutine uses the fields below.
	wait     time.Duration
	ceiling  time.Duration // the wait that nothing has cut short
	failures int
	lived    int
	on       bool
	probe    bool // the server was unreachable: the next poll does not wait
	pace     bucket
	begun    time.Time // start of the last poll
}

// report is what a poll reports to the server about one secret.
type report struct {
	entry           *entry
	revision        string
	version, oldest string
	changes         uint64
}

// join adds an entry to a long poll, once the server has answered a read of it.
func (c *Consumer) join(e *entry) {
	if c.config.NoPush {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.mu.Lock()
	joined := e.group != nil
	e.mu.Unlock()
	if joined || c.closed {
		return
	}
	i := slices.IndexFunc(c.groups, func(g *group) bool { return g.size() < maxWatched })
	if i < 0 {
		g := &group{restarts: make(chan struct{}, 1), members: map[string]*entry{}, pace: bucket{burst: pollBurst, interval: time.Second}}
		g.wait = pollWait
		if bound := c.config.MaxStale; bound > 0 {
			g.wait = min(pollWait, (bound / 3).Truncate(time.Second))
		}
		g.ceiling = g.wait
		i, c.groups = len(c.groups), append(c.groups, g)
		c.work.Go(func() { c.watch(g) })
	}
	g := c.groups[i]
	g.mu.Lock()
	g.members[e.name] = e
	g.mu.Unlock()
	e.mu.Lock()
	e.group = g
	e.mu.Unlock()
	g.restart()
}

// leave removes a forgotten entry from its long poll.
func (c *Consumer) leave(e *entry) {
	e.mu.Lock()
	g := e.group
	e.group = nil
	e.mu.Unlock()
	if g != nil {
		g.mu.Lock()
		delete(g.members, e.name)
		g.mu.Unlock()
		g.restart()
	}
}

func (g *group) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members)
}

func (g *group) restart() {
	select {
	case g.restarts <- struct{}{}:
	default:
	}
}

// updatePoll restarts the group's long poll if the versions that it reported for e are out of date.
func (c *Consumer) updatePoll(e *entry) {
	e.mu.Lock()
	g := e.group
	same := e.use.current == e.reported.version && e.use.oldest() == e.reported.oldest
	e.mu.Unlock()
	if g != nil && !same {
		g.restart()
	}
}

// request returns the next long poll, and what it reports.
func (c *Consumer) request(g *group) (*kms.WatchSecretsRequest, []report) {
	g.mu.Lock()
	list := make([]report, 0, len(g.members))
	for _, e := range g.members {
		list = append(list, report{entry: e})
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(a, b report) int { return strings.Compare(a.entry.name, b.entry.name) })
	in := &kms.WatchSecretsRequest{Consumer: c.config.Instance, WaitSeconds: int(g.wait / time.Second)}
	if g.probe {
		in.WaitSeconds = 0
	}
	for i := range list {
		w := &list[i]
		e := w.entry
		e.mu.Lock()
		w.revision, w.version, w.oldest, w.changes = e.revision, e.use.current, e.use.oldest(), e.changes
		e.reported, e.push = *w, g.on
		e.mu.Unlock()
		in.Secrets = append(in.Secrets, kms.WatchedSecret{SecretName: e.name, Revision: w.revision, VersionID: w.version, OldestVersionID: w.oldest})
	}
	return in, list
}

// watch polls until the Consumer is closed.
func (c *Consumer) watch(g *group) {
	for c.ctx.Err() == nil {
		if !c.sleep(max(g.pace.reserve(time.Now()), time.Until(g.begun.Add(coalesce))), nil) {
			return
		}
		select {
		case <-g.restarts: // the request below reports the latest versions
		default:
		}
		in, reports := c.request(g)
		if len(reports) == 0 {
			c.sleep(never, g.restarts)
			continue
		}
		g.begun = time.Now()
		out, err := c.poll(g, in)
		switch {
		case c.ctx.Err() != nil:
			return
		case errors.Is(err, errRestarted):
		case err != nil:
			c.sleep(c.pollFailed(g, err, time.Since(g.begun)), nil)
		default:
			c.sleep(c.handleAnswer(g, in, reports, out, time.Since(g.begun)), g.restarts)
		}
	}
}

// sleep waits for d, or until early receives. It returns false if the Consumer was closed.
func (c *Consumer) sleep(d time.Duration, early <-chan struct{}) bool {
	if d <= 0 {
		return c.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-c.ctx.Done():
		return false
	}
	return true
}

var errRestarted = errors.New("the poll was restarted")

// poll runs one long poll. It returns errRestarted soon after the versions that it reports are out
// of date, unless the answer arrives first.
func (c *Consumer) poll(g *group, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	ctx, cancel := context.WithTimeout(c.ctx, g.wait+pollGrace)
	defer cancel()
	type answer struct {
		out *kms.WatchSecretsResponse
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		out, err := c.api.WatchSecrets(ctx, in)
		if err == nil && out == nil {
			err = errors.New("no answer")
		}
		answered <- answer{out, err}
	}()
	select {
	case a := <-answered:
		return a.out, a.err
	case <-g.restarts:
	}
	select {
	case a := <-answered:
		return a.out, a.err
	case <-time.After(coalesce):
	}
	cancel()
	if a := <-answered; a.err == nil {
		return a.out, nil
	}
	return nil, errRestarted
}

// handleAnswer applies the answer to a poll, and returns how long to wait before the next poll.
func (c *Consumer) handleAnswer(g *group, in *kms.WatchSecretsRequest, reports []report, out *kms.WatchSecretsResponse, took time.Duration) time.Duration {
	c.counters.polls.Add(1)
	changes := map[string]kms.SecretChange{}
	for _, change := range out.Changes {
		changes[change.SecretName] = change
	}
	back := g.failures > 0
	g.probe = false
	c.setPush(g, true, nil)
	now := time.Now()
	reads := 0
	for _, w := range reports {
		change, ok := changes[w.entry.name]
		if _, name, arn := strings.Cut(w.entry.name, ":secret/"); !ok && arn {
			change, ok = changes[name]
		}
		switch {
		case !ok || change.Revision == w.revision:
			w.entry.confirm(w, now)
		case w.entry.applyChange(change, now, c.later(len(out.Changes))):
			reads++
		}
	}
	c.counters.pushes.Add(uint64(reads))
	if back {
		c.retrySoon()
	}
	if len(out.Changes) == 0 && took < time.Duration(in.WaitSeconds)*time.Second/2 {
		// An early answer without a change: the server is about to stop, or it is a proxy. Other
		// clients get the same now.
		g.failures++
		return backoff(g.failures, pollLimit, c.draw())
	}
	g.failures = 0
	if g.lived++; g.lived >= restoreAfter && g.wait < g.ceiling {
		g.wait, g.lived = min(2*g.wait, g.ceiling), 0
	}
	if reads > 0 {
		return 2 * coalesce // the next poll then reports the new versions
	}
	return 0
}

// later returns a random delay for a read, so that many changes at once do not cause a burst of
// reads.
func (c *Consumer) later(changes int) time.Duration {
	if changes <= manyChanges {
		return 0
	}
	return c.jitter(time.Duration(changes) * spread)
}

func (c *Consumer) jitter(d time.Duration) time.Duration { return scale(d, c.draw()) }

// pollFailed applies a failed poll, and returns how long to wait before the next one.
func (c *Consumer) pollFailed(g *group, err error, took time.Duration) time.Duration {
	c.counters.pollFailures.Add(1)
	if lacksWatch(err) {
		c.setPush(g, false, fmt.Errorf("the endpoint has no long polls: %w", err))
		g.failures = 0
		return scale(askAgain, 0.5+c.draw()/2)
	}
	cut := cutOff(err) && took >= time.Second && took < g.wait+pollGrace/2
	if cut {
		g.wait, g.lived = max(g.wait/2, min(pollFloor, g.ceiling)).Truncate(time.Second), 0
	}
	g.probe = !cut
	if g.failures++; !cut || g.failures > 1 {
		c.setPush(g, false, err)
	}
	return pause(g.failures, min(pollLimit, max(c.config.Interval, minLimit)), err, c.draw())
}

// cutOff reports whether a proxy may have cut a long request off. A server that stops looks the
// same; then polls are only shorter for a while.
func cutOff(err error) bool {
	var e *kms.Error
	if !errors.As(err, &e) {
		return true
	}
	switch e.HTTPStatus {
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// setPush stores whether long polls work; the schedule of reads depends on it.
func (c *Consumer) setPush(g *group, on bool, err error) {
	if g.on == on {
		return
	}
	g.on = on
	if on {
		c.log.Info("changes of secrets are pushed")
	} else {
		c.log.Warn("changes of secrets are not pushed; secrets are read at intervals", "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.members {
		e.mu.Lock()
		e.push = on
		e.mu.Unlock()
		e.wakeUp()
	}
}

// retrySoon retries failed reads soon, spread, when the server is back, but not before the time
// that it asked for.
func (c *Consumer) retrySoon() {
	now := time.Now()
	entries := *c.entries.Load()
	within := firstBackoff + time.Duration(len(entries))*spread
	for _, e := range entries {
		e.mu.Lock()
		if (e.pinned || e.hadValue) && e.failures > 0 && e.suspected == unavailable && e.missing == unavailable {
			e.retryAt = earlier(e.retryAt, now.Add(c.jitter(within)))
			if e.retryAt.Before(e.earliest) {
				e.retryAt = e.earliest
			}
			e.wakeUp()
		}
		e.mu.Unlock()
	}
}

// confirm applies an answer that has no change of a secret. It confirms the value, unless a read
// that must include an earlier change has not succeeded yet.
func (e *entry) confirm(w report, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.revision == "" || w.revision != e.revision || e.changesSeen < e.changes || e.current.Load() == nil {
		return
	}
	e.confirmed.Store(&now)
	e.warned.Store(false)
}

// applyChange applies a change, and reports whether it needs a read. The first answer needs none if
// it names the version that was read already.
func (e *entry) applyChange(change kms.SecretChange, now time.Time, later time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := e.revision == ""
	e.revision = change.Revision
	e.use.candidate = change.PendingVersionID
	s := e.current.Load()
	if first && s != nil && s.Source == SourceServer && change.State == kms.StateCurrent && change.VersionID == s.VersionID {
		return false
	}
	e.changes++
	e.scheduleLocked(now.Add(later))
	return true
}

// reportLeaving reports to the server that this instance no longer holds any version.
func (c *Consumer) reportLeaving() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), leaveTimeout)
	defer cancel()
	c.mu.Lock()
	groups := slices.Clone(c.groups)
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range groups {
		in, reports := c.request(g)
		if !g.on || len(reports) == 0 {
			continue
		}
		in.WaitSeconds, in.Leaving = 0, true
		wg.Go(func() {
			// An agent answers so: it reports itself what its programs use.
			if _, err := c.api.WatchSecrets(ctx, in); err != nil && kms.CodeOf(err) != kms.CodeUnsupportedOperation {
				c.log.Warn("it could not be reported to the server that this consumer leaves", "err", err)
			}
		})
	}
	wg.Wait()
}
