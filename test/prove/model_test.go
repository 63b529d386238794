package prove

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation/explore"
)

// The state machine is walked in full: every scope with two faults and one request, to its end, and
// then as far as there is time with two requests.
const (
	// wholeModelTime bounds the first walk, which takes three minutes of a free processor.
	wholeModelTime = 20 * time.Minute
	// furtherModelTime is how long the second walk takes.
	furtherModelTime = 2 * time.Minute
)

// TestModel walks the state machine with everything that can go wrong. The faster cut is the test
// of package explore; here are the figures, and the mutations, each of which must be noticed.
func TestModel(t *testing.T) {
	if !*full {
		t.Skip("skipped: the tests of internal/rotation/explore are the faster cut of this")
	}
	t.Parallel()
	for _, name := range []string{
		"model_states", "model_transitions", "model_scopes_whole", "model_violations", "model_mutations",
		"model_mutations_missed",
	} {
		figures.Count(name, 0)
	}
	depth := 0
	for _, walk := range []struct {
		people int
		time   time.Duration
	}{{1, wholeModelTime}, {2, furtherModelTime}} {
		until := time.Now().Add(walk.time)
		for _, c := range explore.Scopes(2, walk.people) {
			c.Stop = func() bool { return time.Now().After(until) }
			r := explore.Explore(c)
			figures.Count("model_states", r.States)
			figures.Count("model_transitions", r.Transitions)
			depth = max(depth, r.Depth)
			if r.Complete {
				figures.Count("model_scopes_whole", 1)
			} else if walk.people == 1 && r.Violation == "" {
				t.Errorf("%s: not walked to its end: %s", c.Name, r)
			}
			if r.Violation != "" {
				figures.Count("model_violations", 1)
				t.Errorf("%s: %s", c.Name, r)
			}
		}
	}
	figures.Count("model_depth", depth)
	for _, m := range explore.Mutations() {
		figures.Count("model_mutations", 1)
		if r := explore.Explore(m.In()); !strings.HasPrefix(r.Violation, m.Breaks+":") {
			figures.Count("model_mutations_missed", 1)
			t.Errorf("the mutation %q is not noticed: %s", m.Name, r)
		}
	}
}
