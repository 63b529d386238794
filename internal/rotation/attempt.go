package rotation

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

func (r Record) onApplying(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Accepted:
		r = r.to(Applied).quiet(now)
		r.SentAt = time.Time{} // it was answered, and what was sent before has settled
	case Unreached, Denied:
		// What was not sent now may have been sent before and not answered: then Unknown is what it was,
		// and it went through Resolve to come here. So Prepared is true.
		r.State, r.SentAt = Prepared, time.Time{}
		if e.Kind == Denied {
			return r.denied(e, now), true
		}
		r = r.later(e, now)
	case NoAnswer:
		r = r.doubtful()
		r.State, r.SentAt = Unknown, now
		r.NextAt, r.Reason = time.Time{}, e.Text
	case Declined:
		r.SentAt = time.Time{}
		r = r.declined(e, now)
	case Resolved: // by an engine that found the record so
		r = r.doubtful()
		r.State = Unknown
		return r.onUnknown(e, now)
	case Failed:
		r = r.doubtful()
		r.State = Unknown
		r = r.later(e, now)
	case Cancel:
		r = r.cancel(now)
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

// denied stays before a change that the target answers it does not allow, and not for ever. Nothing
// has happened, so the rotation ends without a change. Where an attempt was not answered and both
// credentials can be live, the candidate is taken away once more.
func (r Record) denied(e Event, now time.Time) Record {
	switch {
	case r.Failures+1 < MaxUndecided:
		return r.later(e, now)
	case r.Doubtful && r.Strategy != target.Single && r.Mode != Reapply && !r.Imposed:
		return r.reverting(e.Text)
	}
	return r.unsent(e.Text, now)
}

// unsent ends a rotation whose candidate the target does not have. A repair ends in the quarantine
// that it came from.
func (r Record) unsent(why string, now time.Time) Record {
	if r.Mode == Reapply || r.Imposed {
		return r.stuck(why)
	}
	return r.abandon(why, now)
}

func (r Record) onUnknown(e Event, now time.Time) (Record, bool) {
	switch {
	case e.Kind == Cancel:
		return r.cancel(now), true
	case e.Kind == Failed && e.Answered && r.Failures+1 >= MaxUndecided:
		return r.open(e.Text), true
	case e.Kind == Failed:
		return r.later(e, now), true
	case e.Kind != Resolved:
		return r, false
	case e.Candidate == target.Live:
		r.Rejections, r.SentAt = 0, time.Time{}
		if r.Mode == Reapply { // the one credential that there is: reads must not wait for a login with it
			return r.verified(now), true
		}
		r = r.found(now)
	case e.Candidate == target.Dead && !e.Settled && r.SettledAt(now).After(now):
		// The request may still be on its way, or waiting for a lock there. The target is asked again
		// when it cannot be any more.
		r.NextAt = r.SettledAt(now)
		r = r.quiet(now)
	case e.Candidate == target.Dead && r.Mode == Reapply && r.Attempt == 0:
		r = r.stuck("The target still does not accept the credential in use.")
	case e.Candidate == target.Dead && r.Mode == Reapply:
		// There is no other credential to fall back to: it is sent again, as often as any.
		r = r.resend(e, now)
	case e.Candidate == target.Dead && e.Base == target.Live && r.Cancelled:
		r.Cancelled = false // the wish is carried out from here
		r = r.to(Prepared).cancel(now)
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

// open ends the wait for a target that answers and does not say which credential it accepts. Reads
// cannot be answered until the outcome is known, so it is made known: the target is given the base
// again, which needs no login. A repair has no base of its own.
func (r Record) open(text string) Record {
	why := "The target did not say which credential it accepts: " + text
	if r.Mode == Reapply {
		return r.stuck(why)
	}
	return r.reverting(why)
}

// found goes on with a candidate that the target accepts.
func (r Record) found(now time.Time) Record {
	cancelled := r.Cancelled
	r.Cancelled = false
	r = r.to(Applied)
	if cancelled && r.Mode != Reapply {
		return r.cancel(now)
	}
	return r.quiet(now).beforeHoldEnds(now)
}

// stuck waits for an operator: everything is kept, and reads answer with the last proven version.
func (r Record) stuck(why string) Record {
	r = r.to(Quarantined)
	r.Cancelled, r.Reason = false, why
	return r
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
	return r.stuck("The target accepts neither the candidate nor the version before: " +
		"the credential was changed outside of Keyturn.")
}

// resend sends the same candidate again, up to a bound.
func (r Record) resend(e Event, now time.Time) Record {
	if r.BaseRejected && r.Mode != Reapply {
		return r.abandon("The target has the credential in use, and rejects logins with it.", now)
	}
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
	return r.reverting(why)
}

func (r Record) onApplied(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case LoggedIn, Proven:
		r.Lag, r.CopiesAt, r.NoSession = e.Lag, time.Time{}, ""
		if r.Trigger == Emergency {
			r.NoSession = strings.TrimSuffix(e.NoSession, ".")
		}
		if e.ReplacesEarlier {
			r.Earlier = &Earlier{Version: r.Earlier.Version, Retired: true}
		}
		return r.verified(now), true
	case CopiesLate:
		return r.late(e, now), r.Strategy != target.Single
	case Failed, NoLogin:
		switch {
		case e.Candidate == target.Dead && r.Strategy != target.Single:
			r = r.to(Unknown)
			r.Reason = e.Text
		case e.Kind == Failed:
			r = r.undecided(e, now)
		default:
			r = r.rejected(e, now)
		}
	case Cancel:
		return r.cancel(now), true
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
		return r.repaired(now)
	}
	return r.to(Verified)
}
