package rotation

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// Event is the outcome of a step, or what an operator asked for.
type Event struct {
	Kind EventKind
	// Candidate and Base say, for Resolved, whether the target accepts the candidate and the base.
	// Candidate is Dead, for NoLogin and Failed, if the target's own state does not have it.
	Candidate, Base target.Liveness
	// Version and Replaces are the new candidate and the base, for Stored; Strategy and Target how and
	// where.
	Version, Replaces string
	Strategy          target.Strategy
	Target            string
	// Text is what the target said; it holds no secret.
	Text string
	// Jitter is drawn from [0, 1): back-off is between half and all of its time.
	Jitter float64
	// LoginFailed says that the step has caused a failed login.
	LoginFailed bool
	// Settled says that no request is under way, because the target has taken it back.
	Settled bool
	// Consumers is how many consumers still hold the previous credential, for Awaiting and Overran,
	// and Until when all of them count as gone.
	Consumers int
	Until     time.Time
	// After is the least time until the next try, where the back-off would be shorter.
	After time.Duration
	// BaseRetired says, for Unready, that the base was made useless at the target before.
	BaseRetired bool
	// Answered says, for a step that is tried again, that a system of the target's kind has answered.
	Answered bool
	// Checked reports, for Sending and Retired, that the account was checked just before. Outlasts is
	// the result, as [Aftermath] has it.
	Checked  bool
	Outlasts string
	// NoSession is what the target answered, for Proven, if it refused a session after the login;
	// empty if its own state proves the credential.
	NoSession string
	// ReplacesEarlier says, for LoggedIn and Proven, that the candidate is of the account of
	// [Aftermath.Earlier], which has no other credential.
	ReplacesEarlier bool
	// Hold is how long reads may be blocked, for Sending; zero means not at all.
	Hold time.Duration
	// Lag is how long replicas may need to learn of the credential, for LoggedIn, Proven and
	// CopiesLate; zero without replicas.
	Lag time.Duration
}

// EventKind is the token of an event. Steps are stored under it, metrics are labelled with it, and
// the operations in the audit trail are named after it: a token never changes its meaning.
type EventKind string

// The events of a rotation. Each has a row in the table below.
const (
	Begun      EventKind = "begun"
	Stored     EventKind = "candidate-stored"
	Unready    EventKind = "not-ready"
	Sending    EventKind = "sending"
	Accepted   EventKind = "accepted"
	Unreached  EventKind = "not-reached"
	Denied     EventKind = "denied"
	NoAnswer   EventKind = "no-answer"
	Declined   EventKind = "refused"
	Resolved   EventKind = "resolved"
	LoggedIn   EventKind = "logged-in"
	Proven     EventKind = "proven"
	CopiesLate EventKind = "copies-late"
	NoLogin    EventKind = "login-rejected"
	Promoted   EventKind = "promoted"
	Expired    EventKind = "grace-over"
	Awaiting   EventKind = "waiting-for-consumers"
	Overran    EventKind = "grace-limit-reached"
	Evicting   EventKind = "evicting"
	Retired    EventKind = "retired"
	Reverted   EventKind = "reverted"
	Failed     EventKind = "failed"
	Impossible EventKind = "cannot-begin"
	Cleared    EventKind = "cleared"

	Probed   EventKind = "probe-requested"
	Again    EventKind = "apply-requested"
	Undo     EventKind = "undo-requested"
	EndGrace EventKind = "grace-ended"
	Cancel   EventKind = "cancelled"
	Adopted  EventKind = "adopted"

	// Hurried is [Probed] by the service, because what has failed may be fixed now.
	Hurried EventKind = "target-changed"

	Overdue  EventKind = "overdue"
	Drift    EventKind = "drift-found"
	Restored EventKind = "store-restored"
)

// Recording says how the audit trail has an event.
type Recording uint8

const (
	// RecordedOnce: one record beside the change, under [EventKind.Operation].
	RecordedOnce Recording = iota
	// RecordedTwice: an intent that is on disk before the change, and an outcome after it. For what
	// changes labels or leads to a change at the target.
	RecordedTwice
	// RecordedAsCall: the operation by which an operator asked for it has the record.
	RecordedAsCall
	// NotRecorded: an observation, which changes neither labels nor the target.
	NotRecorded
)

// eventRow is everything that depends on the kind of an event alone.
type eventRow struct {
	kind   EventKind
	record Recording
	text   string // for operators: what happened
	prose  string // how releases that stored prose instead of tokens wrote it; empty where it was the token
}

