package api

import (
	"slices"
	"strings"
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
	mu     sync.Mutex
	until  map[loginWindow]time.Time       // guarded by mu
	admins map[administrator]rejectedAdmin // guarded by mu
}

// loginWindow is an account at a target.
type loginWindow struct {
	target, account string
	// adopts says that it is of credentials that a caller adopts: an operator need not wait because
	// the stored credential was rejected.
	adopts bool
}

func newLoginWindows() *loginWindows {
	return &loginWindows{until: map[loginWindow]time.Time{}, admins: map[administrator]rejectedAdmin{}}
}

// administrator is the account with which a target is opened, in one version of its secret. It has
// the addresses of the target and not its ID, name or settings, so that neither a target that is
// registered anew nor another setting has the same account tried again.
type administrator struct{ account, kind, addresses, name, secret, version string }

// rejectedAdmin is an administrator that its target has rejected.
type rejectedAdmin struct {
	rejectedAt time.Time
	// by is the call, or the secret of the engine, that may log in since heldAt; nil for none.
	by     any
	heldAt time.Time
}

// probeAdminAfter is how long the engine's probes leave an administrator alone that was rejected:
// they are made without end, and no caller waits for them.
const probeAdminAfter = time.Hour

// adminFrom reports whether by may log in as an administrator now, or when it may. One that was
// rejected is left alone for a window, and by the engine's probes for [probeAdminAfter]. After
// that, one caller at a time may log in, until it is rejected, accepted, or ends (see
// adminGivenBack).
func (l *loginWindows) adminFrom(a administrator, by any, probes bool, now time.Time) (from time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, known := l.admins[a]
	switch {
	case !known:
		return now, true
	case seen.rejectedAt.After(now): // the clock was set back
		delete(l.admins, a)
		return now, true
	}
	from = seen.rejectedAt.Add(rotation.LoginWindow)
	if probes {
		from = seen.rejectedAt.Add(probeAdminAfter)
	}
	isHeld := seen.by != nil && seen.by != by && within(seen.heldAt.Add(rotation.LoginWindow), now)
	switch {
	case now.Before(from):
		return from, false
	case isHeld:
		return now.Add(time.Second), false
	}
	seen.by, seen.heldAt = by, now
	l.admins[a] = seen
	return now, true
}

// adminGivenBack ends what adminFrom has let by do, where no login has shown anything.
func (l *loginWindows) adminGivenBack(by any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, seen := range l.admins {
		if seen.by == by {
			seen.by = nil
			l.admins[a] = seen
		}
	}
}

// adminRejected notes that an administrator was rejected. If there is no room, it forgets the one
// whose rejection is the longest ago.
func (l *loginWindows) adminRejected(a administrator, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.admins[a]; !known && len(l.admins) >= maxLoginWindows {
		var oldest administrator
		for other, seen := range l.admins {
			if first, ok := l.admins[oldest]; !ok || seen.rejectedAt.Before(first.rejectedAt) {
				oldest = other
			}
		}
		delete(l.admins, oldest)
	}
	l.admins[a] = rejectedAdmin{rejectedAt: now}
}

// adminAccepted forgets that an administrator was rejected.
func (l *loginWindows) adminAccepted(a administrator) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.admins, a)
}

// knowsAdmins reports whether any administrator was rejected.
func (l *loginWindows) knowsAdmins() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.admins) > 0
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

// AdminWaitError says that the target has rejected its administrator, who is not tried before From.
type AdminWaitError struct {
	From time.Time
	err  error
}

func (e *AdminWaitError) Error() string { return e.err.Error() }

// Unwrap returns the refusal of a call.
func (e *AdminWaitError) Unwrap() error { return e.err }

func (e *Env) administratorOf(t store.Target, name, version string) administrator {
	return administrator{
		account:   t.Account,
		kind:      t.Kind,
		addresses: strings.Join(slices.Sorted(slices.Values(e.Kinds[t.Kind].AddressesOf(t.Config))), " "),
		name:      name,
		secret:    t.AdminSecret,
		version:   version,
	}
}

// adminMayLogIn refuses to log in as an administrator that the target has rejected, with an
// [AdminWaitError]. Whatever opens a target asks it: calls, the engine's probes, and its rotations.
func (c *Call) adminMayLogIn(t store.Target, name, version string) error {
	if c.gate == nil {
		return nil
	}
	c.asAdmin = true
	probes := c.op == nil && c.Action == purposeProbe
	from, ok := c.gate.logins.adminFrom(c.administratorOf(t, name, version), c.asAdminBy(), probes, c.At)
	if ok {
		return nil
	}
	return &AdminWaitError{From: from, err: fault.New(fault.Throttled, "Target %q has rejected a login as its "+
		"administrator a moment ago; the next one may be made at %s, so that no account is locked. A new version of the "+
		"administrator's secret is tried at once; keyturn target show %s names that secret.", t.Name, wholeSecond(from),
		t.Name)}
}

// asAdminBy is who logs in as an administrator: a call, or all turns of the engine for a secret.
func (c *Call) asAdminBy() any {
	if c.op == nil {
		return c.resource.arn
	}
	return c
}

// adminGivenBack lets others log in as an administrator that the call did not log in as.
func (c *Call) adminGivenBack() {
	if c.asAdmin {
		c.gate.logins.adminGivenBack(c.asAdminBy())
	}
}

// adminAnswered notes that an administrator was rejected, if err says so.
func (c *Call) adminAnswered(t store.Target, err error) {
	if !target.IsAdminRejected(err) || c.gate == nil {
		return
	}
	if admin, version, err := c.adminCredential(c.Snapshot, t); err == nil {
		c.gate.logins.adminRejected(c.administratorOf(t, admin.Account, version), c.At)
	}
}

// adminAccepted notes that the target has let its administrator in.
func (c *Call) adminAccepted(t store.Target) {
	if t.AdminSecret == "" || c.gate == nil || !c.gate.logins.knowsAdmins() {
		return
	}
	if admin, version, err := c.adminCredential(c.Snapshot, t); err == nil {
		c.gate.logins.adminAccepted(c.administratorOf(t, admin.Account, version))
	}
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
