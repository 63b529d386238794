package store

import (
	"encoding/json"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// Target is a registered target.
type Target struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	// ID is the ID of this registration: secrets are bound to it, not to the name. It is empty for a
	// target that a release before IDs registered.
	ID          string          `json:"id,omitempty"`
	Kind        string          `json:"kind"`
	Config      json.RawMessage `json:"config"`
	AdminSecret string          `json:"admin_secret,omitempty"`
	Description string          `json:"description,omitempty"`
	// Accounts is the account policy: patterns of the accounts that rotations may change; none means
	// every ordinary account. See [target.AllowsAccount].
	Accounts []string `json:"accounts,omitempty"`
	// Paused says that no new rotation begins there, and Pause who asked for that; nil for a pause
	// that an earlier release stored.
	Paused    bool            `json:"paused,omitempty"`
	Pause     *rotation.Pause `json:"pause,omitempty"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
}

// WithPause returns the target after an order of [rotation.Pausing.After].
func (t Target) WithPause(order *rotation.Pause) Target {
	p := rotation.Pausing{Paused: t.Paused, Pause: t.Pause}.After(order)
	t.Paused, t.Pause = p.Paused, p.Pause
	return t
}

// Target reads a registered target. No target has an empty name.
func (tx *Tx) Target(account, name string) (Target, bool, error) {
	if name == "" {
		return Target{}, false, nil
	}
	return targetKind.load(tx, in(account, name))
}

// PutTarget writes a target.
func (tx *Tx) PutTarget(t Target) error { return targetKind.save(tx, t) }

// DeleteTarget removes a target.
func (tx *Tx) DeleteTarget(account, name string) {
	targetKind.delete(tx, in(account, name))
	attachedKind.delete(tx, in(account, name))
}

// ChangeAttached notes that this change attaches a secret to a target, or has another value sent
// there for one. Changes that only do this do not conflict with each other. For a target that is
// not registered it writes nothing, or each name that a secret can have for a target would leave a
// record: nothing is sent there, and a registration before the commit has the change decided again.
func (tx *Tx) ChangeAttached(account, target string) error {
	_, registered, err := tx.Target(account, target)
	if err != nil || !registered {
		return err
	}
	return attachedKind.saveAt(tx, in(account, target), true)
}

// GuardAttached makes the commit fail, and the change be decided again, if a [Tx.ChangeAttached]
// for that target is committed from now on: what [Tx.Rotations] reads guards nothing.
func (tx *Tx) GuardAttached(account, target string) error {
	_, err := tx.get(attachedKind.key(in(account, target))) // its revision is all that counts
	return err
}

// usePath is the path of the note that something uses a secret. No target has a name with a colon.
func usePath(account, secret string) string { return in(account, ":"+secret) }

// ChangeUse notes that this change has a target, or the logins of an application, use a secret. The
// note stays until [Tx.ForgetUse], also when the secret is deleted: what uses it may be restored,
// and a secret created again with that name. So the secret must exist, or have existed.
func (tx *Tx) ChangeUse(account, secret string) error {
	return attachedKind.saveAt(tx, usePath(account, secret), true)
}

// GuardUse makes the commit fail, and the change be decided again, if a [Tx.ChangeUse] of that
// secret is committed from now on. noted reports whether one was before.
func (tx *Tx) GuardUse(account, secret string) (noted bool, err error) {
	_, noted, err = attachedKind.load(tx, usePath(account, secret))
	return noted, err
}

// ForgetUse removes the note of a secret that nothing uses now.
func (tx *Tx) ForgetUse(account, secret string) { attachedKind.delete(tx, usePath(account, secret)) }

// Targets calls visit for each target of an account in the order of names, from the name from
// (inclusive) on, until visit returns false.
func (tx *Tx) Targets(account, from string, visit func(Target) bool) error {
	return targetKind.scan(tx, in(account, ""), in(account, from), visit)
}

// AllTargets calls visit for each target of every account until visit returns false.
func (tx *Tx) AllTargets(visit func(Target) bool) error { return targetKind.scan(tx, "", "", visit) }

// Claim says that a secret rotates an account of a target. No other secret may rotate it then.
type Claim struct {
	Account string `json:"account"`
	Target  string `json:"target"`
	User    string `json:"user"` // the name of the account at the target
	Secret  string `json:"secret"`
}

func claimPath(c Claim) string { return in(c.Account, c.Target) + ":" + c.User }

// Claim reads which secret rotates an account of a target; empty if none does.
func (tx *Tx) Claim(account, target, user string) (secret string, err error) {
	c, _, err := claimKind.load(tx, claimPath(Claim{Account: account, Target: target, User: user}))
	return c.Secret, err
}

// PutClaim writes which secret rotates an account of a target.
func (tx *Tx) PutClaim(c Claim) error { return claimKind.save(tx, c) }

// Spacing records when a member of a group last began to rotate, to keep the group's rotations
// apart.
type Spacing struct {
	Account string    `json:"account"`
	Group   string    `json:"group"`
	Last    time.Time `json:"last"`
	Secret  string    `json:"secret"`
}

// Spacing reads the spacing of a group; the zero value if no member has rotated yet.
func (tx *Tx) Spacing(account, group string) (Spacing, error) {
	s, _, err := spacingKind.load(tx, in(account, group))
	return s, err
}

// PutSpacing writes the spacing of a group.
func (tx *Tx) PutSpacing(s Spacing) error { return spacingKind.save(tx, s) }
