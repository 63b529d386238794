package explore

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

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
	if !x.c.Revert || from.step != rotation.Send && from.step != rotation.Resolve || from.pc != heard ||
		e.Kind == rotation.Impossible {
		return false
	}
	after, err := x.r.next(*from.rec, e, x.from.now)
	if err != nil || after.State != rotation.Abandoned || x.from.flights == [2]flight{} {
		return false
	}
	if x.from.locked {
		if then := rotation.AfterClearing(*from.rec, e, denied); then.Kind != e.Kind {
			x.transact(i, "is not let take back what was left", func(w *world) bool { return x.commit(w, i, then) })
			return true
		}
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
	if e.Kind == rotation.Unready && r.State == old.State && waitsInVain(&old) {
		w.bad = "I10: an emergency waits for a login with the credential that it replaces"
	}
	d.rec = r
	x.follow(w, &d, old, e, from.evidence)
	d.hold = x.r.holds(r)
	if rotation.PlansAgain(old, r, e.Kind) {
		d.rec.Due = time.Time{} // the next one is another history
	}
	x.put(w, &d)
	step, token, proven, seen := from.step, from.token, from.proved, from.loginFailed
	if !r.LoginFailedAt.IsZero() && !r.LoginFailedAt.Before(seen) {
		seen = time.Time{} // it is stored
	}
	w.engines[i].loginFailed = seen
	w.rest(i)
	if e.Kind == rotation.Sending {
		w.engines[i] = engine{
			pc:          sending,
			proved:      proven,
			step:        step,
			token:       token,
			seq:         d.rec.Seq,
			rec:         &w.db.rec,
			loginFailed: seen,
		}
	}
	return true
}

// waitsInVain reports whether a login would be with a credential that an emergency makes useless.
func waitsInVain(r *rotation.Record) bool {
	if r.State == rotation.Retiring {
		return r.Then != nil
	}
	return r.Trigger == rotation.Emergency || r.Then != nil && r.Unsent()
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
	if candidate := number(d.rec.Candidate); x.r.evictUnknown && d.rec.State == rotation.Unknown &&
		w.live&bit(candidate) != 0 {
		d.stored &^= bit(candidate) // the harm is done where it is live
	}
	switch rotation.LabelsAfter(old, d.rec, e.Kind) {
	case rotation.LabelCandidate:
		d.prepare(number(e.Version), x.r)
	case rotation.PromoteCandidate:
		if x.r.labelsLater {
			d.cur = number(d.rec.Candidate)
			break
		}
		d.promote(number(d.rec.Candidate))
		x.promise(w, d)
	case rotation.SwapLabels:
		if said != answered {
			w.bad = "I5: a former version became current without a proof"
		}
		d.undo()
		x.promise(w, d)
	case rotation.DropCandidate:
		d.pend = noVersion
	}
}

// promise notes until when the previous credential works, from what was asked for alone.
func (x *walk) promise(w *world, d *data) {
	d.noPromise()
	if d.rec.Strategy != target.Single && d.rec.Grace.Min > 0 && d.rec.Then == nil {
		d.promised, d.promise, d.holding = d.prev, w.now.Add(d.rec.Grace.Min), w.now.Add(d.rec.Grace.Max)
	}
}

// noPromise is a previous credential that may stop working at once.
func (d *data) noPromise() { d.promised, d.promise, d.holding = noVersion, time.Time{}, time.Time{} }

func (x *walk) begin(i int) {
	_, q, _ := rotation.PlanIdle(*x.from.engines[i].rec, false, time.Time{}, x.from.now)
	if q.Trigger == rotation.Automatic {
		q.Grace = grace
	}
	x.transact(i, "begins what is due", func(w *world) bool {
		d := *w.db
		x.begun(w, &d, q)
		w.rest(i)
		return true
	})
}

// storeProbe stores what a probe has found.
func (x *walk) storeProbe(i int) {
	found := x.from.engines[i].event
	x.transact(i, "stores what the probe found", func(w *world) bool {
		d := *w.db
		p := rotation.Probe{
			Version:     name(d.cur),
			Target:      "t",
			Live:        found.Candidate,
			Strategy:    x.c.Strategy,
			LoginFailed: found.LoginFailed,
		}
		if p.Strategy == target.Double {
			p.Strategy = target.Single
		}
		d.rec, _ = d.rec.AfterProbe(p, w.now, w.now.Add(probeEvery))
		d.hold = x.r.holds(d.rec)
		x.put(w, &d)
		if !d.rec.LoginFailedAt.IsZero() {
			w.engines[i].loginFailed = time.Time{}
		}
		w.rest(i)
		return true
	})
}
