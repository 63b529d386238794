package rotation

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// Answer is what a call to a target came to.
type Answer struct {
	// OK says that the call succeeded; Class is the class of the error of one that did not.
	OK    bool
	Class target.Class
	// Text is what callers learn of the error; it holds no secret.
	Text string
}

// deniedPause is the least time until the next try after an administrator was refused: one who is
// tried again and again may be locked out.
const deniedPause = time.Minute

// failed returns the event of a step that is tried again.
func (a Answer) failed() Event {
	e := Event{Kind: Failed, Text: a.Text, Answered: a.Reached()}
	if a.Class == target.Denied {
		e.After = deniedPause
	}
	return e
}

// unsent returns the kind of the event of a change that has not happened.
func (a Answer) unsent() EventKind {
	if a.Reached() {
		return Denied
	}
	return Unreached
}

// Reached reports whether a system of the target's kind has answered: one that says no has.
func (a Answer) Reached() bool {
	return a.OK || a.Class != target.Unknown && a.Class != target.Unreachable
}

// Liveness returns what the answer to a login says of the credential. A session that was refused
// after the login proves the credential as well as one that was opened.
func (a Answer) Liveness() target.Liveness {
	switch {
	case a.OK, a.Class == target.Admitted:
		return target.Live
	case a.Class == target.Rejected:
		return target.Dead
	}
	return target.NotKnown
}

// LoginFailed reports whether the answer to a login begins the window of a failed login. No answer
// does not begin one although it may be a failed login: reads may be blocked meanwhile, and would
// stay blocked for a minute after an interruption of a second. The back-off bounds these logins.
func (a Answer) LoginFailed() bool {
	return !a.OK && a.Class != target.Unknown && a.Class.MayBeFailedLogin()
}

// NotBegun returns the event of a step that could not be begun, so that nothing was sent. final
// says that trying again changes nothing.
//
// Where an attempt may have reached the target, nothing is given up without asking it: the step is
// tried again until an operator has fixed what is in its way.
func NotBegun(r Record, a Answer, final bool) Event {
	e := a.failed()
	switch r.State.Step() {
	case Prepare:
		if final {
			e = Event{Kind: Impossible, Text: a.Text}
		}
	case Send:
		e.Kind = a.unsent()
		if final && !r.MayHaveArrived() {
			e.Kind = Impossible
		}
	}
	return e
}

// AfterSend returns what the target's answer to a candidate means.
func AfterSend(a Answer) Event {
	e := a.failed()
	switch {
	case a.OK:
		return Event{Kind: Accepted}
	// It was not asked, or nothing has happened.
	case a.Class == target.Unreachable, a.Class == target.Denied:
		e.Kind = a.unsent()
	case a.Class == target.Refused:
		e.Kind = Declined
	default:
		e.Kind = NoAnswer
	}
	return e
}

// AfterLogin returns what the target's answer to a login means for r. A session that is refused
// after the login proves the credential. With two accounts that is not enough: what refuses it,
// such as a missing right or a limit, may concern this account alone, and applications would get
// it next. In an emergency it is enough: the holder of the leaked credential may have set the
// limit.
func AfterLogin(r Record, a Answer) Event {
	switch {
	case a.OK:
		return Event{Kind: LoggedIn}
	case r.Strategy == target.Double && a.Class == target.Admitted && r.Trigger != Emergency:
		return a.failed()
	case a.Liveness() == target.Live:
		return Event{Kind: Proven, Text: a.Text, NoSession: a.Text}
	case a.Liveness() == target.Dead:
		return Event{Kind: NoLogin, Text: a.Text, LoginFailed: true}
	}
	e := a.failed()
	e.LoginFailed = a.LoginFailed()
	return e
}

