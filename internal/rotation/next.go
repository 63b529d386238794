package rotation

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// illegal returns the error of an event that does not follow the state. The engine never makes such
// an event; an operator's request may.
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
	switch {
	case on == nil:
		return r, illegal(r, e)
	case e.Kind == Probed && from != Quarantined, e.Kind == Hurried:
		on = Record.onHurry
	default:
		r.AdminWait = false
	}
	before, mode := r.Reason, r.Mode
	r, ok := on(r, e, now)
	if !ok {
		return r, illegal(r, e)
	}
	if e.Text == waitsForLogin && before != "" {
		r = r.keepsReason(from, before)
	}
	switch {
	case (from == Applied || from == Undoing) && e.Kind.proves(),
		from == Unknown && e.Kind == Resolved && e.Candidate == target.Live:
		r.Accepted = r.Candidate
	case from == Unknown && e.Kind == Resolved && e.Base == target.Live:
		r.Accepted = r.Base
	}
	switch { // the target has just accepted the credential in use
	case e.Kind == Promoted:
		r = r.proven(r.provenAt(now))
	case e.Kind == Sending && e.Base == target.Live,
		e.Kind.proves() && (from == Undoing || from == Applied && mode == Reapply),
		from == Unknown && e.Kind == Resolved && (e.Base == target.Live || mode == Reapply && e.Candidate == target.Live):
		r = r.proven(now)
	}
	return r.failing(e.Kind, now).note(now, e.Kind, e.Text), nil
}

// keepsReason keeps what the target said last, where an event says only that the engine waits.
func (r Record) keepsReason(from State, before string) Record {
	if r.State == from {
		r.Reason = before
	} else {
		r.Reason = strings.ReplaceAll(r.Reason, waitsForLogin, before)
	}
	return r
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

// notAhead clamps timestamps to now: they can lie in the future after the clock was set back.
func (r Record) notAhead(now time.Time) Record {
	if r.LoginFailedAt.After(now) {
		r.LoginFailedAt = now
	}
	if r.SentAt.After(now) {
		r.SentAt = now
	}
	if r.HeldAt.After(now) {
		r.HeldAt = now
	}
	if r.CopiesAt.After(now) {
		r.CopiesAt = now
	}
	if r.FailingSince.After(now) {
		r.FailingSince = now
	}
	return r
}

// quiet keeps the engine from what may cause a failed login until the window of the last one is
// over. It waits before a candidate is sent rather than before the login with it, because reads are
// not blocked then.
func (r Record) quiet(now time.Time) Record {
	if at := r.LoginAt(now); at.After(now) && at.After(r.NextAt) {
		r.NextAt = at
	}
	return r
}

// to moves on: what went wrong before is over.
func (r Record) to(s State) Record {
	if s == Unknown || s == Applied {
		r = r.doubtful()
	}
	r.State, r.Failures, r.NextAt, r.Reason = s, 0, time.Time{}, ""
	return r
}

// doubtful notes that the target may have the candidate. With two accounts, the other one may have
// that credential then, and no other.
func (r Record) doubtful() Record {
	r.Doubtful = true
	if r.Strategy != target.Double {
		return r
	}
	r.Retired = ""
	if r.Quarantine != nil && r.Interrupted != nil { // of an emergency that has left them
		left := *r.Quarantine
		left.PreviousDeadAt = latest(left.PreviousDeadAt, r.SentAt)
		r.Quarantine = &left
	}
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
		r.Doubtful, r.BaseRejected = false, false
		// A request of an earlier rotation must not arrive after this candidate.
		r.NextAt = r.SettledAt(now)
		r = r.quiet(now)
	case Failed:
		if e.Answered && r.Failures+1 >= MaxUndecided {
			return r.abandon(e.Text, now), true
		}
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
		r.State, r.SentAt, r.HeldAt, r.Hold, r.Rejections = Applying, now, now, e.Hold, 0
		if e.Base == target.Live { // it has just logged in
			r.Accepted, r.BaseAccepted = r.Base, true
		}
		if e.Checked {
			r.Outlasts = e.Outlasts
		}
		r.Attempt++
	case Unready:
		r = r.unready(e, now)
	case Unreached, Failed: // found out before anything was to be sent
		r = r.later(e, now)
	case Denied:
		r = r.denied(e, now)
	case Impossible: // the target was removed, lacks the strategy now, or does not allow the account
		r = r.unsent(e.Text, now)
		if e.Base == target.Dead && r.State == Abandoned {
			r.Health = r.Health.dueAt(now)
		}
	default:
		return r, false
	}
	return r, true
}
