package rotator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// TestProbesThatAreDueComeFirst verifies, also for a rate below one, that probes that callers ask
// for, however many, put off none that is due, and that a probe that calls no target takes no turn
// from others.
func TestProbesThatAreDueComeFirst(t *testing.T) {
	t.Parallel()
	const turns = 300
	for _, rate := range []float64{10, 1, 0.5} {
		r := New(nil, nil, nil, Config{ProbeRate: rate})
		every := time.Duration(float64(time.Second) / rate)
		due := &api.Turn{Registered: true}
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		asked := &api.Turn{Registered: true, Record: rotation.Record{}.AskedProbe(now)}
		lost := &api.Turn{Record: asked.Record}
		made := 0
		for tick := range turns * 10 {
			now = now.Add(every / 10)
			for range 5 {
				if !r.mayProbe(asked, fmt.Sprint("asked", rand.N(1000)), now).After(now) {
					made++
				}
				if r.mayProbe(lost, "lost", now).After(now) {
					t.Fatalf("rate %g: a probe that calls no target waits", rate)
				}
			}
			if tick%20 > 0 { // half of the turns are for those that are due
				continue
			}
			if at := r.mayProbe(due, fmt.Sprint("due", tick), now); at.After(now) {
				t.Errorf("rate %g: at %s, a probe that is due was put off by %s", rate, now.Format(time.TimeOnly), at.Sub(now))
			}
		}
		if want := turns / 2; made < want*9/10 || made > want+11 {
			t.Errorf("rate %g: %d probes that were asked for were made, want about %d", rate, made, want)
		}
	}
}

// TestAskingDelaysNoProbe verifies that a probe is not made later because a caller has asked for
// it: one that is due keeps its place among the others, and one that is not is due when it would
// be without the call, although those that are due take every turn.
func TestAskingDelaysNoProbe(t *testing.T) {
	t.Parallel()
	const rate, crowd = 10, 100
	const inOrder = 12 * crowd / rate * time.Second // of the turns of all, with their random order
	r := New(nil, nil, nil, Config{ProbeRate: rate})
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	turns := map[string]*api.Turn{}
	add := func(name string, in time.Duration, asked bool) {
		turn := &api.Turn{Registered: true}
		turn.Record.Health.NextAt = start.Add(in)
		if asked {
			turn.Record = turn.Record.AskedProbe(start)
		}
		turns[name] = turn
	}
	dueIn := map[string]time.Duration{"due": 0}
	for n := range 5 {
		dueIn[fmt.Sprint("later", n)] = time.Duration(n+1) * time.Minute
	}
	for name, in := range dueIn {
		add(name, in, true)
	}
	for n := range crowd {
		add(fmt.Sprint("crowd", n), 0, false)
	}
	for n := range 50 * crowd { // these make those that were asked for wait long
		add(fmt.Sprint("asked", n), time.Hour, true)
	}
	for range probeBurst(rate) {
		r.mayProbe(turns["crowd0"], "crowd0", start)
	}
	for now := start; now.Before(start.Add(10 * time.Minute)); now = now.Add(100 * time.Millisecond) {
		for name, turn := range turns {
			health := &turn.Record.Health
			if health.NextAt.After(now) {
				continue
			}
			if at := r.mayProbe(turn, name, now); at.After(now) {
				turn.Record = turn.Record.PutOffProbe(at, now)
				if in, ok := dueIn[name]; ok && !turn.Record.ProbePending(now) {
					t.Fatalf("%s, due in %s, was put off and is not pending", name, in)
				}
				continue
			}
			in, ok := dueIn[name]
			if !ok { // the crowd is due again before all of it was probed
				*health = rotation.Health{NextAt: now.Add(rand.N(crowd / rate * time.Second))}
				continue
			}
			if late := now.Sub(start) - in; late > inOrder {
				t.Errorf("%s was probed %s late", name, late)
			}
			delete(dueIn, name)
			delete(turns, name)
		}
	}
	for name := range dueIn {
		t.Errorf("%s was never probed", name)
	}
}