// events is the table of events, in the order of a rotation.
var events = []eventRow{
	{Begun, RecordedOnce, "the rotation has begun", ""}, // see UnmarshalJSON
	{Stored, RecordedTwice, "the candidate is stored; the target does not have it yet", "candidate stored"},
	{Unready, RecordedOnce, "no login with the credential in use succeeded, so nothing was changed", ""},
	{Sending, RecordedTwice, "the candidate is about to be sent to the target", ""},
	{Accepted, RecordedOnce, "the target has taken the candidate", ""},
	{
		Unreached, RecordedOnce,
		"the target was not reached or not ready for the change, so nothing has happened",
		"not reached",
	},
	{Denied, RecordedOnce, "the target does not allow the change, so nothing has happened", ""},
	{NoAnswer, RecordedOnce, "no clear answer came from the target; it may have the candidate", "no answer"},
	{Declined, RecordedOnce, "the target's rules do not allow the credential", "refused by the target's rules"},
	{Resolved, RecordedOnce, "the target was asked which credential it accepts", ""},
	{LoggedIn, RecordedOnce, "a login with the credential succeeded", "logged in"},
	{Proven, RecordedOnce, "the target accepts the credential, though no session was opened", ""},
	{CopiesLate, RecordedOnce, "a replica does not accept the credential yet", ""},
	{NoLogin, RecordedOnce, "a login with the credential was rejected", "login rejected"},
	{Promoted, RecordedTwice, "the candidate is ACSCurrent", ""},
	{Expired, RecordedOnce, "the grace period is over", "grace period over"},
	{Awaiting, RecordedOnce, "consumers still hold the previous credential", "waits for consumers"},
	{
		Overran, RecordedOnce,
		"the grace period has reached its limit, though consumers hold the previous credential",
		"grace limit reached",
	},
	{
		Evicting, RecordedTwice,
		"another password of the account of the previous credential is about to be removed",
		"",
	},
	{Retired, RecordedTwice, "the target no longer accepts the previous credential", "old credential retired"},
	{Reverted, RecordedOnce, "the target no longer accepts the candidate", "taken back"},
	{Failed, RecordedOnce, "the step has failed and will be tried again", ""},
	{Impossible, RecordedOnce, "the candidate cannot be made or sent; nothing was sent", "cannot begin"},
	{Cleared, RecordedOnce, "the target holds nothing of the attempts", "nothing left of it"},

	{Probed, RecordedAsCall, "an operator asked to check the target again", "probed"},
	{Again, RecordedAsCall, "an operator asked to send the stored credential again", "to be applied again"},
	{Undo, RecordedAsCall, "an operator asked for the previous credential back", "undo asked for"},
	{EndGrace, RecordedAsCall, "an operator ended the grace period", "grace ended"},
	{Cancel, RecordedAsCall, "an operator cancelled the rotation", ""},
	{Adopted, RecordedAsCall, "an operator supplied a credential that the target accepts", "adopted by a person"},

	{Hurried, RecordedOnce, "the target or its administrator has changed, so it is tried again now", ""},

	{Overdue, NotRecorded, "a rotation was due an hour ago", ""},
	{Drift, NotRecorded, "drift found: the target does not accept the credential in use", "drift found"},
	{Restored, NotRecorded, "the store was restored from a backup", "store put back from a copy"},
}

// EventKinds returns the kinds of all events.
func EventKinds() []EventKind {
	list := make([]EventKind, len(events))
	for i, e := range events {
		list[i] = e.kind
	}
	return list
}

func (k EventKind) row() eventRow {
	for _, e := range events {
		if e.kind == k {
			return e
		}
	}
	return eventRow{kind: k}
}

// proves reports whether the event says that the target accepts the credential.
func (k EventKind) proves() bool { return k == LoggedIn || k == Proven }

// Text says what happened, for operators; empty for a kind that this release does not know.
func (k EventKind) Text() string { return k.row().text }

// Recording says how the audit trail has the event.
func (k EventKind) Recording() Recording { return k.row().record }

// Operation returns the name of the event in the audit trail: RotationCandidateStored for
// candidate-stored.
func (k EventKind) Operation() string {
	name := "Rotation"
	for _, word := range strings.Split(string(k), "-") {
		if word != "" {
			name += fault.Capital(word)
		}
	}
	return name
}

// UnmarshalText reads a token, or the prose that earlier releases stored in its place.
func (k *EventKind) UnmarshalText(text []byte) error {
	*k = EventKind(text)
	for _, e := range events {
		if e.prose == string(text) {
			*k = e.kind
		}
	}
	return nil
}

// Entry is one event in the history of a rotation.
type Entry struct {
	At    time.Time `json:"at"`
	State State     `json:"state"` // after the event
	Event EventKind `json:"event"`
	Text  string    `json:"text,omitempty"` // what the target said; of Begun, the trigger
}

// begunBefore is how earlier releases wrote Begun, in front of the trigger.
const begunBefore = "asked for: "

// UnmarshalJSON reads an entry of this release or of an earlier one.
func (e *Entry) UnmarshalJSON(data []byte) error {
	type plain Entry
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	if trigger, ok := strings.CutPrefix(string(e.Event), begunBefore); ok {
		e.Event, e.Text = Begun, trigger
	}
	return nil
}
