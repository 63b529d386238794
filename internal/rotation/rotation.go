// Package rotation holds the rules of replacing a credential at its target and in its secret: the
// states, what moves a rotation from one to the next, and when the next one is due.
//
// It is pure. Plan says what to do next; the engine does it, and Next says what follows from the
// outcome. The engine stores the record before every effect and after it, so a record shows at any
// instant what may have happened. The invariants that this must uphold are in docs/rotation.md;
// package explore walks the interleavings of crashes, lost replies, faults and interference and
// looks for a breach of one.
package rotation

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// Trigger is why a rotation began.
type Trigger string

// The triggers.
const (
	Manual    Trigger = "manual"
	Automatic Trigger = "automatic"
	// Emergency means that the credential in use may have leaked: there is no grace.
	Emergency Trigger = "emergency"
)

// Mode is what a rotation is for.
type Mode string

// The modes.
const (
	// Rotate replaces the credential.
	Rotate Mode = "rotate"
	// Rehearse does everything but the promotion and takes it back.
	Rehearse Mode = "rehearse"
	// Reapply gives the target again the credential that it should have: a repair.
	Reapply Mode = "reapply"
)

// Bounds of one rotation.
const (
	// MaxCandidates is how many candidates the target may refuse before a rotation is abandoned.
	MaxCandidates = 5
	// MaxAttempts is how often one candidate is sent.
	MaxAttempts = 10
	// MaxRejections is how often a login may be rejected before that decides: a candidate that the
	// target has taken is taken back, and a credential in use counts as changed elsewhere.
	MaxRejections = 3
	// MaxUndecided is how often in a row a target may give answers that decide nothing before the
	// engine stops asking and takes the safe way: what was not sent is abandoned, what the target has
	// taken is taken back. A target that does not answer does not count.
	MaxUndecided = 10
	// LoginWindow is the time in which the engine causes at most one failed login of an account. The
	// exceptions: a login without an answer, which is repeated with a back-off; about ten logins at a
	// replica within its lag, with waits that double; the login with the base version that follows a
	// rejected candidate, once in a rotation; an engine that is killed after a failed login, before it
	// has stored it; and the login with a credential that a caller has the service adopt, which waits
	// for those before it and not for the engine's. A clock that is set forward shortens the window.
	LoginWindow = time.Minute
	// Settle is how long after its answer was lost a target may still carry out what it was asked: the
	// request is on its way, or waits for a lock there. Before that, "does not have it" is not
	// believed.
	Settle = 5 * time.Second

	firstBackoff = time.Second
	maxBackoff   = 5 * time.Minute
	firstRetry   = 15 * time.Minute // after a rotation that was abandoned
	maxRetry     = 6 * time.Hour
	maxSteps     = 64
)

