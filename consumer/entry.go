package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	// refreshGap and failingGap are the least times between the starts of two reads of one secret
	// that callers ask for.
	refreshGap, failingGap = time.Second, 10 * time.Second
	// confirmGap is when to read again after a first "absent" or "denied". At least half of it must
	// lie between the two.
	confirmGap = 5 * time.Second
	// diskDelay is how long the first read may take before the value from disk is served.
	diskDelay = 3 * time.Second
	// forgetAfter is how long an entry without a value is kept after the last Get.
	forgetAfter = time.Minute
	// minLimit is the least upper bound of the back-off: reads that fail must not be more frequent
	// than reads that succeed.
	minLimit = 10 * time.Second
	never    = 1 << 62 * time.Nanosecond
)

var errForgotten = errors.New("the entry was forgotten")

// fetch is one read of a secret. Several callers may wait for it.
type fetch struct {
	done  chan struct{}
	err   error     // set before done is closed
	begin time.Time // the earliest start
	seq   uint64    // the last change that was known at the start
}

// entry is one secret. Its goroutine (keepFresh) does all reads of it, one after the other.
type entry struct {
	name   string
	pinned bool // named by the configuration

	value

	wakeup   chan struct{} // the goroutine must check again what is due
	fallback chan struct{} // closed when the value from disk is served because the server was late

	mu     sync.Mutex
	gone   error // guarded by mu, as all below; why the goroutine has ended
	use    usage
	logins logins // has its own mutex
	schedule
	poll

	saved     *Secret // what is on disk; of the goroutine alone, as the next
	forbidden bool    // the value was taken away, and may still be on disk
}

// value is what Get reads, without a lock.
type value struct {
	current   atomic.Pointer[Secret]
	confirmed atomic.Pointer[time.Time] // when the server last confirmed current; not nil if current is not
	freshFor  atomic.Int64              // how long a confirmation counts
	warned    atomic.Bool               // that a stale value is served
}

// schedule is when a secret is read, and what the last reads returned. It is guarded by the entry's
// mutex.
type schedule struct {
	waiting    *fetch    // not started
	running    *fetch    // in progress
	lastAsked  time.Time // by a caller
	read       time.Time // start of the last read
	draw       float64   // of the current period
	interval   time.Duration
	precaution time.Duration // the interval while push works

	failures int       // since the last success
	err      error     // of the last read
	retryAt  time.Time // zero if the last read succeeded
	earliest time.Time // requested by the server

	suspected   finding // absent or denied, after one read with that result
	suspectedAt time.Time
	missing     finding // absent or denied, after two
	verified    bool    // the server has sent or confirmed a value since the start
	hadValue    bool

	disk     *Secret   // the last known good value, until the first read has ended
	diskTime time.Time // when the server confirmed it
}

// poll is what long polls have told the consumer about a secret, and the server about the consumer.
// It is guarded by the entry's mutex.
type poll struct {
	group       *group // whose long poll includes the secret
	push        bool   // the group's long poll works
	revision    string // the last one from the server
	changes     uint64 // changes that the server has announced
	changesSeen uint64 // the last of them that a successful read includes
	reported    report // what the last poll has reported
}

func (c *Consumer) newEntry(name string, pinned bool) *entry {
	precaution := pushInterval
	if bound := c.config.MaxStale; bound > 0 && c.disk != nil {
		precaution = min(precaution, bound/2) // a value on disk is as old as the last read
	}
	e := &entry{
		name:     name,
		pinned:   pinned,
		wakeup:   make(chan struct{}, 1),
		fallback: make(chan struct{}),
		schedule: schedule{
			interval:   c.config.Interval,
			precaution: precaution,
			draw:       1,
			lastAsked:  time.Now(),
		},
	}
	if pinned {
		e.waiting = &fetch{done: make(chan struct{}), begin: e.lastAsked}
	}
	return e
}

func (e *entry) wakeUp() {
	select {
	case e.wakeup <- struct{}{}:
	default:
	}
}

// ask returns a read to wait for, for a caller without a value. Until the next one is due, it
// returns the last error.
func (e *entry) ask(now time.Time) (*fetch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastAsked = now
	switch {
	case e.gone != nil:
		return nil, e.gone
	case e.running != nil:
		return e.running, nil
	case e.waiting == nil && e.err != nil && now.Before(e.dueLocked()):
		return nil, e.err
	}
	return e.scheduleLocked(now), nil
}

// force returns a read that starts as soon as the rate limit allows, and not before now.
func (e *entry) force(now time.Time) (*fetch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lastAsked = now
	if e.gone != nil {
		return nil, e.gone
	}
	if e.failures > 0 && e.waiting == nil && (now.Before(e.read.Add(failingGap)) || now.Before(e.earliest)) {
		return nil, e.err
	}
	begin := now
	if next := e.read.Add(refreshGap); next.After(now) {
		begin = next
	}
	return e.scheduleLocked(begin), nil
}

func (e *entry) scheduleLocked(begin time.Time) *fetch {
	if begin.Before(e.earliest) {
		begin = e.earliest
	}
	switch {
	case e.waiting == nil:
		e.waiting = &fetch{done: make(chan struct{}), begin: begin}
	case begin.Before(e.waiting.begin):
		e.waiting.begin = begin
	}
	e.wakeUp()
	return e.waiting
}

