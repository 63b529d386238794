package rotator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestTurnsThatComeLate asks for a hundred turns at once, as after a pause of the engine in which
// they all came: they are spread anew, also when those who were sent away come late again.
func TestTurnsThatComeLate(t *testing.T) {
	t.Parallel()
	const rate, burst = 10, 5
	s := newSpread(rate, burst)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	waiting := map[string]time.Time{}
	for n := range 100 {
		waiting[fmt.Sprint(n)] = now
	}
	for second := range 20 {
		began := 0
		for hundredth := range 100 {
			if hundredth%40 > 0 { // the engine pauses again and again
				now = now.Add(10 * time.Millisecond)
				continue
			}
			for who, at := range waiting {
				if at.After(now) {
					continue
				}
				if at = s.begin("target", who, 0, now, rand.Float64()); at.After(now) {
					waiting[who] = at
					continue
				}
				delete(waiting, who)
				began++
			}
			now = now.Add(10 * time.Millisecond)
		}
		if began > rate+burst || began < rate/2 && len(waiting) > rate {
			t.Errorf("in second %d %d have begun, want about %d", second, began, rate)
		}
	}
	if len(waiting) > 0 || len(s.waiting)+len(s.count) > 0 {
		t.Errorf("%d still wait, %d are counted", len(waiting), len(s.waiting))
	}
}

// TestThoseThatWaitNoLonger verifies that others do not wait for those that were sent away and
// never ask again, or that have begun without having to leave turns, and that nothing of them is
// kept.
func TestThoseThatWaitNoLonger(t *testing.T) {
	t.Parallel()
	const rate, burst, left = 10, 11, 5
	s := newSpread(rate, burst)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	empty := func() {
		for n := range burst {
			if s.begin("", fmt.Sprint("first", n), 0, now, 0).After(now) {
				t.Fatalf("%s: no full burst, only %d", now.Format(time.TimeOnly), n)
			}
		}
	}
	empty()
	for n := range 1000 {
		s.begin("", fmt.Sprint(n), left, now, 0.999)
	}
	now = now.Add(10 * time.Second)
	for n := range burst { // these have become due meanwhile
		s.begin("", fmt.Sprint(n), 0, now, 0)
	}
	if len(s.waiting) != 1000-burst {
		t.Errorf("%d wait, want %d", len(s.waiting), 1000-burst)
	}
	now = now.Add(10 * time.Minute) // the others were deleted
	empty()
	if wait := s.begin("", "last", left, now, 0.999).Sub(now); wait > 2*s.every {
		t.Errorf("no other waits, and one is sent away for %s", wait)
	}
	if len(s.waiting) != 1 || len(s.count) != 1 || len(s.next) != 1 {
		t.Errorf("kept are %d, %d and %d", len(s.waiting), len(s.count), len(s.next))
	}
}