// Record is what is stored of a secret's rotation: one that is under way, or the last one.
type Record struct {
	Account string `json:"account"`
	Secret  string `json:"secret"`

	// ID identifies the rotation: the version that the caller named, or one made by the engine. A
	// refused candidate is followed by another, with a suffix; the rotation's ID stays.
	ID       string          `json:"id,omitempty"`
	State    State           `json:"state"`
	Mode     Mode            `json:"mode,omitempty"`
	Trigger  Trigger         `json:"trigger,omitempty"`
	Strategy target.Strategy `json:"strategy,omitempty"`
	Target   string          `json:"target,omitempty"`
	// Candidate is the version being prepared, Base the one that it replaces.
	Candidate string `json:"candidate,omitempty"`
	Base      string `json:"base,omitempty"`
	// Fence is the token of the engine that wrote the record last: a later engine has a greater one.
	Fence int64 `json:"fence,omitempty"`
	// Seq increases with each write that outdates the engine's step, see [Record.Outdates].
	Seq int64 `json:"seq,omitempty"`

	Attempt    int  `json:"attempt,omitempty"`    // sends of this candidate
	Candidates int  `json:"candidates,omitempty"` // candidates so far
	Rejections int  `json:"rejections,omitempty"` // logins refused to a candidate that the target took
	Failures   int  `json:"failures,omitempty"`   // in a row, for back-off
	Abandons   int  `json:"abandons,omitempty"`   // rotations abandoned in a row
	Swapped    bool `json:"swapped,omitempty"`    // an undo has exchanged candidate and base
	// Cancelled says that an operator cancelled the rotation. It is Prepared until the target holds
	// nothing of an attempt.
	Cancelled bool `json:"cancelled,omitempty"`
	// Doubtful says that the target may have, or has had, the candidate: an attempt was not answered,
	// or was accepted.
	Doubtful bool `json:"doubtful,omitempty"`
	// GraceOver says, in Undoing, that the base was being retired when the undo began.
	GraceOver bool `json:"grace_over,omitempty"`
	// BaseRejected says that the target was asked what is live because it has rejected logins with the
	// base: the candidate is not sent again then.
	BaseRejected bool `json:"base_rejected,omitempty"`

	Grace

	StartedAt     time.Time `json:"started_at,omitzero"`
	PromotedAt    time.Time `json:"promoted_at,omitzero"`
	GraceUntil    time.Time `json:"grace_until,omitzero"` // not before
	GraceDeadline time.Time `json:"grace_limit,omitzero"` // not after, whatever consumers hold
	EndedAt       time.Time `json:"ended_at,omitzero"`
	// NextAt is when the engine goes on; zero means now for what is under way.
	NextAt time.Time `json:"next_at,omitzero"`
	// LoginFailedAt is when the engine last caused a failed login.
	LoginFailedAt time.Time `json:"login_failed_at,omitzero"`
	// Imposed says that an operator had the candidate sent again out of a quarantine, where the target
	// accepts the base no more than the candidate, or nothing is known.
	Imposed bool `json:"imposed,omitempty"`
	// HeldAt is when reads were blocked last, and Hold how long they may be: past that, a change that
	// is not proven is taken back.
	HeldAt time.Time     `json:"held_at,omitzero"`
	Hold   time.Duration `json:"hold,omitempty"`
	// Lag is how long the replicas may need to learn of the candidate, and CopiesAt when the target
	// accepted it, as long as a replica does not.
	Lag      time.Duration `json:"lag,omitempty"`
	CopiesAt time.Time     `json:"copies_at,omitzero"`
	// SentAt is when something was sent to the target that may be under way still: it was not
	// answered, or not yet.
	SentAt time.Time `json:"sent_at,omitzero"`

	Aftermath

	// Due is when the next automatic rotation is due; zero means never.
	Due time.Time `json:"due,omitzero"`
	// Paused says that nothing new begins, and Pause who asked for that; nil for a pause that an
	// earlier release stored, and for one by the engine.
	Paused bool   `json:"paused,omitempty"`
	Pause  *Pause `json:"pause,omitempty"`
	// Overdue says that it was reported that a due rotation has not been made.
	Overdue bool `json:"overdue,omitempty"`
	// AdminWait says that the rotation waits until the administrator of its target, who was rejected,
	// may be tried.
	AdminWait bool `json:"admin_wait,omitempty"`
	// FailingSince is when a step failed first: one of the rotation before its promotion, or of the
	// retirement after it. It is zero if none has, and for what does not go on. FailingReported says
	// that [NoticeFailing] was given.
	FailingSince    time.Time `json:"failing_since,omitzero"`
	FailingReported bool      `json:"failing_reported,omitempty"`
	// Interrupted is the rotation that a repair interrupts; nil for none.
	Interrupted *Interrupted `json:"interrupted,omitempty"`
	// Quarantine is the quarantine out of which an undo, or an emergency whose credential is not
	// current yet, began; nil for none.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	// GivenUp is the ID of the emergency that has replaced nothing and was given up in this
	// quarantine; empty for none.
	GivenUp string `json:"ended,omitempty"`
	// TakenOverBy has the IDs of the last emergencies that have taken over the rotation: a repeated
	// request of one begins no other.
	TakenOverBy []string `json:"taken_over_by,omitempty"`
	// Then is an emergency rotation that waits for the end of this one.
	Then *Request `json:"then,omitempty"`

	Health Health `json:"health,omitzero"`
	// Preparing has what completes the preparation of the accounts until they are proven equal; nil
	// for none, and in a record of an earlier release.
	Preparing *Preparing `json:"preparing,omitempty"`
	// Clone is the account that PrepareTargetAccounts has made beside the other, or found there;
	// empty for none.
	Clone string `json:"clone,omitempty"`
	// Check is the result of the last check; nil before the first one.
	Check *Check `json:"check,omitempty"`
	// Accepted is the version whose credential the target was last seen to accept; empty for none.
	Accepted string `json:"accepted,omitempty"`
	// Retired is the version whose credential a rotation with two accounts made useless last; empty
	// when its account may have got another one since.
	Retired string `json:"retired,omitempty"`
	// BaseAccepted reports that the target had accepted the base when the candidate was stored.
	BaseAccepted bool `json:"base_accepted,omitempty"`
	// Reason says in words why the rotation is where it is, when something is wrong.
	Reason string `json:"reason,omitempty"`
	// Steps are what was done when, oldest first; of a long story the middle is left out.
	Steps []Entry `json:"steps,omitempty"`
}