// TestSilentTargetsLeaveWorkers verifies that probes of targets that do not answer take no more
// than half of the workers in all, and a quarter of them at one target; that a probe that must wait
// waits the longer, the longer the others have had no answer; and that the end of one makes room.
func TestSilentTargetsLeaveWorkers(t *testing.T) {
	t.Parallel()
	r := New(nil, nil, nil, Config{Workers: 16})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(name string) *api.Turn {
		return &api.Turn{Registered: true, Target: store.Target{Account: "1", Name: name}}
	}
	begun := func(name string) (ended []func()) {
		for range 16 {
			if done, _ := r.enterProbe(at(name), name, now); done != nil {
				ended = append(ended, done)
			}
		}
		return ended
	}
	first, second, third := begun("first"), begun("second"), begun("third")
	if len(first) != 4 || len(second) != 4 || len(third) != 0 {
		t.Fatalf("%d, %d and %d probes are under way at three targets", len(first), len(second), len(third))
	}
	for after, least := range map[time.Duration]time.Duration{
		0: time.Second, 5 * time.Second: 5 * time.Second, time.Minute: 15 * time.Second,
	} {
		done, wait := r.enterProbe(at("fourth"), "fourth", now.Add(after))
		if done != nil || wait < least || wait >= 2*least {
			t.Errorf("after %s without an answer, a probe at another target waits %s, want %s or more", after, wait, least)
		}
		if done, wait := r.enterProbe(at("first"), "first", now.Add(after)); done != nil || wait < least || wait >= 2*least {
			t.Errorf("after %s without an answer, the next probe waits %s, want %s or more", after, wait, least)
		}
	}
	if done, _ := r.enterProbe(&api.Turn{}, "lost", now); done == nil {
		t.Error("a probe that calls no target waits")
	}
	first[0]()
	if third = begun("third"); len(third) != 1 {
		t.Errorf("%d probes begin when one has ended", len(third))
	}
	for _, done := range slices.Concat(first[1:], second, third) {
		done()
	}
	if left := r.probing; left.total != 0 || len(left.under) != 0 {
		t.Errorf("after the last probe, %d are under way", left.total)
	}
}

// TestWaitingProbesStoreLittle verifies that many probes that wait for room, as after a restore,
// come back seldom: each time, the store is written.
func TestWaitingProbesStoreLittle(t *testing.T) {
	t.Parallel()
	r := New(nil, nil, nil, Config{Workers: 16})
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(n int) *api.Turn {
		return &api.Turn{Registered: true, Target: store.Target{Account: "1", Name: fmt.Sprint("silent", n%2)}}
	}
	const secrets, probe, minutes = 1000, 15 * time.Second, 5
	next, ends := map[int]time.Time{}, map[int]time.Time{}
	done := map[int]func(){}
	refused, begun := 0, 0
	for now := start; now.Before(start.Add(minutes * time.Minute)); now = now.Add(250 * time.Millisecond) {
		for n, end := range ends {
			if !end.After(now) {
				done[n]()
				delete(ends, n)
			}
		}
		for n := range secrets {
			if next[n].After(now) {
				continue
			}
			var wait time.Duration
			if done[n], wait = r.enterProbe(at(n), fmt.Sprint(n), now); done[n] == nil {
				refused++
				next[n] = now.Add(wait)
				continue
			}
			begun++
			ends[n], next[n] = now.Add(probe), now.Add(time.Hour)
		}
	}
	if most := secrets + 8*60*minutes; refused > most {
		t.Errorf("probes that wait came back %d times in %d minutes, want at most %d", refused, minutes, most)
	}
	if least := 8 * minutes * 60 / 15 / 2; begun < least {
		t.Errorf("%d probes began, want %d at least", begun, least)
	}
}

// TestSilentTargetHoldsUpNoOthers verifies that many probes which wait for a target that does not
// answer do not delay probes of other targets that must wait a moment, and that these, however
// many, come back no more often than the limit allows.
func TestSilentTargetHoldsUpNoOthers(t *testing.T) {
	t.Parallel()
	const timeout = 15 * time.Second
	r := New(nil, nil, nil, Config{Workers: 16, EffectTimeout: timeout})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	enter := func(name, who string) (done func(), wait time.Duration) {
		return r.enterProbe(&api.Turn{Registered: true, Target: store.Target{Account: "1", Name: name}}, who, now)
	}
	var longest time.Duration
	for n := range 4000 {
		_, wait := enter("silent", fmt.Sprint("silent", n))
		longest = max(longest, wait)
	}
	if least := 400 * time.Second; longest < least {
		t.Errorf("4000 probes come back within %s, want %s or more", longest, least)
	}
	now = now.Add(10 * time.Second)
	for n := range 4 {
		if done, _ := enter("healthy", fmt.Sprint("healthy", n)); done == nil {
			t.Fatal("a probe of a healthy target does not begin")
		}
	}
	for _, name := range []string{"healthy", "another"} {
		if done, wait := enter(name, "refused"); done != nil || wait < time.Second || wait > 2*time.Second {
			t.Errorf("%s: a probe that must wait a moment waits %s", name, wait)
		}
	}
	longest = 0
	for n := range 800 {
		_, wait := enter(fmt.Sprint("other", n), fmt.Sprint("other", n))
		longest = max(longest, wait)
	}
	if least := 100 * time.Second; longest < least {
		t.Errorf("800 probes of other targets come back within %s, want %s or more", longest, least)
	}
}