// AsksState reports whether the target's own state decides after e, a login with the candidate.
//
// Where reads are blocked, it decides if the login decided nothing. It does not after a rejection,
// or after an answer that may be one: at an endpoint that refuses what the target's state has, such
// as a pooler with a list of its own, applications are refused too.
//
// Where reads are not blocked, it is asked after an answer that is not a success: the target may
// have the candidate no longer, or not at all hosts of the account, and then it must be sent again.
func (r Record) AsksState(e Event) bool {
	switch {
	case r.State != Applied:
		return false
	case r.Strategy != target.Single:
		return e.Kind == NoLogin || e.Kind == Failed && e.Answered
	}
	refused := e.LoginFailed || r.Rejections > 0 || !r.LoginFailedAt.IsZero() && !r.LoginFailedAt.Before(r.HeldAt)
	return e.Kind == Failed && !refused
}

// AfterState returns what the target's own state of the candidate and of the base means after a
// login with the candidate: e is the event of that login. A target that has neither proves nothing:
// the holder of a leaked credential may have set another one.
func AfterState(r Record, e Event, a Answer, candidate, base target.Liveness) Event {
	switch {
	case !a.OK:
		return e
	case r.Strategy != target.Single:
		if candidate == target.Dead && base == target.Live {
			e.Candidate = target.Dead
			e.Text = strings.TrimSuffix(e.Text, ".") + "; the target's own state does not have the credential"
		}
		return e
	}
	if candidate == target.Live {
		text := "the target's own state has the credential; the login: " + e.Text
		return Event{Kind: Proven, Text: text, LoginFailed: e.LoginFailed}
	}
	return e
}

// WaitsForCopies reports whether the promotion waits for the replicas after e, the event of a
// login. It does not where reads are blocked, and neither does an undo.
func (r Record) WaitsForCopies(e Event) bool {
	return r.State == Applied && r.Strategy != target.Single && e.Kind.proves() && e.Lag > 0
}

// AfterCopies returns the event e of a login when the replicas accept the credential, too, and else
// that one does not yet.
func AfterCopies(e Event, a Answer) Event {
	if a.Liveness() == target.Live {
		return e
	}
	return Event{Kind: CopiesLate, Text: a.Text, Lag: e.Lag, Answered: a.Reached()}
}

// NeedsBase reports whether a login with the base must succeed before the candidate is sent: the
// change destroys the only credential of the account. The login shows that the one that is
// destroyed is the one that applications use, and that a login with its successor can succeed. A
// repair has nothing to destroy, and the purpose of an emergency is that the base stops working.
func (r Record) NeedsBase() bool {
	return r.State == Prepared && r.Strategy == target.Single && r.Mode != Reapply && !r.Imposed &&
		r.Trigger != Emergency
}

// NeedsCandidate reports whether a login with the candidate must succeed before the base is
// retired. It need not where an emergency waits to replace the candidate, which may have leaked.
func (r Record) NeedsCandidate() bool { return r.Then == nil }

// MayRetire reports whether the base may be retired although no login with the candidate has just
// succeeded: e is the event of that login, or of the wait for its window, and was no rejection; the
// target's own state (a, live) has the candidate.
func MayRetire(e Event, a Answer, live target.Liveness) bool {
	return e.Base != target.Dead && a.OK && live == target.Live
}

// Before returns the event of a login that must succeed before a credential is destroyed; ready is
// true when it has succeeded, and then there is no event. The credential is the base before a send,
// and the candidate before the base is retired.
func Before(a Answer) (e Event, ready bool) {
	switch a.Liveness() {
	case target.Live:
		return Event{}, true
	case target.Dead:
		return Event{Kind: Unready, Text: a.Text, LoginFailed: true, Base: target.Dead, Answered: true}, false
	}
	e = a.failed()
	e.Kind, e.LoginFailed = Unready, a.LoginFailed()
	return e, false
}

// BaseDead returns the event of a send that did not begin, because the target's own state says that
// it does not accept the base. Unlike a rejected login, this is not retried.
func BaseDead() Event {
	return Event{Kind: Unready, Text: "its own state says so", Base: target.Dead, Answered: true}
}

