package rotation

import (
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// Resolution finds out which credential is live: by the target's own state where that shows it,
// else by one login with the candidate and, when that is rejected, one with the base. Next says
// what to ask, and Answered takes the answer. The zero value has asked nothing.
type Resolution struct {
	// Known is what is known of the candidate and of the base.
	Known [2]target.Liveness
	// Inspected says that the target was asked for its own state, and Settled that it has taken back
	// what was under way.
	Inspected, Settled bool
	// LoginFailed says that a login was rejected, or may have been.
	LoginFailed bool
	// Refused is what the target said when it refused a session after the login; empty when it did
	// not.
	Refused string
	// Failed says that a question was not answered, and Event is what follows.
	Failed bool
	Event  Event
}

// Ask is a question to the target.
type Ask uint8

// The questions.
const (
	// AskNothing: the resolution is over.
	AskNothing Ask = iota
	// AskState asks for the target's own state, which may show both credentials.
	AskState
	// AskRevert has the target take back what was sent and may be under way.
	AskRevert
	// AskCandidate tries a login with the candidate, AskBase one with the base.
	AskCandidate
	AskBase
)

// Next returns what to ask, or AskNothing and the event that follows. reverts says that the target
// can take back what was sent; quiet is how long no login may be tried that can fail, see
// [Record.Quiet].
func (q Resolution) Next(r Record, reverts bool, quiet time.Duration, now time.Time) (Ask, Event) {
	switch {
	case q.Failed:
		return AskNothing, q.Event
	case !q.Inspected:
		return AskState, Event{}
	case reverts && !q.Settled && q.Known[0] == target.Dead && r.SettledAt(now).After(now):
		return AskRevert, Event{} // then there is no need to wait for the end of what is under way
	}
	known := q.presumed(r)
	for i, ask := range []Ask{AskCandidate, AskBase} {
		if known[i] != target.NotKnown || i == 1 && (known[0] == target.Live || r.Mode == Reapply) {
			continue
		}
		if wait := max(quiet, r.SettledAt(now).Sub(now)); wait > 0 && !q.LoginFailed {
			return AskNothing, TooSoon(wait)
		}
		return ask, Event{}
	}
	return AskNothing, Event{
		Kind:        Resolved,
		Candidate:   known[0],
		Base:        known[1],
		LoginFailed: q.LoginFailed,
		Settled:     q.Settled,
		Text:        q.text(r, known),
	}
}

func (q Resolution) text(r Record, known [2]target.Liveness) string {
	text := resolvedText(r, known)
	if q.Refused != "" {
		text += "; the session was refused: " + q.Refused
	}
	return text
}

// resolvedText says in words which credential is live. A repair has one.
func resolvedText(r Record, known [2]target.Liveness) string {
	switch candidate, base := known[0], known[1]; {
	case r.Mode == Reapply && candidate == target.Live:
		return "the stored credential works"
	case r.Mode == Reapply:
		return "the stored credential does not work"
	case candidate == target.Live:
		return "the new credential works"
	case base == target.Live:
		return "the new credential does not work, and the previous one does"
	}
	return "neither the new credential nor the previous one works"
}

// presumed returns what is known, and takes one credential for dead where both were rejected a
// window ago: then only the other is tried, the base first.
func (q Resolution) presumed(r Record) [2]target.Liveness {
	known := q.Known
	if r.Mode == Reapply {
		return known
	}
	if known[0] == target.NotKnown && r.Rejections == 1 {
		known[0] = target.Dead
	}
	if known[1] == target.NotKnown && r.Rejections > 1 {
		known[1] = target.Dead
	}
	return known
}

// Answered returns the resolution after an answer. known is what the target's own state shows of
// the candidate and of the base.
func (q Resolution) Answered(ask Ask, a Answer, known ...target.Liveness) Resolution {
	switch {
	case ask == AskCandidate || ask == AskBase:
		return q.answeredByLogin(ask, a)
	case ask == AskState && a.Class == target.Denied: // the administrator is refused; logins decide
		q.Inspected = true
	case !a.OK:
		q.Failed, q.Event = true, a.failed()
	case ask == AskState:
		q.Inspected = true
		copy(q.Known[:], known)
	case ask == AskRevert:
		q.Settled, q.Inspected = true, false
	}
	return q
}

func (q Resolution) answeredByLogin(ask Ask, a Answer) Resolution {
	live := a.Liveness()
	q.Known[ask-AskCandidate] = live
	q.LoginFailed = q.LoginFailed || a.LoginFailed()
	switch {
	case live == target.Live && !a.OK:
		q.Refused = a.Text
	case live == target.NotKnown:
		q.Failed, q.Event = true, a.failed()
		q.Event.LoginFailed = q.LoginFailed
	}
	return q
}
