package explore

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// edge is one thing that happens. emit is called for each that can.
type edge struct {
	engine int // 0 or 1; -1 for the world
	what   string
	to     world
}

// walk lists what can happen in a world.
type walk struct {
	c    *Config
	r    *rules
	from *world
	emit func(edge)
	// good leaves out all that goes wrong, and everything that people do.
	good bool
}

func (x *walk) out(engine int, what string, to world) { x.emit(edge{engine, what, to}) }

// fault offers a thing that goes wrong, when it is asked for and any are left.
func (x *walk) fault(f Fault, engine int, what string, change func(*world)) {
	if x.good || x.c.Faults&f == 0 || x.from.faults == 0 {
		return
	}
	to := *x.from
	to.faults--
	change(&to)
	x.out(engine, what, to)
}

// engine lists what the engine i can do next, and how it can end. Package rotation decides, as it
// does for package rotator; the order of effects and transactions is that of package rotator.
func (x *walk) engine(i int) {
	e := &x.from.engines[i]
	if e.pc == off {
		x.start(i)
		return
	}
	x.fault(Crash, i, "crashes", func(w *world) { w.stop(i) })
	switch e.pc {
	case ready:
		x.load(i)
	case loaded:
		x.step(i)
	case proved:
		if x.mayAct(i) {
			x.proved(i)
		}
	case sending:
		if !x.mayAct(i) {
			return
		}
		x.send(i)
	case halfway:
		if x.mayAct(i) {
			x.resolve(i)
		}
	case heard:
		if e.step == rotation.CheckHealth {
			x.storeProbe(i)
			return
		}
		x.store(i, "stores the outcome", e.event)
	}
}

// stop ends an engine. What it knew of a failed login and did not store is gone.
func (w *world) stop(i int) {
	e := &w.engines[i]
	if e.event.LoginFailed || !e.loginFailed.IsZero() {
		w.spared = true
	}
	*e = engine{}
}

// start gives an engine the right to rotate. While another has it, that is a fault: the lease of
// the other has ended, though it has not stopped.
func (x *walk) start(i int) {
	lead := func(w *world) {
		if o := w.engines[1-i]; o.event.LoginFailed || !o.loginFailed.IsZero() {
			w.spared = true
		}
		w.token++
		w.engines[i] = engine{pc: ready, token: w.token}
		if x.r.startUpBegins {
			x.beginAtStart(w)
		}
	}
	other := x.from.engines[1-i]
	if other.pc != off && other.token == x.from.token {
		x.fault(SecondEngine, i, "takes over: the lease of the other has ended", lead)
		return
	}
	to := *x.from
	lead(&to)
	x.out(i, "starts", to)
}

func (x *walk) beginAtStart(w *world) {
	if r := w.db.rec; !r.InFlight() && !r.Due.IsZero() {
		d := *w.db
		if r.Due.After(w.now) {
			w.bad = "I9: a rotation that was not due began by itself"
		}
		x.begun(w, &d, rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Automatic, Grace: grace, At: w.now})
	}
}

// begun makes the record of a rotation that begins.
func (x *walk) begun(w *world, d *data, q rotation.Request) {
	d.rec = d.rec.Begin(q, w.now)
	x.put(w, d)
}

// put is the end of every transaction.
func (x *walk) put(w *world, d *data) {
	d.rec.Seq++
	d.rec.Steps, d.rec.Reason = nil, ""
	w.db = d
}

// load reads the record when its time has come, and chooses a step.
func (x *walk) load(i int) {
	r := &x.from.db.rec
	e := &x.from.engines[i]
	at := r.Wake()
	if e.token != x.from.token && !x.r.noFence { // it notices at the latest when it stores something
		to := *x.from
		to.stop(i)
		x.out(i, "finds that it has lost the right", to)
		return
	}
	if at.IsZero() || at.After(x.from.now) {
		return
	}
	var step rotation.Step
	if r.InFlight() {
		step = x.r.plan(*r, x.from.now)
	} else {
		step, _, _ = rotation.PlanIdle(*r, false, time.Time{}, x.from.now)
	}
	if step == rotation.Nothing || step == rotation.Wait {
		return
	}
	if (step == rotation.Begin || step == rotation.Prepare) && x.from.made >= maxMade {
		return // the history is long enough
	}
	to := *x.from
	to.engines[i] = engine{pc: loaded, step: step, token: e.token, seq: r.Seq, rec: r, loginFailed: e.loginFailed}
	if step == rotation.Resolve && !x.c.Inspect { // the target's own state tells nothing
		q := &to.engines[i].q
		*q = q.Answered(rotation.AskState, rotation.Answer{OK: true})
	}
	x.out(i, "reads the record; next step: "+string(step), to)
}

func (x *walk) step(i int) {
	e := &x.from.engines[i]
	switch e.step {
	case rotation.Begin:
		x.begin(i)
	case rotation.CheckHealth:
		if x.mayAct(i) {
			x.probe(i)
		}
	case rotation.Prepare:
		x.prepare(i)
	case rotation.Promote:
		x.store(i, "promotes the candidate", rotation.Event{Kind: rotation.Promoted})
	case rotation.Expire:
		x.ask(i)
	case rotation.Send,
		rotation.Resolve,
		rotation.Verify,
		rotation.CheckBase,
		rotation.Retire,
		rotation.Revert,
		rotation.Clear:
		if x.mayAct(i) {
			x.effect(i, e.step)
		}
	}
}

// ask finds out whether the consumer still holds the previous credential. The answer is an event
// that is stored then.
func (x *walk) ask(i int) {
	to := *x.from
	r, holders := to.engines[i].rec, 0
	if to.holds != noVersion && to.holds != number(r.Candidate) && !x.r.waitsForNobody {
		holders = 1
	}
	e := rotation.AfterGrace(*r, holders, r.GraceDeadline, to.now) // it is seen again and again
	to.hear(i, e, untouched)
	x.out(i, "asks who holds the previous credential: "+string(e.Kind), to)
}

// mayAct holds that the right outlasts an effect; else nothing is done, and nothing can be stored
// either.
func (x *walk) mayAct(i int) bool {
	if x.from.engines[i].token == x.from.token || x.r.noFence {
		return true
	}
	to := *x.from
	to.stop(i)
	x.out(i, "does not begin: its right has ended", to)
	return false
}