// AfterClearing returns what follows when an attempt ends by the event e, and the target was asked
// before to take back what attempts may have left. It must succeed, unless the target answers that
// it does not allow even that and e says that nothing has happened.
func AfterClearing(r Record, e Event, a Answer) Event {
	switch {
	case a.OK:
		return e
	case a.Class == target.Denied && (r.State == Prepared || e.Kind == Denied):
		e.Text += "; what an attempt may have left was not taken back: " + a.Text
		return e
	}
	return a.failed()
}

// After returns the event of a change at the target that is tried until it succeeds.
func After(done EventKind, a Answer) Event {
	if a.OK {
		return Event{Kind: done}
	}
	return a.failed()
}

// AfterRevert returns what the target's answer means when the candidate is taken away again. Where
// the base must be restored, the target's rules may forbid it: then another try does not help.
func AfterRevert(r Record, a Answer) Event {
	if !a.OK && a.Class == target.Refused && r.Strategy == target.Single {
		return Event{Kind: Declined, Text: a.Text}
	}
	return After(Reverted, a)
}

// Quiet returns how long no login may be tried that can fail; zero or less when one may. unstored
// is when this engine has last caused a failed login, which the record may not have.
func (r Record) Quiet(unstored, now time.Time) time.Duration {
	at := r.LoginAt(now)
	if again := unstored.Add(LoginWindow); unstored.After(r.LoginFailedAt) && again.After(at) {
		at = again
	}
	return at.Sub(now)
}

const waitsForLogin = "waiting before another login"

// TooSoon returns the event of a login that waits for the window of the last failed one.
func TooSoon(wait time.Duration) Event {
	return Event{Kind: Failed, Text: waitsForLogin, After: wait}
}

// Probe is what the target said of the credential in use.
type Probe struct {
	// Version is the one that was asked about, and Target where.
	Version, Target string
	Live            target.Liveness
	// Strategy is how the target would be given the credential again.
	Strategy target.Strategy
	Text     string
	// Late is what a replica said that does not accept a credential that is live; empty when all do.
	// It decides nothing.
	Late string
	// LoginFailed says that a login was tried and rejected, or may have been.
	LoginFailed bool
	// Answered says that a system of the target's kind has answered.
	Answered bool
	// Wait is how long the engine must wait before a login; when it is positive, it has not asked.
	Wait time.Duration
}

// AfterProbe returns the record after a probe, and the event that this is; empty for none. next is
// when the credential is checked again.
func (r Record) AfterProbe(p Probe, now, next time.Time) (Record, EventKind) {
	if p.LoginFailed {
		r.LoginFailedAt = now
	}
	switch p.Live {
	case target.Live:
		r = r.Seen(p.Version, now, next)
		if p.Late == "" {
			return r, ""
		}
		r.Health.Text = "a replica does not accept it: " + p.Late
		return r.note(now, CopiesLate, p.Late), CopiesLate
	case target.NotKnown:
		if p.Wait > 0 {
			return r.PutOffProbe(now.Add(p.Wait), now), ""
		}
		r.Health.Silent++
		r.Health.Wanted, r.Health.DueAt = false, time.Time{}
		r.Health.TriedAt, r.Health.NextAt, r.Health.Text = now, next, p.Text
		return r, ""
	}
	return r.Drifted(p.Version, p.Target, p.Strategy, p.Text, now), Drift
}

// NotProven returns the event of a rehearsal that cannot begin, because the target was not seen to
// accept the credential in use: a rehearsal goes back to that, and must not impose what the target
// never accepted.
func NotProven(p Probe) Event {
	if p.Live != target.Dead {
		return Event{Kind: Failed, Text: p.Text, Answered: p.Answered, LoginFailed: p.LoginFailed}
	}
	return Event{
		Kind:        Impossible,
		LoginFailed: p.LoginFailed,
		Text:        "The target does not accept the credential in use, so a rehearsal could not go back to it: " + p.Text,
	}
}

