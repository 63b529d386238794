// Package explore walks the states that a rotation can reach, with everything that can go wrong,
// and looks for one that breaks an invariant of docs/rotation.md.
//
// It runs package rotation itself. Around it stands a model of the engine, step by step as package
// rotator takes them, of the store with labels and versions, of the target, of people and of time.
// The walk is breadth first, so that the first violation is a shortest one. It is pure and repeats
// itself exactly.
//
// The model is small where that loses nothing: waits have no jitter, because an engine that looks
// later is in the model anyway; a call to the target and its effect are one moment, or, with the
// fault Late, two. It assumes what the engine assumes: that a right to rotate outlasts every
// effect; that a target carries out nothing later than rotation.Settle after its answer was lost;
// that a target is not a whole login window behind; and that no network delivers a request twice.
package explore

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// Fault is a set of things that go wrong.
type Fault uint16

// The faults.
const (
	Crash        Fault = 1 << iota // the process ends, at any point
	Lost                           // a request, or its answer, is lost
	Late                           // a request is carried out after its answer was given up
	Down                           // the target cannot be reached
	Refuse                         // the target's rules refuse the candidate
	Lie                            // the target says that it has taken the candidate, and has not
	Lag                            // a login is rejected, since the target is slow to learn of a change
	StoreError                     // a transaction is refused, or its answer is lost
	SecondEngine                   // another node takes over while the first goes on
	Jump                           // the clock is set
	Gone                           // the target is not registered any more
	Hand                           // somebody else changes the target
	Restore                        // the store is put back to an earlier state
	Moody                          // from now on the target gives other answers to logins, for ever
	Behind                         // a replica does not learn of the new credential
	Locked                         // from now on the target refuses the administrator, for ever
)

// Config says what is explored.
type Config struct {
	// Name is for reports.
	Name     string
	Strategy target.Strategy
	// Inspect says that the target tells which credentials it accepts; else the engine tries logins.
	Inspect bool
	// Revert says that the target can take back what an attempt has left.
	Revert bool
	// Faults can happen, at most Most in one history; People is how often people ask for something.
	Faults Fault
	Most   int
	People int
	// Holder is a consumer that holds the version that it read last until it reads again, and tells
	// so: the end of a grace waits for it.
	Holder bool
	// Worn begins with a rotation that is near the bounds of its counters.
	Worn bool
	// Depth is the longest history; 0 means no bound. States is how many states are kept; 0 means no
	// bound.
	Depth, States int
	// Stop ends the walk when it returns true; nil means never.
	Stop func() bool
	// Mutation breaks the rules on purpose; nil means that it does not.
	Mutation *Mutation
}

// Report is what a walk has found.
type Report struct {
	States, Transitions, Depth int
	// Complete says that there was nothing left to explore.
	Complete bool
	// Violation is the invariant that was broken first, and Trace the shortest history that does so;
	// empty when none was.
	Violation string
	Trace     []string
}

// String is the report in one line, and a trace when there is one.
func (r Report) String() string {
	s := fmt.Sprintf("%d states, %d transitions, depth %d, complete %v", r.States, r.Transitions, r.Depth, r.Complete)
	if r.Violation != "" {
		s += "\n" + r.Violation + "\n  " + strings.Join(r.Trace, "\n  ")
	}
	return s
}

// node is how a state was reached: the edge with that number from its parent.
type node struct {
	parent uint32
	edge   uint16
}

type explorer struct {
	c     *Config
	r     *rules
	seen  map[uint64]struct{}
	nodes []node
	// fine are states from which a good end was shown.
	fine    map[uint64]struct{}
	ways    map[way]bool
	between map[uint64]uint32
	report  Report
}

type queued struct {
	w  world
	id uint32
}

// Explore walks until everything within the bounds was seen, an invariant was broken, or Stop says
// so.
func Explore(c Config) Report { return explore(c, nil).report }

// explore also keeps, when asked to, a way to each state of store and target between two steps of
// the engines.
func explore(c Config, between map[uint64]uint32) *explorer {
	x := &explorer{
		c:       &c,
		r:       c.Mutation.rules(),
		seen:    map[uint64]struct{}{},
		fine:    map[uint64]struct{}{},
		ways:    map[way]bool{},
		between: between,
	}
	first := c.first()
	x.seen[first.key(true)] = struct{}{}
	x.nodes = append(x.nodes, node{})
	x.report.States = 1
	level := []queued{{first, 0}}
	for len(level) > 0 && (c.Depth == 0 || x.report.Depth < c.Depth) {
		next, more := x.expand(level)
		if !more {
			return x
		}
		level = next
		x.report.Depth++
	}
	x.report.Complete = len(level) == 0
	return x
}

