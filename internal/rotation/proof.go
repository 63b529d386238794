package rotation

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// unready stays before a change, because no login with the credential in use has succeeded. By the
// target's own state, or several rejections, it was changed elsewhere; answers that decide nothing
// end the rotation without a change.
func (r Record) unready(e Event, now time.Time) Record {
	what := "Nothing was sent, because no login with the credential in use succeeded: " + e.Text + ". " +
		"Fix how the secret's logins connect (addresses, database, TLS), or what the target refuses."
	if e.Base == target.Dead && !e.LoginFailed { // without a login
		what = "Nothing was sent. The target's own state shows that it does not accept the credential in use."
	}
	switch {
	case r.Then != nil && r.Attempt == 0: // an emergency waits for the end
		return r.abandon(what, now)
	case e.Base != target.Dead && e.Answered && r.Failures+1 >= MaxUndecided:
		return r.abandon(what, now)
	case e.Base != target.Dead:
		e.Text = what
		return r.later(e, now)
	}
	r.Health = r.Health.answered(now, false)
	if e.LoginFailed {
		if r.Rejections++; r.Rejections < MaxRejections {
			r.NextAt = now.Add(LoginWindow + jittered(LoginWindow/4, e.Jitter))
			r.Reason = r.rejectedBase(e.Text)
			return r
		}
	}
	if r.Attempt > 0 { // the target may have the candidate of an earlier attempt
		r = r.to(Unknown)
		r.Rejections, r.BaseRejected = 0, true
		return r.quiet(now)
	}
	return r.Drifted(r.Base, r.Target, r.Strategy, e.Text, now)
}

// rejectedBase says that a login with the credential in use was rejected, and what follows when the
// logins that are left are rejected, too. said is what the target has answered.
func (r Record) rejectedBase(said string) string {
	last := r.NextAt.Add(time.Duration(MaxRejections-r.Rejections-1) * LoginWindow)
	follows := "the rotation is quarantined"
	if r.Attempt > 0 {
		follows = "the target is asked which credential it accepts"
	}
	return fmt.Sprintf("Nothing was sent, because the target rejects the credential in use: %s. It was probably "+
		"changed outside of Keyturn. After %d rejected logins in all (so far: %d), not before %s, %s.",
		strings.TrimSuffix(said, "."), MaxRejections, r.Rejections, last.UTC().Format(time.RFC3339), follows)
}

// RejectsBase reports whether the rotation waits because the target has rejected a login with the
// credential in use.
func (r Record) RejectsBase() bool { return r.NeedsBase() && r.Rejections > 0 && !r.Cancelled }

// heldTooLong reports whether reads have been blocked for as long as they may be.
func (r Record) heldTooLong(now time.Time) bool {
	return r.Strategy == target.Single && !r.HeldAt.IsZero() && !r.HeldAt.Add(r.Hold).After(now)
}

// LoginTime returns how long a login with the candidate may take while reads are blocked and the
// target's own state can decide instead: most of the time that is left, so that the state can still
// be read in the rest. 0 means that reads are not blocked.
func (r Record) LoginTime(now time.Time) time.Duration {
	if r.State != Applied || !r.BlocksReads() || r.HeldAt.IsZero() {
		return 0
	}
	left := r.HeldAt.Add(r.Hold).Sub(now)
	return max(left*3/4, r.Hold/8)
}

// undecided stays in Applied after a login that decided nothing. Where reads are blocked, it waits
// no longer than they may be.
func (r Record) undecided(e Event, now time.Time) Record {
	if r.heldTooLong(now) || e.Answered && r.Failures+1 >= MaxUndecided {
		return r.takeBack(e.Text)
	}
	return r.later(e, now).beforeHoldEnds(now)
}

// rejected stays in Applied after a login with the candidate was rejected, for another try.
func (r Record) rejected(e Event, now time.Time) Record {
	if r.Rejections++; r.Rejections >= MaxRejections || r.heldTooLong(now) {
		return r.takeBack(e.Text)
	}
	r.Reason = e.Text
	r.NextAt = now.Add(LoginWindow + jittered(LoginWindow/4, e.Jitter))
	return r.beforeHoldEnds(now)
}

func (r Record) beforeHoldEnds(now time.Time) Record {
	if end := r.HeldAt.Add(r.Hold); r.Strategy == target.Single && !r.HeldAt.IsZero() && r.NextAt.After(end) {
		r.NextAt = latest(end, now)
	}
	return r
}

// takeBack gives a candidate up that the target has taken. A repair has nothing to go back to.
func (r Record) takeBack(why string) Record {
	why = "The target has taken the credential, and no login with it succeeded: " + why
	if r.Mode == Reapply {
		return r.stuck(why)
	}
	return r.reverting(why)
}

// late stays in Applied while a replica does not accept the candidate, and not for ever. Each
// question is a failed login at the replica. So until its lag is over, the waits double; after
// that, each is a [LoginWindow] at least.
func (r Record) late(e Event, now time.Time) Record {
	if r.CopiesAt.IsZero() {
		r.CopiesAt = now
	}
	r.Lag = e.Lag
	if over := r.CopiesAt.Add(e.Lag); over.After(now) {
		wait := jittered(2*max(copiesEvery, 2*now.Sub(r.CopiesAt)), e.Jitter)
		r.NextAt, r.Reason = now.Add(min(wait, over.Sub(now))), e.Text
		return r
	}
	if e.Answered && r.Failures+1 >= MaxUndecided {
		return r.takeBack(e.Text)
	}
	if e.Answered {
		e.After = LoginWindow
	}
	return r.later(e, now)
}

// checkCopies makes the engine ask the replicas when they must have learned of a credential whose
// promotion did not wait for them.
func (r Record) checkCopies(now time.Time) Record {
	if at := now.Add(r.Lag); r.Strategy == target.Single && r.Lag > 0 &&
		(r.Health.NextAt.IsZero() || r.Health.NextAt.After(at)) {
		r.Health.NextAt, r.Health.DueAt = at, at
	}
	return r
}

// copiesEvery is the least time between two steps that ask the replicas of a target.
const copiesEvery = 5 * time.Second
