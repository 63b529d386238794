package explore

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// people lists what an operator can request. Each is one transaction, as the operation of that name
// makes it.
func (x *walk) people() {
	if x.good || x.from.people == 0 {
		return
	}
	r := x.from.db.rec
	ask := func(what string, change func(w *world, d *data)) {
		to := *x.from
		to.people--
		d := *to.db
		change(&to, &d)
		x.put(&to, &d)
		x.out(-1, what, to)
	}
	event := func(what string, kind rotation.EventKind, also func(*world, *data)) {
		next, err := x.r.next(r, rotation.Event{Kind: kind}, x.from.now)
		if err != nil {
			return
		}
		ask(what, func(w *world, d *data) {
			d.rec = next
			if also != nil {
				also(w, d)
			}
		})
	}
	x.asked(ask)
	x.emergency(ask)
	event("CancelRotation", rotation.Cancel, func(w *world, d *data) { x.afterCancel(r, w, d) })
	breaks := func(w *world, d *data) { d.noPromise() }
	switch r.State {
	case rotation.InGrace:
		event("EndRotationGrace", rotation.EndGrace, breaks)
		event("UndoRotation", rotation.Undo, nil)
	case rotation.Retiring:
		event("UndoRotation", rotation.Undo, nil)
	case rotation.Quarantined:
		repairs := func(w *world, _ *data) { w.touched = w.touched || w.odd() } // nothing is known of such a target
		event("RepairRotation probe", rotation.Probed, repairs)
		event("RepairRotation apply", rotation.Again, repairs)
		event("UndoRotation", rotation.Undo, nil)
		x.adopt(ask)
	}
	if r.State != rotation.Quarantined {
		event("RepairRotation probe", rotation.Probed, nil)
	}
	ask("PauseRotation or ResumeRotation", func(_ *world, d *data) { d.rec.Paused = !d.rec.Paused })
}

// afterCancel is what CancelRotation changes beside the record.
func (x *walk) afterCancel(before rotation.Record, w *world, d *data) {
	switch {
	case before.State == rotation.Retiring && d.rec.State == rotation.Done:
		w.kept |= bit(number(before.Base))
	case d.rec.State == rotation.Quarantined && before.Mode != rotation.Reapply:
		w.touched = true // an operator has decided without the target
	}
	if rotation.LabelsAfter(before, d.rec, rotation.Cancel) == rotation.DropCandidate {
		d.pend = noVersion
	}
	if rotation.PlansAgain(before, d.rec, rotation.Cancel) {
		d.rec.Due = time.Time{} // the next one is another history
	}
	d.hold = x.r.holds(d.rec)
}

// asked is RotateSecret and RehearseRotation, where they are not refused.
func (x *walk) asked(ask func(string, func(*world, *data))) {
	r := x.from.db.rec
	if r.InFlight() || r.Paused || x.from.made >= maxMade {
		return
	}
	for _, mode := range []rotation.Mode{rotation.Rotate, rotation.Rehearse} {
		ask("asks: "+string(mode), func(w *world, d *data) {
			d.rec = d.rec.Begin(rotation.Request{Mode: mode, Trigger: rotation.Manual, Grace: grace, At: w.now}, w.now)
		})
	}
}

// emergency is EmergencyRotation: at once, after the rotation that is under way, or by taking the
// grace of that one away.
func (x *walk) emergency(ask func(string, func(*world, *data))) {
	r := x.from.db.rec
	if x.from.made >= maxMade {
		return
	}
	q := rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Emergency, Grace: grace, At: x.from.now}
	next, ok := r.Ask(q, x.from.now)
	if !ok {
		return
	}
	ask("EmergencyRotation", func(_ *world, d *data) {
		d.noPromise()
		d.rec, d.hold = next, x.r.holds(next)
	})
}

// adopt is a person who has set a credential at the target, and hands it in.
func (x *walk) adopt(ask func(string, func(*world, *data))) {
	if x.from.made >= maxMade {
		return
	}
	ask("sets a credential by hand; RepairRotation adopt", func(w *world, d *data) {
		v, _ := w.newVersion(w.account(d.cur) == 1)
		w.touched = true
		w.live &^= w.sameAccount(v)
		w.live |= bit(v)
		kept := noVersion
		if i := d.rec.Interrupted; i != nil && d.rec.Outlives(w.credential(v), w.credential(number(i.Base))) {
			kept = number(i.Base)
		}
		d.adopt(v, kept, x.r, maxStored)
		d.hold = false
		d.rec = d.rec.Adopted(name(v), kept != noVersion, d.rec.LoginFailedAt, w.now)
		d.noPromise()
	})
}

