package rotation

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// illegal is an event that cannot follow from the state. The engine never makes one; a person's request may.
func illegal(r Record, e Event) error {
	return fmt.Errorf("%s does not follow %s", e.Kind, r.State)
}

// Next returns the record after an event. It refuses an event that does not belong to the state.
func Next(r Record, e Event, now time.Time) (Record, error) {
	from := r.State
	r = r.notAhead(now)
	if e.LoginFailed {
		r.LoginFailedAt = now
	}
	on := from.row().on
	if on == nil {
		return r, illegal(r, e)
	}
	r, ok := on(r, e, now)
	if !ok {
		return r, illegal(r, e)
	}
	switch {
	case (from == Applied || from == Undoing) && e.Kind == LoggedIn, from == Unknown && e.Kind == Resolved && e.Candidate == target.Live:
		r.Accepted = r.Candidate
	case from == Unknown && e.Kind == Resolved && e.Base == target.Live:
		r.Accepted = r.Base
	}
	return r.note(now, e.Kind, e.Text), nil
}

// later stays in the state and tries again after a back-off.
func (r Record) later(e Event, now time.Time) Record {
	r.Failures++
	r.NextAt = now.Add(max(jittered(Backoff(r.Failures), e.Jitter), e.After))
	r.Reason = e.Text
	return r
}

func jittered(d time.Duration, jitter float64) time.Duration {
	return d/2 + time.Duration(jitter*float64(d/2))
}

// notAhead puts right what a clock that was set back makes lie in the future: it was now at the latest.
func (r Record) notAhead(now time.Time) Record {
	if r.LoginFailedAt.After(now) {
		r.LoginFailedAt = now
	}
	if r.SentAt.After(now) {
		r.SentAt = now
	}
	return r
}

// quiet keeps the engine from what may cause a failed login until the window of the last one is over. It waits before a candidate
// is sent rather than before the login with it, because reads are not held then.
func (r Record) quiet(now time.Time) Record {
	if at := r.LoginAt(now); at.After(now) && at.After(r.NextAt) {
		r.NextAt = at
	}
	return r
}

// to moves on: what went wrong before is over.
func (r Record) to(s State) Record {
	r.State, r.Failures, r.NextAt, r.Reason = s, 0, time.Time{}, ""
	return r
}

func (r Record) onPrepare(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Stored:
		r = r.to(Prepared)
		r.Candidate, r.Base, r.Attempt, r.Rejections = e.Version, e.Replaces, 0, 0
		r.BaseAccepted = r.Accepted == r.Base
		r.Strategy, r.Target = e.Strategy, e.Target
		r.Candidates++
		// What an earlier rotation has sent must not arrive after this candidate.
		r.NextAt = r.SettledAt(now)
		r = r.quiet(now)
	case Failed:
		r = r.later(e, now)
	case Impossible:
		r = r.abandon(e.Text, now)
	case Cancel: // there is no candidate, or a rule has refused it
		r = r.abandon(cancelled, now)
	default:
		return r, false
	}
	return r, true
}

func (r Record) onPrepared(e Event, now time.Time) (Record, bool) {
	if r.Cancelled {
		return r.onCancelled(e, now)
	}
	switch e.Kind {
	case Cancel:
		r = r.cancel(now)
	case Sending:
		r.State, r.SentAt = Applying, now
		r.Attempt++
	case Unreached: // found out before anything was to be sent
		r = r.later(e, now)
	case Impossible: // the target is gone, does not have the strategy any more, or does not allow the account
		if r.Mode == Reapply {
			r = r.to(Quarantined)
			r.Reason = e.Text
			break
		}
		r = r.abandon(e.Text, now)
	default:
		return r, false
	}
	return r, true
}

// cancelled is the reason of what a person has ended.
const cancelled = "Cancelled by a person."

// cancel ends a rotation whose candidate the target does not have. What was never sent is given up at once. After an attempt the
// target may hold something of it: where both credentials can be live the candidate is taken away, in case that the target was
// slow to learn of it, and else what is left is taken back first. A repair ends in the quarantine that it came from.
func (r Record) cancel(now time.Time) Record {
	switch {
	case r.Attempt == 0:
		return r.ended(now)
	case r.Strategy == target.Single || r.Mode == Reapply:
		r.Cancelled, r.Failures, r.NextAt, r.Reason = true, 0, time.Time{}, cancelled
		return r
	}
	r = r.to(Reverting)
	r.Rejections, r.Reason = MaxRejections, cancelled // a rehearsal, too, is abandoned then
	return r
}

