package rotator

import (
	"fmt"
	"testing"
	"time"
)

// TestTurnsThatComeLate asks for a hundred turns at once, as after a pause of the engine in which they all came: they are spread
// anew, and who has waited for a turn gets it.
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
		for range 100 { // hundredths
			for who, at := range waiting {
				if at.After(now) {
					continue
				}
				if at = s.turn("target", who, now); at.After(now) {
					waiting[who] = at
					continue
				}
				delete(waiting, who)
				began++
			}
			now = now.Add(10 * time.Millisecond)
		}
		if began > rate+burst || began < rate-1 && len(waiting) > 0 {
			t.Errorf("in second %d %d have begun, want about %d", second, began, rate)
		}
	}
	if len(waiting) > 0 || len(s.kept) > 0 {
		t.Errorf("%d still wait, %d turns are kept", len(waiting), len(s.kept))
	}
}