// events lists what happens beside engines and people: time, the clock, requests that arrive late,
// and interference.
func (x *walk) events() {
	w := x.from
	for n, f := range w.flights {
		if f == (flight{}) {
			continue
		}
		lands := *w
		lands.flights[n] = flight{}
		lands.land(f)
		if !x.good {
			x.out(-1, "a request arrives late and is carried out", lands)
		}
		never := *w
		never.flights[n] = flight{}
		x.out(-1, "a late request is given up by the target", never)
	}
	if next := x.nextTime(); !next.IsZero() && x.atRest() {
		to := *w
		to.elapse(next.Sub(w.now))
		x.out(-1, timePasses, to)
	}
	x.fault(Jump, -1, "the clock is set a day forward", func(w *world) { w.jump(24 * time.Hour) })
	x.fault(Jump, -1, "the clock is set an hour back", func(w *world) { w.jump(-time.Hour) })
	x.moods()
	x.moves()
	x.hand()
	if w.backup == nil && x.c.Faults&Restore != 0 && !x.good && x.atRest() {
		to := *w
		to.backup = to.db
		x.out(-1, "a backup is made", to)
	}
	if w.backup != nil && w.backup != w.db {
		x.fault(Restore, -1, "the store is put back to the backup", func(w *world) {
			w.db, w.backup, w.touched = w.backup, nil, true
			w.failed = [2]time.Time{} // the store knows of none
			for i := range w.engines {
				w.stop(i) // no server runs meanwhile
			}
		})
	}
}

// timePasses is what happens when nothing else does.
const timePasses = "time passes"

// moods lets the target answer logins in another way, for ever, and a replica fall behind.
func (x *walk) moods() {
	w := x.from
	if w.mood == content {
		x.fault(Moody, -1, "the target denies every login from now on", func(w *world) { w.mood = denies })
		x.fault(Moody, -1, "the target refuses every session from now on", func(w *world) { w.mood = refuses })
		x.fault(Moody, -1, "the target's answers to logins are unclear from now on", func(w *world) { w.mood = mumbles })
		x.fault(Moody, -1, "the target rejects every login from now on", func(w *world) { w.mood = rejects })
	}
	if !w.locked {
		x.fault(Locked, -1, "the target refuses the administrator from now on", func(w *world) { w.locked = true })
	}
	if !w.behind {
		x.fault(Behind, -1, "a replica stops learning", func(w *world) { w.behind = true })
	} else if !x.good {
		to := *w
		to.behind = false
		x.out(-1, "the replica has caught up", to)
	}
}

// moves is the consumer that reads the current version, and holds no other then. The engine is told
// when it waits for that; should that be lost, it looks when the time comes.
func (x *walk) moves() {
	w := x.from
	if x.good || w.holds == noVersion || w.holds == w.db.cur || w.db.hold {
		return
	}
	to := *w
	to.holds = w.db.cur
	next, changed := w.db.rec.Released(w.now)
	if !changed {
		x.out(-1, "the consumer reads the current version", to)
		return
	}
	x.fault(
		StoreError,
		-1,
		"the consumer reads the current version, and the engine is not told",
		func(w *world) { w.holds = w.db.cur },
	)
	d := *w.db
	d.rec = next
	x.put(&to, &d)
	x.out(-1, "the consumer reads the current version, and the engine is told", to)
}

// hand is somebody who changes the target behind the engine's back: a credential stops working.
func (x *walk) hand() {
	w := x.from
	for v := range w.made {
		if w.live&bit(v) != 0 {
			x.fault(Hand, -1, "somebody makes "+name(v)+" useless at the target", func(w *world) {
				w.live &^= bit(v)
				w.touched = true
			})
		}
	}
	if cur := w.db.cur; w.live&bit(cur) == 0 {
		x.fault(Hand, -1, "somebody gives the target "+name(cur)+" again", func(w *world) {
			w.apply(x.c.Strategy, cur)
			w.touched = true
		})
	}
}

// atRest says that no engine that has the right is in the middle of a step: such a step takes no
// time here. One that has lost the right may take as long as it likes.
func (x *walk) atRest() bool {
	for _, e := range x.from.engines {
		if e.pc > ready && e.token == x.from.token {
			return false
		}
	}
	return true
}

