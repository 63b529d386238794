package explore

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// Steps of the engine beside those of a rotation.
const (
	begin rotation.Step = "begin"
	probe rotation.Step = "probe"
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

// engine lists what the engine i can do next, and how it can end. It follows package rotator line by line.
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
	case sending:
		if !x.mayAct(i) {
			return
		}
		x.send(i)
	case halfway:
		if x.mayAct(i) {
			x.login(i, number(e.rec.Base), true)
		}
	case heard:
		if e.step == probe {
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

// start gives an engine the right to rotate. While another has it, that is a fault: the lease of the other has ended, though it
// has not stopped.
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
		x.begun(w, &d, rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Automatic, Grace: grace, Wait: graceWait, At: w.now})
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
	switch {
	case r.InFlight():
		step = x.r.plan(*r, x.from.now)
		if step == rotation.Nothing || step == rotation.Wait {
			return
		}
	case r.Then != nil && !r.Then.At.After(x.from.now), !r.Due.IsZero() && !r.Due.After(x.from.now) && !r.Paused:
		step = begin
	default:
		step = probe
	}
	if (step == begin || step == rotation.Prepare) && x.from.made >= maxMade {
		return // the history is long enough
	}
	to := *x.from
	to.engines[i] = engine{pc: loaded, step: step, token: e.token, seq: r.Seq, rec: r, loginFailed: e.loginFailed}
	x.out(i, "reads the record; next step: "+string(step), to)
}

func (x *walk) step(i int) {
	e := &x.from.engines[i]
	switch e.step {
	case begin:
		x.begin(i)
	case probe:
		if x.mayAct(i) {
			x.probe(i)
		}
	case rotation.Prepare:
		x.prepare(i)
	case rotation.Promote:
		x.store(i, "promotes the candidate", rotation.Event{Kind: rotation.Promoted})
	case rotation.Expire:
		x.ask(i)
	case rotation.Send, rotation.Resolve, rotation.Verify, rotation.CheckBase, rotation.Retire, rotation.Revert, rotation.Clear:
		if x.mayAct(i) {
			x.effect(i, e.step)
		}
	}
}

// ask finds out whether the consumer holds the former credential still. An answer is an event that is stored then.
func (x *walk) ask(i int) {
	to := *x.from
	e := rotation.Event{Kind: rotation.Expired}
	if r := to.engines[i].rec; to.holds != noVersion && to.holds != number(r.Candidate) && !x.r.waitsForNobody {
		e = rotation.Event{Kind: rotation.Overran, Consumers: 1}
		if to.now.Before(r.GraceLimit) {
			e = rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: r.GraceLimit} // it is seen again and again
		}
	}
	to.hear(i, e, untouched)
	x.out(i, "asks who holds the former credential: "+string(e.Kind), to)
}

// mayAct holds that the right outlasts an effect; else nothing is done, and nothing can be stored either.
func (x *walk) mayAct(i int) bool {
	if x.from.engines[i].token == x.from.token || x.r.noFence {
		return true
	}
	to := *x.from
	to.stop(i)
	x.out(i, "does not begin: its right has ended", to)
	return false
}

func (x *walk) effect(i int, step rotation.Step) {
	e := &x.from.engines[i]
	candidate, base := number(e.rec.Candidate), number(e.rec.Base)
	switch step {
	case rotation.Send:
		x.gone(i)
		if x.r.noIntent {
			to := *x.from
			to.engines[i].pc = sending
			x.out(i, "does not store that it sends", to)
			return
		}
		x.store(i, "stores that it sends", rotation.Event{Kind: rotation.Sending})
	case rotation.Resolve:
		x.resolve(i)
	case rotation.Verify:
		x.login(i, candidate, false)
	case rotation.CheckBase:
		if x.r.undoUnproven {
			x.store(i, "undoes without a login", rotation.Event{Kind: rotation.LoggedIn})
			return
		}
		x.login(i, base, false)
	case rotation.Retire:
		x.simple(i, "retires the base", rotation.Retired, flight{retire: true, in: candidate, out: base, strategy: e.rec.Strategy})
	case rotation.Revert:
		back := flight{retire: true, in: base, out: candidate, strategy: e.rec.Strategy}
		if e.rec.Strategy == target.Single {
			back.retire = false
		}
		x.simple(i, "takes the candidate back", rotation.Reverted, back)
	case rotation.Clear:
		x.clear(i)
	}
}

