package api

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	// probeAdminAfter is how long the engine's probes leave an administrator alone that was rejected:
	// they are made without end, and no caller waits for them.
	probeAdminAfter = time.Hour
	// heldPause is when to ask again for an administrator that another caller tries now.
	heldPause = time.Second
	// maxRejectedAdmins is how many entries are kept; each rejected administrator has one or two.
	maxRejectedAdmins = 10_000
)

// adminLimit keeps the calls and the engine of this node from locking the administrators of
// targets: one that was rejected is left alone for a while, and then tried by one caller at a time.
// Another version of its secret is tried at once, also by one caller. It is no defence against a
// caller who names administrators: that one has further secrets.
type adminLimit struct {
	mu       sync.Mutex
	rejected map[fingerprint]rejectedAdmin // guarded by mu
}

type fingerprint [sha256.Size]byte

// administrator is the account with which a target is opened: see [Env.administratorOf].
type administrator struct {
	// version identifies it with the version of its secret, and account without.
	version, account fingerprint
	target           string // the ID of the target
}

// rejectedAdmin is an administrator that a target has rejected.
type rejectedAdmin struct {
	// at is when its last login failed, and target where; zero and empty for a version that was not
	// tried yet.
	at     time.Time
	target string
	// said is what the target answered then, as a caller may learn it.
	said string
	// targets has when each target has rejected it last, in the last [probeAdminAfter].
	targets map[string]time.Time
	// by is the caller that may log in, since heldAt; nil for none.
	by     any
	heldAt time.Time
}

func newAdminLimit() *adminLimit {
	return &adminLimit{rejected: map[fingerprint]rejectedAdmin{}}
}

// hold returns why by may not log in as an administrator now, and when to ask again; empty if it
// may. by is a call, or the ARN of the secret that turns of the engine are for. An administrator
// that was rejected is left alone for a [rotation.LoginWindow], and by probes of a target that has
// rejected it for [probeAdminAfter]. Then by holds it: no other caller may log in until it was
// rejected or accepted, or by releases it. soon says that only another caller holds it.
func (l *adminLimit) hold(
	a administrator, by any, probes bool, now time.Time,
) (why string, from time.Time, soon bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen, known := l.rejected[a.version]
	if !known {
		if _, known = l.rejected[a.account]; !known {
			return "", now, false
		}
	}
	if seen.at.After(now.Add(rotation.LoginWindow)) { // the clock was set back
		delete(l.rejected, a.version)
		return "", now, false
	}
	from = seen.at.Add(rotation.LoginWindow)
	// A time after the last rejection is of a clock that was set back.
	here := seen.targets[a.target]
	if again := here.Add(probeAdminAfter); probes && again.After(from) && !here.After(seen.at) {
		from = again
	}
	// Callers read the clock before they are here, so heldAt may be a little later than now.
	held := seen.by != nil && seen.by != by && now.Sub(seen.heldAt).Abs() < rotation.LoginWindow
	switch {
	case now.Before(from) && seen.target != a.target: // whose answer the caller may not know
		return "has rejected a login as its administrator at " + wholeSecond(seen.at), from, false
	case now.Before(from):
		return fmt.Sprintf("has rejected a login as its administrator at %s (%s)", wholeSecond(seen.at), seen.said),
			from, false
	case held:
		return "has rejected its administrator before, and another call is trying that one now", now.Add(heldPause), true
	}
	seen.by, seen.heldAt = by, now
	l.putLocked(a.version, seen)
	return "", now, false
}

// release lets other callers log in as an administrator that by holds.
func (l *adminLimit) release(a administrator, by any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seen := l.rejected[a.version]; seen.by == by {
		seen.by = nil
		l.rejected[a.version] = seen
	}
}

// failed notes a login of an administrator that the target has rejected, or, of one that was
// rejected before, may have counted as a failed one. said is the target's answer, for callers.
func (l *adminLimit) failed(a administrator, said string, rejected bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.rejected[a.version]; known || rejected {
		targets := map[string]time.Time{a.target: now}
		for id, at := range l.rejected[a.version].targets {
			if id != a.target && now.Sub(at).Abs() < probeAdminAfter {
				targets[id] = at
			}
		}
		seen := rejectedAdmin{at: now, target: a.target, said: said, targets: targets}
		l.putLocked(a.version, seen)
		l.putLocked(a.account, seen)
	}
}

