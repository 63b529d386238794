package rotation

import "github.com/keyturn/keyturn/internal/target"

// MaxEvictions is how often in a row a password is removed that the account of a leaked credential
// gets again.
const MaxEvictions = 3

// The sentences about a password that Keyturn did not set.
const (
	taken = "The account of the previous credential had another password"
	// With two accounts, a session of one may have acted as the other.
	sessionsLeft = "Sessions that are still open can set one again: end all sessions of the secret's accounts"
	evicting     = taken + ", which is removed before the rotation ends. " + sessionsLeft + "."
	evicted      = taken + ", which was removed. " + sessionsLeft + "."
	// The record has evicting, too.
	again = "The account got a new password each time Keyturn removed one; the service tries again"
)

// Evicts reports whether a password that is not the base's is removed with it: the account of a
// leaked credential must have none.
func (r Record) Evicts(found target.Foreign) bool {
	is := found.Kind == target.ForeignFound || found.Kind == target.ForeignNotCompared
	return r.Trigger == Emergency && is
}

// BeforeEvicting returns the event that is stored before a password is removed that Keyturn did not
// set.
func BeforeEvicting() Event { return Event{Kind: Evicting, Text: evicting} }

// AfterRetiring returns what the target's answer to a retirement of the base means. found is the
// password that its account was seen to have, which was removed if the rotation evicts it: then the
// account gets one again and again, and the rotation is not over.
func AfterRetiring(r Record, a Answer, found target.Foreign) Event {
	switch {
	case !a.OK:
		return a.failed()
	case r.Evicts(found):
		return Event{Kind: Failed, Text: again, Answered: true}
	case r.Foreign != "":
		return Event{Kind: Retired, Text: sentences(evicted, found.Text)}
	}
	return Event{Kind: Retired, Text: found.Text}
}