// clear lets the target take back what the attempts of a cancelled rotation may have left, where it can.
func (x *walk) clear(i int) {
	to := *x.from
	if x.c.Revert {
		to.flights = [2]flight{}
		x.fault(Down, i, "clears up: the target cannot be reached", func(w *world) { w.hear(i, rotation.Event{Kind: rotation.Failed}, untouched) })
	}
	to.hear(i, rotation.Event{Kind: rotation.Cleared}, took)
	x.out(i, "lets the target take back what was left", to)
}

// gone is a target that a person has removed. What a slow target has said falsely before cannot be put right then.
func (x *walk) gone(i int) {
	if x.from.lagged {
		return
	}
	x.fault(Gone, i, "finds that the target is not registered any more", func(w *world) {
		w.hear(i, rotation.Event{Kind: rotation.Impossible}, untouched)
	})
}

// hear is the outcome of a call to the target, before it is stored.
func (w *world) hear(i int, e rotation.Event, said evidence) {
	x := &w.engines[i]
	x.pc, x.event, x.evidence = heard, e, said
	if e.LoginFailed {
		x.loginFailed = w.now
	}
}

// send gives the candidate to the target.
func (x *walk) send(i int) {
	e := &x.from.engines[i]
	f := flight{strategy: e.rec.Strategy, in: number(e.rec.Candidate), out: number(e.rec.Base)}
	say := func(what string, kind rotation.EventKind, said evidence, landed bool) {
		to := *x.from
		if landed {
			to.land(f)
		}
		to.hear(i, rotation.Event{Kind: kind}, said)
		x.out(i, what, to)
	}
	say("sends the candidate: accepted", rotation.Accepted, took, true)
	lost := x.r.lostReply
	x.fault(Lost, i, "sends the candidate: it is lost on the way", func(w *world) { w.hear(i, rotation.Event{Kind: lost}, silence) })
	x.fault(Lost, i, "sends the candidate: carried out, the answer is lost", func(w *world) {
		w.land(f)
		w.hear(i, rotation.Event{Kind: lost}, silence)
	})
	x.fault(Late, i, "sends the candidate: no answer, and it may yet be carried out", func(w *world) {
		w.hear(i, rotation.Event{Kind: lost}, silence)
		if !w.launch(f) {
			w.land(f)
		}
	})
	x.fault(Late, i, "sends the candidate and crashes; it may yet be carried out", func(w *world) {
		if !w.launch(f) {
			w.land(f)
		}
		w.stop(i)
	})
	x.fault(Down, i, "sends the candidate: the target cannot be reached", func(w *world) { w.hear(i, rotation.Event{Kind: rotation.Unreached}, untouched) })
	x.fault(Lie, i, "sends the candidate: accepted, but not carried out", func(w *world) { w.hear(i, rotation.Event{Kind: rotation.Accepted}, took) })
	if x.from.live&bit(f.in) == 0 {
		x.fault(Refuse, i, "sends the candidate: refused by rule", func(w *world) { w.hear(i, rotation.Event{Kind: rotation.Declined}, declined) })
	}
}

// simple is a change that is tried until it succeeds.
func (x *walk) simple(i int, what string, done rotation.EventKind, f flight) {
	to := *x.from
	if !x.r.revertForgets || done != rotation.Reverted {
		to.land(f)
	}
	to.hear(i, rotation.Event{Kind: done}, took)
	x.out(i, what, to)
	failed := rotation.Event{Kind: rotation.Failed}
	x.fault(Down, i, what+": the target cannot be reached", func(w *world) { w.hear(i, failed, untouched) })
	x.fault(Lost, i, what+": carried out, the answer is lost", func(w *world) {
		w.land(f)
		w.hear(i, failed, silence)
	})
	x.fault(Late, i, what+": no answer, and it may yet be carried out", func(w *world) {
		if !w.launch(f) {
			w.land(f)
		}
		w.hear(i, failed, silence)
	})
	x.fault(Late, i, what+" and crashes; it may yet be carried out", func(w *world) {
		if !w.launch(f) {
			w.land(f)
		}
		w.stop(i)
	})
}

