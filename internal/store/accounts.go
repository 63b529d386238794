package store

import (
	"bytes"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/users"
)

// Account owns everything in it.
type Account struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	// DefaultKeyID names the master key of secrets that name none; empty until the first such secret.
	DefaultKeyID string `json:"default_key_id,omitempty"`
	// Keys are the access keys of the root account. If the list is empty, they are those among all
	// access keys that have this account as their principal: older releases did not list them.
	Keys []users.Key `json:"keys,omitempty"`
}

// AccessKey signs requests of one principal. Its secret and the token of a temporary key are
// sealed.
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

// Account reads an account.
func (tx *Tx) Account(id string) (Account, bool, error) { return accountKind.load(tx, id) }

// PutAccount writes an account.
func (tx *Tx) PutAccount(a Account) error { return accountKind.save(tx, a) }

// AccessKey reads an access key.
func (tx *Tx) AccessKey(id string) (AccessKey, bool, error) {
	if id == "" || strings.ContainsAny(id, "/:") {
		return AccessKey{}, false, nil
	}
	return accessKeyKind.load(tx, id)
}

// AccessKeys calls visit for each access key of every account until visit returns false. It does
// not guard a change.
func (tx *Tx) AccessKeys(visit func(AccessKey) bool) error {
	return accessKeyKind.scan(tx, "", "", visit)
}

// errRootKeyRotated refuses what was wrapped just before the root key was replaced.
func errRootKeyRotated() error {
	return fault.New(fault.Unavailable, "The root key has just been rotated, and nothing was changed; try again.")
}

// PutAccessKey writes an access key. It refuses a secret under a former root key, unless it is the
// stored one: the rotation of the root key wraps that again in its turn.
func (tx *Tx) PutAccessKey(k AccessKey) error {
	if a := tx.db.authenticator(); a != nil && !a.IsCurrent(k.Secret) {
		old, _, err := tx.AccessKey(k.ID)
		if err != nil {
			return err
		}
		if !bytes.Equal(old.Secret, k.Secret) {
			return errRootKeyRotated()
		}
	}
	return accessKeyKind.save(tx, k)
}

// DeleteAccessKey removes an access key and the time of its last use.
func (tx *Tx) DeleteAccessKey(id string) {
	accessKeyKind.delete(tx, id)
	keyUseKind.delete(tx, id)
}

// KeyUse reads when an access key was last used; zero if no use was recorded.
func (tx *Tx) KeyUse(id string) (time.Time, error) {
	at, _, err := keyUseKind.load(tx, id)
	return at, err
}

// PutKeyUse records when an access key was last used.
func (tx *Tx) PutKeyUse(id string, at time.Time) error { return keyUseKind.saveAt(tx, id, at) }

// Key reads a master key.
func (tx *Tx) Key(account, id string) (cmk.Key, bool, error) {
	return masterKeyKind.load(tx, in(account, id))
}

// PutKey writes a master key. It refuses one that is wrapped under a former root key.
func (tx *Tx) PutKey(k cmk.Key) error {
	if a := tx.db.authenticator(); a != nil && !a.IsCurrent(k.DigestKey) {
		return errRootKeyRotated()
	}
	return masterKeyKind.save(tx, k)
}
