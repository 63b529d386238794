package store

import (
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// Secret reads a secret. A secret whose planned deletion time has come is absent, even if its
// record is not removed yet.
func (tx *Tx) Secret(account, name string, now time.Time) (secret.Secret, bool, error) {
	s, ok, err := secretKind.load(tx, in(account, name))
	if err != nil || !ok {
		return secret.Secret{}, false, err
	}
	tx.remember(s)
	if s.Gone(now) {
		return secret.Secret{}, false, nil
	}
	return s, true, nil
}

// remember keeps a secret as it was read, so that PutSecret and DeleteSecret can remove what
// belonged to it. A snapshot changes nothing.
func (tx *Tx) remember(s secret.Secret) {
	if tx.pinned {
		return
	}
	if tx.loaded == nil {
		tx.loaded = map[string]secret.Secret{}
	}
	tx.loaded[in(s.Account, s.Name)] = s
}

// PutSecret writes a secret and the sealed values of its new versions. It also removes the values
// of versions that s does not have, and indexes the time of a planned deletion. The secret must
// have been read in this transaction.
func (tx *Tx) PutSecret(s secret.Secret, values map[string][]byte) error {
	path := in(s.Account, s.Name)
	if _, ok := tx.reads[secretKind.key(path)]; !ok {
		return fmt.Errorf("secret %q is written without having been read", s.Name)
	}
	old := tx.loaded[path]
	if s.Policy != old.Policy {
		if err := tx.indexPolicy(s); err != nil {
			return err
		}
	}
	tx.forget(old, s.Versions)
	for id, box := range values {
		tx.write(valueKind.keyOf(s.Account, s.Name, id), box)
	}
	if !s.Due().IsZero() {
		due := Due{Account: s.Account, Name: s.Name}
		if err := dueKind.saveAt(tx, duePath(s.Due(), s.Account, s.Name), due); err != nil {
			return err
		}
	}
	return secretKind.save(tx, s)
}

// DeleteSecret removes a secret with all its values and the records of its rotation and its
// consumers. The secret must have been read in this transaction.
func (tx *Tx) DeleteSecret(account, name string) error {
	old, ok := tx.loaded[in(account, name)]
	if !ok {
		return fmt.Errorf("secret %q is deleted without having been read", name)
	}
	tx.forget(old, nil)
	secretKind.delete(tx, in(account, name))
	if old.Policy != "" {
		denyingKind.delete(tx, in(account, name))
	}
	tx.forgetConsumers(account, name)
	return tx.DeleteRotation(account, name)
}

// ForgetFormer removes the rotation and the consumers of an earlier secret with that name, whose
// planned deletion time has come: a new secret with the name must not inherit them.
func (tx *Tx) ForgetFormer(account, name string) error {
	tx.forgetConsumers(account, name)
	return tx.DeleteRotation(account, name)
}

// PurgeSecret removes a secret whose planned deletion time has come. It does nothing to a secret
// that was restored meanwhile, or that no longer exists.
func (tx *Tx) PurgeSecret(account, name string, now time.Time) error {
	s, ok, err := secretKind.load(tx, in(account, name))
	if err != nil || !ok || !s.Gone(now) {
		return err
	}
	tx.remember(s)
	return tx.DeleteSecret(account, name)
}

// forget removes the due time of the old secret, and the values of its versions that are not in
// keep. A version of the same ID that was made at another time is another version.
func (tx *Tx) forget(old secret.Secret, keep map[string]secret.Version) {
	for id, v := range old.Versions {
		if kept, ok := keep[id]; !ok || kept.Order != v.Order || !kept.CreatedAt.Equal(v.CreatedAt) {
			tx.write(valueKind.keyOf(old.Account, old.Name, id), nil)
		}
	}
	if !old.Due().IsZero() {
		dueKind.delete(tx, duePath(old.Due(), old.Account, old.Name))
	}
}

// ValueKey returns the key of the record of a sealed value, for messages.
func ValueKey(account, name, version string) string { return valueKind.keyOf(account, name, version) }

// Value reads the sealed value of a version.
func (tx *Tx) Value(account, name, version string) ([]byte, error) {
	r, err := tx.get(valueKind.keyOf(account, name, version))
	if err != nil {
		return nil, err
	}
	if r.data == nil {
		return nil, fmt.Errorf("secret %q: the value of version %q is missing from the store", name, version)
	}
	return r.data, nil
}

// SecretPage calls row for the secrets of one page, in the order of names, and returns the number
// of secrets on all pages. The pages have the secrets whose name begins with prefix, without those
// withheld, whose names must begin with prefix too. SecretPage reads only the records of the page
// and those withheld; it skips earlier secrets by key.
func (tx *Tx) SecretPage(
	account, prefix string,
	withheld map[string]bool,
	skip, take int,
	now time.Time,
	row func(secret.Secret),
) (total int, err error) {
	total, err = secretKind.count(tx, in(account, prefix))
	if err != nil {
		return 0, err
	}
	total -= len(withheld)
	if skip >= total {
		return total, nil
	}
	from, err := tx.nameAfter(account, prefix, withheld, skip)
	if err != nil {
		return 0, err
	}
	return total, tx.Secrets(account, prefix, from, now, func(s secret.Secret) bool {
		if withheld[s.Name] {
			return true
		}
		row(s)
		take--
		return take > 0
	})
}

// nameAfter returns the first possible name after the first skip secrets that are not withheld;
// empty if skip is 0.
func (tx *Tx) nameAfter(account, prefix string, withheld map[string]bool, skip int) (string, error) {
	if skip == 0 {
		return "", nil
	}
	limit := int64(skip) + int64(len(withheld))
	options := tx.options(clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(limit))
	resp, err := tx.db.kv.Get(tx.ctx, secretKind.key(in(account, prefix)), options...)
	if err != nil {
		return "", unavailable(err)
	}
	for _, kv := range resp.Kvs {
		name := strings.TrimPrefix(string(kv.Key), secretKind.key(in(account, "")))
		if withheld[name] {
			continue
		}
		if skip--; skip == 0 {
			return name + "\x00", nil
		}
	}
	return "", nil
}

// Secrets calls visit for each secret of an account whose name begins with prefix, in the order of
// names, from the name from (inclusive) on, until visit returns false. It leaves out secrets whose
// planned deletion time has come.
func (tx *Tx) Secrets(account, prefix, from string, now time.Time, visit func(secret.Secret) bool) error {
	return secretKind.scan(tx, in(account, prefix), in(account, from), func(s secret.Secret) bool {
		return s.Gone(now) || visit(s)
	})
}

// sealedValues is the type of the records of sealed values. Their content is bytes of package
// envelope, which binds them to account, secret and version itself; the store adds nothing.
type sealedValues struct{ declaration }

// keyOf returns the key of a value. A secret's name never has ":", so the version follows one.
func (k sealedValues) keyOf(account, name, version string) string {
	return k.key(in(account, name) + ":" + version)
}

// rewritten asks the Rewriter for a new value.
func (k sealedValues) rewritten(_ *DB, w Rewriter, key string, data []byte) ([]byte, error) {
	if w.Value == nil {
		return nil, nil
	}
	account, rest, _ := strings.Cut(strings.TrimPrefix(key, k.prefix), "/")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return nil, fmt.Errorf("stored record %q is named like no value", key)
	}
	box, changed, err := w.Value(account, rest[:i], rest[i+1:], data)
	if err != nil || !changed {
		return nil, err
	}
	return box, nil
}
