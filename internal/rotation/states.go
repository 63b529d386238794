package rotation

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// State is the position of a rotation. Its value is stored and sent on the wire.
type State string

// The states. Each has a row in the table below.
const (
	// Idle means that no rotation is under way, and that none has been since the record was made.
	Idle State = kms.RotationIdle
	// Scheduled means that a rotation was requested or fell due. There is no candidate yet.
	Scheduled State = kms.RotationScheduled
	// Prepared means that the candidate is stored, and that the target does not have it.
	Prepared State = kms.RotationPrepared
	// Applying means that the candidate is being sent, or was when the engine stopped.
	Applying State = kms.RotationApplying
	// Refused means that the target's rules do not allow the candidate: it is proven not live.
	Refused State = kms.RotationRefused
	// Unknown means that it is not known whether the target has the candidate.
	Unknown State = kms.RotationUnknown
	// Applied means that the target has confirmed the candidate.
	Applied State = kms.RotationApplied
	// Verified means that a login with the candidate succeeded.
	Verified State = kms.RotationVerified
	// InGrace means that the candidate is ACSCurrent, and that the previous credential still works.
	InGrace State = kms.RotationGrace
	// Undoing means that an operator requested the previous credential back.
	Undoing State = kms.RotationUndoing
	// Retiring means that the previous credential is being made useless.
	Retiring State = kms.RotationRetiring
	// Reverting means that the candidate is being removed from the target, and the base restored
	// where the candidate replaced it.
	Reverting State = kms.RotationReverting
	// Done means that the rotation succeeded.
	Done State = kms.RotationDone
	// Abandoned means that the rotation ended without a change: the candidate is proven not live.
	Abandoned State = kms.RotationAbandoned
	// Quarantined means that neither credential authenticates: an operator must decide.
	Quarantined State = kms.RotationQuarantined
)

// stateRow is everything that depends on the state alone.
type stateRow struct {
	state State
	// ended says that nothing is under way.
	ended bool
	// step is what the engine does next, once the time for it has come.
	step Step
	// on returns the record after an event, and false for an event that does not follow the state;
	// nil where no event follows.
	on func(Record, Event, time.Time) (Record, bool)
	// pending says that the candidate carries the label ACSPending.
	pending bool
	// blocksReads says that reads wait where the target holds only one credential: the current one
	// may have stopped working a moment ago.
	blocksReads bool
	// waitsFor completes the sentence "The rotation waits for …".
	waitsFor string
	// instead is what an operator can do about a rotation that cannot be cancelled; empty where it
	// can be. The name of the secret takes the place of NAME.
	instead string
	// cancelled completes "keyturn rotation cancel NAME …"; empty where a rotation cannot be
	// cancelled.
	cancelled string
	// outcome says how the rotation ended, for callers that wait for it; empty while it continues
	// without an operator.
	outcome string
}

const (
	noneIsOn  = "nothing is under way."
	givenUp   = "abandons the rotation; nothing has changed."
	takenBack = "takes the candidate back."
	foundOut  = "takes the candidate back as soon as the target has said which credential it accepts; where that " +
		"has failed, a second cancel does not wait for it, keeps everything and leaves the rest to keyturn rotation " +
		"repair NAME."
)