// ended is a rotation that was cancelled, when nothing is left of it.
func (r Record) ended(now time.Time) Record {
	r.Cancelled = false
	if r.Mode == Reapply {
		r = r.to(Quarantined)
		r.Reason = "The repair was cancelled: the target does not accept the credential in use."
		return r
	}
	return r.abandon(cancelled, now)
}

func (r Record) onCancelled(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Cancel: // asked for again
	case Cleared:
		r = r.ended(now)
	case Failed, Unreached:
		r = r.later(e, now)
	default:
		return r, false
	}
	return r, true
}

func (r Record) onApplying(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Accepted:
		r = r.to(Applied).quiet(now)
		r.SentAt = time.Time{} // it was answered, and what was sent before has settled
	case Unreached:
		// What was not sent now may have been sent before and not answered: then Unknown is what it was, and it went through
		// Resolve to come here. So Prepared is true.
		failures := r.Failures
		r.State, r.Failures, r.SentAt = Prepared, failures, time.Time{}
		r = r.later(e, now)
	case NoAnswer:
		r.State, r.SentAt = Unknown, now
		r.NextAt, r.Reason = time.Time{}, e.Text
	case Declined:
		r.SentAt = time.Time{}
		r = r.declined(e, now)
	case Resolved: // by an engine that found the record so
		r.State = Unknown
		return r.onUnknown(e, now)
	case Failed:
		r.State = Unknown
		r = r.later(e, now)
	default:
		return r, false
	}
	return r, true
}

// declined makes room for another candidate: a refusal by rule is the proof that this one is not live. The credential of a
// repair is not replaced.
func (r Record) declined(e Event, now time.Time) Record {
	if r.Mode == Reapply {
		r.State, r.Reason, r.NextAt = Quarantined, e.Text, time.Time{}
		return r
	}
	if r.Candidates >= MaxCandidates {
		return r.abandon(e.Text, now)
	}
	r = r.to(Refused)
	r.Reason = e.Text
	return r
}

// abandon ends the rotation without a change, and plans the next one when they are planned at all.
func (r Record) abandon(why string, now time.Time) Record {
	r = r.to(Abandoned)
	r.Reason, r.EndedAt = why, now
	if r.Mode == Rotate {
		r.Abandons++
	}
	return r
}

func (r Record) onUnknown(e Event, now time.Time) (Record, bool) {
	switch {
	case e.Kind == Failed:
		return r.later(e, now), true
	case e.Kind != Resolved:
		return r, false
	case e.Candidate == target.Live:
		r = r.to(Applied).quiet(now)
		r.Rejections, r.SentAt = 0, time.Time{}
	case e.Candidate == target.Dead && !e.Settled && r.SettledAt(now).After(now):
		// What was sent may still be on its way, or waiting for a lock there. It is asked again when it cannot be any more.
		r.NextAt = r.SettledAt(now)
		r = r.quiet(now)
	case e.Candidate == target.Dead && r.Mode == Reapply && r.Attempt == 0:
		r = r.to(Quarantined)
		r.Reason = "The target still does not accept the credential in use."
	case e.Candidate == target.Dead && r.Mode == Reapply:
		// There is no other credential to fall back to: it is sent again, as often as any.
		r = r.resend(e, now)
	case e.Candidate == target.Dead && e.Base == target.Live:
		r.Rejections = 0
		r = r.resend(e, now)
	case e.Candidate == target.Dead && e.Base == target.Dead:
		r = r.neither(e, now)
	default:
		r = r.later(e, now)
	}
	return r, true
}

// neither is for a person to look at. Logins alone do not say so at once: a target may be slow to learn of a change, so one is
// tried again a window later, the base first and then the candidate.
func (r Record) neither(e Event, now time.Time) Record {
	if e.LoginFailed {
		if r.Rejections++; r.Rejections < MaxRejections {
			r.NextAt = now.Add(LoginWindow + jittered(LoginWindow/4, e.Jitter))
			r.Reason = e.Text
			return r
		}
	}
	r = r.to(Quarantined)
	r.Reason = "The target accepts neither the candidate nor the version before. Somebody else has changed the credential."
	return r
}

// resend sends the same candidate again, up to a bound.
func (r Record) resend(e Event, now time.Time) Record {
	if r.Attempt < MaxAttempts {
		failures := r.Failures
		r = r.to(Prepared)
		r.Failures = failures
		return r.later(e, now).quiet(now)
	}
	if r.Mode == Reapply {
		r = r.to(Quarantined)
		r.Reason = fmt.Sprintf("The target was given the credential %d times and does not accept it.", r.Attempt)
		return r
	}
	why := fmt.Sprintf("The target was given the candidate %d times and does not have it.", r.Attempt)
	if r.Strategy == target.Single {
		return r.abandon(why, now) // the base is live, so the candidate is not
	}
	// Where both can be live, it is taken away once more, in case that the target was slow to learn of it.
	r = r.to(Reverting)
	r.Rejections, r.Reason = MaxRejections, why // a rehearsal, too, is abandoned then
	return r
}