// wait waits until a read has ended, or the value from disk is served instead.
func (e *entry) wait(ctx context.Context, f *fetch) error {
	fallback := e.fallback
	for {
		select {
		case <-f.done:
			return f.err
		case <-fallback:
			if e.current.Load() != nil {
				return nil
			}
			fallback = nil
		case <-ctx.Done():
			return fmt.Errorf("consumer: secret %q: %w: %w", e.name, ErrUnavailable, context.Cause(ctx))
		}
	}
}

// dueLocked returns when the next automatic read is due.
func (e *entry) dueLocked() time.Time {
	if !e.retryAt.IsZero() {
		return e.retryAt
	}
	t := times{read: e.read, interval: e.interval, precaution: e.precaution, push: e.push, draw: e.draw}
	if confirmed := e.confirmed.Load(); confirmed != nil {
		t.confirmed = *confirmed
	}
	if s := e.current.Load(); s != nil {
		t.rotation = s.NextRotation
	}
	return t.due()
}

// keepFresh reads the secret whenever a read is due or a caller asks for one, until the Consumer is
// closed or the entry is forgotten.
func (c *Consumer) keepFresh(e *entry) {
	c.load(e)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if c.ctx.Err() != nil { // a read that Close has cancelled may be due again at once
			e.end(fmt.Errorf("consumer: secret %q: %w", e.name, ErrClosed))
			return
		}
		f, delay, forget := e.next(time.Now())
		if forget {
			c.drop(e)
			return
		}
		if f != nil {
			c.runFetch(e, f)
			c.persist(e)
			continue
		}
		timer.Reset(delay)
		select {
		case <-timer.C:
		case <-e.wakeup:
		case <-c.ctx.Done():
			e.end(fmt.Errorf("consumer: secret %q: %w", e.name, ErrClosed))
			return
		}
	}
}

// next starts the read that is due, or returns the time until there is one. An entry without a
// value that no caller and no configuration needs is not read automatically; next reports when to
// forget it.
func (e *entry) next(now time.Time) (f *fetch, delay time.Duration, forget bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	idle := !e.pinned && !e.hadValue
	at := now.Add(never)
	if !idle {
		at = e.dueLocked()
	}
	if e.waiting != nil {
		at = earlier(at, e.waiting.begin)
	}
	if !at.After(now) {
		f = e.waiting
		if f == nil {
			f = &fetch{done: make(chan struct{})}
		}
		e.waiting, e.running, e.read = nil, f, now
		f.seq = e.changes
		return f, 0, false
	}
	if idle && e.waiting == nil {
		until := e.lastAsked.Add(forgetAfter)
		if e.retryAt.After(until) {
			until = e.retryAt
		}
		if !until.After(now) {
			e.gone = errForgotten
			return nil, 0, true
		}
		at = earlier(at, until)
	}
	return nil, at.Sub(now), false
}

// end fails the read that callers wait for, and all later ones.
func (e *entry) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = err
	if e.waiting != nil {
		e.waiting.err = err
		close(e.waiting.done)
		e.waiting = nil
	}
}

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
	answer, err := c.api.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: e.name, FetchExtendedConfig: true, Consumer: c.config.Instance})
	if err == nil && (answer == nil || answer.VersionID == "") {
		err = errors.New("the answer has no version")
	}
	if err == nil {
		c.accept(e, f, newSecret(e.name, answer, begun, SourceServer), begun)
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

// accept applies a value that the server sent to a read that started at begun.
func (c *Consumer) accept(e *entry, f *fetch, s *Secret, begun time.Time) {
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
	e.confirmed.Store(&begun)
	e.current.Store(s)
	e.warned.Store(false)
	e.disk, e.failures, e.err, e.retryAt, e.earliest = nil, 0, nil, time.Time{}, time.Time{}
	e.suspected, e.missing, e.verified, e.hadValue = unavailable, unavailable, true, true
	e.draw = 0.5 + c.draw()/2
	e.changesSeen = max(e.changesSeen, f.seq)
	e.use.setCurrent(s.VersionID)
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
		c.log.Error("a secret is no longer served: two reads say that it is absent or denied", "secret", e.name, "err", err)
	case first:
		c.log.Warn("a secret could not be read", "secret", e.name, "err", err)
	}
	c.serveDisk(e, "the server gave no value")
	if watch {
		c.join(e) // so that push reports its return
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
	e.current.Store(nil)
	e.use.setCurrent("")
	return true
}

// serveDisk makes the last known good value current, if there is one and no read has ended yet.
func (c *Consumer) serveDisk(e *entry, why string) {
	e.mu.Lock()
	s := e.disk
	if s == nil {
		e.mu.Unlock()
		return
	}
	e.disk, e.hadValue = nil, true
	e.freshFor.Store(0)
	e.confirmed.Store(&e.diskTime)
	e.current.Store(s)
	e.use.setCurrent(s.VersionID)
	e.mu.Unlock()
	close(e.fallback)
	c.versionChanged(e)
	c.join(e)
	c.log.Warn("the last known good value is served from disk", "secret", e.name, "version", s.VersionID, "confirmed", e.diskTime, "reason", why)
}
