package rotation

import "time"

// Pause is an operator's order that no new rotation begins: of a secret, at a target, or anywhere.
type Pause struct {
	Since time.Time `json:"since,omitzero"`
	// By is the ARN of the principal.
	By string `json:"by,omitempty"`
}

// WithPause returns the record with new rotations paused; nil lets them begin again. A pause that
// is repeated stays what it is.
func (r Record) WithPause(p *Pause) Record {
	if p == nil || !r.Paused {
		r.Paused, r.Pause = p != nil, p
	}
	return r
}
