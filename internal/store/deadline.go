package store

import (
	"sync/atomic"
	"time"
)

// deadline is a time that one goroutine moves and others read. It keeps the monotonic clock: a lease does not end sooner or
// later because somebody set the clock.
type deadline struct{ at atomic.Pointer[time.Time] }

func newDeadline(t time.Time) *deadline {
	d := &deadline{}
	d.set(t)
	return d
}

func (d *deadline) set(t time.Time) { d.at.Store(&t) }
func (d *deadline) get() time.Time  { return *d.at.Load() }
