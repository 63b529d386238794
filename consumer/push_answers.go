package consumer

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	// pollLimit bounds the back-off of long polls, so that push returns soon after the server.
	pollLimit = time.Minute
	// askAgain is how long to wait before the next poll of an endpoint without long polls.
	askAgain = time.Hour
	// manyChanges is the number of changes above which the reads that follow are spread, by spread
	// for each secret.
	manyChanges, spread = 8, 5 * time.Millisecond
	// restoreAfter polls must be answered before the wait, shortened after a cut, is doubled again.
	restoreAfter = 20
)

// handleAnswer applies the answer to a poll, and returns how long to wait before the next poll.
func (c *Consumer) handleAnswer(
	g *group, in *kms.WatchSecretsRequest, reports []report, out *kms.WatchSecretsResponse, took time.Duration,
) time.Duration {
	c.counters.polls.Add(1)
	recovered := g.failures > 0
	g.probe = false
	c.setPush(g, true, nil)
	reads := c.applyChanges(reports, out.Changes)
	c.counters.pushes.Add(uint64(reads))
	if recovered {
		c.retrySoon()
	}
	if len(out.Changes) == 0 && took < time.Duration(in.WaitSeconds)*time.Second/2 {
		// An early answer without a change: the server is about to stop, or a proxy has answered.
		// Other clients see the same, so back off.
		g.failures++
		return backoff(g.failures, pollLimit, c.draw())
	}
	g.failures = 0
	if g.survived++; g.survived >= restoreAfter && g.wait < g.ceiling {
		g.wait, g.survived = min(2*g.wait, g.ceiling), 0
	}
	if reads > 0 {
		return 2 * coalesce // the next poll then reports the new versions
	}
	return 0
}

// applyChanges applies the changes of an answer, and confirms the other secrets of the poll. It
// returns the number of secrets that must be read.
func (c *Consumer) applyChanges(reports []report, list []kms.SecretChange) (reads int) {
	changes := map[string]kms.SecretChange{}
	for _, change := range list {
		changes[change.SecretName] = change
	}
	now := time.Now()
	for _, w := range reports {
		change, ok := changes[w.entry.name]
		if _, name, arn := strings.Cut(w.entry.name, ":secret/"); !ok && arn {
			change, ok = changes[name]
		}
		switch {
		case !ok || change.Revision == w.revision:
			w.entry.confirm(w, now)
		case w.entry.applyChange(change, now, c.later(len(list))):
			reads++
		}
	}
	return reads
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
	// A poll that fails at once, or only after its time, was not cut off by a proxy.
	cut := cutOff(err) && took >= time.Second && took < g.wait+pollGrace/2
	if cut {
		g.wait, g.survived = max(g.wait/2, min(pollFloor, g.ceiling)).Truncate(time.Second), 0
	}
	g.probe = !cut
	if g.failures++; !cut || g.failures > 1 {
		c.setPush(g, false, err)
	}
	return pause(g.failures, min(pollLimit, max(c.config.Interval, minLimit)), err, c.draw())
}

// cutOff reports whether a proxy may have cut a long request off. A server that stops causes the
// same error; polls are then shorter than necessary for a while, which does no harm.
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

// retrySoon schedules new attempts of failed reads when the server can be reached again: spread
// over a short time, and not before the time that the server asked for.
func (c *Consumer) retrySoon() {
	now := time.Now()
	entries := *c.entries.Load()
	within := firstBackoff + time.Duration(len(entries))*spread
	for _, e := range entries {
		e.mu.Lock()
		needed := e.pinned || e.hadValue
		if needed && e.failures > 0 && e.suspected == unavailable && e.missing == unavailable {
			e.retryAt = earlier(e.retryAt, now.Add(c.jitter(within)))
			if e.retryAt.Before(e.earliest) {
				e.retryAt = e.earliest
			}
			e.wakeUp()
		}
		e.mu.Unlock()
	}
}

// confirm applies an answer without a change of the secret: the value is still current, unless an
// earlier change still waits for a successful read.
func (e *entry) confirm(w report, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.revision == "" || w.revision != e.revision || e.changesSeen < e.changes || e.current.Load() == nil {
		return
	}
	e.confirmed.Store(&now)
	e.warned.Store(false)
}

// applyChange applies a change, and reports whether it schedules a read. The first answer does not
// if it names the version that was read already.
func (e *entry) applyChange(change kms.SecretChange, now time.Time, later time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	first := e.revision == ""
	e.revision = change.Revision
	e.use.candidate = change.PendingVersionID
	s := e.current.Load()
	known := s != nil && s.Source == SourceServer && s.VersionID == change.VersionID
	if first && known && change.State == kms.StateCurrent {
		return false
	}
	e.changes++
	e.scheduleLocked(now.Add(later))
	return true
}
