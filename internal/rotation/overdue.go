package rotation

import "time"

// OverdueAfter is how long after its due time a rotation that has not been made is overdue.
const OverdueAfter = time.Hour

// IsOverdue reports whether a scheduled rotation has been due for longer than [OverdueAfter] and
// has not been made. One that is paused is not overdue, and for one that is quarantined an operator
// knows already. paused says that the rotations of its target, or all, are paused.
func (r Record) IsOverdue(paused bool, now time.Time) bool {
	return !paused &&
		!r.Paused &&
		r.State != Quarantined &&
		!r.Due.IsZero() &&
		now.Sub(r.Due) > OverdueAfter
}