func (r Record) onApplied(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case LoggedIn:
		return r.verified(now), true
	case Failed:
		r = r.later(e, now)
	case NoLogin:
		r.Rejections++
		r.Reason = e.Text
		if r.Rejections < MaxRejections {
			r.NextAt = now.Add(LoginWindow + jittered(LoginWindow/4, e.Jitter))
			return r, true
		}
		why := e.Text
		if r.Mode == Reapply {
			r = r.to(Quarantined)
		} else {
			r = r.to(Reverting)
		}
		r.Reason = why
	default:
		return r, false
	}
	return r, true
}

// verified is the end of a repair, the turning point of a rehearsal, and what a rotation goes on from.
func (r Record) verified(now time.Time) Record {
	switch r.Mode {
	case Rehearse:
		return r.to(Reverting)
	case Reapply:
		return r.done(now)
	}
	return r.to(Verified)
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
		r.PromotedAt, r.Abandons = now, 0
		return r.settle(now), true
	case Failed:
		return r.later(e, now), true
	}
	return r, false
}

// settle begins the grace of a promotion.
func (r Record) settle(now time.Time) Record {
	if r.Strategy == target.Single {
		return r.done(now)
	}
	r.Waiting = 0
	if r.GracePeriod <= 0 && r.GraceWait <= 0 || r.Then != nil { // an emergency does not wait for the end of a grace period
		return r.to(Retiring)
	}
	r = r.to(Grace)
	r.GraceLimit = now.Add(max(r.GracePeriod, r.GraceWait))
	return r.WholeGrace(now)
}

func (r Record) onGrace(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Awaiting:
		return r.await(e, now), now.Before(r.GraceLimit) && e.Consumers > 0
	case Expired:
		r.Waiting = 0
		return r.to(Retiring), true
	case Overran:
		r.Waiting = e.Consumers
		return r.to(Retiring), !now.Before(r.GraceLimit) && e.Consumers > 0
	case EndGrace:
		return r.endGrace(now), true
	case Undo:
		r.State, r.NextAt = Undoing, time.Time{}
		return r.quiet(now), true
	}
	return r, false
}

// await puts the end of a grace period off, until those who hold the former credential count as gone, and no longer than to the deadline.
func (r Record) await(e Event, now time.Time) Record {
	r.Waiting = e.Consumers
	r.NextAt = e.Until
	if !r.NextAt.After(now) {
		r.NextAt = now.Add(time.Second)
	}
	if r.GraceLimit.Before(r.NextAt) {
		r.NextAt = r.GraceLimit
	}
	r.Reason = r.AwaitsText(e.Consumers)
	return r
}

// endGrace ends a grace period now, whatever consumers hold.
func (r Record) endGrace(now time.Time) Record {
	r.GraceUntil, r.GraceLimit, r.NextAt = now, now, time.Time{}
	return r
}

func (r Record) onRetire(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Retired:
		return r.done(now), true
	case Failed:
		return r.later(e, now), true
	}
	return r, false
}

func (r Record) onUndo(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case LoggedIn: // the engine moves the labels back in the transaction that stores this
		r.Candidate, r.Base, r.Swapped = r.Base, r.Candidate, !r.Swapped
		return r.settle(now), true
	case NoLogin:
		r.State, r.Reason = Grace, "Not undone: the former credential does not authenticate. "+e.Text
		r.NextAt = r.GraceUntil
		if r.Then != nil { // an emergency does not wait for the end of a grace period
			r = r.endGrace(now)
		}
		return r, true
	case Failed:
		return r.later(e, now), true
	}
	return r, false
}

func (r Record) onRevert(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Reverted:
		r.SentAt = now
		if r.Mode == Rehearse && r.Rejections < MaxRejections {
			return r.done(now), true
		}
		return r.abandon(r.Reason, now), true
	case Declined: // a password history, for one: the base cannot be put back
		if r.Mode == Rehearse && r.Rejections < MaxRejections {
			r.Mode = Rotate // the candidate is live and has logged in
			r = r.to(Verified)
		} else {
			r = r.to(Quarantined)
		}
		r.Reason = "The target does not take the former credential back: " + e.Text
		return r, true
	case Failed:
		why := r.Reason
		r = r.later(e, now)
		r.SentAt = now
		if why != "" {
			r.Reason = why
		}
		return r, true
	}
	return r, false
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
		r.Attempt, r.Rejections = 0, 0
		return r.quiet(now), true
	}
	return r, false
}
