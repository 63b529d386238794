package explore

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// least is how many states a scope has when one thing goes wrong and one thing is asked for. A
// model that shrinks would find less and look as well.
var least = map[string]int{
	"faults": 3000, "late requests": 2000, "two engines": 8000, "change by hand": 3000, "restored backup": 15000, "clock": 2500, "near the bounds": 3000, "takes back": 1500, "consumers": 3000,
	"moods": 3000, "replicas": 2000, "refused administrator": 3000,
}

func TestExplore(t *testing.T) {
	t.Parallel()
	for _, c := range Scopes(1, 1) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			r := Explore(c)
			if r.Violation != "" || !r.Complete {
				t.Fatal(r)
			}
			what := c.Name[strings.LastIndex(c.Name, ", ")+2:]
			if least[what] == 0 || r.States < least[what] || r.Transitions < r.States {
				t.Errorf("%s; want at least %d states", r, least[what])
			}
			t.Log(r)
		})
	}
}

func TestMutations(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range Mutations() {
		seen[m.Breaks] = true
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			r := Explore(m.In())
			if !strings.HasPrefix(r.Violation, m.Breaks+":") {
				t.Fatalf("not caught by %s: %s", m.Breaks, r)
			}
			t.Logf("caught in %d steps: %s", len(r.Trace), r.Violation)
		})
	}
	for n := 1; n <= 12; n++ {
		if !seen[fmt.Sprint("I", n)] {
			t.Errorf("no mutation breaks I%d", n)
		}
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	for _, c := range Scopes(1, 1) {
		if !strings.HasSuffix(c.Name, ", faults") {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if r := Restarts(c); r.Violation != "" || !r.Complete {
				t.Error(r)
			}
		})
	}
	c := Scopes(1, 0)[0]
	for _, m := range Mutations() {
		if m.Name == "what is planned begins at start-up" {
			c.Mutation = &m
		}
	}
	if r := Restarts(c); !strings.HasPrefix(r.Violation, "I9") {
		t.Errorf("a rotation that begins at start-up: %s", r)
	}
}

func TestExploreRepeatsItselfAndStops(t *testing.T) {
	t.Parallel()
	m := Mutations()[0]
	first, second := Explore(m.In()), Explore(m.In())
	if first.String() != second.String() || len(first.Trace) == 0 ||
		!strings.Contains(first.Trace[len(first.Trace)-1], "works: ") {
		t.Errorf("two walks differ, or tell nothing:\n%s\n%s", first, second)
	}
	c := Scopes(2, 2)[0]
	c.States = 1000
	if r := Explore(c); r.Complete || r.States < 1000 || r.States > 1100 {
		t.Errorf("bounded by 1000 states: %s", r)
	}
	c.States, c.Depth = 0, 5
	if r := Explore(c); r.Complete || r.Depth != 5 {
		t.Errorf("bounded by depth 5: %s", r)
	}
	calls := 0
	c.Depth, c.Stop = 0, func() bool { calls++; return calls > 20 }
	if r := Explore(c); r.Complete || calls != 21 {
		t.Errorf("stopped: %s after %d calls", r, calls)
	}
}

// TestLabels holds the labels of the model to those of package secret, over random histories.
func TestLabels(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	none := (*Mutation)(nil).rules()
	for range 300 {
		d := &data{cur: 0, prev: noVersion, pend: noVersion, stored: 1}
		s := secret.Secret{
			Name: "s", Type: kms.TypeGeneric, Versions: map[string]secret.Version{"a": {ID: "a", Order: 1}}, LastOrder: 1,
			Stages: map[secret.Stage]string{secret.Current: "a"},
		}
		var story []string
		for next := int8(1); next < 14; {
			var err error
			before := *d
			switch what := random.IntN(5); {
			case what == 0 && d.pend == noVersion:
				story = append(story, "prepare")
				s, err = s.Prepare(secret.Version{ID: name(next)}, time.Time{})
				d.stored, d.pend = d.stored|bit(next), next
				next++
			case what == 1 && d.pend != noVersion:
				story = append(story, "promote")
				s, err = s.Promote(name(d.pend), time.Time{})
				d.promote(d.pend)
			case what == 2 && d.prev != noVersion:
				story = append(story, "undo")
				s, err = s.Undo(time.Time{})
				d.undo()
			case what == 3:
				story = append(story, "unprepare")
				s = s.Unprepare(time.Time{})
				d.pend = noVersion
			case what == 4:
				story = append(story, "adopt")
				s, err = s.Adopt(secret.Version{ID: name(next)}, "", time.Time{})
				d.adopt(next, noVersion, none, secret.MaxVersions)
				next++
			}
			d.evict(none, secret.MaxVersions)
			got := map[secret.Stage]string{secret.Current: name(d.cur)}
			for stage, v := range map[secret.Stage]int8{secret.Previous: d.prev, secret.Pending: d.pend} {
				if v != noVersion {
					got[stage] = name(v)
				}
			}
			kept := true
			for v := range int8(16) {
				_, there := s.Versions[name(v)]
				kept = kept && there == (d.stored&bit(v) != 0)
			}
			if err != nil || !kept || fmt.Sprint(got) != fmt.Sprint(s.Stages) {
				t.Fatalf(
					"after %v of %+v: model %v, stored %b; secret %v, %v, %v",
					story,
					before,
					got,
					d.stored,
					s.Stages,
					s.List(true),
					err,
				)
			}
		}
	}
}

