package explore

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// lostReply is what the engine gets when an answer is lost, and unreachable when the target was
// certainly not asked.
var (
	lostReply   = rotation.Answer{Class: target.Unknown}
	unreachable = rotation.Answer{Class: target.Unreachable}
	denied      = rotation.Answer{Class: target.Denied} // the administrator is refused
)

// effect takes a step at the target.
func (x *walk) effect(i int, step rotation.Step) {
	e := &x.from.engines[i]
	candidate, base := number(e.rec.Candidate), number(e.rec.Base)
	switch step {
	case rotation.Send:
		x.gone(i)
		if x.from.locked && x.c.Inspect { // it was asked about the account before
			x.says(i, "checks the account", rotation.NotBegun(*e.rec, denied, false))
			return
		}
		if x.r.noIntent {
			to := *x.from
			to.engines[i].pc, to.engines[i].proved = sending, true
			x.out(i, "does not store that it sends", to)
			return
		}
		if x.needsBase(*e.rec) && !x.r.unproven {
			x.prove(i, base)
			return
		}
		x.store(i, "stores that it sends", rotation.Event{Kind: rotation.Sending, Hold: holdFor})
	case rotation.Resolve:
		x.resolve(i)
	case rotation.Verify:
		x.login(i, candidate)
	case rotation.CheckBase:
		if x.r.undoUnproven {
			x.store(i, "undoes without a login", rotation.Event{Kind: rotation.LoggedIn})
			return
		}
		x.login(i, base)
	case rotation.Retire:
		if x.r.unproven || !e.rec.NeedsCandidate() {
			x.retire(i)
			return
		}
		x.prove(i, candidate)
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

func (x *walk) needsBase(r rotation.Record) bool {
	if x.r.emergencyWaits {
		r.Trigger = rotation.Manual
	}
	return r.NeedsBase()
}

// prove tries a credential that must work before another is destroyed.
func (x *walk) prove(i int, v int8) {
	after := func(w *world, event rotation.Event, ready bool, said evidence) {
		e, state := &w.engines[i], rotation.Answer{OK: x.c.Inspect && !w.locked}
		if ready || e.step == rotation.Retire && rotation.MayRetire(event, state, w.liveness(v)) {
			e.pc, e.proved = proved, true
			return
		}
		w.hear(i, event, said)
	}
	told := func(w *world, a rotation.Answer, said evidence, _ ...target.Liveness) {
		event, ready := rotation.Before(a)
		after(w, event, ready, said)
	}
	if wait := x.quiet(x.from, i); wait > 0 {
		to := *x.from
		event := rotation.TooSoon(wait)
		event.Kind = rotation.Unready
		after(&to, event, false, untouched)
		x.out(i, "waits before another login", to)
		return
	}
	x.tryLogin(i, v, false, unreachable, told)
}

// proved goes on with a change after that.
func (x *walk) proved(i int) {
	if x.from.engines[i].step == rotation.Retire {
		x.retire(i)
		return
	}
	x.store(i, "stores that it sends", rotation.Event{Kind: rotation.Sending, Hold: holdFor, Base: target.Live})
}

func (x *walk) retire(i int) {
	e := &x.from.engines[i]
	candidate, base := number(e.rec.Candidate), number(e.rec.Base)
	back := flight{retire: true, in: candidate, out: base, strategy: e.rec.Strategy}
	x.simple(i, "retires the base", rotation.Retired, back)
}

// unprovenChange is I11: what destroys a credential comes after a login that has succeeded.
func (e *engine) unprovenChange(retire bool) string {
	single := e.rec.Strategy == target.Single && e.rec.Mode != rotation.Reapply && !e.rec.Imposed && !retire
	emergency := retire && e.rec.Then != nil || single && e.rec.Trigger == rotation.Emergency
	if (retire || single) && !emergency && !e.proved {
		return "I11: a credential is destroyed, and no login has succeeded before"
	}
	return ""
}

// clear lets the target take back what the attempts of a cancelled rotation may have left, where it
// can.
func (x *walk) clear(i int) {
	to := *x.from
	if x.c.Revert && to.locked {
		x.says(i, "clears up", rotation.After(rotation.Cleared, denied))
		return
	}
	if x.c.Revert {
		to.flights = [2]flight{}
		x.fault(Down, i, "clears up: the target cannot be reached", func(w *world) {
			w.hear(i, rotation.After(rotation.Cleared, unreachable), untouched)
		})
	}
	to.hear(i, rotation.After(rotation.Cleared, rotation.Answer{OK: true}), took)
	x.out(i, "lets the target take back what was left", to)
}

// gone is a target that an operator has removed.
func (x *walk) gone(i int) {
	x.fault(Gone, i, "finds that the target is not registered any more", func(w *world) {
		w.hear(i, rotation.NotBegun(*w.engines[i].rec, rotation.Answer{}, true), untouched)
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
	hear := func(w *world, a rotation.Answer, said evidence) { w.hear(i, rotation.AfterSend(a), said) }
	if x.from.locked {
		x.says(i, "sends the candidate", rotation.AfterSend(denied))
		return
	}
	to := *x.from
	to.bad = e.unprovenChange(false)
	to.land(f)
	hear(&to, rotation.Answer{OK: true}, took)
	x.out(i, "sends the candidate: accepted", to)
	x.fault(Lost, i, "sends the candidate: it is lost on the way", func(w *world) { hear(w, x.r.lost, silence) })
	x.fault(Lost, i, "sends the candidate: carried out, the answer is lost", func(w *world) {
		w.land(f)
		hear(w, x.r.lost, silence)
	})
	x.fault(Late, i, "sends the candidate: no answer, and it may yet be carried out", func(w *world) {
		hear(w, x.r.lost, silence)
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
	x.fault(
		Down,
		i,
		"sends the candidate: the target cannot be reached",
		func(w *world) { hear(w, unreachable, untouched) },
	)
	x.fault(
		Lie,
		i,
		"sends the candidate: accepted, but not carried out",
		func(w *world) { hear(w, rotation.Answer{OK: true}, took) },
	)
	if x.from.live&bit(f.in) == 0 {
		x.fault(Refuse, i, "sends the candidate: refused by rule", func(w *world) {
			hear(w, rotation.Answer{Class: target.Refused}, declined)
		})
	}
}

// says is an answer of a target that refuses the administrator: nothing has happened.
func (x *walk) says(i int, what string, e rotation.Event) {
	to := *x.from
	to.hear(i, e, declined)
	x.out(i, what+": the administrator is refused", to)
}

// simple is a change that is tried until it succeeds.
func (x *walk) simple(i int, what string, done rotation.EventKind, f flight) {
	if x.from.locked {
		x.says(i, what, rotation.After(done, denied))
		return
	}
	to := *x.from
	if done == rotation.Retired {
		to.bad = x.from.engines[i].unprovenChange(true)
	}
	if !x.r.revertForgets || done != rotation.Reverted {
		to.land(f)
	}
	to.hear(i, rotation.After(done, rotation.Answer{OK: true}), took)
	x.out(i, what, to)
	x.fault(
		Down,
		i,
		what+": the target cannot be reached",
		func(w *world) { w.hear(i, rotation.After(done, unreachable), untouched) },
	)
	x.fault(Lost, i, what+": carried out, the answer is lost", func(w *world) {
		w.land(f)
		w.hear(i, rotation.After(done, lostReply), silence)
	})
	x.fault(Late, i, what+": no answer, and it may yet be carried out", func(w *world) {
		if !w.launch(f) {
			w.land(f)
		}
		w.hear(i, rotation.After(done, lostReply), silence)
	})
	x.fault(Late, i, what+" and crashes; it may yet be carried out", func(w *world) {
		if !w.launch(f) {
			w.land(f)
		}
		w.stop(i)
	})
}

// resolve asks the target one thing about which credential is live, or ends with what is known.
func (x *walk) resolve(i int) {
	e := &x.from.engines[i]
	ask, event := e.q.Next(*e.rec, x.c.Revert, x.quiet(x.from, i), x.from.now)
	if ask == rotation.AskNothing {
		to := *x.from
		to.hear(i, event, untouched)
		x.out(i, "waits before another login", to)
		return
	}
	told := func(w *world, a rotation.Answer, said evidence, known ...target.Liveness) {
		x.told(w, i, ask, a, said, known...)
	}
	candidate, base := number(e.rec.Candidate), number(e.rec.Base)
	to := *x.from
	asked := rotation.Answer{OK: true}
	if to.locked {
		asked = x.r.denied
	}
	switch ask {
	case rotation.AskCandidate:
		x.tryLogin(i, candidate, false, x.r.down, told)
	case rotation.AskBase:
		x.tryLogin(i, base, e.q.LoginFailed && e.rec.Rejections == 0, x.r.down, told)
	case rotation.AskRevert:
		x.fault(
			Down,
			i,
			"lets the target take back what is under way: it cannot be reached",
			func(w *world) { told(w, x.r.down, untouched) },
		)
		if asked.OK {
			to.flights = [2]flight{}
		}
		told(&to, asked, answered)
		x.out(i, "lets the target take back what is under way", to)
	case rotation.AskState:
		x.fault(
			Down,
			i,
			"asks which credential is live: the target cannot be reached",
			func(w *world) { told(w, x.r.down, untouched) },
		)
		known := []target.Liveness{to.liveness(candidate), to.liveness(base)}
		if e.rec.Mode == rotation.Reapply {
			known = known[:1]
		}
		told(&to, asked, answered, known...)
		x.out(i, "asks which credential is live: the target tells", to)
	}
}

// told takes the answer to a question of a resolution. Where that was the last, the outcome is
// heard; else the next question is another step.
func (x *walk) told(w *world, i int, ask rotation.Ask, a rotation.Answer, said evidence, known ...target.Liveness) {
	e := &w.engines[i]
	if e.pc == halfway && e.evidence == untouched {
		said = untouched // one answer does not make up for another
	}
	e.q = e.q.Answered(ask, a, known...)
	next, event := e.q.Next(*e.rec, x.c.Revert, x.quiet(w, i), w.now)
	if next == rotation.AskNothing {
		w.hear(i, event, said)
		return
	}
	e.pc, e.evidence = halfway, said
}

func (w *world) liveness(v int8) target.Liveness {
	if w.live&bit(v) != 0 {
		return target.Live
	}
	return target.Dead
}

// quiet is how long the engine must not try a login that can fail.
func (x *walk) quiet(w *world, i int) time.Duration {
	e := &w.engines[i]
	return x.r.quiet(*e.rec, e.loginFailed, w.now)
}

// login tries one credential. Where reads are blocked and the login decides nothing, the target's
// own state does; where they are not, replicas are asked, too.
func (x *walk) login(i int, v int8) {
	hear := func(w *world, event rotation.Event, said evidence) {
		r := w.engines[i].rec
		if r.AsksState(event) && x.c.Inspect && !w.locked {
			replaced := w.liveness(number(r.Base))
			if r.Mode == rotation.Reapply { // it has one credential
				replaced = target.NotKnown
			}
			event = rotation.AfterState(*r, event, rotation.Answer{OK: true}, w.liveness(v), replaced)
		}
		if x.c.Faults&Behind != 0 {
			event.Lag = lag
		}
		if r.WaitsForCopies(event) && w.behind {
			event = rotation.AfterCopies(event, rotation.Answer{Class: target.Rejected})
		}
		w.hear(i, event, said)
	}
	if wait := x.quiet(x.from, i); wait > 0 {
		to := *x.from
		hear(&to, rotation.TooSoon(wait), untouched)
		x.out(i, "waits before another login", to)
		return
	}
	x.tryLogin(i, v, false, unreachable, func(w *world, a rotation.Answer, said evidence, _ ...target.Liveness) {
		hear(w, rotation.AfterLogin(*w.engines[i].rec, a), said)
	})
}

// tryLogin offers the answers to a login with v; told takes each. excused says that a failed login
// is none too many, and down is what the engine makes of a target that cannot be reached.
func (x *walk) tryLogin(
	i int, v int8, excused bool, down rotation.Answer, told func(*world, rotation.Answer, evidence, ...target.Liveness),
) {
	e, what := &x.from.engines[i], "logs in with "+name(v)
	reject := func(w *world) {
		w.loginFails(v, excused)
		if x.r.rejected.Liveness() == target.Dead {
			w.engines[i].loginFailed = w.now
		}
		told(w, x.r.rejected, answered)
	}
	x.fault(Down, i, what+": the target cannot be reached", func(w *world) { told(w, down, untouched) })
	to := *x.from
	if a, said := to.moody(v); said {
		if a.LoginFailed() {
			if to.live&bit(v) == 0 || to.mood == rejects {
				to.loginFails(v, excused)
			}
			to.engines[i].loginFailed = to.now
		}
		told(&to, a, answered)
		x.out(i, what+": "+a.Class.String(), to)
		return
	}
	if to.live&bit(v) == 0 {
		reject(&to)
		x.out(i, what+": rejected", to)
		return
	}
	if e.step != rotation.Resolve || !x.from.lagged { // it is never a whole window behind
		x.fault(Lag, i, what+": rejected, since the target is slow to learn of it", func(w *world) {
			w.lagged = w.lagged || e.step == rotation.Resolve
			reject(w)
		})
	}
	told(&to, rotation.Answer{OK: true}, answered)
	x.out(i, what+": accepted", to)
}

// moody returns what a target answers to a login with v that answers in its own way; ok is false
// where it answers as usual.
func (w *world) moody(v int8) (a rotation.Answer, ok bool) {
	switch {
	case w.mood == denies:
		return rotation.Answer{Class: target.Denied}, true
	case w.mood == mumbles:
		return rotation.Answer{Class: target.Unclear}, true
	case w.mood == rejects:
		return rotation.Answer{Class: target.Rejected}, true
	}
	return rotation.Answer{Class: target.Admitted}, w.mood == refuses && w.live&bit(v) != 0
}

// odd reports whether the target answers in its own way, so that an operator must act.
func (w *world) odd() bool { return w.mood != content || w.locked }

// prepare makes a candidate and stores it.
func (x *walk) prepare(i int) {
	r := x.from.engines[i].rec
	if r.AwaitsResume(false) {
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
		w.hear(i, rotation.NotBegun(*r, unreachable, false), untouched)
	})
	x.transact(i, "makes a candidate and stores it", func(w *world) bool {
		base := w.db.cur
		v, ok := w.newVersion(x.c.Strategy == target.Double && w.account(base) == 0)
		if !ok {
			return false
		}
		return x.commit(w, i, rotation.Event{
			Kind:     rotation.Stored,
			Version:  name(v),
			Replaces: name(base),
			Strategy: x.c.Strategy,
			Target:   "t",
		})
	})
}

// probe checks whether the credential in use is still accepted. What it finds is kept as an event
// until it is stored.
func (x *walk) probe(i int) {
	what := "probes the credential in use: "
	found := func(w *world, live target.Liveness, said evidence) {
		w.hear(i, rotation.Event{Candidate: live, LoginFailed: live == target.Dead && !x.c.Inspect}, said)
	}
	to := *x.from
	if !x.c.Inspect && x.quiet(x.from, i) > 0 {
		found(&to, target.NotKnown, untouched)
		x.out(i, what+"waits before another login", to)
		return
	}
	if to.locked && x.c.Inspect {
		found(&to, target.NotKnown, answered)
		x.out(i, what+"the administrator is refused", to)
		return
	}
	if a, said := to.moody(to.db.cur); said && !x.c.Inspect && a.Class == target.Rejected {
		to.loginFails(to.db.cur, false)
		found(&to, target.Dead, answered)
		x.out(i, what+"rejected", to)
		return
	}
	if a, said := to.moody(to.db.cur); said && !x.c.Inspect && a.Liveness() == target.NotKnown {
		found(&to, target.NotKnown, answered)
		to.engines[i].event.LoginFailed = a.LoginFailed()
		x.out(i, what+a.Class.String(), to)
		return
	}
	live := to.liveness(to.db.cur)
	if live == target.Dead && !x.c.Inspect {
		to.loginFails(to.db.cur, false)
	}
	found(&to, live, answered)
	x.out(i, what+map[target.Liveness]string{target.Live: "accepted", target.Dead: "rejected"}[live], to)
	x.fault(Down, i, what+"the target cannot be reached", func(w *world) { found(w, target.NotKnown, untouched) })
}
