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
	// pollWait is how long a long poll waits for a change, pollFloor the least when a proxy cuts it off, and pollGrace how much
	// later than that the answer may be.
	pollWait, pollFloor, pollGrace = 25 * time.Second, 5 * time.Second, 10 * time.Second
	// pollLimit bounds the back-off of long polls, so that push is back soon after the server is.
	pollLimit = time.Minute
	// askAgain is how long an endpoint without long polls is left alone.
	askAgain = time.Hour
	// coalesce is how long to gather what must be told before a poll is begun anew.
	coalesce = 100 * time.Millisecond
	// pollBurst polls may begin at once, and one more each second: an endpoint that never comes to rest must not be hammered.
	pollBurst = 10
	// manyChanges is from where on reads after a push are spread, by spread for each secret.
	manyChanges, spread = 8, 5 * time.Millisecond
	leaveTimeout        = 2 * time.Second
	// restoreAfter is how many polls in a row must have lived before a wait that was cut short is tried longer again.
	restoreAfter = 20
)

// group is the secrets that one long poll watches. Its goroutine (watch) has one poll under way at a time.
type group struct {
	kick chan struct{} // what a poll says is no longer so

	mu      sync.Mutex
	members map[string]*entry // guarded by mu

	// Of the goroutine alone.
	wait     time.Duration
	ceiling  time.Duration // the wait that was meant
	failures int
	lived    int
	on       bool
	probe    bool // the server could not be reached: the next poll asks whether it is back, and does not wait
	pace     bucket
	begun    time.Time // the last poll
}

// watched is what a poll said of one secret.
type watched struct {
	entry           *entry
	revision        string
	version, oldest string
	changes         uint64
}

// join has a long poll watch an entry, once the server is known to have an answer about it.
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
		g := &group{kick: make(chan struct{}, 1), members: map[string]*entry{}, pace: bucket{burst: pollBurst, interval: time.Second}}
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
	g.poke()
}

// leave takes an entry out that was forgotten.
func (c *Consumer) leave(e *entry) {
	e.mu.Lock()
	g := e.group
	e.group = nil
	e.mu.Unlock()
	if g != nil {
		g.mu.Lock()
		delete(g.members, e.name)
		g.mu.Unlock()
		g.poke()
	}
}

func (g *group) size() int { g.mu.Lock(); defer g.mu.Unlock(); return len(g.members) }

func (g *group) poke() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// tell begins the long poll anew when what it says of a secret is no longer so.
func (c *Consumer) tell(e *entry) {
	e.mu.Lock()
	g := e.group
	same := e.use.current == e.told.version && e.use.oldest() == e.told.oldest
	e.mu.Unlock()
	if g != nil && !same {
		g.poke()
	}
}

// request is the next long poll, and what it says.
func (c *Consumer) request(g *group) (*kms.WatchSecretsRequest, []watched) {
	g.mu.Lock()
	list := make([]watched, 0, len(g.members))
	for _, e := range g.members {
		list = append(list, watched{entry: e})
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(a, b watched) int { return strings.Compare(a.entry.name, b.entry.name) })
	in := &kms.WatchSecretsRequest{Consumer: c.config.Instance, WaitSeconds: int(g.wait / time.Second)}
	if g.probe {
		in.WaitSeconds = 0
	}
	for i := range list {
		w := &list[i]
		e := w.entry
		e.mu.Lock()
		w.revision, w.version, w.oldest, w.changes = e.revision, e.use.current, e.use.oldest(), e.changes
		e.told, e.push = *w, g.on
		e.mu.Unlock()
		in.Secrets = append(in.Secrets, kms.WatchedSecret{SecretName: e.name, Revision: w.revision, VersionID: w.version, OldestVersionID: w.oldest})
	}
	return in, list
}

// watch polls until the Consumer is closed.
func (c *Consumer) watch(g *group) {
	for c.ctx.Err() == nil {
		if !c.rest(max(g.pace.take(time.Now()), time.Until(g.begun.Add(coalesce))), nil) {
			return
		}
		select {
		case <-g.kick: // what follows says all there is to say
		default:
		}
		in, said := c.request(g)
		if len(said) == 0 {
			c.rest(never, g.kick)
			continue
		}
		g.begun = time.Now()
		out, err := c.poll(g, in)
		switch {
		case c.ctx.Err() != nil:
			return
		case errors.Is(err, errAnew):
		case err != nil:
			c.rest(c.pollFailed(g, err, time.Since(g.begun)), nil)
		default:
			c.rest(c.polled(g, in, said, out, time.Since(g.begun)), g.kick)
		}
	}
}

// rest waits, until early gives something if that is sooner. It reports false when the Consumer is closed.
func (c *Consumer) rest(d time.Duration, early <-chan struct{}) bool {
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

var errAnew = errors.New("the poll is begun anew")

// poll is one long poll. It ends with errAnew soon after what it says is no longer so, unless its answer comes first.
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
	case <-g.kick:
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
	return nil, errAnew
}

