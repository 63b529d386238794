package rotation

// LabelMove is what an event means for the stage labels of the secret.
type LabelMove uint8

// The moves.
const (
	// KeepLabels: no label moves.
	KeepLabels LabelMove = iota
	// LabelCandidate puts ACSPending on the candidate.
	LabelCandidate
	// PromoteCandidate moves ACSCurrent to the candidate and ACSPrevious to the base.
	PromoteCandidate
	// SwapLabels makes the previous version current again.
	SwapLabels
	// DropCandidate takes ACSPending away.
	DropCandidate
)

// LabelsAfter returns the move that goes into the transaction which stores r, the record after an
// event on old.
func LabelsAfter(old, r Record, kind EventKind) LabelMove {
	switch {
	case kind == Stored:
		return LabelCandidate
	case kind == Promoted:
		return PromoteCandidate
	case kind.proves() && old.State == Undoing:
		return SwapLabels
	case old.Pending() && !r.Pending():
		return DropCandidate
	}
	return KeepLabels
}

// PlansAgain reports whether an event makes the next due date be worked out anew: the rotation has
// ended, or has replaced the credential.
func PlansAgain(old, r Record, kind EventKind) bool {
	return old.InFlight() && !r.InFlight() || kind == Promoted
}
