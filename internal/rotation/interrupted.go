package rotation

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// Interrupted is what a repair resumes: a rotation in its grace period, or at the retirement, whose
// new credential the target stopped accepting. The record keeps its ID. The members are as in
// [Record].
type Interrupted struct {
	State         State           `json:"state"`
	Trigger       Trigger         `json:"trigger"`
	Strategy      target.Strategy `json:"strategy"`
	Base          string          `json:"base"`
	Attempt       int             `json:"attempt,omitempty"`
	Candidates    int             `json:"candidates,omitempty"`
	Swapped       bool            `json:"swapped,omitempty"`
	StartedAt     time.Time       `json:"started_at,omitzero"`
	PromotedAt    time.Time       `json:"promoted_at,omitzero"`
	GraceUntil    time.Time       `json:"grace_until,omitzero"`
	GraceDeadline time.Time       `json:"grace_limit,omitzero"`
}

// Quarantine is what an undo, or an emergency, out of a quarantine returns to if it changes
// nothing. Current is the version of the credential in use. The other members are as in [Record]. A
// record of an earlier release has only Strategy and StartedAt.
type Quarantine struct {
	ID        string          `json:"id,omitempty"`
	Strategy  target.Strategy `json:"strategy"`
	Current   string          `json:"current,omitempty"`
	StartedAt time.Time       `json:"started_at,omitzero"`
	Aftermath
}

// QuarantinedAt returns since when the rotation is quarantined; zero where its steps do not show
// that.
func (r Record) QuarantinedAt() (at time.Time) {
	for _, e := range slices.Backward(r.Steps) {
		if e.State != Quarantined {
			break
		}
		at = e.At
	}
	return at
}

// left returns what is stored of the quarantine of r while something else is under way.
func (r Record) left() *Quarantine {
	return &Quarantine{
		ID:        r.ID,
		Strategy:  r.Strategy,
		Current:   r.Candidate,
		StartedAt: r.StartedAt,
		Aftermath: r.Aftermath,
	}
}

// outOfQuarantine forgets a quarantine that is over, and what it has interrupted.
func (r Record) outOfQuarantine() Record {
	r.Interrupted, r.Quarantine, r.GivenUp = nil, nil, ""
	return r
}

// interrupted returns what a repair continues: nil where no credential is left to be retired. An
// undo leaves one, whatever the target has said: its last answers may have decided nothing.
func (r Record) interrupted() *Interrupted {
	state := r.State
	switch {
	case r.Quarantine != nil, state == Undoing && r.Interrupted != nil:
		return r.Interrupted
	case state == Undoing && r.GraceOver:
		state = Retiring
	case state == Undoing:
		state = InGrace
	case state != InGrace && state != Retiring:
		return nil
	}
	return &Interrupted{
		State:         state,
		Trigger:       r.Trigger,
		Strategy:      r.Strategy,
		Base:          r.Base,
		Attempt:       r.Attempt,
		Candidates:    r.Candidates,
		Swapped:       r.Swapped,
		StartedAt:     r.StartedAt,
		PromotedAt:    r.PromotedAt,
		GraceUntil:    r.GraceUntil,
		GraceDeadline: r.GraceDeadline,
	}
}

// Versions returns the versions whose accounts the rotation under way, or the one that it has
// interrupted, may still change; none where nothing is under way.
func (r Record) Versions() (versions []string) {
	if !r.InFlight() {
		return nil
	}
	versions = append(versions, r.Base, r.Candidate)
	if i := r.Interrupted; i != nil {
		versions = append(versions, i.Base)
	}
	return versions
}

// Leaked returns the versions that emergencies replace, whose rotations are under way or
// interrupted.
func (r Record) Leaked() (versions []string) {
	if i := r.Interrupted; i != nil && i.Trigger == Emergency {
		versions = append(versions, i.Base)
	}
	if r.InFlight() && r.Trigger == Emergency && r.Base != "" {
		versions = append(versions, r.Base)
	}
	return versions
}

// graceInterrupted reports whether a repair continues a grace period.
func (r Record) graceInterrupted() bool {
	return r.Mode == Reapply && r.Interrupted != nil && r.Interrupted.State == InGrace
}