// Steps for a record on which no rotation is under way. Begin is one of a quarantine, too, and
// CheckHealth one of a grace period.
const (
	// Begin the rotation that is due, or that waited for the end of another.
	Begin Step = "begin"
	// Postpone what is due.
	Postpone Step = "postpone"
	// CheckHealth asks the target whether it accepts the credential in use.
	CheckHealth Step = "probe"
)

// PlanIdle says what a record needs on which no rotation is under way, when the engine must look at
// it. paused says that the rotations of its target, or all, are paused, and earliest is when a
// scheduled rotation may begin. at is until when the rotation is postponed; zero until the end of
// the pause. q is the rotation that begins.
func PlanIdle(r Record, paused bool, earliest, now time.Time) (step Step, q Request, at time.Time) {
	switch {
	case r.Then != nil && !r.Then.At.After(now):
		return Begin, *r.Then, at
	case r.Due.IsZero() || r.Due.After(now) || r.Paused:
		return CheckHealth, q, at
	case paused:
		return Postpone, q, at
	case earliest.After(now): // an older release has planned it, or the setting has grown since
		return Postpone, q, earliest
	}
	return Begin, Request{Mode: Rotate, Trigger: Automatic, At: now}, at
}

// AwaitsResume reports whether a rotation waits for the end of a pause before it makes a candidate.
// paused says that the rotations of its target, or all, are paused.
func (r Record) AwaitsResume(paused bool) bool { return (paused || r.Paused) && r.Trigger != Emergency }

// leave begins an emergency out of a quarantine in which the target no longer accepts the
// credential in use: who holds a leaked credential can bring that about. Without a second account,
// a previous credential that is not retired yet would outlast the emergency: that needs a repair
// first.
func (r Record) leave(q Request, now time.Time) (next Record, ok bool) {
	if !r.canLeave() {
		return r, false
	}
	return r.Begin(q, now), true
}

func (r Record) canLeave() bool {
	isDrift := r.State == Quarantined && r.Mode == Reapply
	return isDrift && (r.Interrupted == nil || r.Interrupted.Strategy == target.Double)
}

// TakesEmergency reports whether an emergency can be requested: it begins, or waits for the end of
// the rotation under way. The state alone refuses it only in a quarantine, see [Record.leave].
func (r Record) TakesEmergency(now time.Time) bool {
	_, ok := r.Ask(Request{Mode: Rotate, Trigger: Emergency, At: now}, now)
	return ok
}

// IsTakenOver reports whether an emergency that is requested takes over the rotation under way: its
// candidate replaces the leaked credential. Another rotation ends first.
func (r Record) IsTakenOver() bool {
	switch r.State {
	case InGrace, Retiring, Undoing, Reverting, Quarantined:
		return false
	}
	return r.InFlight() && r.Mode == Rotate && !r.Cancelled
}

// leaves reports whether an emergency that waited for the end of a repair begins instead, because
// the repair has failed.
func (r Record) leaves() bool { return r.Then != nil && r.canLeave() }

// mostTakeovers bounds [Record.TakenOverBy].
const mostTakeovers = 16

// Ask returns the record after a rotation was asked for. It begins, or waits for the end of the one
// before; an emergency takes the grace of a rotation that replaces the credential already. ok is
// false when it is refused.
func (r Record) Ask(q Request, now time.Time) (next Record, ok bool) {
	switch {
	case !r.InFlight():
		return r.Begin(q, now), true
	case q.Trigger != Emergency:
		return r, false
	case r.State == Quarantined:
		return r.leave(q, now)
	case r.State == InGrace:
		r.Then = &q
		next, err := Next(r, Event{Kind: EndGrace}, now)
		return next, err == nil
	case !r.IsTakenOver():
		r.Then = &q
		return r, true
	}
	r = r.Urgent(q.Outlasts)
	r.TakenOverBy = append(slices.Clone(r.TakenOverBy), q.ID)
	r.TakenOverBy = r.TakenOverBy[max(0, len(r.TakenOverBy)-mostTakeovers):]
	if r.State.Step() == Prepare {
		r.NextAt = time.Time{} // neither its turn nor a back-off is waited for
	}
	return r, true
}
