package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pushInterval is the interval between reads while push works. They are a precaution.
	pushInterval = time.Hour
	// refreshGap and failingGap are the least times between the starts of two reads of one secret
	// that callers ask for: after a success, and after a failure.
	refreshGap, failingGap = time.Second, 10 * time.Second
	// forgetAfter is how long an entry without a value is kept after the last Get.
	forgetAfter = time.Minute
	never       = 1 << 62 * time.Nanosecond
)

var errForgotten = errors.New("the entry was forgotten")

// fetch is one read of a secret. Several callers may wait for it.
type fetch struct {
	done  chan struct{}
	err   error     // set before done is closed
	begin time.Time // the earliest start
	seq   uint64    // the last change that was known at the start
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

// next returns the read to start now, or the time until one is due. An entry that has no value, and
// that neither the configuration nor a caller needs, is not read; next reports when to forget it.
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

// dueLocked returns when the next automatic read is due.
func (e *entry) dueLocked() time.Time {
	if !e.retryAt.IsZero() {
		return e.retryAt
	}
	t := times{
		read:       e.read,
		interval:   e.interval,
		precaution: e.precaution,
		push:       e.push,
		draw:       e.draw,
	}
	if confirmed := e.confirmed.Load(); confirmed != nil {
		t.confirmed = *confirmed
	}
	if s := e.current.Load(); s != nil {
		t.rotation = s.NextRotation
	}
	return t.due()
}

// ask returns a read to wait for, for a caller without a value. Until the next read is due it
// returns the error of the last one.
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

// scheduleLocked returns the read that waits to start, and has it start at begin at the latest,
// unless the server has asked for a later time.
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

func (e *entry) wakeUp() {
	select {
	case e.wakeup <- struct{}{}:
	default:
	}
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
