package rotation

import (
	"cmp"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// abandon ends the rotation without a change, and plans the next one when they are planned at all.
func (r Record) abandon(why string, now time.Time) Record {
	if r.Quarantine != nil {
		r.GivenUp = r.ID
		return r.quarantinedAgain("the emergency has replaced nothing. " + why)
	}
	r = r.to(Abandoned)
	r.Reason, r.EndedAt = why, now
	r.NoSession, r.Outlasts = "", "" // the credential that they are about is not in use, or has not leaked
	if r.Mode == Rotate {
		r.Abandons++
	}
	return r
}

// EndedEmergency reports whether the record is of an emergency that has made the credential that it
// replaces useless.
func (r Record) EndedEmergency() bool {
	return r.State == Done && r.Trigger == Emergency && r.Mode == Rotate && r.BaseRetired
}

func (r Record) done(now time.Time) Record {
	r = r.to(Done)
	r.EndedAt = now
	r.Abandons = 0
	return r
}

func (r Record) onVerified(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Promoted:
		r.PromotedAt, r.Abandons, r.Rejections = now, 0, 0
		r = r.outOfQuarantine().checkCopies(now)
		return r.beginGrace(now), true
	case Failed:
		return r.later(e, now), true
	case Cancel:
		return r.cancel(now), true
	}
	return r, false
}

// beginGrace begins the grace period after a promotion.
func (r Record) beginGrace(now time.Time) Record {
	if r.Strategy == target.Single {
		r.BaseRetired = true // the candidate has its place
		return r.done(now)
	}
	r.Waiting = 0
	if r.Grace.Min <= 0 && r.Grace.Max <= 0 || r.Then != nil { // an emergency does not wait for the end of a grace period
		return r.to(Retiring)
	}
	r = r.to(InGrace)
	r.GraceDeadline = now.Add(max(r.Grace.Min, r.Grace.Max))
	return r.WholeGrace(now)
}

// resumeGrace goes on with a grace period. An emergency does not wait for its end.
func (r Record) resumeGrace(now time.Time) Record {
	r = r.to(InGrace)
	if r.Then != nil {
		return r.endGrace(now)
	}
	r.NextAt = r.GraceUntil
	return r
}

func (r Record) onGrace(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Awaiting:
		return r.await(e, now), now.Before(r.GraceDeadline) && e.Consumers > 0
	case Expired:
		r.Waiting = 0
		return r.to(Retiring), true
	case Overran:
		r.Waiting = e.Consumers
		return r.to(Retiring), !now.Before(r.GraceDeadline) && e.Consumers > 0
	case EndGrace:
		return r.endGrace(now), true
	case Undo:
		r.State, r.NextAt = Undoing, time.Time{}
		return r.quiet(now), true
	}
	return r, false
}

// await puts the end of a grace period off, until those who hold the previous credential count as
// gone, and no longer than to the deadline.
func (r Record) await(e Event, now time.Time) Record {
	r.Waiting = e.Consumers
	r.NextAt = e.Until
	if !r.NextAt.After(now) {
		r.NextAt = now.Add(time.Second)
	}
	if r.GraceDeadline.Before(r.NextAt) {
		r.NextAt = r.GraceDeadline
	}
	r.Reason = r.AwaitsText(e.Consumers)
	return r
}

// endGrace ends a grace period now, whatever consumers hold.
func (r Record) endGrace(now time.Time) Record {
	r.GraceUntil, r.GraceDeadline, r.NextAt = now, now, time.Time{}
	return r
}

func (r Record) onRetire(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Evicting: // nothing is sent to the new credential, and nothing has failed
		r.Foreign = e.Text
		return r, true
	case Retired:
		r = r.done(now).baseRetired()
		r.Foreign = e.Text
		if e.Checked {
			r.Outlasts = e.Outlasts
		}
		return r, true
	case Unready:
		return r.keepsBase(e, now), true
	case Failed:
		return r.later(e, now), true
	case Undo: // nothing that was sent may make the base useless after the login with it
		if r.Failures == 0 && r.Rejections == 0 || r.Trigger == Emergency || r.Then != nil {
			return r, false
		}
		r = r.to(Undoing)
		r.Rejections, r.SentAt, r.GraceOver = 0, now, true
		r.NextAt = r.SettledAt(now)
		return r.quiet(now), true
	case Cancel:
		return r.cancel(now), true
	}
	return r, false
}

// baseRetired notes that the base was made useless at the target.
func (r Record) baseRetired() Record {
	r.BaseRetired = true
	if r.Strategy == target.Double {
		r.Retired = r.Base
	}
	return r
}

// keepsBase stays before the retirement, because no login with the new credential has succeeded.
// Several rejections mean that it was changed elsewhere: the previous credential is tried, and
// becomes current again. One that may have leaked does not.
func (r Record) keepsBase(e Event, now time.Time) Record {
	if e.BaseRetired {
		r = r.baseRetired()
	}
	if r.BaseRetired {
		e.Text = "The previous credential is retired, and then no login with the new one succeeded: " + e.Text
	} else {
		e.Text = "The previous credential is kept, because no login with the new one succeeded: " + e.Text
	}
	if e.Base != target.Dead {
		return r.later(e, now)
	}
	if r.Rejections++; r.Rejections < MaxRejections {
		r.NextAt = now.Add(LoginWindow + jittered(LoginWindow/4, e.Jitter))
		r.Reason = e.Text
		return r
	}
	if r.Trigger == Emergency || r.Then != nil {
		return r.Drifted(r.Candidate, r.Target, r.Strategy, e.Text, now)
	}
	r.State, r.NextAt, r.Failures, r.Reason, r.GraceOver = Undoing, time.Time{}, 0, e.Text, true
	return r.quiet(now)
}