// nextTime is the first time at which something can change by itself; zero when there is none.
func (x *walk) nextTime() time.Time {
	w := x.from
	var first time.Time
	consider := func(t time.Time) {
		if t.After(w.now) && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	r := &w.db.rec
	consider(r.Wake())
	consider(r.NextAt)
	consider(w.db.promise)
	if w.holds != noVersion {
		consider(w.db.holding)
	}
	if !r.LoginFailedAt.IsZero() {
		consider(r.LoginFailedAt.Add(rotation.LoginWindow))
	}
	if r.Wake().IsZero() || r.Wake().After(w.now) { // else the engine has something to do first
		return first
	}
	if !x.good {
		return first
	}
	return time.Time{}
}

// elapse lets time pass. Requests that are still under way have arrived by then or never will.
func (w *world) elapse(d time.Duration) {
	w.now = w.now.Add(d)
	for i, f := range w.flights {
		if !f.until.After(w.now) {
			w.flights[i] = flight{}
		}
	}
}

// jump sets the clock, and nothing else: what is measured in true time moves along. What was agreed
// on until a time of day holds no more.
func (w *world) jump(d time.Duration) {
	w.now = w.now.Add(d)
	shift := func(t *time.Time) {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
	for i := range w.failed {
		shift(&w.failed[i])
		shift(&w.engines[i].loginFailed)
		shift(&w.flights[i].until)
	}
	if w.db.promised != noVersion {
		db := *w.db
		db.noPromise()
		w.db = &db
	}
	if d > 0 {
		w.failed = [2]time.Time{} // by the clock the window is over, and the engine has no other
	}
}

// check returns the invariant that a world breaks; empty when it breaks none.
func (x *walk) check(w *world) string {
	d, r := w.db, &w.db.rec
	switch {
	case w.touched:
	case w.live&d.stored == 0:
		return "I1: no stored version authenticates"
	case w.live&^d.stored&^w.kept != 0:
		return "I8: a version that authenticates is not stored"
	}
	if bad := d.labels(); bad != "" {
		return bad
	}
	if r.Then != nil && r.Then.Trigger == rotation.Emergency && r.State == rotation.InGrace && r.NextAt.After(w.now) {
		return "I10: an emergency is kept waiting by a grace period"
	}
	if w.touched {
		return ""
	}
	base := bit(number(r.Base))
	switch {
	case r.State == rotation.Quarantined && w.odd(): // it has answered, and nothing is known
		return ""
	case !d.hold && w.live&bit(d.cur) == 0:
		return "I2: a read returns what does not authenticate"
	case d.promised != noVersion && d.promise.After(w.now) && w.live&bit(d.promised) == 0:
		return "I3: the previous credential does not work in its grace period"
	case d.promised != noVersion && w.holds == d.promised && d.holding.After(w.now) && w.live&bit(d.promised) == 0:
		return "I3: the previous credential does not work, and a consumer is known to hold it"
	case (r.State == rotation.InGrace ||
		r.State == rotation.Undoing && !r.GraceOver) &&
		r.Trigger != rotation.Emergency &&
		w.live&base == 0:
		return "I3: the base does not authenticate in GRACE"
	case w.candidates() > 1:
		return "I4: two candidates at the target at once"
	case r.State == rotation.Quarantined:
		return "I10: quarantined, though nobody has interfered"
	}
	return w.candidateAsRecorded()
}

// candidateAsRecorded checks I6: the record says of the candidate what the target says.
func (w *world) candidateAsRecorded() string {
	r := &w.db.rec
	candidate := bit(number(r.Candidate))
	switch r.State {
	case rotation.Prepared, rotation.Refused, rotation.Abandoned:
		if r.Mode != rotation.Reapply && w.live&candidate != 0 && (!w.lagged || r.State == rotation.Abandoned) {
			return "I6: the record says that the candidate is not live, and it is"
		}
	case rotation.Verified, rotation.InGrace:
		if w.live&candidate == 0 {
			return "I6: the record says that the candidate is live, and it is not"
		}
	}
	return ""
}

// candidates counts the versions that the target has, or may yet get, and that are neither current
// nor former.
func (w *world) candidates() (n int) {
	all := w.live
	for _, f := range w.flights {
		if f != (flight{}) && !f.retire {
			all |= bit(f.in)
		}
	}
	for all &^= bit(w.db.cur) | bit(w.db.prev) | w.kept; all != 0; all &= all - 1 {
		n++
	}
	return n
}

// labels checks I5.
func (d *data) labels() string {
	r := &d.rec
	candidate, base := number(r.Candidate), number(r.Base)
	switch {
	case (d.pend != noVersion) != r.Pending() || r.Pending() && d.pend != candidate:
		return "I5: the pending label is not on the candidate"
	case d.cur == d.prev || d.cur == d.pend || d.prev == d.pend && d.prev != noVersion:
		return "I5: two labels on one version"
	case (bit(d.cur)|bit(d.prev)|bit(d.pend))&^d.stored != 0:
		return "I5: a label on no version"
	}
	switch r.State {
	case rotation.InGrace, rotation.Undoing, rotation.Retiring:
		if d.cur != candidate || d.prev != base {
			return "I5: the labels do not tell what the record tells"
		}
	case rotation.Done:
		if r.Mode == rotation.Rotate && d.cur != candidate {
			return "I5: done, and the candidate is not current"
		}
	case rotation.Prepared, rotation.Applying, rotation.Unknown, rotation.Applied, rotation.Verified, rotation.Refused:
		if d.cur != base {
			return "I5: ACSCurrent has moved before the promotion"
		}
	}
	return ""
}
