package rotator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
)

// TestProbesThatAreDueComeFirst verifies that probes that callers ask for, however many, put off
// none that is due, and that a probe that calls no target takes no turn from others.
func TestProbesThatAreDueComeFirst(t *testing.T) {
	t.Parallel()
	const rate, seconds = 10, 30
	r := New(nil, nil, nil, Config{ProbeRate: rate})
	due := &api.Turn{Registered: true}
	asked := &api.Turn{Registered: true, Record: rotation.Record{Health: rotation.Health{Wanted: true}}}
	lost := &api.Turn{Record: asked.Record}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	made := 0
	for tick := range seconds * 100 {
		now = now.Add(10 * time.Millisecond)
		for range 5 {
			if !r.mayProbe(asked, fmt.Sprint("asked", rand.N(1000)), now).After(now) {
				made++
			}
			if r.mayProbe(lost, "lost", now).After(now) {
				t.Fatal("a probe that calls no target waits")
			}
		}
		if tick%20 > 0 { // five are due in a second
			continue
		}
		if at := r.mayProbe(due, fmt.Sprint("due", tick), now); at.After(now) {
			t.Errorf("at %s, a probe that is due was put off by %s", now.Format(time.TimeOnly), at.Sub(now))
		}
	}
	if want := seconds * rate / 2; made < want*9/10 || made > want+rate {
		t.Errorf("%d probes that were asked for were made, want about %d", made, want)
	}
}
