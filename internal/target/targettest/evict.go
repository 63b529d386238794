package targettest

import (
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// Evicts runs the tests of a [target.Evictor]. c is a change with [target.Double] whose candidate
// the target has accepted, and byHand gives an account another password as its owner does.
func Evicts(t *testing.T, tt target.Target, c target.Change, byHand func(target.Credential), login Login) {
	t.Helper()
	e := tt.(target.Evictor)
	replaced := func(want bool) (found target.Foreign) {
		t.Helper()
		found, err := e.Replaced(Within(t), c)
		Must(t, err)
		if (found.Mark != "") != want || (found.Text != "") != want {
			t.Errorf("another password than the previous one: %+v, want %t", found, want)
		}
		return found
	}
	replaced(false)
	mine, later := c.Old, c.Old
	mine.Secret, later.Secret = Value("set-by-the-holder-A1!"), Value("set-by-a-later-rotation-A1!")
	byHand(mine)
	found := replaced(true)
	byHand(later)
	Must(t, e.Evict(Within(t), c, found))
	login.Works(t, "a password that is newer than the one found", later, true)
	byHand(mine)
	found = replaced(true)
	for range 2 {
		Must(t, e.Evict(Within(t), c, found))
	}
	login.Works(t, "the password that was found", mine, false)
	login.Works(t, "the candidate", c.New, true)
	Must(t, tt.Retire(Within(t), c))
}
