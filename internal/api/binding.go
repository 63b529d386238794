package api

import (
	"slices"

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

// registration is what the name of a target stands for at one moment: where values are sent, and by
// which administrator. For the service's own users it is a user.
type registration struct {
	exists                  bool
	id, kind, config, admin string
}

// registered returns what a name of a target stands for; of the service's own users, the user.
func registered(tx *store.Tx, account, targetName, userName string) (registration, error) {
	if targetName == secret.OwnUsers {
		u, ok, err := tx.User(account, userName)
		return registration{exists: ok, id: u.ID}, err
	}
	t, ok, err := tx.Target(account, targetName)
	if err != nil || !ok {
		return registration{}, err
	}
	return registrationOf(t), nil
}

func registrationOf(t store.Target) registration {
	return registration{exists: true, id: t.ID, kind: t.Kind, config: string(t.Config), admin: t.AdminSecret}
}

// binds reports whether the secret is bound to the registration.
func (r registration) binds(s secret.Secret) bool {
	return r.exists && (s.TargetName() != secret.OwnUsers || s.Rotation.Binding != nil) && s.BoundTo(r.id)
}

// isAnother reports whether the secret was bound to another registration of this name. A release
// before bindings bound no secret to a user.
func (r registration) isAnother(s secret.Secret) bool {
	unbound := s.TargetName() == secret.OwnUsers && s.Rotation.Binding == nil
	return r.exists && !r.binds(s) && !unbound
}

// isBound reports whether the secret is bound to the target of its name as it is registered now,
// or, for RAMCredentials, to the user that has the name now.
func (e *Env) isBound(tx *store.Tx, s secret.Secret) (bool, error) {
	now, err := registered(tx, s.Account, s.TargetName(), s.UserName())
	return now.binds(s), err
}

// asBound returns a secret with the settings that it keeps when a call binds it: those that mean
// something at one registration of a target do not outlive it.
func (e *Env) asBound(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
	now, err := registered(tx, s.Account, s.TargetName(), s.UserName())
	if err != nil || now.exists && !now.isAnother(s) || s.Rotation.Settings == nil {
		return s, err
	}
	settings := withoutTarget(s.Settings())
	s.Rotation.Settings = &settings
	return s, nil
}

// bind ties a secret to its target as it is registered now, and to the accounts that the caller was
// judged for. It claims them, and refuses one that another secret rotates. A secret whose target is
// not registered stays as it is. changed reports whether the secret has to be stored.
func (c *Call) bind(tx *store.Tx, s secret.Secret) (bound secret.Secret, changed bool, err error) {
	now, err := c.asBound(tx, s)
	if err != nil {
		return s, false, err
	}
	ch, err := c.storedChanges(tx, now)
	if err != nil {
		return s, false, err
	}
	if bound, changed, err = c.bindTo(tx, now, ch); !changed {
		return s, false, err
	}
	return bound, true, err
}

func (c *Call) bindTo(tx *store.Tx, s secret.Secret, ch changes) (bound secret.Secret, changed bool, err error) {
	if err := c.wasJudged(s.Name, ch); err != nil {
		return s, false, err
	}
	now, err := registered(tx, s.Account, ch.target, s.UserName())
	if err != nil {
		return s, false, err
	}
	if err := c.isAsJudged(ch.target, now, now.binds(s)); err != nil || !now.exists {
		return s, false, err
	}
	if ch.target != secret.OwnUsers {
		t, _, err := tx.Target(s.Account, ch.target)
		if err != nil {
			return s, false, err
		}
		if err := c.allows(tx, t, s.Name, ch.names); err != nil {
			return s, false, err
		}
		if err := c.claimAccounts(tx, s, t, ch.names...); err != nil {
			return s, false, err
		}
	}
	bound, changed = s.Bind(now.id, ch.names)
	if !now.isAnother(s) {
		return bound, changed, nil
	}
	return bound, changed, c.forgetTarget(tx, s)
}

// forgetTarget removes from the record of a secret what another registration of its target has
// said. A rotation under way keeps it until its end.
func (c *Call) forgetTarget(tx *store.Tx, s secret.Secret) error {
	r, ok, err := tx.Rotation(s.Account, s.Name)
	if err != nil || !ok || r.InFlight() {
		return err
	}
	probed := !r.Health.NextAt.IsZero()
	r.Accepted, r.Retired, r.Health, r.Check = "", "", rotation.Health{}, nil
	if probed {
		r.Health.NextAt = c.At
	}
	return tx.PutRotation(&r)
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

// attachedSecrets returns the secrets that are attached to a target, in the order of names. A
// secret in its deletion window stays attached: when it is restored, its value is sent there again.
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
		if ok && s.TargetName() == t.Name && s.BoundTo(t.ID) {
			list = append(list, s)
		}
	}
	return list, nil
}

