package rotation

import (
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// cancelled is the reason of a rotation that an operator cancelled.
const cancelled = "Cancelled by an operator."

// cancel ends a rotation on the safe way out of its state. What was never sent is given up at once.
// After an attempt the target may have the candidate: that is found out first, and then the
// candidate is taken away. When the target has failed to do that, another cancel no longer waits
// for it; one that only repeats the request changes nothing. A repair ends in the quarantine that
// it came from.
func (r Record) cancel(now time.Time) Record {
	tried := r.Failures > 0
	switch r.State {
	case Applying, Unknown:
		if r.Cancelled && tried {
			return r.stuck("Cancelled before the target said which credential it accepts.")
		}
		return r.wish().quiet(now)
	case Applied, Verified:
		if r.Mode == Reapply {
			return r.ended(now)
		}
		return r.reverting(cancelled)
	case Reverting:
		if tried {
			return r.stuck("Taking the candidate back was cancelled: the target may still accept it.")
		}
		return r
	case Undoing:
		return r.afterUndo("the undo was cancelled", now)
	case Retiring:
		r = r.done(now)
		r.Reason = "The retirement was cancelled: the target still accepts the credential of version " + r.Base + "."
		if r.BaseRetired {
			r.Reason = "The rotation was cancelled: the previous credential is retired, and then no login with the new one " +
				"succeeded."
		}
		return r
	}
	switch {
	case r.Attempt == 0 && r.Imposed && r.Mode != Reapply:
		return r.stuck("The repair was cancelled: the target may accept the candidate.")
	case r.Attempt == 0, r.Cancelled && tried:
		return r.ended(now)
	case r.Strategy == target.Single || r.Mode == Reapply:
		return r.wish()
	}
	return r.reverting(cancelled)
}

// wish notes that the rotation is to end. The engine goes on at once.
func (r Record) wish() Record {
	if !r.Cancelled {
		r.Cancelled, r.Failures, r.NextAt, r.Reason = true, 0, time.Time{}, cancelled
	}
	return r
}

// reverting takes the candidate away, so that the rotation ends abandoned; a rehearsal, too.
func (r Record) reverting(why string) Record {
	r = r.to(Reverting)
	r.Rejections, r.Reason = MaxRejections, why
	return r
}

// ended is a rotation that was cancelled, when nothing is left of it.
func (r Record) ended(now time.Time) Record {
	r.Cancelled = false
	if r.Mode == Reapply {
		return r.stuck("The repair was cancelled: the target does not accept the credential in use.")
	}
	return r.abandon(cancelled, now)
}

func (r Record) onCancelled(e Event, now time.Time) (Record, bool) {
	switch e.Kind {
	case Cancel:
		r = r.cancel(now)
	case Cleared:
		r = r.ended(now)
	case Failed, Unreached, Denied:
		if e.Answered && r.Failures+1 >= MaxUndecided {
			return r.ended(now), true
		}
		r = r.later(e, now)
	default:
		return r, false
	}
	return r, true
}