// polled takes in an answer, and returns how long to wait for what it causes before the next poll begins.
func (c *Consumer) polled(g *group, in *kms.WatchSecretsRequest, said []watched, out *kms.WatchSecretsResponse, took time.Duration) time.Duration {
	c.counters.polls.Add(1)
	changes := map[string]kms.SecretChange{}
	for _, change := range out.Changes {
		changes[change.SecretName] = change
	}
	back := g.failures > 0
	g.probe = false
	c.pushed(g, true, nil)
	now := time.Now()
	reads := 0
	for _, w := range said {
		change, ok := changes[w.entry.name]
		if _, name, arn := strings.Cut(w.entry.name, ":secret/"); !ok && arn {
			change, ok = changes[name]
		}
		switch {
		case !ok || change.Revision == w.revision:
			w.entry.confirm(w, now)
		case w.entry.learn(change, now, c.later(len(out.Changes))):
			reads++
		}
	}
	c.counters.pushes.Add(uint64(reads))
	if back {
		c.retrySoon()
	}
	if len(out.Changes) == 0 && took < time.Duration(in.WaitSeconds)*time.Second/2 {
		// An answer before its time that says nothing: a server that is about to stop, or a proxy. Others get the same now.
		g.failures++
		return backoff(g.failures, pollLimit, c.draw())
	}
	g.failures = 0
	if g.lived++; g.lived >= restoreAfter && g.wait < g.ceiling {
		g.wait, g.lived = min(2*g.wait, g.ceiling), 0
	}
	if reads > 0 {
		return 2 * coalesce // the versions that are read now are then said at once
	}
	return 0
}

// later is how long a read waits that a push causes, when there are many of them.
func (c *Consumer) later(changes int) time.Duration {
	if changes <= manyChanges {
		return 0
	}
	return c.jitter(time.Duration(changes) * spread)
}

func (c *Consumer) jitter(d time.Duration) time.Duration { return scale(d, c.draw()) }

// pollFailed takes in that a poll has failed, and returns how long to wait until the next.
func (c *Consumer) pollFailed(g *group, err error, took time.Duration) time.Duration {
	c.counters.pollFailures.Add(1)
	if lacksWatch(err) {
		c.pushed(g, false, fmt.Errorf("the endpoint has no long polls: %w", err))
		g.failures = 0
		return scale(askAgain, 0.5+c.draw()/2)
	}
	cut := cutOff(err) && took >= time.Second && took < g.wait+pollGrace/2
	if cut {
		g.wait, g.lived = max(g.wait/2, min(pollFloor, g.ceiling)).Truncate(time.Second), 0
	}
	g.probe = !cut
	if g.failures++; !cut || g.failures > 1 {
		c.pushed(g, false, err)
	}
	return pause(g.failures, min(pollLimit, max(c.config.Interval, minLimit)), err, c.draw())
}

// cutOff reports whether an error may be that of somebody between here and the server who does not let a request wait so
// long. A server that stops looks the same; the wait is then short for a while, and nothing else.
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

// pushed notes whether long polls work, on which the plan of the reads depends.
func (c *Consumer) pushed(g *group, on bool, err error) {
	if g.on == on {
		return
	}
	g.on = on
	if on {
		c.log.Info("changes of secrets are pushed")
	} else {
		c.log.Warn("changes of secrets are not pushed; they are polled for", "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.members {
		e.mu.Lock()
		e.push = on
		e.mu.Unlock()
		e.poke()
	}
}

// retrySoon has reads that have failed tried again when the server is back, spread, but not before it asked for.
func (c *Consumer) retrySoon() {
	now := time.Now()
	entries := *c.entries.Load()
	within := firstBackoff + time.Duration(len(entries))*spread
	for _, e := range entries {
		e.mu.Lock()
		if (e.pinned || e.hadValue) && e.failures > 0 && e.doubt == unavailable && e.gap == unavailable {
			e.retryAt = earlier(e.retryAt, now.Add(c.jitter(within)))
			if e.retryAt.Before(e.earliest) {
				e.retryAt = e.earliest
			}
			e.poke()
		}
		e.mu.Unlock()
	}
}

// confirm notes that the server has seen no change of what a poll said. That confirms the value, unless there was a change
// before which it was not read since.
func (e *entry) confirm(w watched, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.revision == "" || w.revision != e.revision || e.seen < e.changes || e.current.Load() == nil {
		return
	}
	e.confirmed.Store(&now)
	e.warned.Store(false)
}

// learn notes a change, and reports whether it needs a read. The first answer about a version that is at hand needs none.
func (e *entry) learn(change kms.SecretChange, now time.Time, later time.Duration) bool {
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

// goodbye tells the server that this instance holds nothing any more, where it was told that it does.
func (c *Consumer) goodbye() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), leaveTimeout)
	defer cancel()
	c.mu.Lock()
	groups := slices.Clone(c.groups)
	c.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range groups {
		in, said := c.request(g)
		if !g.on || len(said) == 0 {
			continue
		}
		in.WaitSeconds, in.Leaving = 0, true
		wg.Go(func() {
			// An agent does not pass it on: it tells the server itself what the programs behind it use.
			if _, err := c.api.WatchSecrets(ctx, in); err != nil && kms.CodeOf(err) != kms.CodeUnsupportedOperation {
				c.log.Warn("the server could not be told that this consumer leaves", "err", err)
			}
		})
	}
	wg.Wait()
}