// resolve asks the target for its own state, or tries logins.
func (x *walk) resolve(i int) {
	e := &x.from.engines[i]
	x.fault(Down, i, "asks which credential is live: the target cannot be reached", func(w *world) { w.hear(i, x.r.unresolved, untouched) })
	if !x.c.Inspect {
		x.resolveByLogin(i)
		return
	}
	to := *x.from
	tell := func(v int8) target.Liveness {
		if to.live&bit(v) != 0 {
			return target.Live
		}
		return target.Dead
	}
	known := rotation.Event{Kind: rotation.Resolved, Candidate: tell(number(e.rec.Candidate)), Base: tell(number(e.rec.Base))}
	if e.rec.Mode == rotation.Reapply {
		known.Base = target.NotKnown
	}
	if x.c.Revert && known.Candidate == target.Dead && e.rec.SettledAt(to.now).After(to.now) {
		if to.flights != [2]flight{} {
			to.flights = [2]flight{}
			x.out(i, "lets the target take back what is under way", to) // and then asks
			return
		}
		known.Settled = true
	}
	to.hear(i, known, answered)
	x.out(i, "asks which credential is live: the target tells", to)
}

// resolveByLogin tries a login with the candidate and then one with the base. When both were rejected before, one is tried in each
// window: the base first, and then the candidate.
func (x *walk) resolveByLogin(i int) {
	e := &x.from.engines[i]
	now := x.from.now
	wait := max(e.rec.LoginAt(now).Sub(now), e.rec.SettledAt(now).Sub(now))
	switch {
	case wait > 0:
		to := *x.from
		to.hear(i, rotation.Event{Kind: rotation.Failed, After: wait}, untouched)
		x.out(i, "waits before another login", to)
	case x.remembers(i):
	case e.rec.Rejections == 1 && e.rec.Mode != rotation.Reapply:
		x.login(i, number(e.rec.Base), true)
	default:
		x.login(i, number(e.rec.Candidate), false)
	}
}

// remembers makes an engine wait that saw a login fail a moment ago and could not store it.
func (x *walk) remembers(i int) bool {
	if !x.recently(i) {
		return false
	}
	e := &x.from.engines[i]
	to := *x.from
	to.hear(i, rotation.Event{Kind: rotation.Failed, After: e.loginFailed.Add(rotation.LoginWindow).Sub(to.now)}, untouched)
	x.out(i, "remembers a failed login, and waits", to)
	return true
}

// recently says whether the engine remembers a failed login that it could not store.
func (x *walk) recently(i int) bool {
	e := &x.from.engines[i]
	return !x.r.forgetful && !e.loginFailed.IsZero() && x.from.now.Sub(e.loginFailed) < rotation.LoginWindow
}

// login tries one credential. In the step resolve a rejected candidate is followed by the base.
func (x *walk) login(i int, v int8, second bool) {
	e := &x.from.engines[i]
	if !second && e.step != rotation.Resolve && x.remembers(i) {
		return
	}
	reject := func(w *world) {
		w.loginFails(v, second && e.rec.Rejections == 0)
		w.engines[i].loginFailed = w.now
		switch {
		case e.step != rotation.Resolve:
			w.hear(i, rotation.Event{Kind: x.r.rejected, LoginFailed: true}, answered)
		case second:
			w.hear(i, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Base: target.Dead, LoginFailed: true}, answered)
		case e.rec.Mode == rotation.Reapply:
			w.hear(i, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, LoginFailed: true}, answered)
		case e.rec.Rejections > 1:
			w.hear(i, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Base: target.Dead, LoginFailed: true}, answered)
		default:
			w.engines[i].pc, w.engines[i].event.LoginFailed = halfway, true
		}
	}
	x.fault(Down, i, "logs in with "+name(v)+": the target cannot be reached", func(w *world) {
		failed := rotation.Event{Kind: rotation.Failed, LoginFailed: second && e.rec.Rejections == 0}
		w.hear(i, failed, untouched)
	})
	to := *x.from
	if to.live&bit(v) == 0 {
		reject(&to)
		x.out(i, "logs in with "+name(v)+": rejected", to)
		return
	}
	if e.step != rotation.Resolve || !x.from.lagged { // it is never a whole window behind
		x.fault(Lag, i, "logs in with "+name(v)+": rejected, since the target is slow to learn of it", func(w *world) {
			w.lagged = w.lagged || e.step == rotation.Resolve
			reject(w)
		})
	}
	switch {
	case e.step != rotation.Resolve:
		to.hear(i, rotation.Event{Kind: rotation.LoggedIn}, answered)
	case second:
		to.hear(i, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Base: target.Live, LoginFailed: e.rec.Rejections == 0}, answered)
	default:
		to.hear(i, rotation.Event{Kind: rotation.Resolved, Candidate: target.Live}, answered)
	}
	x.out(i, "logs in with "+name(v)+": accepted", to)
}

