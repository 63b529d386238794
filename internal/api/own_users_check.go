package api

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/kms"
)

// codeKeyDisabled is the finding of an access key that is switched off, and the consent to an
// active one in its place.
const codeKeyDisabled = "key-disabled"

// ownKind declares the consents of access keys of this service.
var ownKind = target.Kind{Name: secret.OwnUsers}.Consenting(codeKeyDisabled)

// Window says that no access key is refused while another one replaces it.
func (o *ownUsers) Window(target.Strategy) string {
	return "None: the previous access key works until the grace period ends."
}

// CheckAccount reports what a rotation of a user's access key would meet.
func (o *ownUsers) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	return o.check(store.Snapshot(ctx, o.env.DB), r.Current, false)
}

// check reports what a rotation would meet. busy says that a rotation is under way, which has a
// second key and removes one.
func (o *ownUsers) check(tx *store.Tx, c target.Credential, busy bool) ([]target.Finding, error) {
	f := target.CheckRequest{Current: c}.OfCurrent()
	u, ok, err := tx.User(o.account, c.Account)
	switch {
	case err != nil:
		return nil, ownClass(err)
	case !ok || o.userID != "" && u.ID != o.userID:
		f.Impossible("no-user", "The user that the secret is bound to no longer exists.",
			"Delete the secret, or create the user and rotate as a principal with rights on its access keys.")
		return f.List, nil
	}
	if err := o.checkKey(tx, f, u, c); err != nil {
		return nil, err
	}
	if len(u.Keys) >= users.MaxKeys && !busy {
		f.Impossible("key-limit", fmt.Sprintf("The user has %d access keys, as many as a user may have.", len(u.Keys)),
			"Delete the access key that is not in use.")
	}
	return f.List, nil
}

// checkKey reports an access key in use that does not work. A rotation does not
// switch on a key that another principal has switched off.
func (o *ownUsers) checkKey(tx *store.Tx, f *target.Findings, u users.User, c target.Credential) error {
	key, err := u.Key(c.ID)
	switch {
	case err != nil:
		f.Impossible("key-missing", "The user no longer has the access key in use.",
			"Create an access key, and adopt it: keyturn rotation repair NAME --adopt=FILE.")
		return nil
	case key.Disabled:
		f.NeedsConsent(codeKeyDisabled,
			"The access key in use is switched off, and a new one would be active.",
			"Switch it on: keyturn user key enable "+u.Name+" "+c.ID+".")
		return nil
	}
	seen, err := o.inspect(tx, []target.Credential{c})
	if err == nil && seen[0] == target.Dead {
		f.Impossible("key-missing", "The access key in use has another secret.",
			"Adopt the right one: keyturn rotation repair NAME --adopt=FILE.")
	}
	return err
}

// checkOwn answers for a secret with an access key of this service.
func (c *Call) checkOwn(s secret.Secret, r rotation.Record) (*kms.CheckRotationResponse, error) {
	o := &ownUsers{env: c.Env, account: s.Account}
	if b := s.Rotation.Binding; b != nil {
		o.userID = b.Target
	}
	list, _, err := credentials(c.Env, c.Snapshot, s, s.Versions[s.Stages[secret.Current]])
	if err != nil {
		return nil, err
	}
	k := &inspection{
		Call:   c,
		secret: s,
		record: r,
		target: store.Target{Name: secret.OwnUsers},
		system: o,
		has:    []target.Strategy{target.Overlap},
		method: method{strategy: target.Overlap},
		check:  rotation.Check{At: c.At},
	}
	found, err := o.check(c.Snapshot, list[0], r.InFlight())
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		k.add(f)
	}
	return k.answer(), nil
}

var (
	_ target.Checker  = (*ownUsers)(nil)
	_ target.Windower = (*ownUsers)(nil)
)