// Aftermath is what a rotation has found out about the credential that it replaces, and about what
// stays at the target.
type Aftermath struct {
	// Waiting is how many consumers held another version when the end of the grace was put off last,
	// or at its deadline.
	Waiting int `json:"waiting,omitempty"`
	// BaseRetired says that the base was made useless at the target.
	BaseRetired bool `json:"base_retired,omitempty"`
	// PreviousDeadAt is when the target rejected the previous credential, or its account may have got
	// another one; zero if neither is known. Only texts use it: they stop advising an undo.
	PreviousDeadAt time.Time `json:"previous_dead_at,omitzero"`
	// NoSession is what the target answered when it refused the session of a candidate after the
	// login, which an emergency promotes nevertheless; empty for none.
	NoSession string `json:"no_session,omitempty"`
	// Foreign says in sentences which password that Keyturn did not set the account of the previous
	// credential has, or had.
	Foreign string `json:"foreign,omitempty"`
	// Outlasts says in sentences what the holder of the leaked credential can use after this
	// emergency, and what to do; empty for nothing.
	Outlasts string `json:"outlasts,omitempty"`
	// Earlier is the previous credential of the rotation whose end this emergency has waited for, or
	// that it has left interrupted; nil for none.
	Earlier *Earlier `json:"earlier,omitempty"`
}

// Earlier is a credential that a rotation has replaced before the one of the record.
type Earlier struct {
	Version string `json:"version"`
	// Retired says that it is useless. It may not be where its retirement was cancelled.
	Retired bool `json:"retired,omitempty"`
}

// Health is what is known of the credential in use.
type Health struct {
	// ProbedAt is when the target last answered, and Live what it said.
	ProbedAt time.Time `json:"probed_at,omitzero"`
	Live     bool      `json:"live,omitempty"`
	// TriedAt is when the engine last tried to ask it, whatever came of that.
	TriedAt time.Time `json:"tried_at,omitzero"`
	// NextAt is when the engine asks it again, or later if its limits require; zero means never.
	NextAt time.Time `json:"next_at,omitzero"`
	// DueAt is when the probe is due, where NextAt is another time: sooner, because a caller has asked
	// for a probe, or later, because of the limits of the engine. Zero means at NextAt, and where
	// Wanted is set never.
	DueAt time.Time `json:"due_at,omitzero"`
	// Wanted says that a caller has asked for a probe, which is made as soon as the limits of the
	// engine allow.
	Wanted bool `json:"wanted,omitempty"`
	// Silent counts the probes in a row that decided nothing, and Text is what the last of them met.
	Silent int    `json:"silent,omitempty"`
	Text   string `json:"text,omitempty"`
}

// The words for what the target said last of the credential in use.
const (
	CredentialLive    = "live"
	CredentialDead    = "dead"
	CredentialUnknown = "unknown" // it has not answered yet
)

// State is the word for what the target said last.
func (h Health) State() string {
	switch {
	case h.ProbedAt.IsZero():
		return CredentialUnknown
	case h.Live:
		return CredentialLive
	}
	return CredentialDead
}

// IsDue reports whether the probe is due, and not only asked for by a caller.
func (h Health) IsDue(now time.Time) bool {
	due := h.due()
	return !due.IsZero() && !due.After(now)
}