// transact offers a transaction, and the two ways in which the store can fail.
func (x *walk) transact(i int, what string, commit func(w *world) (ok bool)) {
	to := *x.from
	if e := &to.engines[i]; e.token != to.token && !x.r.noFence {
		to.stop(i)
		x.out(i, what+": fenced", to)
		return
	}
	if to.engines[i].seq != to.db.rec.Seq && !x.r.noSeq {
		to.rest(i)
		x.out(i, what+": the record has moved on", to)
		return
	}
	if to.engines[i].token != to.token {
		to.bad = "I4: an engine that has lost the right has stored something"
	}
	if !commit(&to) {
		to.rest(i)
		x.out(i, what+": refused", to)
		return
	}
	x.out(i, what, to)
	x.fault(StoreError, i, what+": the store does not take it", func(w *world) { w.rest(i) })
	x.fault(StoreError, i, what+": stored, but the answer is lost", func(w *world) {
		commit(w)
		w.rest(i)
	})
}

// rest ends a step; the engine reads anew.
func (w *world) rest(i int) {
	e := &w.engines[i]
	*e = engine{pc: ready, token: e.token, loginFailed: e.loginFailed}
}

// store stores an event with all that follows from it.
func (x *walk) store(i int, what string, e rotation.Event) {
	e.Jitter = 0 // the shortest wait; an engine that looks later does the same later
	if x.revertsFirst(i, e) {
		return
	}
	x.transact(i, what, func(w *world) bool { return x.commit(w, i, e) })
}

// revertsFirst lets a target take back what attempts may have left, before a change is given up.
func (x *walk) revertsFirst(i int, e rotation.Event) bool {
	from := &x.from.engines[i]
	if !x.c.Revert || from.step != rotation.Send && from.step != rotation.Resolve || from.pc != heard || e.Kind == rotation.Impossible {
		return false
	}
	after, err := x.r.next(*from.rec, e, x.from.now)
	if err != nil || after.State != rotation.Abandoned || x.from.flights == [2]flight{} {
		return false
	}
	to := *x.from
	to.flights = [2]flight{}
	x.out(i, "lets the target take back what was left", to)
	return true
}

func (x *walk) commit(w *world, i int, e rotation.Event) bool {
	d := *w.db
	old := d.rec
	from := &w.engines[i]
	if x.r.noIntent && from.step == rotation.Send && old.State == rotation.Prepared && e.Kind != rotation.Impossible {
		old, _ = rotation.Next(old, rotation.Event{Kind: rotation.Sending}, w.now)
	}
	r, err := x.r.next(old, e, w.now)
	if err != nil {
		w.bad = "I4: the engine stores what does not follow: " + err.Error()
		return false
	}
	if bad := unfounded(old.State, r.State, from.evidence); bad != "" {
		w.bad = bad
	}
	d.rec = r
	x.follow(w, &d, old, e, from.evidence)
	d.hold = x.r.holds(r)
	if old.InFlight() && !r.InFlight() || e.Kind == rotation.Promoted {
		d.rec.Due = time.Time{} // the next one is another history
	}
	x.put(w, &d)
	step, seen := from.step, from.loginFailed
	if !r.LoginFailedAt.IsZero() && !r.LoginFailedAt.Before(seen) {
		seen = time.Time{} // it is stored
	}
	w.engines[i].loginFailed = seen
	w.rest(i)
	if e.Kind == rotation.Sending {
		w.engines[i] = engine{pc: sending, step: step, token: from.token, seq: d.rec.Seq, rec: &w.db.rec, loginFailed: seen}
	}
	return true
}

// unfounded holds that what is open stays so until the target has said something.
func unfounded(from, to rotation.State, said evidence) string {
	if from != rotation.Applying && from != rotation.Unknown || to == from || to == rotation.Unknown {
		return ""
	}
	if said == silence || from == rotation.Unknown && said != answered {
		return "I6: the state moved without an answer of the target"
	}
	return ""
}

// follow moves the labels.
func (x *walk) follow(w *world, d *data, old rotation.Record, e rotation.Event, said evidence) {
	if candidate := number(d.rec.Candidate); x.r.evictUnknown && d.rec.State == rotation.Unknown && w.live&bit(candidate) != 0 {
		d.stored &^= bit(candidate) // the harm is done where it is live
	}
	switch {
	case e.Kind == rotation.Stored:
		d.prepare(number(e.Version), x.r)
	case e.Kind == rotation.Promoted:
		if x.r.labelsLater {
			d.cur = number(d.rec.Candidate)
			break
		}
		d.promote(number(d.rec.Candidate))
		x.promise(w, d)
	case old.State == rotation.Undoing && e.Kind == rotation.LoggedIn:
		if said != answered {
			w.bad = "I5: a former version became current without a proof"
		}
		d.undo()
		x.promise(w, d)
	case old.Pending() && !d.rec.Pending():
		d.pend = noVersion
	}
}

