package api

import (
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

// hold makes a secret the one that rotates these accounts. A secret that is gone, or is not bound to the
// target any more, holds nothing.
func hold(tx *store.Tx, s secret.Secret, t store.Target, users ...string) error {
	for _, user := range users {
		holder, err := tx.Claim(s.Account, t.Name, user)
		if err != nil {
			return err
		}
		if holder == s.Name {
			continue
		}
		if holder != "" {
			other, ok, err := tx.Secret(s.Account, holder, s.UpdatedAt)
			if err != nil {
				return err
			}
			if ok && other.TargetName() == t.Name && other.BoundTo(t.ID) {
				return fault.New(fault.Exists, "The account %q of target %q is rotated by secret %q already.", user, t.Name, holder)
			}
		}
		claim := store.Claim{Account: s.Account, Target: t.Name, User: user, Secret: s.Name}
		if err := tx.PutClaim(claim); err != nil {
			return err
		}
	}
	return nil
}

// claim makes the secret the one that rotates the accounts, if it is bound to them and to its target now.
func (c *Call) claim(tx *store.Tx, s secret.Secret, accounts []string) error {
	for _, account := range accounts {
		if err := mayUse(s, target.Credential{Account: account}); err != nil {
			return err
		}
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
	return hold(tx, s, t, accounts...)
}
