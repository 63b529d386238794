package prove

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation/explore"
)

// modelTime is how long the state machine is walked in full: every scope with two faults and one
// request first, which takes about a minute, and then as far as there is time with two requests.
const modelTime = 2 * time.Minute

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
	until := time.Now().Add(modelTime)
	stop := func() bool { return time.Now().After(until) }
	depth := 0
	for _, people := range []int{1, 2} {
		for _, c := range explore.Scopes(2, people) {
			c.Stop = stop
			r := explore.Explore(c)
			figures.Count("model_states", r.States)
			figures.Count("model_transitions", r.Transitions)
			depth = max(depth, r.Depth)
			if r.Complete {
				figures.Count("model_scopes_whole", 1)
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