// Previous describes the version that the rotation replaces, or the interrupted one; empty for
// none. until is the end of its grace period, and zero if the retirement had begun. Before the
// repair, an undo is possible even after until. limit is the deadline of a grace period that has
// not ended; else it is zero.
func (r Record) Previous() (version string, until, limit time.Time) {
	i := r.Interrupted
	switch {
	case i == nil && r.State == InGrace:
		return r.Base, r.GraceUntil, r.GraceDeadline
	case i == nil || r.Mode != Reapply: // an undo, or an emergency out of a quarantine
		return r.Base, r.GraceUntil, limit
	case !r.graceInterrupted():
		return i.Base, until, limit
	}
	return i.Base, i.GraceUntil, i.GraceDeadline
}

// KeepsPrevious reports whether the previous credential works beside the one in use.
func (r Record) KeepsPrevious() bool {
	if i := r.Interrupted; i != nil && r.Mode == Reapply {
		return true
	}
	return (r.State == InGrace || r.State == Retiring) && !r.BaseRetired
}

// CanUndo reports whether an operator can ask for the previous credential back.
func (r Record) CanUndo(now time.Time) bool {
	_, err := Next(r, Event{Kind: Undo}, now)
	return err == nil
}

// repaired ends a repair, and continues the rotation that it has interrupted. That may have been
// interrupted twice: by a quarantine, and by an emergency out of it that is quarantined itself.
func (r Record) repaired(now time.Time) Record {
	r.Check = r.Check.afterRepair()
	i := r.Interrupted
	if i == nil {
		return r.done(now)
	}
	if q := r.Quarantine; q != nil {
		r.ID, r.Aftermath = cmp.Or(q.ID, r.ID), q.Aftermath
	}
	r = r.to(i.State).outOfQuarantine()
	r.Mode, r.Imposed = Rotate, false
	r.Trigger, r.Strategy, r.Base = i.Trigger, i.Strategy, i.Base
	r.Attempt, r.Candidates, r.Rejections, r.Swapped = i.Attempt, i.Candidates, 0, i.Swapped
	r.StartedAt, r.PromotedAt = i.StartedAt, i.PromotedAt
	r.GraceUntil, r.GraceDeadline = i.GraceUntil, i.GraceDeadline
	if r.State == InGrace {
		return r.resumeGrace(now)
	}
	return r
}

// Outlives reports whether an adopted credential works on when the previous one of an interrupted
// rotation is retired. Then that rotation goes on with the adopted one.
func (r Record) Outlives(adopted, previous target.Credential) bool {
	switch i := r.Interrupted; {
	case i == nil:
		return false
	case i.Strategy == target.Double:
		return adopted.Account != previous.Account
	}
	return !adopted.Secret.Equal(previous.Secret) && (adopted.ID == "" || adopted.ID != previous.ID)
}

// undoInterrupted begins to make the previous credential current again, out of a quarantine. The
// quarantine is over once the target has accepted that credential.
func (r Record) undoInterrupted(e Event, now time.Time) (Record, bool) {
	if !r.graceInterrupted() {
		return r, false
	}
	undoing, ok := r.repaired(now).onGrace(e, now)
	undoing.Interrupted, undoing.Quarantine, undoing.GivenUp = r.Interrupted, r.left(), r.GivenUp
	return undoing, ok
}

// quarantinedAgain ends an undo, or an emergency, out of a quarantine that has changed nothing. The
// target was not asked about the credential in use, so what is known of that stays.
func (r Record) quarantinedAgain(why string) Record {
	before := *r.Quarantine
	r.ID = cmp.Or(before.ID, r.ID)
	dead := latest(before.PreviousDeadAt, r.PreviousDeadAt) // an undo may have asked the target
	r.Aftermath = before.Aftermath
	r.PreviousDeadAt = dead
	r = r.quarantine(cmp.Or(before.Current, r.Candidate), r.Target, before.Strategy, before.StartedAt)
	r.Reason = "The target did not accept the credential in use when it was asked last, and " +
		strings.TrimSuffix(why, ".") + "."
	return r
}