// promise notes until when the former credential works, from what was asked for alone.
func (x *walk) promise(w *world, d *data) {
	d.noPromise()
	if d.rec.Strategy != target.Single && d.rec.GracePeriod > 0 && d.rec.Then == nil {
		d.promised, d.promise, d.holding = d.prev, w.now.Add(d.rec.GracePeriod), w.now.Add(d.rec.GraceWait)
	}
}

// noPromise is a former credential that may stop working at once.
func (d *data) noPromise() { d.promised, d.promise, d.holding = noVersion, time.Time{}, time.Time{} }

func (x *walk) begin(i int) {
	x.transact(i, "begins what is due", func(w *world) bool {
		d := *w.db
		q := rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Automatic, Grace: grace, Wait: graceWait, At: w.now}
		if d.rec.Then != nil && !d.rec.Then.At.After(w.now) {
			q = *d.rec.Then
		}
		x.begun(w, &d, q)
		w.rest(i)
		return true
	})
}

// prepare makes a candidate and stores it.
func (x *walk) prepare(i int) {
	r := x.from.engines[i].rec
	if r.Paused && r.Trigger != rotation.Emergency {
		x.transact(i, "waits for the end of a pause", func(w *world) bool {
			d := *w.db
			d.rec.NextAt = w.now.Add(gap)
			x.put(w, &d)
			w.rest(i)
			return true
		})
		return
	}
	x.gone(i)
	x.fault(Down, i, "cannot make a candidate: the target cannot be reached", func(w *world) {
		w.hear(i, rotation.Event{Kind: rotation.Failed}, untouched)
	})
	x.transact(i, "makes a candidate and stores it", func(w *world) bool {
		base := w.db.cur
		v, ok := w.newVersion(x.c.Strategy == target.Double && w.account(base) == 0)
		if !ok {
			return false
		}
		return x.commit(w, i, rotation.Event{Kind: rotation.Stored, Version: name(v), Replaces: name(base), Strategy: x.c.Strategy, Target: "t"})
	})
}

// What a probe finds; the engine keeps it as an event until it is stored.
const (
	alive  rotation.EventKind = "alive"
	dead   rotation.EventKind = "dead"
	unsaid rotation.EventKind = "not known"
)

// probe looks whether the credential in use is still accepted.
func (x *walk) probe(i int) {
	if !x.c.Inspect && (x.recently(i) || x.from.db.rec.LoginAt(x.from.now).After(x.from.now)) {
		to := *x.from
		to.hear(i, rotation.Event{Kind: unsaid}, untouched)
		x.out(i, "remembers a failed login, and probes later", to)
		return
	}
	to := *x.from
	if cur := to.db.cur; to.live&bit(cur) != 0 {
		to.hear(i, rotation.Event{Kind: alive}, answered)
		x.out(i, "probes the credential in use: accepted", to)
	} else {
		if !x.c.Inspect {
			to.loginFails(cur, false)
		}
		to.hear(i, rotation.Event{Kind: dead, LoginFailed: !x.c.Inspect}, answered)
		x.out(i, "probes the credential in use: rejected", to)
	}
	x.fault(Down, i, "probes the credential in use: the target cannot be reached", func(w *world) {
		w.hear(i, rotation.Event{Kind: unsaid}, untouched)
	})
}

func (x *walk) storeProbe(i int) {
	found := x.from.engines[i].event
	x.transact(i, "stores what the probe found", func(w *world) bool {
		d := *w.db
		if found.Kind == dead {
			d.rec = x.drifted(d, w.now, found.LoginFailed)
		} else {
			d.rec.Health.NextAt = w.now.Add(probeEvery)
		}
		d.hold = x.r.holds(d.rec)
		x.put(w, &d)
		if !d.rec.LoginFailedAt.IsZero() {
			w.engines[i].loginFailed = time.Time{}
		}
		w.rest(i)
		return true
	})
}

func (x *walk) drifted(d data, now time.Time, loginFailed bool) rotation.Record {
	strategy := x.c.Strategy
	if strategy == target.Double {
		strategy = target.Single
	}
	r := d.rec.Drifted(name(d.cur), "t", strategy, "", now)
	if loginFailed {
		r.LoginFailedAt = now
	}
	return r
}
