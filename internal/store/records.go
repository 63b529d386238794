package store

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
)

// Keys. A name may hold "/" and never ":", so the version follows a colon.
const (
	metaKey     = "meta"
	valuePrefix = "value/"
	dueLayout   = "20060102T150405.000000000Z"
)

func accountKey(id string) string          { return "account/" + id }
func accessKeyKey(id string) string        { return "accesskey/" + id }
func cmkKey(account, id string) string     { return "cmk/" + account + "/" + id }
func secretPrefix(account string) string   { return "secret/" + account + "/" }
func secretKey(account, n string) string   { return "secret/" + account + "/" + n }
func valueKey(account, n, v string) string { return valuePrefix + account + "/" + n + ":" + v }
func dueKey(t time.Time, account, n string) string {
	return "due/" + t.UTC().Format(dueLayout) + "/" + account + "/" + n
}

// Meta describes the store. It is written last on a first run: a store without it is new.
type Meta struct {
	Account string `json:"account"`
	// RecordKey is what the Authenticator is made of, sealed: what opens it proves the root key. It is of generation 0, and empty
	// after that was replaced.
	RecordKey []byte `json:"record_key,omitempty"`
	// RecordKeys are those of later generations.
	RecordKeys []RecordKey `json:"record_keys,omitempty"`
	// RootKey is the ID of the root key that wraps; empty in a store whose root key was never rotated.
	RootKey string `json:"root_key,omitempty"`
	// FormerRootKeys are IDs of root keys that have nothing left to open here; the last ones.
	FormerRootKeys []string `json:"former_root_keys,omitempty"`
	// Rotation is that of the keys that is under way; nil for none.
	Rotation *KeyRotation `json:"rotation,omitempty"`
	// RotatedAt is when the last rotation of the keys began; zero when none has, or before releases that
	// note it.
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	// TrailKey is what the MACs of the audit trails are made with, sealed. It is empty in a store
	// that no release with keyed trails has opened yet.
	TrailKey  []byte    `json:"trail_key,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// RecordKey is a key of the tags of records, sealed.
type RecordKey struct {
	Generation uint32 `json:"generation"`
	Key        []byte `json:"key"`
}

// KeyRotation says what is still to be done after the root key was replaced.
type KeyRotation struct {
	StartedAt time.Time `json:"started_at"`
	// Former is the ID of the root key before.
	Former string `json:"former"`
	// Values says that every value is sealed anew, under the new version of its master key.
	Values bool `json:"values,omitempty"`
}

// SealedRecordKeys are the keys of the tags of records, by generation.
func (m Meta) SealedRecordKeys() map[uint32][]byte {
	keys := map[uint32][]byte{}
	if len(m.RecordKey) > 0 {
		keys[0] = m.RecordKey
	}
	for _, k := range m.RecordKeys {
		keys[k.Generation] = k.Key
	}
	return keys
}

// Account owns everything in it.
type Account struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// DefaultKeyID names the key of secrets that name none; empty until the first such secret.
	DefaultKeyID string `json:"default_key_id,omitempty"`
	// Keys are the access keys of the root account. None means that they are found among all access keys, if there are any:
	// older releases did not list them.
	Keys []users.Key `json:"keys,omitempty"`
}

// AccessKey signs requests of one principal. Its secret, and the token of a temporary key, are sealed.
type AccessKey struct {
	ID        string           `json:"id"`
	Principal policy.Principal `json:"principal"`
	Disabled  bool             `json:"disabled,omitempty"`
	Secret    []byte           `json:"secret"`
	Token     []byte           `json:"token,omitempty"`
	CreatedAt time.Time        `json:"created_at"`
	// ExpiresAt is zero for a permanent key.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Meta reads the description of the store; ok is false when the store is new.
func (tx *Tx) Meta() (Meta, bool, error) { return load[Meta](tx, metaKey) }

// HasMeta reports whether the store is described, by this node or by another whose records this one cannot authenticate yet.
func (tx *Tx) HasMeta() (bool, error) {
	r, err := tx.get(metaKey)
	return r.data != nil, err
}

// PutMeta marks the store as set up.
func (tx *Tx) PutMeta(m Meta) error { return save(tx, metaKey, m) }

// Account reads an account.
func (tx *Tx) Account(id string) (Account, bool, error) { return load[Account](tx, accountKey(id)) }

// PutAccount writes an account.
func (tx *Tx) PutAccount(a Account) error { return save(tx, accountKey(a.ID), a) }

// AccessKey reads an access key.
func (tx *Tx) AccessKey(id string) (AccessKey, bool, error) {
	if id == "" || strings.ContainsAny(id, "/:") {
		return AccessKey{}, false, nil
	}
	return load[AccessKey](tx, accessKeyKey(id))
}

// AccessKeys calls visit for each access key of every account, until visit returns false. It does not guard a change.
func (tx *Tx) AccessKeys(visit func(AccessKey) bool) error {
	return scan(tx, accessKeyKey(""), clientv3.GetPrefixRangeEnd(accessKeyKey("")), visit)
}

// errRootKeyRotated refuses what was wrapped just before the root key was replaced.
func errRootKeyRotated() error {
	return fault.New(fault.Unavailable, "The root key has just been rotated, and nothing was changed; try again.")
}

// PutAccessKey writes an access key.
func (tx *Tx) PutAccessKey(k AccessKey) error {
	if a := tx.db.authenticator(); a != nil && !a.IsCurrent(k.Secret) {
		old, _, err := tx.AccessKey(k.ID)
		if err != nil {
			return err
		}
		if !bytes.Equal(old.Secret, k.Secret) { // else it is wrapped anew in its turn
			return errRootKeyRotated()
		}
	}
	return save(tx, accessKeyKey(k.ID), k)
}

// DeleteAccessKey removes an access key, and what is known of its use.
func (tx *Tx) DeleteAccessKey(id string) {
	tx.write(accessKeyKey(id), nil)
	tx.write(keyUseKey(id), nil)
}

// Key reads a customer master key.
func (tx *Tx) Key(account, id string) (cmk.Key, bool, error) {
	return load[cmk.Key](tx, cmkKey(account, id))
}

// PutKey writes a customer master key.
func (tx *Tx) PutKey(k cmk.Key) error {
	if a := tx.db.authenticator(); a != nil && !a.IsCurrent(k.DigestKey) {
		return errRootKeyRotated()
	}
	return save(tx, cmkKey(k.Account, k.ID), k)
}

// Secret reads a secret. One whose planned deletion time has come is absent, whether or not its record is still there.
func (tx *Tx) Secret(account, name string, now time.Time) (secret.Secret, bool, error) {
	key := secretKey(account, name)
	s, ok, err := load[secret.Secret](tx, key)
	if err != nil || !ok {
		return secret.Secret{}, false, err
	}
	tx.remember(key, s)
	if s.Gone(now) {
		return secret.Secret{}, false, nil
	}
	return s, true, nil
}

// remember keeps a secret as it was read, for what follows from changing it. A snapshot changes nothing.
func (tx *Tx) remember(key string, s secret.Secret) {
	if tx.pinned {
		return
	}
	if tx.loaded == nil {
		tx.loaded = map[string]secret.Secret{}
	}
	tx.loaded[key] = s
}

// PutSecret writes a secret, the sealed values of its new versions, and what follows from the change: values of
// versions that are no longer there are removed, and the time at which something is due is indexed. The secret must
// have been read in this transaction.
func (tx *Tx) PutSecret(s secret.Secret, values map[string][]byte) error {
	key := secretKey(s.Account, s.Name)
	if _, ok := tx.reads[key]; !ok {
		return fmt.Errorf("secret %q is written without having been read", s.Name)
	}
	if s.Policy != tx.loaded[key].Policy {
		if err := tx.indexPolicy(s); err != nil {
			return err
		}
	}
	tx.forget(tx.loaded[key], s.Versions)
	for id, box := range values {
		tx.write(valueKey(s.Account, s.Name, id), box)
	}
	if !s.Due().IsZero() {
		if err := save(tx, dueKey(s.Due(), s.Account, s.Name), Due{Account: s.Account, Name: s.Name}); err != nil {
			return err
		}
	}
	return save(tx, key, s)
}

// DeleteSecret removes a secret with all its values, and what is known of its rotation and consumers.
func (tx *Tx) DeleteSecret(account, name string) error {
	key := secretKey(account, name)
	old, ok := tx.loaded[key]
	if !ok {
		return fmt.Errorf("secret %q is deleted without having been read", name)
	}
	tx.forget(old, nil)
	tx.write(key, nil)
	if old.Policy != "" {
		tx.write(denyingKey(account, name), nil)
	}
	tx.forgetConsumers(account, name)
	return tx.DeleteRotation(account, name)
}

// ForgetFormer removes what is known of the rotation and the consumers of a secret that had the name
// before and whose planned deletion time has come: a new secret of the name gets nothing of it.
func (tx *Tx) ForgetFormer(account, name string) error {
	tx.forgetConsumers(account, name)
	return tx.DeleteRotation(account, name)
}

// PurgeSecret removes a secret whose planned deletion time has come. One that was restored meanwhile, or is gone already,
// is left as it is.
func (tx *Tx) PurgeSecret(account, name string, now time.Time) error {
	key := secretKey(account, name)
	s, ok, err := load[secret.Secret](tx, key)
	if err != nil || !ok || !s.Gone(now) {
		return err
	}
	tx.remember(key, s)
	return tx.DeleteSecret(account, name)
}

// forget removes what the old record had and the new one has not: values and the due time.
func (tx *Tx) forget(old secret.Secret, keep map[string]secret.Version) {
	for id, v := range old.Versions {
		if kept, ok := keep[id]; !ok || kept.Order != v.Order || !kept.CreatedAt.Equal(v.CreatedAt) {
			tx.write(valueKey(old.Account, old.Name, id), nil)
		}
	}
	if !old.Due().IsZero() {
		tx.write(dueKey(old.Due(), old.Account, old.Name), nil)
	}
}

// ValueKey names the record of a sealed value, for messages.
func ValueKey(account, name, version string) string { return valueKey(account, name, version) }

// Value reads the sealed value of a version.
func (tx *Tx) Value(account, name, version string) ([]byte, error) {
	r, err := tx.get(valueKey(account, name, version))
	if err != nil {
		return nil, err
	}
	if r.data == nil {
		return nil, fmt.Errorf("secret %q: the value of version %q is missing from the store", name, version)
	}
	return r.data, nil
}

// Due is something that must happen at a time.
type Due struct {
	Account string `json:"account"`
	Name    string `json:"name"`
}

// horizon is how far ahead an index of times is looked at for the next time. The store counts what it reads a range of, so a
// range of all that is ever due would cost more the more is planned.
const horizon = time.Minute

// DueBefore lists at most limit secrets whose time has come, and says when the next one is due; zero when none is in the next
// minute.
func (tx *Tx) DueBefore(now time.Time, limit int) (due []Due, next time.Time, err error) {
	return timed[Due](tx, "due/", now, limit)
}

// timed reads the records of an index of times that are due.
func timed[T any](tx *Tx, prefix string, now time.Time, limit int) (due []T, next time.Time, err error) {
	end := prefix + now.Add(horizon).UTC().Format(dueLayout)
	resp, err := tx.db.kv.Get(tx.ctx, prefix, tx.options(clientv3.WithRange(end), clientv3.WithLimit(int64(limit)+1))...)
	if err != nil {
		return nil, next, unavailable(err)
	}
	for _, kv := range resp.Kvs {
		key := string(kv.Key)
		at, err := parseDue(prefix, key)
		if err != nil {
			return nil, next, err
		}
		if at.After(now) || len(due) == limit {
			return due, at, nil
		}
		d, err := decode[T](tx.db, key, kv.Value)
		if err != nil {
			return nil, next, err
		}
		due = append(due, d)
	}
	return due, next, nil
}

// SecretPage calls row for the secrets of one page, those whose name begins with prefix in the order of names, and
// returns how many there are in all. Those withheld, whose names begin with prefix too, are left out of both. It reads no more
// records than the page has and those; what comes before is skipped by key.
func (tx *Tx) SecretPage(account, prefix string, withheld map[string]bool, skip, take int, now time.Time, row func(secret.Secret)) (total int, err error) {
	first := secretKey(account, prefix)
	resp, err := tx.db.kv.Get(tx.ctx, first, tx.options(clientv3.WithPrefix(), clientv3.WithCountOnly())...)
	if err != nil {
		return 0, unavailable(err)
	}
	tx.seen(resp)
	total = int(resp.Count) - len(withheld)
	if skip >= total {
		return total, nil
	}
	from := ""
	if skip > 0 {
		limit := int64(skip) + int64(len(withheld))
		resp, err = tx.db.kv.Get(tx.ctx, first, tx.options(clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(limit))...)
		if err != nil {
			return 0, unavailable(err)
		}
		for _, kv := range resp.Kvs {
			name := strings.TrimPrefix(string(kv.Key), secretPrefix(account))
			if withheld[name] {
				continue
			}
			if skip--; skip == 0 {
				from = name + "\x00"
				break
			}
		}
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

// Secrets calls visit for each secret of an account whose name begins with prefix, in the order of names, from the
// name from (inclusive) on, until visit returns false. Secrets that are gone are left out.
func (tx *Tx) Secrets(account, prefix, from string, now time.Time, visit func(secret.Secret) bool) error {
	start := secretKey(account, prefix)
	end := clientv3.GetPrefixRangeEnd(start)
	start = max(start, secretKey(account, from))
	return scan(tx, start, end, func(s secret.Secret) bool { return s.Gone(now) || visit(s) })
}

// scan calls visit for each record from the key start on, up to end (exclusive), in the order of keys, until visit
// returns false. What is read so does not guard a change.
func scan[T any](tx *Tx, start, end string, visit func(T) bool) error {
	for {
		resp, err := tx.db.kv.Get(tx.ctx, start, tx.options(clientv3.WithRange(end), clientv3.WithLimit(chunk))...)
		if err != nil {
			return unavailable(err)
		}
		tx.seen(resp)
		for _, kv := range resp.Kvs {
			v, err := decode[T](tx.db, string(kv.Key), kv.Value)
			if err != nil {
				return err
			}
			if !visit(v) {
				return nil
			}
		}
		if !resp.More {
			return nil
		}
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