// due returns when the probe is due; zero for one that only a caller has asked for.
func (h Health) due() time.Time {
	if h.DueAt.IsZero() && !h.Wanted {
		return h.NextAt
	}
	return h.DueAt
}

// until returns the health with a probe that the engine makes at a time, which leaves it as due as
// it was.
func (h Health) until(at time.Time) Health {
	h.DueAt, h.NextAt = h.due(), at
	return h
}

// dueAt returns the health with a probe that is due at a time; without one if none is ever made.
func (h Health) dueAt(at time.Time) Health {
	if !h.NextAt.IsZero() {
		h.NextAt, h.DueAt = at, at
	}
	return h
}

// AskedProbe returns the record after a caller has asked for a probe. One that is due keeps its
// turn.
func (r Record) AskedProbe(now time.Time) Record {
	at := now
	if h := r.Health; h.IsDue(now) && !h.NextAt.Before(now) {
		at = h.NextAt
	}
	r.Health = r.Health.until(at)
	r.Health.Wanted = true
	return r
}

// PutOffProbe returns the record after the engine has found that its limits allow no probe before
// at. A probe that a caller has asked for is made no later than it would be without that.
func (r Record) PutOffProbe(at, now time.Time) Record {
	if due := r.Health.DueAt; due.After(now) && due.Before(at) {
		at = due
	}
	r.Health = r.Health.until(at)
	return r
}

// Request asks for a rotation.
type Request struct {
	ID      string  `json:"id"`
	Mode    Mode    `json:"mode"`
	Trigger Trigger `json:"trigger"`
	Grace   Grace   `json:"-"` // see MarshalJSON
	// At is the earliest time to begin.
	At time.Time `json:"at,omitzero"`
	// Outlasts is what a check at the request of an emergency has found, as [Aftermath] has it.
	Outlasts string `json:"outlasts,omitempty"`
}

// storedRequest is a request as it is stored: the names of its grace period are not those in a
// [Record].
type storedRequest struct {
	plainRequest
	Min time.Duration `json:"grace,omitempty"`
	Max time.Duration `json:"wait,omitempty"`
}

// plainRequest is a Request without its methods.
type plainRequest Request

