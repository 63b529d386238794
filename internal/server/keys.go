package server

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/deadline"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/sign"
)

// accessKeys finds access keys in the store and unseals them. Each is unsealed once and again when
// its record changes.
type accessKeys struct {
	db      *store.DB
	keyring *envelope.Keyring
	opened  sync.Map // access key ID -> *openedKey
}

type openedKey struct {
	sealed, sealedToken []byte
	key                 auth.Key
}

// findTimeout bounds how long a request waits for its access key while the store does not answer.
// It is before the gate, which bounds the rest.
const findTimeout = 5 * time.Second

// Find reads the key. The read is linearizable, so a key that was switched off is refused from the
// next request on.
func (a *accessKeys) Find(ctx context.Context, id string) (auth.Key, bool, error) {
	bounded := deadline.After(ctx, findTimeout)
	defer bounded.Cancel()
	record, found, err := store.Snapshot(bounded, a.db).AccessKey(id)
	if err != nil {
		return auth.Key{}, false, err
	}
	if !found {
		a.opened.Delete(id) // a deleted key must not stay in memory
		return auth.Key{}, false, nil
	}
	if o, ok := a.opened.Load(id); ok &&
		bytes.Equal(o.(*openedKey).sealed, record.Secret) &&
		bytes.Equal(o.(*openedKey).sealedToken, record.Token) {
		key := o.(*openedKey).key
		key.Disabled, key.Principal, key.ExpiresAt = record.Disabled, record.Principal, record.ExpiresAt
		return key, true, nil
	}
	key := auth.Key{ID: record.ID, Principal: record.Principal, Disabled: record.Disabled, ExpiresAt: record.ExpiresAt}
	secret, err := a.keyring.OpenAccessKey(id, "secret", record.Secret)
	if err != nil {
		return auth.Key{}, false, err
	}
	key.Secret = sign.NewKey(secret)
	if len(record.Token) > 0 {
		if key.Token, err = a.keyring.OpenAccessKey(id, "token", record.Token); err != nil {
			return auth.Key{}, false, err
		}
	}
	a.opened.Store(id, &openedKey{sealed: record.Secret, sealedToken: record.Token, key: key})
	return key, true, nil
}
