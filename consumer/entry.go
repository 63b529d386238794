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
	// refreshGap and failingGap are the least time between the beginnings of two reads of one secret that were asked for.
	refreshGap, failingGap = time.Second, 10 * time.Second
	// doubtGap is when to read again after a first "not there" or "not allowed"; half of it is the least that may lie between.
	doubtGap = 5 * time.Second
	// diskPatience is how long a value of the disk waits for the first read to do better.
	diskPatience = 3 * time.Second
	// forgetAfter is how long a name without a value is remembered that nobody asks for.
	forgetAfter = time.Minute
	// minLimit is the least upper bound of the back-off: while reads fail they must not be more frequent than otherwise.
	minLimit = 10 * time.Second
	never    = 1 << 62 * time.Nanosecond
)

var errGone = errors.New("the entry was forgotten")

// flight is one read, and those who wait for it.
type flight struct {
	done  chan struct{}
	err   error     // before done is closed, of the one who reads
	begin time.Time // not before
	seq   uint64    // of the last change that was known when it began
}

// entry is one secret. Its own goroutine (tend) does all reads of it, so no two are under way at once.
type entry struct {
	name   string
	pinned bool // named by the configuration

	// What Get looks at.
	current   atomic.Pointer[Secret]
	confirmed atomic.Pointer[time.Time] // when the server last said that current is current; never nil beside a current
	freshFor  atomic.Int64
	warned    atomic.Bool

	wake     chan struct{} // look again at what is due
	fallback chan struct{} // closed when a value of the disk is served because the server was not in time

	mu       sync.Mutex
	gone     error     // guarded by mu, as all below; why nobody tends it any more
	waiting  *flight   // asked for, and not begun
	running  *flight   // under way
	disk     *Secret   // the last known good, until the first read has ended
	diskTime time.Time // when the server confirmed it
	touched  time.Time // when somebody last asked for it

	read     time.Time // when the last read began
	draw     float64   // of the period that runs
	retryAt  time.Time // after a failure; zero when the last read succeeded
	earliest time.Time // what the server asked for
	failures int       // in a row
	err      error     // of the last read
	doubt    verdict   // absent or denied, when one read has said so
	doubtAt  time.Time
	gap      verdict // absent or denied, when two have
	interval time.Duration
	// precaution is the interval while push works.
	precaution time.Duration
	changes    uint64 // told by push
	seen       uint64 // the last of them that a successful read has seen
	verified   bool   // the server has given or confirmed a value since the start
	hadValue   bool
	push       bool // a working long poll watches it
	use        usage
	group      *group  // whose long poll watches it
	revision   string  // that push has told last
	told       watched // what the last long poll said

	logins logins

	saved     *Secret // on disk; of the goroutine alone, as the next
	forbidden bool    // taken away, and perhaps still on disk
}

func (c *Consumer) newEntry(name string, pinned bool) *entry {
	precaution := pushInterval
	if bound := c.config.MaxStale; bound > 0 && c.disk != nil {
		precaution = min(precaution, bound/2) // what is on disk is as old as the last read
	}
	e := &entry{
		name: name, pinned: pinned, interval: c.config.Interval, precaution: precaution, draw: 1, touched: time.Now(),
		wake: make(chan struct{}, 1), fallback: make(chan struct{}),
	}
	if pinned {
		e.waiting = &flight{done: make(chan struct{}), begin: e.touched}
	}
	return e
}

func (e *entry) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// ask returns a read to wait for where there is no value, or the error of the last one when the next is not due yet.
func (e *entry) ask(now time.Time) (*flight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.touched = now
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

// force returns a read that begins no sooner than now and than the rate allows.
func (e *entry) force(now time.Time) (*flight, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.touched = now
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

func (e *entry) scheduleLocked(begin time.Time) *flight {
	if begin.Before(e.earliest) {
		begin = e.earliest
	}
	switch {
	case e.waiting == nil:
		e.waiting = &flight{done: make(chan struct{}), begin: begin}
	case begin.Before(e.waiting.begin):
		e.waiting.begin = begin
	}
	e.poke()
	return e.waiting
}

// wait waits for a read to end, or for a value of the disk to be served instead.
func (e *entry) wait(ctx context.Context, f *flight) error {
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

// dueLocked is when the next read is due that nobody asked for.
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

// tend reads the secret whenever a read is due or asked for, until the Consumer is closed or the entry is forgotten.
func (c *Consumer) tend(e *entry) {
	c.load(e)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if c.ctx.Err() != nil { // a read that Close has ended may be due again at once
			e.abandon(fmt.Errorf("consumer: secret %q: %w", e.name, ErrClosed))
			return
		}
		f, delay, forget := e.next(time.Now())
		if forget {
			c.drop(e)
			return
		}
		if f != nil {
			c.fly(e, f)
			c.persist(e)
			continue
		}
		timer.Reset(delay)
		select {
		case <-timer.C:
		case <-e.wake:
		case <-c.ctx.Done():
			e.abandon(fmt.Errorf("consumer: secret %q: %w", e.name, ErrClosed))
			return
		}
	}
}

// next takes the read that is to begin now, or says how long there is none. A name without a value that nobody needs is
// not read by itself, and forgotten after a while.
func (e *entry) next(now time.Time) (f *flight, delay time.Duration, forget bool) {
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
			f = &flight{done: make(chan struct{})}
		}
		e.waiting, e.running, e.read = nil, f, now
		f.seq = e.changes
		return f, 0, false
	}
	if idle && e.waiting == nil {
		until := e.touched.Add(forgetAfter)
		if e.retryAt.After(until) {
			until = e.retryAt
		}
		if !until.After(now) {
			e.gone = errGone
			return nil, 0, true
		}
		at = earlier(at, until)
	}
	return nil, at.Sub(now), false
}

