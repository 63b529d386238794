package rotation

import (
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// cancelled is the reason of a rotation that an operator cancelled.
const cancelled = "Cancelled by a person."

// cancel ends a rotation whose candidate the target does not have. What was never sent is given up
// at once. After an attempt the target may hold something of it: where both credentials can be live
// the candidate is taken away, in case that the target was slow to learn of it, and else what is
// left is taken back first. A repair ends in the quarantine that it came from.
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