// states is the table of states, in the order of a rotation.
var states = []stateRow{
	{
		state:   Idle,
		ended:   true,
		step:    Nothing,
		instead: noneIsOn,
	},
	{
		state:     Scheduled,
		step:      Prepare,
		on:        Record.onPrepare,
		waitsFor:  "its turn",
		cancelled: givenUp,
	},
	{
		state:    Prepared,
		step:     Send,
		on:       Record.onPrepared,
		pending:  true,
		waitsFor: "the next attempt",
		cancelled: "abandons the rotation, after the target has taken back what an attempt may have left; where " +
			"that has failed, a second cancel does not wait for it.",
	},
	{
		state:       Applying,
		step:        Resolve, // an engine that reads this state has not seen the answer
		on:          Record.onApplying,
		pending:     true,
		blocksReads: true,
		waitsFor:    "the target's answer",
		cancelled:   foundOut,
	},
	{
		state:     Refused,
		step:      Prepare,
		on:        Record.onPrepare,
		pending:   true,
		waitsFor:  "another candidate",
		cancelled: givenUp,
	},
	{
		state:       Unknown,
		step:        Resolve,
		on:          Record.onUnknown,
		pending:     true,
		blocksReads: true,
		waitsFor:    "the target to say which credential it accepts",
		cancelled:   foundOut,
	},
	{
		state:       Applied,
		step:        Verify,
		on:          Record.onApplied,
		pending:     true,
		blocksReads: true,
		waitsFor:    "a login with the new credential",
		cancelled:   takenBack,
	},
	{
		state:       Verified,
		step:        Promote,
		on:          Record.onVerified,
		pending:     true,
		blocksReads: true,
		waitsFor:    "the promotion",
		cancelled:   takenBack,
	},
	{
		state:    InGrace,
		step:     Expire,
		on:       Record.onGrace,
		waitsFor: "the end of the grace period",
		instead: "the new credential is current. keyturn rotation undo NAME makes the previous one current again, " +
			"keyturn rotation end-grace NAME retires it now.",
	},
	{
		state:     Undoing,
		step:      CheckBase,
		on:        Record.onUndo,
		waitsFor:  "a login with the previous credential",
		cancelled: "keeps the new credential, and the grace period goes on.",
	},
	{
		state:    Retiring,
		step:     Retire,
		on:       Record.onRetire,
		waitsFor: "the target to retire the previous credential",
		cancelled: "ends the rotation, and the previous credential keeps working at the target. Once the retirement " +
			"has failed, keyturn rotation undo NAME makes it current again, except in an emergency.",
	},
	{
		state:       Reverting,
		step:        Revert,
		on:          Record.onRevert,
		pending:     true,
		blocksReads: true,
		waitsFor:    "the target to take the candidate back",
		cancelled:   "stops that once it has failed, keeps everything and leaves the rest to keyturn rotation repair NAME.",
	},
	{
		state:   Done,
		ended:   true,
		step:    Nothing,
		instead: noneIsOn,
		outcome: kms.OutcomeSucceeded,
	},
	{
		state:   Abandoned,
		ended:   true,
		step:    Nothing,
		instead: noneIsOn,
		outcome: kms.OutcomeUnchanged,
	},
	{
		state:    Quarantined,
		step:     Nothing,
		on:       Record.onRepair,
		pending:  true,
		waitsFor: "an operator to repair it",
		instead:  "keyturn rotation repair NAME explains what was found and what can be done.",
		outcome:  kms.OutcomeNeedsOperator,
	},
}

// States returns all states.
func States() []State {
	list := make([]State, len(states))
	for i, s := range states {
		list[i] = s.state
	}
	return list
}

// row returns the row of a state. A state that this release does not know, and the zero state, have
// an empty one.
func (s State) row() *stateRow {
	for i := range states {
		if states[i].state == s {
			return &states[i]
		}
	}
	return &stateRow{step: Nothing, instead: noneIsOn}
}

// Ended reports whether nothing is under way.
func (s State) Ended() bool { return s.row().ended }

// Step returns what the engine does in the state, once the time for it has come.
func (s State) Step() Step { return s.row().step }

// Outcome returns how a rotation in this state ended, as [kms.DescribeRotationResponse] says it;
// empty while it continues without an operator.
func (s State) Outcome() string { return s.row().outcome }

// InsteadOfCancel returns what an operator can do about a rotation of a secret in this state, which
// cannot be cancelled.
func (s State) InsteadOfCancel(secret string) string { return fault.Named(s.row().instead, secret) }

// WayOut returns the commands that end a rotation of a secret in this state, and what each does;
// empty where none is under way.
func (s State) WayOut(secret string) string {
	row := s.row()
	switch {
	case row.cancelled != "":
		return fault.Named("keyturn rotation cancel NAME "+row.cancelled, secret)
	case row.ended:
		return ""
	}
	return s.InsteadOfCancel(secret)
}

// InFlight reports whether a rotation is under way, or stuck.
func (r Record) InFlight() bool { return r.State != "" && !r.State.Ended() }

// Probeable reports whether the engine may ask the target about the credential in use: it is not
// being changed.
func (r Record) Probeable() bool { return !r.InFlight() || r.State == InGrace }

// ProbePending reports whether the engine is to ask the target about the credential in use as soon
// as its limits allow. A probe that a caller has asked for stays pending while a rotation runs.
func (r Record) ProbePending(now time.Time) bool {
	switch h := r.Health; {
	case r.State == Quarantined, h.NextAt.IsZero():
		return false
	case h.Wanted:
		return true
	default:
		return r.Probeable() && h.IsDue(now)
	}
}

// Unsent reports whether no candidate of the rotation was sent to the target.
func (r Record) Unsent() bool { return r.InFlight() && r.Attempt == 0 }

// HasSentNothing reports whether the target has nothing of the rotation under way.
func (r Record) HasSentNothing() bool {
	step := r.State.Step()
	return (step == Prepare || step == Send) && !r.MayHaveArrived()
}

