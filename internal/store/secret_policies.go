package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
)

// SecretPolicy returns the policy of a secret, parsed and bound to the IDs of the users whom it
// names. A secret without a policy has the default policy.
func (tx *Tx) SecretPolicy(s secret.Secret) (policy.Document, error) {
	if s.Policy == "" {
		return defaultPolicy(tx.db, s.Account)
	}
	d, err := parsedPolicy(tx.db, s)
	if err != nil {
		return d, err
	}
	if s.PolicyBinding != nil {
		return d.Bind(s.PolicyBinding.IDs), nil
	}
	ids, err := tx.formerIDs(s, d)
	return d.Bind(ids), err
}

// defaultPolicy returns the default policy of secrets, which names no user. Most reads are decided
// by it, so it is made once for each account.
func defaultPolicy(db *DB, account string) (policy.Document, error) {
	if d, ok := db.defaults.get(account, nil); ok {
		return d, nil
	}
	d, err := policy.ParseSecret(policy.DefaultSecretDocument(account), account)
	if err != nil {
		return d, fmt.Errorf("the default policy of account %q: %w", account, err)
	}
	d = d.Bind(nil)
	db.defaults.put(account, nil, d)
	return d, nil
}

func parsedPolicy(db *DB, s secret.Secret) (policy.Document, error) {
	m, text := &db.documents, "secret of "+s.Account+": "+s.Policy
	if d, ok := m.get(text, nil); ok {
		return d, nil
	}
	d, err := policy.ParseSecret(s.Policy, s.Account)
	if err != nil {
		return d, fmt.Errorf("the stored policy of secret %q: %w", s.Name, err)
	}
	m.put(text, nil, d)
	return d, nil
}

// UserID returns the ID of the user with that ARN; empty if there is none, or the ARN is not that
// of a user.
func (tx *Tx) UserID(account, arn string) (string, error) {
	u, err := tx.userOf(account, arn)
	return u.ID, err
}

// formerIDs binds a policy that an older release stored without IDs. A name means the user who has
// it now, if that user existed when the secret was last changed: the policy was set then, or
// before. A user who was created later has taken the name of another.
func (tx *Tx) formerIDs(s secret.Secret, d policy.Document) (map[string]string, error) {
	ids := map[string]string{}
	for _, arn := range d.Named() {
		u, err := tx.userOf(s.Account, arn)
		if err != nil {
			return nil, err
		}
		if u.ID != "" && !u.CreatedAt.After(s.UpdatedAt) {
			ids[arn] = u.ID
		}
	}
	return ids, nil
}

// indexPolicy updates the index of secrets whose policy has a Deny. Lists find in it the secrets
// that they may have to leave out, without reading every secret.
func (tx *Tx) indexPolicy(s secret.Secret) error {
	path := in(s.Account, s.Name)
	if s.Policy == "" {
		denyingKind.delete(tx, path)
		return nil
	}
	d, err := parsedPolicy(tx.db, s)
	if err != nil {
		return err
	}
	if d.Denies() {
		return denyingKind.saveAt(tx, path, true)
	}
	denyingKind.delete(tx, path)
	return nil
}

// Denying returns the names of the secrets that begin with prefix and whose policy has a Deny.
func (tx *Tx) Denying(account, prefix string) ([]string, error) {
	under := denyingKind.key(in(account, prefix))
	resp, err := tx.db.kv.Get(tx.ctx, under, tx.options(clientv3.WithPrefix(), clientv3.WithKeysOnly())...)
	if err != nil {
		return nil, unavailable(err)
	}
	tx.seen(resp)
	names := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		names[i] = strings.TrimPrefix(string(kv.Key), denyingKind.key(in(account, "")))
	}
	return names, nil
}

// PoliciesBound reports whether [BindSecretPolicies] has run to its end.
func (tx *Tx) PoliciesBound() (bool, error) {
	done, _, err := upgradeKind.load(tx, policiesBound)
	return done, err
}

// BindSecretPolicies binds the policies of secrets that were stored without IDs to the users whom
// they name, and fills the index of policies that have a Deny. It does so once for each store;
// after an interruption, the next call does the rest. A name that no user has, or only a user who
// was created after the last change of the secret, is bound to no ID: an Allow for it grants
// nothing.
func BindSecretPolicies(ctx context.Context, db *DB, log *slog.Logger) error {
	tx := Snapshot(ctx, db)
	if done, err := tx.PoliciesBound(); err != nil || done {
		return err
	}
	var list []secret.Secret
	err := secretKind.scan(tx, "", "", func(s secret.Secret) bool {
		if s.Policy != "" {
			list = append(list, secret.Secret{Account: s.Account, Name: s.Name})
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("find the policies of secrets: %w", err)
	}
	for _, s := range list {
		bound, err := Update(ctx, db, func(tx *Tx) (binding, error) { return tx.bindPolicy(s.Account, s.Name) })
		if err != nil {
			return fmt.Errorf("bind the policy of secret %q: %w", s.Name, err)
		}
		for _, arn := range bound.unbound {
			log.Warn("a secret's policy names a user who does not exist; it grants nothing to that name",
				"secret", s.Name, "principal", arn)
		}
		for _, arn := range bound.young {
			log.Warn("a secret's policy names a user who was created after the secret; check that this user is meant",
				"secret", s.Name, "principal", arn)
		}
	}
	return Do(ctx, db, func(tx *Tx) error { return upgradeKind.saveAt(tx, policiesBound, true) })
}

// binding has the names in a policy that an operator should check after the policy was bound: those
// without a user, and those of users who were created after the secret.
type binding struct{ unbound, young []string }

func (tx *Tx) bindPolicy(account, name string) (binding, error) {
	var b binding
	s, ok, err := secretKind.load(tx, in(account, name))
	if err != nil || !ok || s.Policy == "" {
		return b, err
	}
	if err := tx.indexPolicy(s); err != nil || s.PolicyBinding != nil {
		return b, err
	}
	d, err := parsedPolicy(tx.db, s)
	if err != nil {
		return b, err
	}
	ids, err := tx.formerIDs(s, d)
	if err != nil {
		return b, err
	}
	for _, arn := range d.Named() {
		u, err := tx.userOf(account, arn)
		switch {
		case err != nil:
			return b, err
		case ids[arn] == "":
			b.unbound = append(b.unbound, arn)
		case u.CreatedAt.After(s.CreatedAt):
			b.young = append(b.young, arn)
		}
	}
	slices.Sort(b.unbound)
	s.PolicyBinding = &secret.PolicyBinding{IDs: ids}
	return b, secretKind.save(tx, s)
}
