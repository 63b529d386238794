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
	if len(waiting) > 0 || len(s.waiting[waitingList{name: "target"}]) > 0 {
		t.Errorf("%d still wait, %d are counted", len(waiting), len(s.waiting[waitingList{name: "target"}]))
	}
}