// abandon ends what others wait for.
func (e *entry) abandon(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone = err
	if e.waiting != nil {
		e.waiting.err = err
		close(e.waiting.done)
		e.waiting = nil
	}
}

// fly reads once, and settles what the answer changes.
func (c *Consumer) fly(e *entry, f *flight) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
	}
	patience := time.AfterFunc(diskPatience, func() { c.serveDisk(e, "the server did not answer in time") })
	defer patience.Stop()
	ctx, cancel := context.WithTimeout(c.ctx, readTimeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.api.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: e.name, FetchExtendedConfig: true, Consumer: c.config.Instance})
	if err == nil && (answer == nil || answer.VersionID == "") {
		err = errors.New("the answer names no version")
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

// accept takes in a value that the server gave to a read that began at the given time.
func (c *Consumer) accept(e *entry, f *flight, s *Secret, begun time.Time) {
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
	e.doubt, e.gap, e.verified, e.hadValue = unavailable, unavailable, true, true
	e.draw = 0.5 + c.draw()/2
	e.seen = max(e.seen, f.seq)
	e.use.take(s.VersionID)
	e.mu.Unlock()
	switch {
	case old == nil || old.VersionID != s.VersionID:
		c.changed(e)
	case first:
		c.announce(e, false)
	}
	c.join(e)
	if recovered {
		c.log.Info("a secret can be read again", "secret", e.name)
	}
}

// reject takes in a failed read and returns what those who wait for it get to see.
func (c *Consumer) reject(e *entry, cause error) error {
	c.counters.failures.Add(1)
	what := judge(cause)
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
		reason = map[verdict]error{absent: ErrAbsent, denied: ErrDenied}[what]
		agreed = e.doubtLocked(what, now, c.draw())
	}
	err := fmt.Errorf("consumer: secret %q: %w: %w", e.name, reason, cause)
	e.err = err
	watch := what != unavailable && (e.pinned || e.hadValue)
	e.mu.Unlock()
	switch {
	case agreed:
		c.changed(e)
		c.log.Error("a secret is taken away: two reads agree", "secret", e.name, "err", err)
	case first:
		c.log.Warn("a secret could not be read", "secret", e.name, "err", err)
	}
	c.serveDisk(e, "the server gave no value")
	if watch {
		c.join(e) // so that its return is told
	}
	return err
}

// doubtLocked notes an answer that the secret is not there or not allowed. It reports whether a value was taken away,
// which the second such answer does, if some seconds lie between the two.
func (e *entry) doubtLocked(what verdict, now time.Time, draw float64) bool {
	if e.current.Load() == nil && e.disk == nil {
		e.gap = what
		return false
	}
	if e.doubt != what {
		e.doubt, e.doubtAt = what, now
	}
	if now.Sub(e.doubtAt) < doubtGap/2 {
		e.retryAt = e.doubtAt.Add(scale(doubtGap, 0.5+draw/2))
		return false
	}
	e.gap, e.doubt, e.disk, e.forbidden = what, unavailable, nil, true
	e.current.Store(nil)
	e.use.take("")
	return true
}

// serveDisk makes the last known good value the one that Get hands out, when there is one and nothing better.
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
	e.use.take(s.VersionID)
	e.mu.Unlock()
	close(e.fallback)
	c.changed(e)
	c.join(e)
	c.log.Warn("the last known good value is served from disk", "secret", e.name, "version", s.VersionID, "confirmed", e.diskTime, "reason", why)
}