// detachable returns the attached secrets that do not wait for their deletion: those whose rotation
// a caller can end or change.
func (c *Call) detachable(tx *store.Tx, t store.Target) ([]secret.Secret, error) {
	attached, err := c.attachedSecrets(tx, t)
	return slices.DeleteFunc(attached, secret.Secret.Deleting), err
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
// target takes for one of them. The claim of a secret that was deleted, or is no longer bound to
// the target and the account, counts for nothing: the name may be another secret's by now.
func (c *Call) claimAccounts(tx *store.Tx, s secret.Secret, t store.Target, accounts ...string) error {
	for _, account := range accounts {
		for _, name := range c.spellings(t, account) {
			if err := c.claimName(tx, s, t, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// spellings returns the names under which an account may be claimed: releases before the canonical
// one claimed the spelling of the secret alone.
func (e *Env) spellings(t store.Target, account string) []string {
	names := []string{account}
	if canonical := e.Kinds[t.Kind].CanonicalAccount(t.Config, account); canonical != account {
		names = append(names, canonical)
	}
	return names
}

// taken returns the first of the accounts that another secret rotates, and that secret; both are
// empty for none.
func (e *Env) taken(
	tx *store.Tx, s secret.Secret, t store.Target, accounts []string,
) (account, other string, err error) {
	for _, account := range accounts {
		for _, name := range e.spellings(t, account) {
			other, err := e.rotating(tx, s.Account, t, name)
			if err != nil || other != "" && other != s.Name {
				return account, other, err
			}
		}
	}
	return "", "", nil
}

// claimedOf returns the accounts that a secret which is bound to its target must hold there: of a
// secret of a release before bindings, those that its value names.
func (e *Env) claimedOf(tx *store.Tx, s secret.Secret) ([]string, error) {
	if b := s.Rotation.Binding; b != nil {
		return b.Accounts, nil
	}
	ch, err := e.storedChanges(tx, s)
	return ch.names, err
}

// takenFrom returns what [Env.taken] does of the accounts to which a secret is bound, and their
// target. A secret that is bound to no registered target has none.
func (e *Env) takenFrom(tx *store.Tx, s secret.Secret) (t store.Target, account, other string, err error) {
	if !s.IsRotated() || s.TargetName() == secret.OwnUsers {
		return t, "", "", nil
	}
	t, ok, err := tx.Target(s.Account, s.TargetName())
	if err != nil || !ok || !s.BoundTo(t.ID) {
		return t, "", "", err
	}
	accounts, err := e.claimedOf(tx, s)
	if err == nil {
		account, other, err = e.taken(tx, s, t, accounts)
	}
	return t, account, other, err
}

// notTaken returns an error if another secret rotates an account of this one. That can be so for a
// secret of an earlier release, which claimed no accounts when it was bound.
func (c *Call) notTaken(tx *store.Tx, s secret.Secret) error {
	t, account, other, err := c.takenFrom(tx, s)
	if err != nil || other == "" {
		return err
	}
	return c.claimed(t, account, other)
}

// claimBound claims the accounts of a secret that an earlier release has bound without a claim. The
// rights on them were judged when it was bound.
func (c *Call) claimBound(tx *store.Tx, s secret.Secret, t store.Target) error {
	accounts, err := c.claimedOf(tx, s)
	if err != nil {
		return err
	}
	return c.claimAccounts(tx, s, t, accounts...)
}

// claimName claims one spelling of an account.
func (c *Call) claimName(tx *store.Tx, s secret.Secret, t store.Target, name string) error {
	owner, err := tx.Claim(s.Account, t.Name, name)
	if err != nil || owner == s.Name {
		return err
	}
	other, err := c.rotating(tx, s.Account, t, name)
	switch {
	case err != nil:
		return err
	case other != "":
		return c.claimed(t, name, other)
	}
	return tx.PutClaim(store.Claim{Account: s.Account, Target: t.Name, User: name, Secret: s.Name})
}

// claimed refuses an account that another secret rotates. It names that secret to callers who may
// describe it.
func (c *Call) claimed(t store.Target, account, other string) error {
	shown, err := c.mayDescribe(other)
	switch {
	case err != nil:
		return err
	case c.op == nil: // the engine's text is stored, and shown to callers without the right to see the other name
		return fault.New(fault.Exists, "The account %q of target %q is rotated by another secret already. To end that, "+
			"detach it (a Generic secret) or delete it with --now.", account, t.Name)
	case !shown:
		return fault.New(fault.Exists, "The account %q of target %q is rotated by another secret already, whose name you "+
			"have no right to see (%s). To end that, detach it (a Generic secret) or delete it with --now.",
			account, t.Name, actionDescribeSecret)
	}
	return fault.New(fault.Exists, "The account %q of target %q is rotated by secret %q already. To end that: "+
		"keyturn rotation detach %s (a Generic secret) or keyturn secret delete %s --now (any other).",
		account, t.Name, other, other, other)
}

// rotating returns the name of the secret that rotates an account of a target; empty for none.
func (e *Env) rotating(tx *store.Tx, account string, t store.Target, user string) (string, error) {
	owner, err := tx.Claim(account, t.Name, user)
	if err != nil || owner == "" {
		return "", err
	}
	s, ok, err := tx.Secret(account, owner, e.Now().UTC())
	if err != nil || !ok || s.TargetName() != t.Name || !s.BoundTo(t.ID) {
		return "", err
	}
	if e.bindsAccount(s, t, user) {
		return owner, nil
	}
	if changes, err := e.isChanging(tx, s, t, user); err != nil || !changes {
		return "", err
	}
	return owner, nil
}

// isChanging reports whether the rotation under way of a secret may still change an account, such
// as one that retires it after the settings have named another. A version that cannot be read may
// be of that account.
func (e *Env) isChanging(tx *store.Tx, s secret.Secret, t store.Target, user string) (bool, error) {
	r, _, err := tx.Rotation(s.Account, s.Name)
	if err != nil {
		return false, err
	}
	for _, id := range r.Versions() {
		v, ok := s.Versions[id]
		if !ok {
			continue
		}
		list, _, err := credentials(e, tx, s, v)
		isUsers := func(c target.Credential) bool { return slices.Contains(e.spellings(t, c.Account), user) }
		if err != nil || slices.ContainsFunc(list, isUsers) {
			return true, nil
		}
	}
	return false, nil
}

// bindsAccount reports whether a secret is bound to an account, under any spelling of it.
func (e *Env) bindsAccount(s secret.Secret, t store.Target, user string) bool {
	b := s.Rotation.Binding
	return b == nil || slices.ContainsFunc(b.Accounts, func(account string) bool {
		return slices.Contains(e.spellings(t, account), user)
	})
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
