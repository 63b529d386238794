package server

import (
	"context"
	"time"
)

const (
	purgeEvery     = 30 * time.Second
	purgeHold      = time.Hour       // after the clock has jumped
	clockTolerance = 5 * time.Minute // the least difference that counts as a jump
)

// purgeLoop deletes secrets at their planned time. The store has that time, so downtime only delays
// a deletion. Because a deletion is final, there is none for purgeHold after the clock has jumped:
// an operator may still correct the clock.
func (s *Server) purgeLoop(ctx context.Context) {
	held := time.Time{}
	c := newClockWatch(s.config.Now)
	for {
		wait := purgeEvery
		if jump := c.jumped(); jump != 0 {
			held = time.Now().Add(purgeHold)
			s.config.Logger.Error("the clock jumped: planned deletions are held", "by", jump.Round(time.Second).String(), "for",
				purgeHold.String())
		}
		if time.Now().After(held) {
			wait = s.purgeOnce(ctx)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// purgeOnce removes what is due and returns how long to wait for the next.
func (s *Server) purgeOnce(ctx context.Context) time.Duration {
	next, err := s.gate.Purge(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		s.config.Logger.Warn("planned deletion failed; it will be tried again", "err", err)
	case err == nil && !next.IsZero():
		return max(0, min(purgeEvery, next.Sub(s.config.Now())))
	}
	return purgeEvery
}

// clockWatch compares the clock with the time that has really passed.
type clockWatch struct {
	now  func() time.Time
	wall time.Time // of the clock, at the last look
	real time.Time // with a monotonic reading
}

func newClockWatch(now func() time.Time) *clockWatch {
	return &clockWatch{now: now, wall: now().Round(0), real: time.Now()}
}

// jumped returns by how much the clock has moved more than time has passed since the last look; 0
// for next to nothing.
func (c *clockWatch) jumped() time.Duration {
	wall, real := c.now().Round(0), time.Now()
	jump := wall.Sub(c.wall) - real.Sub(c.real)
	c.wall, c.real = wall, real
	if jump.Abs() < clockTolerance {
		return 0
	}
	return jump
}