// expand goes one step further from each state of a level; more is false when the walk ends.
func (x *explorer) expand(level []queued) (next []queued, more bool) {
	for n := range level {
		if n%1024 == 0 && x.c.Stop != nil && x.c.Stop() {
			return nil, false
		}
		w := &level[n].w
		number := uint16(0)
		x.edges(w, false, func(e edge) {
			number++
			if x.report.Violation != "" {
				return
			}
			x.report.Transitions++
			if q, isNew := x.visit(e, level[n].id, number); isNew {
				next = append(next, q)
			}
		})
		if x.report.Violation != "" || x.c.States > 0 && x.report.States >= x.c.States {
			return nil, false
		}
	}
	return next, true
}

func (x *explorer) visit(e edge, parent uint32, number uint16) (queued, bool) {
	key := e.to.key(true)
	bad := e.to.bad
	if _, ok := x.seen[key]; ok && bad == "" {
		return queued{}, false
	}
	x.seen[key] = struct{}{}
	id := uint32(len(x.nodes))
	x.nodes = append(x.nodes, node{parent, number})
	x.report.States = len(x.nodes)
	if bad == "" {
		bad = (&walk{c: x.c, r: x.r}).check(&e.to)
	}
	var after []string
	if bad == "" {
		bad = x.operatorEnds(&e.to)
	}
	if bad == "" {
		bad, after = x.ends(e.to)
	}
	if bad != "" {
		x.report.Violation, x.report.Trace = bad, append(x.trace(id), after...)
	}
	if x.between != nil && e.to.engines[0].pc <= ready && e.to.engines[1].pc <= ready {
		if k := e.to.key(false); x.between[k] == 0 {
			x.between[k] = id
		}
	}
	return queued{e.to, id}, true
}

func (x *explorer) edges(w *world, good bool, emit func(edge)) {
	walk := &walk{c: x.c, r: x.r, from: w, emit: emit, good: good}
	for i := range w.engines {
		if i == 0 || x.c.Faults&SecondEngine != 0 {
			walk.engine(i)
		}
	}
	walk.people()
	walk.events()
}

// first is the world before anything happens: one version, which works, and a rotation that falls
// due in an hour.
func (c *Config) first() world {
	now := time.Unix(1_000_000_000, 0).UTC()
	d := &data{
		rec: rotation.Record{
			State:     rotation.Idle,
			Seq:       1,
			StartedAt: now,
			Due:       now.Add(time.Hour),
			Health:    rotation.Health{NextAt: now.Add(probeEvery)},
		},
		cur: 0, prev: noVersion, pend: noVersion, stored: 1, promised: noVersion,
	}
	w := world{now: now, db: d, live: 1, made: 1, faults: int8(c.Most), people: int8(c.People), holds: noVersion}
	if c.Holder {
		w.holds = d.cur
	}
	if c.Worn {
		c.wear(&w)
	}
	return w
}

// wear begins in the middle: the last candidate, before its last attempt.
func (c *Config) wear(w *world) {
	v, _ := w.newVersion(c.Strategy == target.Double)
	d := w.db
	d.stored, d.pend = d.stored|bit(v), v
	r := &d.rec
	*r = r.Begin(rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Manual, Grace: grace, At: w.now}, w.now)
	r.State, r.Strategy, r.Candidate, r.Base, r.Steps = rotation.Prepared, c.Strategy, name(v), name(0), nil
	r.Attempt, r.Candidates = rotation.MaxAttempts-1, rotation.MaxCandidates
}

// trace tells how a state was reached.
func (x *explorer) trace(id uint32) []string {
	var path []uint16
	for ; id != 0; id = x.nodes[id].parent {
		path = append(path, x.nodes[id].edge)
	}
	w := x.c.first()
	var lines []string
	for n := len(path) - 1; n >= 0; n-- {
		from, number := w, uint16(0)
		x.edges(&from, false, func(e edge) {
			if number++; number == path[n] {
				lines = append(lines, line(e, from.now))
				w = e.to
			}
		})
	}
	return lines
}

// line is one thing that happened, and the state after it.
func line(e edge, before time.Time) string {
	who := "       "
	if e.engine >= 0 {
		who = fmt.Sprintf("engine%d", e.engine+1)
	}
	d := e.to.db
	set := func(bits uint16) (s string) {
		for v := range int8(16) {
			if bits&bit(v) != 0 {
				s += name(v)
			}
		}
		return s
	}
	hold := ""
	if d.hold {
		hold = " reads held"
	}
	clock := ""
	if e.to.now != before {
		clock = " (" + e.to.now.Sub(before).String() + ")"
	}
	return fmt.Sprintf("%s %-62s | %s current=%s previous=%s pending=%s%s, works: %s",
		who, e.what+clock, d.rec.State, name(d.cur), name(d.prev), name(d.pend), hold, set(e.to.live))
}

// mostGood bounds the steps to a good end when nothing goes wrong any more.
const mostGood = 2000

