package rotation

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

func (r Record) onApplying(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Accepted:
		r = r.to(Applied).quiet(now)
		r.SentAt = time.Time{} // it was answered, and what was sent before has settled
	case Unreached:
		// What was not sent now may have been sent before and not answered: then Unknown is what it was,
		// and it went through Resolve to come here. So Prepared is true.
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

// declined makes room for another candidate: a refusal by rule is the proof that this one is not
// live. The credential of a repair is not replaced.
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
		// The request may still be on its way, or waiting for a lock there. The target is asked again
		// when it cannot be any more.
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

// neither quarantines a rotation of which neither credential is live: an operator must decide.
// Logins alone do not prove that at once, because a target may be slow to apply a change. So one
// login is repeated in each window, the base first and then the candidate.
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
	// Where both can be live, it is taken away once more, in case that the target was slow to learn of
	// it.
	r = r.to(Reverting)
	r.Rejections, r.Reason = MaxRejections, why // a rehearsal, too, is abandoned then
	return r
}

func (r Record) onApplied(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case LoggedIn, Proven:
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

// verified is the end of a repair, the turning point of a rehearsal, and what a rotation goes on
// from.
func (r Record) verified(now time.Time) Record {
	switch r.Mode {
	case Rehearse:
		return r.to(Reverting)
	case Reapply:
		return r.done(now)
	}
	return r.to(Verified)
}