// IsChanging reports whether the credential in use is being changed, so that a login with it would
// say nothing of it.
func (r Record) IsChanging() bool {
	switch r.State.Step() {
	case Prepare, Send, Expire:
		return false
	}
	return r.GoesOn()
}

// MayHaveArrived reports whether an attempt with the candidate was accepted by the target, or not
// answered. It was not if every attempt ended before anything was sent, such as at a lock there.
func (r Record) MayHaveArrived() bool { return r.Attempt > 0 && r.Doubtful }

// GoesOn reports whether the engine has something left to do for the rotation.
func (r Record) GoesOn() bool { return r.InFlight() && r.State != Quarantined }

// BlocksReads reports whether reads of the secret wait: the current credential may have stopped
// working a moment ago. A quarantined one that the target is asked about again was not changed.
func (r Record) BlocksReads() bool {
	asked := r.Mode == Reapply && r.Attempt == 0
	return r.Strategy == target.Single && r.State.row().blocksReads && !asked
}

// Pending reports whether the candidate carries the pending label.
func (r Record) Pending() bool {
	return r.State.row().pending && r.Mode != Reapply && (r.State != Quarantined || r.Candidate != "")
}

// WaitsFor returns what must happen before the rotation continues; empty when none is under way.
// consumers is how many still hold the previous credential and delay the end of the grace period.
func (r Record) WaitsFor(consumers int, now time.Time) string {
	text := r.State.row().waitsFor
	switch {
	case text == "":
		return ""
	case r.State == Scheduled && r.Paused:
		return "the end of the pause"
	case r.State == InGrace && consumers > 0:
		deadline := r.GraceDeadline.UTC().Format(time.RFC3339)
		return fmt.Sprintf("%d of its consumers, until %s at the latest", consumers, deadline)
	case r.NextAt.After(now):
		if r.State == Prepared && r.Failures+r.Rejections == 0 && !r.Cancelled {
			text = r.untried(now)
		}
		return text + ", at " + r.NextAt.UTC().Format(time.RFC3339)
	}
	return text
}

// untried says what a rotation waits for before its first attempt.
func (r Record) untried(now time.Time) string {
	if r.LoginAt(now).After(r.SettledAt(now)) {
		return "the end of the minute after a failed login"
	}
	return "the end of what was sent to the target before"
}

// Step is what the engine does next.
type Step string

// The steps.
const (
	// Nothing: an operator must decide, or all is done.
	Nothing Step = "nothing"
	// Wait until NextAt, and in a grace period until the credential in use is to be checked.
	Wait Step = "wait"
	// Prepare makes a candidate and stores it: event Stored.
	Prepare Step = "prepare"
	// Send gives the candidate to the target. The event Sending is stored first, then the effect, then
	// the target's answer.
	Send Step = "send"
	// Resolve finds out which credential is live: event Resolved.
	Resolve Step = "resolve"
	// Verify logs in with the candidate.
	Verify Step = "verify"
	// Promote moves the labels: event Promoted, in the same transaction.
	Promote Step = "promote"
	// CheckBase logs in with the base, for an undo.
	CheckBase Step = "check base"
	// Expire asks who still holds the previous credential: event Awaiting while a consumer does. Else
	// it stores that the grace period is over, before anything is taken away: event Expired, or
	// Overran at the deadline. From then on there is no undo.
	Expire Step = "expire"
	// Retire makes the base useless at the target.
	Retire Step = "retire"
	// Revert takes the candidate away from the target, and restores the base where it was replaced.
	Revert Step = "revert"
	// Clear lets the target take back what the attempts of a cancelled rotation may have left: event
	// Cleared.
	Clear Step = "clear"
)

// Steps returns the steps that Plan can return.
func Steps() []Step {
	return []Step{
		Nothing, Wait, Begin, CheckHealth, Prepare, Send, Resolve, Verify, Promote, CheckBase, Expire, Retire, Revert,
		Clear,
	}
}

// Plan says what to do next with a record that no engine is working on.
func Plan(r Record, now time.Time) Step {
	switch {
	case r.leaves() && !r.Then.At.After(now):
		return Begin
	case r.State == InGrace && r.NextAt.After(now) && !r.Health.NextAt.IsZero() && !r.Health.NextAt.After(now):
		return CheckHealth
	case r.InFlight() && r.NextAt.After(now):
		return Wait
	case r.State == Prepared && r.Cancelled:
		return Clear
	}
	return r.State.row().step
}
