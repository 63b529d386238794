package api

import (
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

// maxLoginWindows is how many accounts may be within a window at the same time.
const maxLoginWindows = 10_000

// loginWindows keep the calls of this node from guessing passwords and from locking accounts: after
// a login that failed, the account of the target has none for a [rotation.LoginWindow], whatever
// secret it belongs to. The record of a secret has its own window for all nodes, which is deleted
// with the secret.
type loginWindows struct {
	mu    sync.Mutex
	until map[loginWindow]time.Time // guarded by mu
}

// loginWindow is an account at a target.
type loginWindow struct {
	target, account string
	// adopts says that it is of credentials that a caller adopts: an operator need not wait because
	// the stored credential was rejected.
	adopts bool
}

func newLoginWindows() *loginWindows {
	return &loginWindows{until: map[loginWindow]time.Time{}}
}

// take begins a login, and returns when the next one may be made. A login that did not fail must
// give its window back with that time.
func (l *loginWindows) take(w loginWindow, now time.Time) (next time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next = l.until[w]; within(next, now) {
		return next, false
	}
	if next = now.Add(rotation.LoginWindow); !l.roomLocked(now) {
		return next, false
	}
	l.until[w] = next
	return next, true
}

// within reports whether a window that ends at next contains now. It lasts no longer than a window
// after the clock was set back.
func within(next, now time.Time) bool {
	return next.After(now) && !next.After(now.Add(rotation.LoginWindow))
}

// roomLocked reports whether another window fits. It forgets those that are over.
func (l *loginWindows) roomLocked(now time.Time) bool {
	if len(l.until) < maxLoginWindows {
		return true
	}
	for w, next := range l.until {
		if !within(next, now) {
			delete(l.until, w)
		}
	}
	return len(l.until) < maxLoginWindows
}

// giveBack ends the window that take began. After a login that lasted longer than its window, it
// leaves the window of another call.
func (l *loginWindows) giveBack(w loginWindow, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until[w].Equal(next) {
		delete(l.until, w)
	}
}

// logInOnce makes a login with a credential unless one with its account has failed a moment ago.
// verify returns the target's answer. Simultaneous logins with one account count as failed until
// they are answered. next is when the next login may be made after one that has failed; zero after
// any other.
func (c *Call) logInOnce(t store.Target, account string, verify func() error) (next time.Time, err error) {
	w := loginWindow{target: t.ID, account: c.Kinds[t.Kind].CanonicalAccount(t.Config, account)}
	w.adopts = c.Action == "RepairRotation"
	if c.op == nil { // the engine's own window is in the record of the secret
		return time.Time{}, verify()
	}
	next, ok := c.gate.logins.take(w, c.At)
	if !ok {
		return next, tooManyLogins("account "+account, t.Name, next)
	}
	err = verify()
	if err == nil || !target.ClassOf(err).MayBeFailedLogin() {
		c.gate.logins.giveBack(w, next)
		next = time.Time{}
	}
	return next, err
}

func tooManyLogins(who, targetName string, next time.Time) error {
	return fault.New(fault.Throttled, "A login as %s of target %q is under way or was rejected a moment ago; "+
		"the next one may be made at %s, so that no account is locked.",
		who, targetName, wholeSecond(next))
}

// wholeSecond writes a time as the next whole second, which is not before it.
func wholeSecond(t time.Time) string {
	return t.UTC().Truncate(time.Second).Add(time.Second).Format(time.RFC3339)
}
