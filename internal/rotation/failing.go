package rotation

import "time"

// FailingAfter is how long steps of a rotation must have failed before that is reported. A target
// that restarts has answered by then. The report comes with the next step that fails, which is at
// most [maxBackoff] later.
const FailingAfter = 10 * time.Minute

// failing notes since when the steps of a rotation fail, and whether that is to be reported. After
// a promotion or a grace period, the time starts anew. A request of an operator reports nothing,
// because only the next step shows whether it has helped.
func (r Record) failing(k EventKind, now time.Time) Record {
	switch {
	case k == Promoted, !r.GoesOn(), r.State == InGrace:
		r.FailingSince, r.FailingReported = time.Time{}, false
	case !r.CanHurry():
	case r.FailingSince.IsZero():
		r.FailingSince = now
	case k.Recording() != RecordedAsCall && now.Sub(r.FailingSince) >= FailingAfter:
		r.FailingReported = true
	}
	return r
}