// TestKeyForgetsNothing holds that two worlds which differ in a way that matters have different
// keys.
func TestKeyForgetsNothing(t *testing.T) {
	t.Parallel()
	c := Config{Strategy: target.Overlap, Most: 2, People: 1, Worn: true}
	base := c.first()
	base.engines[0] = engine{pc: loaded, step: rotation.Send, seq: base.db.rec.Seq, rec: &base.db.rec}
	record := func(change func(*rotation.Record)) func(*world) {
		return func(w *world) {
			d := *w.db
			change(&d.rec)
			w.db = &d
		}
	}
	seen := []uint64{base.key(true)}
	for n, change := range []func(*world){
		func(w *world) { w.live = 3 },
		func(w *world) { w.second = 2 },
		func(w *world) { w.faults = 1 },
		func(w *world) { w.people = 0 },
		func(w *world) { w.touched = true },
		func(w *world) { w.lagged = true },
		func(w *world) { w.locked = true },
		func(w *world) { w.holds = 0 },
		func(w *world) { d := *w.db; d.holding, w.db = w.now.Add(time.Second), &d },
		record(func(r *rotation.Record) { r.GraceDeadline = base.now.Add(time.Second) }),
		record(func(r *rotation.Record) { r.Waiting = 1 }),
		func(w *world) { w.spared = true },
		func(w *world) { w.backup = w.db },
		func(w *world) { w.failed[1] = w.now },
		func(w *world) { w.flights[0] = flight{in: 1, until: w.now.Add(time.Second)} },
		func(w *world) { w.engines[0].pc = sending },
		func(w *world) { w.engines[0].step = rotation.Verify },
		func(w *world) { w.engines[0].token++ },
		func(w *world) { w.engines[0].seq-- },
		func(w *world) { w.engines[0].loginFailed = w.now },
		func(w *world) { w.engines[0].evidence = took },
		func(w *world) { w.engines[0].event = rotation.Event{Kind: rotation.Accepted} },
		func(w *world) { d := *w.db; d.hold, w.db = true, &d },
		func(w *world) { d := *w.db; d.prev, w.db = 1, &d },
		func(w *world) { d := *w.db; d.stored, w.db = 7, &d },
		record(func(r *rotation.Record) { r.State = rotation.Unknown }),
		record(func(r *rotation.Record) { r.Mode = rotation.Rehearse }),
		record(func(r *rotation.Record) { r.Trigger = rotation.Emergency }),
		record(func(r *rotation.Record) { r.Attempt++ }),
		record(func(r *rotation.Record) { r.Candidates++ }),
		record(func(r *rotation.Record) { r.Rejections++ }),
		record(func(r *rotation.Record) { r.Failures++ }),
		record(func(r *rotation.Record) { r.Paused = true }),
		record(func(r *rotation.Record) { r.Cancelled = true }),
		record(func(r *rotation.Record) { r.Doubtful = true }),
		record(func(r *rotation.Record) { r.BaseRejected = true }),
		record(func(r *rotation.Record) { r.GraceOver = true }),
		record(func(r *rotation.Record) { r.Grace.Min = 0 }),
		record(func(r *rotation.Record) { r.NextAt = base.now.Add(time.Second) }),
		record(func(r *rotation.Record) { r.GraceUntil = base.now.Add(time.Second) }),
		record(func(r *rotation.Record) { r.LoginFailedAt = base.now }),
		record(func(r *rotation.Record) { r.SentAt = base.now }),
		record(func(r *rotation.Record) { r.Then = &rotation.Request{} }),
	} {
		w := base
		change(&w)
		key := w.key(true)
		if slices.Contains(seen, key) {
			t.Errorf("change %d makes no difference", n)
		}
		seen = append(seen, key)
	}
}
