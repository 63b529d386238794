package api

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// sendsElsewhere reports whether a secret with other settings sends its value, or another part of
// it, to another place.
func sendsElsewhere(before, after secret.Secret) bool {
	a, b := before.Settings(), after.Settings()
	return before.TargetName() != after.TargetName() ||
		a.AccountMember != b.AccountMember ||
		a.Login.CertificateSecret != b.Login.CertificateSecret ||
		a.SecretMember != b.SecretMember
}

// sentWith returns the secrets whose values the target of s receives: s, and the one with the
// client certificate of its application.
func sentWith(s secret.Secret) []string {
	names := []string{s.Name}
	if certificate := s.Settings().Login.CertificateSecret; certificate != "" && certificate != s.Name {
		names = append(names, certificate)
	}
	return names
}

// isBound reports whether the secret is bound to the target of its name as it is registered now,
// or, for RAMCredentials, to the user that has the name now.
func (e *Env) isBound(tx *store.Tx, s secret.Secret) (bool, error) {
	if s.TargetName() == secret.OwnUsers {
		u, ok, err := tx.User(s.Account, s.UserName())
		return ok && s.Rotation.Binding != nil && s.BoundTo(u.ID), err
	}
	t, ok, err := tx.Target(s.Account, s.TargetName())
	return ok && s.BoundTo(t.ID), err
}

// bind ties a secret to its target as it is registered now, and to the accounts that the caller was
// judged for. A secret whose target is not registered stays as it is. changed reports whether the
// secret has to be stored.
func (c *Call) bind(tx *store.Tx, s secret.Secret) (bound secret.Secret, changed bool, err error) {
	ch, err := c.storedChanges(tx, s)
	if err != nil {
		return s, false, err
	}
	return c.bindTo(tx, s, ch)
}

func (c *Call) bindTo(tx *store.Tx, s secret.Secret, ch changes) (bound secret.Secret, changed bool, err error) {
	if err := c.wasJudged(s.Name, ch); err != nil {
		return s, false, err
	}
	if ch.target == secret.OwnUsers {
		u, ok, err := tx.User(s.Account, s.UserName())
		if err != nil || !ok {
			return s, false, err
		}
		bound, changed = s.Bind(u.ID, ch.names)
		return bound, changed, nil
	}
	t, ok, err := tx.Target(s.Account, ch.target)
	if err != nil || !ok {
		return s, false, err
	}
	if err := c.allows(tx, t, s.Name, ch.names); err != nil {
		return s, false, err
	}
	bound, changed = s.Bind(t.ID, ch.names)
	return bound, changed, nil
}

// bindNew binds a managed secret that is made with that value. A RAMCredentials secret takes over
// keys that exist, so the caller must hold them.
func (c *Call) bindNew(tx *store.Tx, s secret.Secret, data sensitive.Value) (secret.Secret, error) {
	s, _, err := c.bindTo(tx, s, firstChanges(s, data))
	if err != nil || s.TargetName() != secret.OwnUsers {
		return s, err
	}
	if s.Rotation.Binding == nil {
		return s, fault.Parameter("ExtendedConfig", "there is no user %q; UserName must be a user of this account.",
			s.UserName())
	}
	list, err := s.Credentials(data)
	if err != nil {
		return s, err
	}
	own := &ownUsers{env: c.Env, account: s.Account, userID: s.Rotation.Binding.Target}
	seen, err := own.inspect(tx, list)
	if err == nil && slices.ContainsFunc(seen, func(l target.Liveness) bool { return l != target.Live }) {
		err = fault.Parameter("SecretData", "each entry must be an active access key of user %q with its secret.",
			s.UserName())
	}
	return s, err
}

// attachedSecrets returns the secrets that are attached to a target and do not wait for their
// deletion, in the order of names.
func (c *Call) attachedSecrets(tx *store.Tx, t store.Target) (list []secret.Secret, err error) {
	var names []string
	err = tx.Rotations(t.Account, "", "", func(r rotation.Record) bool {
		if r.Target == t.Name {
			names = append(names, r.Secret)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, ok, err := tx.Secret(t.Account, name, c.At)
		if err != nil {
			return nil, err
		}
		if ok && !s.Deleting() && s.TargetName() == t.Name && s.BoundTo(t.ID) {
			list = append(list, s)
		}
	}
	return list, nil
}

// redirected returns the secrets whose values are sent to another place when a target points
// elsewhere: the one with its administrator, the attached ones, and the client certificates of
// their applications.
func (c *Call) redirected(tx *store.Tx, t store.Target) ([]string, error) {
	var names []string
	if t.AdminSecret != "" {
		names = append(names, t.AdminSecret)
	}
	attached, err := c.attachedSecrets(tx, t)
	for _, s := range attached {
		for _, name := range sentWith(s) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, err
}

// claimAccounts makes a secret the one that rotates these accounts, under any spelling that the
// target takes for one of them. The claim of a secret that was
// deleted, or is no longer bound to the target, counts for nothing.
func (e *Env) claimAccounts(tx *store.Tx, s secret.Secret, t store.Target, accounts ...string) error {
	for _, account := range accounts {
		names := []string{account}
		if canonical := e.Kinds[t.Kind].CanonicalAccount(t.Config, account); canonical != account {
			names = append(names, canonical) // releases before it claimed the spelling alone
		}
		for _, name := range names {
			if err := claimName(tx, s, t, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimName claims one spelling of an account.
func claimName(tx *store.Tx, s secret.Secret, t store.Target, name string) error {
	owner, err := tx.Claim(s.Account, t.Name, name)
	if err != nil || owner == s.Name {
		return err
	}
	other, err := rotating(tx, s.Account, t, name, s.UpdatedAt)
	switch {
	case err != nil:
		return err
	case other != "":
		return fault.New(fault.Exists, "The account %q of target %q is rotated by secret %q already. To end that: "+
			"keyturn rotation detach %s (a Generic secret) or keyturn secret delete %s --now (any other).",
			name, t.Name, other, other, other)
	}
	return tx.PutClaim(store.Claim{Account: s.Account, Target: t.Name, User: name, Secret: s.Name})
}

// rotating returns the name of the secret that rotates an account of a target; empty for none.
func rotating(tx *store.Tx, account string, t store.Target, user string, at time.Time) (string, error) {
	owner, err := tx.Claim(account, t.Name, user)
	if err != nil || owner == "" {
		return "", err
	}
	s, ok, err := tx.Secret(account, owner, at)
	if err != nil || !ok || s.TargetName() != t.Name || !s.BoundTo(t.ID) {
		return "", err
	}
	return owner, nil
}

// claim makes a secret the one that rotates the accounts, if it is bound to them and to its target
// now.
func (c *Call) claim(tx *store.Tx, s secret.Secret, accounts []string) error {
	if err := mayUse(s, accounts...); err != nil {
		return err
	}
	name := s.TargetName()
	if name == secret.OwnUsers {
		return nil
	}
	t, ok, err := tx.Target(s.Account, name)
	if err != nil {
		return err
	}
	if !ok || !s.BoundTo(t.ID) {
		return ErrMoved
	}
	return c.claimAccounts(tx, s, t, accounts...)
}