// MarshalJSON writes the request under its stored names.
func (q Request) MarshalJSON() ([]byte, error) {
	return json.Marshal(storedRequest{plainRequest(q), q.Grace.Min, q.Grace.Max})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (q *Request) UnmarshalJSON(data []byte) error {
	var s storedRequest
	err := json.Unmarshal(data, &s)
	*q = Request(s.plainRequest)
	q.Grace = Grace{Min: s.Min, Max: s.Max}
	return err
}

// Begin starts a rotation on a record on which none is under way.
func (r Record) Begin(q Request, now time.Time) Record {
	next := Record{
		Account:       r.Account,
		Secret:        r.Secret,
		ID:            q.ID,
		State:         Scheduled,
		Mode:          q.Mode,
		Trigger:       q.Trigger,
		Grace:         q.Grace,
		Target:        r.Target,
		StartedAt:     now,
		NextAt:        q.At,
		Due:           r.Due,
		Paused:        r.Paused,
		Pause:         r.Pause,
		Abandons:      r.Abandons,
		Health:        r.Health,
		Check:         r.Check,
		Preparing:     r.Preparing,
		Clone:         r.Clone,
		Accepted:      r.Accepted,
		Retired:       r.Retired,
		LoginFailedAt: r.LoginFailedAt,
		SentAt:        r.SentAt,
		Fence:         r.Fence,
		Seq:           r.Seq,
		Overdue:       r.Overdue,
	}
	if q.Trigger == Emergency {
		next = next.graceless()
		next.Outlasts, next.Earlier = q.Outlasts, r.replaced()
	}
	if r.canLeave() {
		next.Interrupted, next.Quarantine = r.Interrupted, r.left()
	}
	return next.note(now, Begun, string(q.Trigger))
}

// replaced returns the previous credential of a rotation that has ended for an emergency, or that
// an emergency leaves; nil where it has none that may work beside the one in use.
func (r Record) replaced() *Earlier {
	switch {
	case r.canLeave() && r.Interrupted != nil:
		return &Earlier{Version: r.Interrupted.Base}
	case r.Then != nil && r.State == Done && r.Mode == Rotate && r.Strategy != target.Single:
		return &Earlier{Version: r.Base, Retired: r.BaseRetired}
	}
	return nil
}

// graceless is a rotation whose old credential is retired at once.
func (r Record) graceless() Record {
	r.Grace = Grace{}
	return r
}

// Urgent makes of a rotation that is under way one for a credential that may have leaked. outlasts
// is as in [Aftermath].
func (r Record) Urgent(outlasts string) Record {
	r.Trigger, r.Outlasts = Emergency, outlasts
	return r.graceless()
}

// Outdates reports whether a step that an engine has decided on with the record before no longer
// holds with r. A pause, the time of the next rotation and the result of a check, with the login
// that it has made, outdate no step and no probe: a caller who changes them without end would take
// the results of all of them. The engine compares what the beginning of a step depends on.
func (r Record) Outdates(before Record) bool {
	for _, record := range []*Record{&r, &before} {
		record.Seq, record.Due, record.Paused, record.Pause = 0, time.Time{}, false, nil
		record.Check, record.LoginFailedAt = nil, time.Time{}
	}
	return !reflect.DeepEqual(r, before)
}

// note appends to the history. A step that repeats itself has one entry, with its last time.
func (r Record) note(now time.Time, event EventKind, text string) Record {
	steps := make([]Entry, 0, len(r.Steps)+1)
	steps = append(steps, r.Steps...)
	if n := len(steps); n > 0 && steps[n-1].Event == event && steps[n-1].Text == text && steps[n-1].State == r.State {
		steps[n-1].At = now
		r.Steps = steps
		return r
	}
	steps = append(steps, Entry{At: now, State: r.State, Event: event, Text: text})
	if len(steps) > maxSteps {
		steps = append(steps[:maxSteps/4:maxSteps/4], steps[len(steps)-maxSteps*3/4:]...)
	}
	r.Steps = steps
	return r
}

// Backoff is the time to wait after a number of failures in a row, before jitter: 1 s, 2 s, 4 s … 5
// min.
func Backoff(failures int) time.Duration {
	if failures < 1 {
		return 0
	}
	return min(maxBackoff, firstBackoff<<min(failures-1, 20))
}

// Retry is the time until the next try after a number of abandoned rotations in a row, before
// jitter: 15 min … 6 h.
func Retry(abandons int) time.Duration {
	return min(maxRetry, firstRetry<<min(max(abandons, 1)-1, 20))
}

// Seen is the record after the target was seen to accept the credential in use: the one of that
// version.
func (r Record) Seen(version string, now, next time.Time) Record {
	r.Accepted = version
	r.Health = Health{ProbedAt: now, Live: true, TriedAt: now, NextAt: next}
	return r
}

// proven notes that the target has accepted the credential in use by then, which leaves what was
// known of the one before behind.
func (r Record) proven(at time.Time) Record {
	r.Health = r.Health.answered(at, true)
	return r
}

// answered returns the health after the target has said whether it accepts the credential in use.
// The next probe stays as it was.
func (h Health) answered(at time.Time, live bool) Health {
	return Health{ProbedAt: at, Live: live, TriedAt: at, NextAt: h.NextAt, DueAt: h.DueAt, Wanted: h.Wanted}
}

// provenAt returns when the candidate was proven last, or now if that is not known.
func (r Record) provenAt(now time.Time) time.Time {
	for _, e := range slices.Backward(r.Steps) {
		if e.Event.proves() && !e.At.After(now) {
			return e.At
		}
	}
	return now
}

// Repairable reports whether a repair may send the candidate of a quarantined rotation: the target
// has accepted it before, or this service generated it. A credential that a caller chose is never
// imposed on an account that has not accepted it.
func (r Record) Repairable(generated bool) bool {
	return r.Candidate != "" && (generated || r.Accepted == r.Candidate)
}

// Adopted ends a quarantine with a version that was shown to authenticate. lastFailed is when a
// login of the engine failed last (LoginFailedAt before [Record.Trying]): the login that has
// succeeded does not count, and the one before still does. goesOn says that the interrupted
// rotation goes on with that version, see [Record.Outlives].
func (r Record) Adopted(version string, goesOn bool, lastFailed, now time.Time) Record {
	if goesOn {
		r = r.repaired(now)
	} else {
		r = r.to(Done).outOfQuarantine()
		r.NoSession, r.Outlasts, r.EndedAt = "", "", now // of a credential that is not in use
	}
	r.Candidate, r.Accepted, r.LoginFailedAt = version, version, lastFailed
	r.Check = r.Check.afterRepair()
	r.Health = Health{ProbedAt: now, Live: true, TriedAt: now, NextAt: r.Health.NextAt}
	return r.note(now, Adopted, "")
}

// Trying is a record of which a credential that a caller gives is about to be tried: the engine
// takes it for a failed login.
func (r Record) Trying(now time.Time) Record {
	r.LoginFailedAt = now
	return r
}

// NotFailed is the record after the login that [Record.Trying] has reserved did not fail. The
// first probe and one that a caller has asked for wait no longer. lastFailed is when a login
// failed before.
func (r Record) NotFailed(lastFailed, now time.Time) Record {
	r.LoginFailedAt = lastFailed
	if h := r.Health; (h.Wanted || h.ProbedAt.IsZero()) && h.NextAt.After(now) {
		r.Health = h.until(now)
	}
	return r
}

// Restored returns a record of a store that was restored from a backup. Its statement about the
// credential in use may be outdated: the engine checks the target as soon as nothing is under way,
// and repeats the login with a candidate that was not promoted yet.
func (r Record) Restored(now time.Time) Record {
	r.Health = Health{NextAt: now}
	if r.State == Verified {
		r = r.to(Applied).quiet(now)
	}
	return r.note(now, Restored, "")
}

// Why returns in words why the rotation is where it is, when something is wrong; of one that has
// ended also why the credential in use could not be checked. A session that was refused, a password
// that Keyturn did not set, an earlier credential that may still work, and what outlasts an
// emergency, come after that; the last two once it has ended.
func (r Record) Why() string {
	why := r.Reason
	if why == "" && r.Probeable() && r.Health.Text != "" && r.Health.Text != waitsForLogin {
		why = "The last check of the credential in use decided nothing: " + r.Health.Text + "."
	}
	session := ""
	if r.NoSession != "" {
		session = "After the login with the new credential the target refused the session: " + r.NoSession +
			". Applications may get the same answer: correct what it names"
	}
	earlier, outlasts := "", r.Outlasts
	if r.GoesOn() { // nothing is wrong with the rotation
		outlasts = ""
	} else if r.Earlier != nil && !r.Earlier.Retired && r.Interrupted == nil {
		earlier = "The target may still accept the credential of version " + r.Earlier.Version +
			", because its retirement was cancelled before this emergency: remove it at the target"
	}
	return strings.TrimSpace(sentences(why, session, r.Foreign, earlier) + " " + outlasts)
}

// sentences joins texts that are not empty; each ends with a period then.
func sentences(texts ...string) string {
	var list []string
	for _, text := range texts {
		if text = strings.TrimSuffix(text, "."); text != "" {
			list = append(list, text+".")
		}
	}
	return strings.Join(list, " ")
}

// OwnUsers is the name of the target of secrets with access keys of this service itself. It is not
// registered, so no command takes it.
const OwnUsers = "ram"

// Advice returns what an operator can do about the state; empty where there is nothing to do.
func (r Record) Advice() string {
	switch {
	case r.State == Quarantined:
		text := r.State.InsteadOfCancel(r.Secret) + " With --probe: the target was fixed by hand, check it again. " +
			"With --apply: give the target the stored credential again, if the target has accepted it before or the " +
			"service has generated it. With --adopt FILE: store a credential that the target accepts."
		switch {
		case !r.graceInterrupted():
			return text
		case !r.PreviousDeadAt.IsZero():
			return text + " An undo would probably fail: the target has rejected the previous credential, or its account may " +
				"have got another one, at " + r.PreviousDeadAt.UTC().Format(time.RFC3339) + "."
		}
		return text + " The previous credential is not retired yet: " + fault.Command("rotation undo", r.Secret) +
			" makes it current again if the target accepts it."
	case r.Cancelled:
		return "It is cancelled as soon as the target has said what it has, and has taken back what an attempt may " +
			"have left there. The service retries that automatically, at least every five minutes. Where that has failed, " +
			"another " + fault.Command("rotation cancel", r.Secret) + " does not wait for the target."
	case r.State == InGrace && r.Waiting > 0:
		undo := "; keyturn rotation undo NAME makes it current again."
		if !r.PreviousDeadAt.IsZero() {
			undo = "."
		}
		return fault.Named("keyturn secret consumers NAME --behind lists the consumers that hold another version. keyturn "+
			"rotation end-grace NAME retires the previous credential although they hold it"+undo, r.Secret)
	case r.RejectsBase():
		text := "The credential in use was probably changed outside of Keyturn. Without waiting for the quarantine: " +
			"keyturn rotation cancel NAME ends this rotation, keyturn rotation probe NAME then asks the target about that " +
			"credential"
		if at := r.LoginAt(r.LoginFailedAt); !at.IsZero() {
			text += " (from " + at.UTC().Format(time.RFC3339) + " on)"
		}
		return fault.Named(text+", and keyturn rotation repair NAME shows what can be done. If the target was at fault "+
			"and is fixed, keyturn rotation retry NAME tries again now.", r.Secret)
	case r.CanHurry() && r.Target == OwnUsers:
		return "The service retries automatically, at least every five minutes. " +
			fault.Command("rotation check", r.Secret) + " shows what keeps the user from getting another access key. " +
			r.State.WayOut(r.Secret)
	case r.CanHurry(): // the next try may be minutes away
		return "The service retries automatically, at least every five minutes. Check that the target can be " +
			"reached and its administrator can log in (" + fault.Command("target test", cmp.Or(r.Target, "TARGET")) +
			"), that the administrator may change the account, and that applications can log in. " +
			fault.Command("rotation retry", r.Secret) + " tries again now. " + r.State.WayOut(r.Secret)
	case r.State == Abandoned && r.Trigger == Emergency && r.Reason != cancelled:
		return "The leaked credential was not replaced. Fix what the reason names, and then repeat " +
			fault.Command("rotation emergency", r.Secret) + "."
	case r.State == Abandoned && r.Mode == Rotate && r.Reason != cancelled:
		return "Nothing has changed at the target. Fix what the reason names. An automatic rotation is retried; " +
			fault.Command("rotation rotate", r.Secret) + " tries at once."
	}
	return ""
}

// Drifted returns the record after the target was found not to accept the credential in use: it was
// changed outside of the service. An operator decides. A repair gives the target the stored
// credential again, and the rotation that was in its grace period, or at the retirement, goes on.
func (r Record) Drifted(
	current, targetName string, strategy target.Strategy, text string, now time.Time,
) Record {
	r = r.quarantine(current, targetName, strategy, now)
	r.Health = Health{ProbedAt: now, TriedAt: now, NextAt: now} // a quarantined record wakes only after the repair
	cause := "It was changed outside of Keyturn."
	if r.Accepted != current {
		cause = "No login with it has succeeded yet: it was stored with a mistake, or changed outside of Keyturn."
	}
	cause += " If its account was closed there, for example because it has expired, " +
		fault.Command("rotation check", r.Secret) + " says so."
	r.Reason = "The target does not accept the credential in use: " + strings.TrimSuffix(text, ".") + ". " + cause
	return r.note(now, Drift, text)
}

// quarantine returns the record of a credential in use that the target does not accept, since when
// that is known.
func (r Record) quarantine(current, targetName string, strategy target.Strategy, since time.Time) Record {
	none := time.Time{}
	if r.Interrupted = r.interrupted(); r.Interrupted == nil {
		r.ID = ""
	}
	r.State, r.Mode, r.Trigger, r.Quarantine = Quarantined, Reapply, "", nil
	r.Target, r.Strategy = targetName, strategy
	r.Candidate, r.Base = current, current
	r.Attempt, r.Candidates, r.Rejections, r.Failures = 0, 0, 0, 0
	r.StartedAt, r.PromotedAt, r.EndedAt, r.NextAt = since, none, none, none
	r.GraceUntil, r.GraceDeadline, r.GraceOver = none, none, false
	return r
}