func (r Record) onUndo(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case LoggedIn, Proven: // the engine moves the labels back in the transaction that stores this
		r.PreviousDeadAt = r.candidateDeadAt()
		r.Candidate, r.Base, r.Swapped = r.Base, r.Candidate, !r.Swapped
		r.Rejections, r.GraceOver, r.BaseRetired = 0, false, false
		return r.outOfQuarantine().beginGrace(now), true
	case NoLogin:
		r.PreviousDeadAt = now
		return r.notUndone("the previous credential does not authenticate. "+e.Text, now), true
	case Failed:
		if e.Answered && r.Failures+1 >= MaxUndecided {
			return r.notUndone("no login with the previous credential succeeded. "+e.Text, now), true
		}
		return r.later(e, now), true
	case Cancel:
		return r.cancel(now), true
	}
	return r, false
}

// candidateDeadAt returns when the target rejected the candidate that an undo replaces; zero if it
// has not.
func (r Record) candidateDeadAt() time.Time {
	if r.Quarantine != nil {
		return r.Health.ProbedAt
	}
	if r.Rejections >= MaxRejections {
		return r.LoginFailedAt
	}
	return time.Time{}
}

// afterUndo goes on where an undo began that changed nothing: with the grace period, with the
// retirement when that is over, or in the quarantine.
func (r Record) afterUndo(why string, now time.Time) Record {
	switch {
	case r.Quarantine != nil:
		return r.quarantinedAgain(why)
	case r.GraceOver:
		r.Rejections, r.GraceOver = 0, false
		return r.to(Retiring)
	}
	r.Rejections = 0
	return r.resumeGrace(now)
}

// notUndone is [Record.afterUndo] for an undo that failed. If the new credential does not
// authenticate, either, an operator decides.
func (r Record) notUndone(why string, now time.Time) Record {
	if r.Rejections >= MaxRejections {
		return r.Drifted(r.Candidate, r.Target, r.Strategy, "it rejected logins, and "+why, now)
	}
	if r = r.afterUndo(why, now); r.State != Quarantined {
		r.Reason = "Not undone: " + why
	}
	return r
}

func (r Record) onRevert(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Reverted:
		r.SentAt = now
		if r.Strategy == target.Double {
			r.Retired = r.Candidate
		}
		if r.Mode == Rehearse && r.Rejections < MaxRejections {
			return r.done(now), true
		}
		return r.abandon(r.Reason, now), true
	case Declined: // for example a password history: the base cannot be restored
		return r.notReverted(e), true
	case Failed:
		if e.Answered && r.Failures+1 >= MaxUndecided {
			return r.deniedRevert(e), true
		}
		why := r.Reason
		r = r.later(e, now)
		r.SentAt = now
		if why != "" {
			r.Reason = why
		}
		return r, true
	case Cancel:
		return r.cancel(now), true
	}
	return r, false
}

// notReverted ends the attempt to take a candidate back that the target does not give up. After a
// rehearsal with one credential the candidate is live and has logged in, so it becomes current.
func (r Record) notReverted(e Event) Record {
	if r.Strategy == target.Single && r.Mode == Rehearse && r.Rejections < MaxRejections {
		r.Mode = Rotate
		r = r.to(Verified)
	} else {
		r = r.to(Quarantined)
	}
	what := "The target does not give up the candidate: "
	if r.Strategy == target.Single {
		what = "The target does not take the previous credential back: "
	}
	r.Reason = what + e.Text
	return r
}

// deniedRevert is notReverted where the target denies what the administrator asks for. An attempt
// without an answer may have restored the base, so the target is asked which one it accepts.
func (r Record) deniedRevert(e Event) Record {
	if r = r.notReverted(e); r.State == Verified {
		r.State = Unknown
	}
	return r
}

// CanHurry reports whether the rotation waits before it tries again what has failed, or until its
// administrator may be tried.
func (r Record) CanHurry() bool {
	return r.GoesOn() && r.State != InGrace && (r.Failures > 0 || r.Rejections > 0 || r.AdminWait)
}

// AwaitAdmin returns the record after the engine has found that the target's administrator, who was
// rejected, may not be tried before until. Nothing was tried for this rotation.
func (r Record) AwaitAdmin(until, now time.Time, why string) Record {
	r.AdminWait, r.NextAt, r.Reason = true, until, cmp.Or(r.Reason, why)
	return r.failing("", now)
}

// onHurry is what may have fixed the target: the engine asks it again now, but not more than once a
// minute. A fixed administrator has a limit of its own. A rotation that waits for another reason
// keeps waiting.
func (r Record) onHurry(e Event, now time.Time) (Record, bool) {
	if !r.CanHurry() {
		return r, false
	}
	at := latest(now, r.LoginAt(now))
	isAdminFixed := r.AdminWait && e.Kind == Hurried
	if n := len(r.Steps); n > 0 && !isAdminFixed {
		at = latest(at, r.Steps[n-1].At.Add(deniedPause))
	}
	if r.NextAt.After(at) {
		r.NextAt = at
	}
	return r, true
}

func (r Record) onRepair(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Probed:
		r = r.to(Unknown)
		r.Rejections = 0
		if r.Mode == Reapply {
			r.Attempt = 0 // it is asked, not changed
		}
		return r, true
	case Again:
		r = r.to(Prepared)
		r.Attempt, r.Rejections, r.Imposed = 0, 0, true
		return r.quiet(now), true
	case Undo: // the previous credential works until it is retired
		return r.undoInterrupted(e, now)
	}
	return r, false
}
