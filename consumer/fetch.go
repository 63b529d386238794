package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	// readTimeout bounds one read. The server may block a read for some seconds while it changes a
	// single credential.
	readTimeout = 25 * time.Second
	// diskDelay is how long the first read may take before the value from disk is served.
	diskDelay = 3 * time.Second
	// confirmGap is the time from a first result "absent" or "denied" to the read that confirms it.
	// At least half of it must pass between the two.
	confirmGap = 5 * time.Second
	// minLimit is the least upper bound of the back-off: reads that fail must not be more frequent
	// than reads that succeed.
	minLimit = 10 * time.Second
)

// runFetch reads once and applies the result.
func (c *Consumer) runFetch(e *entry, f *fetch) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
	}
	late := time.AfterFunc(diskDelay, func() { c.serveDisk(e, "the server did not answer in time") })
	defer late.Stop()
	ctx, cancel := context.WithTimeout(c.ctx, readTimeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.read(ctx, e, "")
	if err == nil && (answer == nil || answer.VersionID == "") {
		err = errors.New("the answer has no version")
	}
	if err == nil {
		c.accept(e, f, newSecret(e.name, answer, begun, SourceServer))
	} else if c.ctx.Err() != nil {
		f.err = fmt.Errorf("consumer: secret %q: %w", e.name, ErrClosed)
	} else {
		f.err = c.reject(e, err)
	}
	e.mu.Lock()
	e.running = nil
	e.mu.Unlock()
	close(f.done)
}

// read asks the server for the version with a label; "" stands for the current one.
func (c *Consumer) read(ctx context.Context, e *entry, stage string) (*kms.GetSecretValueResponse, error) {
	return c.api.GetSecretValue(ctx, &kms.GetSecretValueRequest{
		SecretName:          e.name,
		VersionStage:        stage,
		FetchExtendedConfig: true,
		Consumer:            c.config.Instance,
	})
}

// accept applies a value that the server sent to read f.
func (c *Consumer) accept(e *entry, f *fetch, s *Secret) {
	c.counters.refreshes.Add(1)
	e.mu.Lock()
	old := e.current.Load()
	recovered, first := e.failures > 0 && old != nil, !e.verified
	e.interval = c.config.Interval
	if ttl := s.ttl(); ttl > 0 {
		e.interval = ttl
		if bound := c.config.MaxStale; bound > 0 {
			e.interval = min(ttl, bound/3)
		}
	}
	e.freshFor.Store(int64(max(e.interval, slack) + slack))
	e.setCurrentLocked(s, s.FetchedAt)
	e.warned.Store(false)
	e.disk, e.failures, e.err, e.retryAt, e.earliest = nil, 0, nil, time.Time{}, time.Time{}
	e.suspected, e.missing, e.verified, e.hadValue = unavailable, unavailable, true, true
	e.draw = 0.5 + c.draw()/2
	e.changesSeen = max(e.changesSeen, f.seq)
	e.mu.Unlock()
	switch {
	case old == nil || old.VersionID != s.VersionID:
		c.versionChanged(e)
	case first:
		c.notify(e, false)
	}
	c.join(e)
	if recovered {
		c.log.Info("a secret can be read again", "secret", e.name)
	}
}

// reject applies a failed read and returns the error for the callers that wait for it.
func (c *Consumer) reject(e *entry, cause error) error {
	c.counters.failures.Add(1)
	what := classify(cause)
	now := time.Now()
	e.mu.Lock()
	e.failures++
	first := e.failures == 1
	limit := max(min(e.interval, c.config.Interval), minLimit)
	if asks := retryAfter(cause); asks > 0 {
		e.earliest = now.Add(asks)
	}
	e.retryAt = now.Add(pause(e.failures, limit, cause, c.draw()))
	reason := ErrUnavailable
	agreed := false
	if what != unavailable {
		reason = map[finding]error{absent: ErrAbsent, denied: ErrDenied}[what]
		agreed = e.suspectLocked(what, now, c.draw())
	}
	err := fmt.Errorf("consumer: secret %q: %w: %w", e.name, reason, cause)
	e.err = err
	watch := what != unavailable && (e.pinned || e.hadValue)
	e.mu.Unlock()
	switch {
	case agreed:
		c.versionChanged(e)
		c.log.Error("a secret is no longer served: two reads say that it is absent or denied",
			"secret", e.name, "err", err)
	case first:
		c.log.Warn("a secret could not be read", "secret", e.name, "err", err)
	}
	c.serveDisk(e, "the server gave no value")
	if watch {
		c.join(e) // so that a push reports when the secret can be read again
	}
	return err
}

// suspectLocked registers an answer that the secret is absent or denied. It reports whether it took
// the value away: the second such answer does, if some seconds lie between the two.
func (e *entry) suspectLocked(what finding, now time.Time, draw float64) bool {
	if e.current.Load() == nil && e.disk == nil {
		e.missing = what
		return false
	}
	if e.suspected != what {
		e.suspected, e.suspectedAt = what, now
	}
	if now.Sub(e.suspectedAt) < confirmGap/2 {
		e.retryAt = e.suspectedAt.Add(scale(confirmGap, 0.5+draw/2))
		return false
	}
	e.missing, e.suspected, e.disk, e.forbidden = what, unavailable, nil, true
	e.setCurrentLocked(nil, time.Time{})
	return true
}

// serveDisk makes the last known good value current, if there is one and no read has ended yet.
func (c *Consumer) serveDisk(e *entry, why string) {
	e.mu.Lock()
	s, confirmed := e.disk, e.diskTime
	if s == nil {
		e.mu.Unlock()
		return
	}
	e.disk, e.hadValue = nil, true
	e.freshFor.Store(0)
	e.setCurrentLocked(s, confirmed)
	e.mu.Unlock()
	close(e.fallback)
	c.versionChanged(e)
	c.join(e)
	c.log.Warn("the last known good value is served from disk",
		"secret", e.name, "version", s.VersionID, "confirmed", confirmed, "reason", why)
}
