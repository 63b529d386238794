package consumer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	// maxWatched is how many secrets one long poll watches, the limit of the operation.
	maxWatched = 500
	// pollWait is how long a long poll waits for a change. pollFloor is the least wait if a proxy
	// cuts polls off, and pollGrace how late the answer may be.
	pollWait, pollFloor, pollGrace = 25 * time.Second, 5 * time.Second, 10 * time.Second
	// coalesce is how long to collect changed versions before the poll that reports them replaces
	// the current one.
	coalesce = 100 * time.Millisecond
	// pollBurst polls may start at once, and one more each second: an endpoint that answers at once
	// must not be overloaded.
	pollBurst    = 10
	leaveTimeout = 2 * time.Second
)

// group is the secrets that one long poll watches. Its goroutine (watch) runs one poll at a time.
type group struct {
	restarts chan struct{} // receives when the versions that the poll reported are out of date

	mu      sync.Mutex
	members map[string]*entry // guarded by mu

	// Only the goroutine uses the fields below.
	wait     time.Duration // how long the next poll waits for a change
	ceiling  time.Duration // the longest wait; polls that are cut off shorten wait below it
	failures int           // in a row
	survived int           // polls since wait was last changed
	on       bool          // long polls work
	probe    bool          // the server was unreachable, so the next poll does not wait
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
		g := newGroup(c.config.MaxStale)
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

// newGroup returns a group without members. Under [Config.MaxStale] polls are short enough to
// confirm a value several times before it expires.
func newGroup(maxStale time.Duration) *group {
	wait := pollWait
	if maxStale > 0 {
		wait = min(wait, (maxStale / 3).Truncate(time.Second))
	}
	return &group{
		restarts: make(chan struct{}, 1),
		members:  map[string]*entry{},
		wait:     wait,
		ceiling:  wait,
		pace:     bucket{burst: pollBurst, interval: time.Second},
	}
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

// request returns the next long poll, and the versions that it reports.
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
		in.Secrets = append(in.Secrets, kms.WatchedSecret{
			SecretName:      e.name,
			Revision:        w.revision,
			VersionID:       w.version,
			OldestVersionID: w.oldest,
		})
	}
	return in, list
}

// watch makes one long poll after the other, until the Consumer is closed.
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
			_, err := c.api.WatchSecrets(ctx, in)
			// An agent refuses the operation: it reports the versions of its programs itself.
			if err != nil && kms.CodeOf(err) != kms.CodeUnsupportedOperation {
				c.log.Warn("the server could not be notified that this consumer leaves", "err", err)
			}
		})
	}
	wg.Wait()
}