// ends holds I10: when nothing goes wrong any more and nobody asks for anything, the rotation ends.
// Another invariant that breaks on the way is left to the walk, which comes by the shortest way.
func (x *explorer) ends(w world) (bad string, after []string) {
	var path []uint64
	from := w
	for range mostGood {
		key := w.key(true)
		if _, ok := x.fine[key]; ok || x.isEnd(&w) {
			x.fine[key] = struct{}{}
			for _, k := range path {
				x.fine[k] = struct{}{}
			}
			return "", nil
		}
		path = append(path, key)
		then, moved := x.well(w)
		if then.what == timePasses && heldTooLong(&w) {
			return "I2: reads are blocked for longer than they may be", x.story(from)
		}
		if !moved {
			return "I10: nothing happens any more, in state " + string(w.db.rec.State), x.story(from)
		}
		if then.to.bad != "" || (&walk{c: x.c, r: x.r}).check(&then.to) != "" {
			return "", nil
		}
		w = then.to
	}
	return "I10: no end, in state " + string(w.db.rec.State), x.story(from)
}

// well is what happens next when all goes well. A pause is lifted first.
func (x *explorer) well(w world) (then edge, moved bool) {
	if w.db.rec.Paused {
		d := *w.db
		d.rec = d.rec.WithPause(nil)
		d.rec.Seq++
		w.db = &d
	}
	if r := w.db.rec; w.odd() && r.State == rotation.Retiring && r.Failures >= rotation.MaxUndecided {
		x.cancels(&w) // the engine goes on for ever, and an operator ends it
	}
	x.edges(&w, true, func(e edge) {
		if !moved {
			then, moved = e, true
		}
	})
	return then, moved
}

// cancels is an operator who cancels a rotation that cannot go on.
func (x *explorer) cancels(w *world) {
	d := *w.db
	r, err := x.r.next(d.rec, rotation.Event{Kind: rotation.Cancel}, w.now)
	if err != nil {
		return
	}
	before := d.rec
	d.rec = r
	walk := &walk{c: x.c, r: x.r}
	walk.afterCancel(before, w, &d)
	walk.put(w, &d)
}

// heldTooLong says that reads are blocked in Applied, though they may be no longer.
func heldTooLong(w *world) bool {
	r := &w.db.rec
	return w.db.hold && r.State == rotation.Applied && !r.HeldAt.Add(r.Hold).After(w.now)
}

// way is what decides how an operator can end a rotation.
type way struct {
	state     rotation.State
	mode      rotation.Mode
	strategy  target.Strategy
	cancelled bool
	sent      bool
	then      bool
}

// operatorEnds holds I12: a few commands of an operator end every rotation, also when the target
// never answers again.
func (x *explorer) operatorEnds(w *world) string {
	r := w.db.rec
	key := way{r.State, r.Mode, r.Strategy, r.Cancelled, r.Attempt > 0, r.Then != nil}
	ended, known := x.ways[key]
	for n := 0; !known && n < 4; n++ {
		if ended = r.State == rotation.Quarantined || !r.InFlight(); ended {
			break
		}
		kinds := []rotation.EventKind{rotation.Cancel}
		if r.State == rotation.InGrace {
			kinds = []rotation.EventKind{rotation.EndGrace, rotation.Expired}
		}
		for _, kind := range append(kinds, rotation.Failed) { // the target does not answer
			if next, err := x.r.next(r, rotation.Event{Kind: kind}, w.now); err == nil {
				r = next
			}
		}
	}
	x.ways[key] = ended
	if !ended {
		return "I12: no command of an operator ends the state " + string(w.db.rec.State)
	}
	return ""
}

// story tells what happens when all goes well, up to a length.
func (x *explorer) story(w world) (lines []string) {
	for range 40 {
		then, moved := x.well(w)
		if !moved {
			break
		}
		lines = append(lines, "then   "+line(then, w.now))
		w = then.to
	}
	return lines
}

// isEnd says that a rotation has ended as it may, or that none is under way.
func (x *explorer) isEnd(w *world) bool {
	r := &w.db.rec
	if r.State == rotation.Quarantined {
		return w.touched || w.odd()
	}
	if r.State.Step() == rotation.Prepare && w.made >= maxMade {
		return true // the history is long enough
	}
	return r.State.Ended() && r.Then == nil && w.db.pend == noVersion && !w.db.hold
}

// Restarts holds I9: whatever store and target come to when the engine is killed and started again,
// they come to without that, when a transaction is refused or its answer is lost. It explores both
// to the end.
func Restarts(c Config) Report {
	without := c
	without.Faults = c.Faults&^Crash | StoreError
	reachable := map[uint64]uint32{}
	if x := explore(without, reachable); !x.report.Complete {
		return x.report
	}
	with := c
	with.Faults = c.Faults&^StoreError | Crash
	crashed := map[uint64]uint32{}
	x := explore(with, crashed)
	first := uint32(0)
	for k, id := range crashed {
		if reachable[k] == 0 && (first == 0 || id < first) {
			first = id
		}
	}
	if first != 0 {
		x.report.Violation, x.report.Trace = "I9: after a restart there is a state that nothing else leads to", x.trace(
			first,
		)
	}
	return x.report
}