// putLocked stores an entry. If there is no room, it forgets the one whose last login is the
// longest ago.
func (l *adminLimit) putLocked(key fingerprint, seen rejectedAdmin) {
	if _, known := l.rejected[key]; !known && len(l.rejected) >= maxRejectedAdmins {
		l.forgetOldestLocked()
	}
	l.rejected[key] = seen
}

func (l *adminLimit) forgetOldestLocked() {
	var oldest fingerprint
	var at time.Time
	found := false
	for key, seen := range l.rejected {
		if !found || seen.at.Before(at) {
			oldest, at, found = key, seen.at, true
		}
	}
	delete(l.rejected, oldest)
}

// accepted forgets that an administrator was rejected, and reports whether it was.
func (l *adminLimit) accepted(a administrator) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, known := l.rejected[a.account]
	known = known || !l.rejected[a.version].at.IsZero()
	delete(l.rejected, a.version)
	delete(l.rejected, a.account)
	return known
}

// AdminWaitError says that the target has rejected its administrator, who is not tried before From.
type AdminWaitError struct {
	From time.Time
	// Soon says that From is near, because only another caller tries that administrator now.
	Soon bool
	err  error
}

func (e *AdminWaitError) Error() string { return e.err.Error() }

// Unwrap returns the refusal of a call.
func (e *AdminWaitError) Unwrap() error { return e.err }

// administratorOf identifies an administrator by where it logs in, as which account, and in which
// version of which secret it has its credential. So neither a target that is registered again nor
// another setting causes another try, and a new version is tried at once.
func (e *Env) administratorOf(t store.Target, account, version string) administrator {
	addresses := slices.Sorted(slices.Values(e.Kinds[t.Kind].AddressesOf(t.Config)))
	parts := append([]string{t.Account, t.Kind, account, t.AdminSecret}, addresses...)
	of := func(more ...string) fingerprint {
		return sha256.Sum256(fmt.Appendf(nil, "%q", slices.Concat(parts, more)))
	}
	return administrator{version: of(version), account: of(), target: t.ID}
}

// adminMayLogIn refuses to log in as an administrator that the target has rejected, with an
// [AdminWaitError]. Whatever opens a target asks it: calls, the engine's probes, and its rotations.
func (c *Call) adminMayLogIn(t store.Target, account, version string) error {
	if c.gate == nil {
		return nil
	}
	a := c.administratorOf(t, account, version)
	probes := c.op == nil && c.Action == purposeProbe
	why, from, soon := c.gate.admins.hold(a, c.asAdminBy(), probes, c.Now())
	if why == "" {
		c.admins = append(c.admins, a)
		return nil
	}
	return &AdminWaitError{From: from, Soon: soon, err: fault.New(fault.Throttled, "Target %q %s; the next login may be "+
		"made at %s, so that the account is not locked. If the administrator's password has changed, store it with keyturn "+
		"secret put SECRET (keyturn target show %s names the secret): a new version is tried at once.",
		t.Name, fault.Text(why), wholeSecond(from), t.Name)}
}

// asAdminBy returns who logs in as an administrator: a call, or all turns of the engine for a
// secret.
func (c *Call) asAdminBy() any {
	if c.op == nil {
		return c.resource.arn
	}
	return c
}

// releaseAdmins lets other callers try the administrators with which the call has opened targets.
func (c *Call) releaseAdmins() {
	for _, a := range c.admins {
		c.gate.admins.release(a, c.asAdminBy())
	}
}

// adminAnswered notes what an error of a target says of a login of its administrator.
func (c *Call) adminAnswered(t store.Target, err error) {
	if !target.IsAdminFailed(err) {
		return
	}
	for _, a := range c.admins {
		if a.target == t.ID {
			c.gate.admins.failed(a, target.TextForCaller(err), target.IsAdminRejected(err), c.Now())
		}
	}
}

// adminAccepted notes that a target has let its administrator in. If it was rejected before, what
// waits for it is tried again now.
func (c *Call) adminAccepted(t store.Target) {
	for _, a := range c.admins {
		if a.target == t.ID && c.gate.admins.accepted(a) {
			c.gate.hurries.add(place{account: t.Account, admin: t.AdminSecret})
		}
	}
}
