package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

// Restored reports whether the store was restored from a copy and nothing has handled that yet.
func (e *Engine) Restored(ctx context.Context) (store.Restored, bool, error) {
	return store.Snapshot(ctx, e.gate.env.DB).Restored()
}

// Doubt makes the credentials of all secrets unknown and has each looked at as soon as its turn comes, after the store was restored from a
// copy. It can be done again after it was cut off. It returns how many there are.
func (e *Engine) Doubt(ctx context.Context, r store.Restored) (int, error) {
	env := e.gate.env
	var list []store.Due
	err := store.Snapshot(ctx, env.DB).AllRotations(func(r rotation.Record) bool {
		list = append(list, store.Due{Account: r.Account, Name: r.Secret})
		return true
	})
	if err != nil {
		return 0, err
	}
	for _, d := range list {
		if err := e.doubt(ctx, d); err != nil {
			return 0, err
		}
	}
	err = store.Do(ctx, env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		now, ok, err := tx.Restored()
		if err == nil && ok && now.At.Equal(r.At) { // another may have happened meanwhile
			tx.DeleteRestored()
		}
		return err
	})
	return len(list), err
}

// doubt makes one credential unknown. One that is gone, or of the service's own users, is not asked about.
func (e *Engine) doubt(ctx context.Context, d store.Due) error {
	env := e.gate.env
	now := env.Now().UTC()
	return store.Do(ctx, env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		s, ok, err := tx.Secret(d.Account, d.Name, now)
		if err != nil || !ok || s.Deleting() || !s.IsRotated() || s.TargetName() == secret.OwnUsers {
			return err
		}
		r, ok, err := tx.Rotation(d.Account, d.Name)
		if err != nil || !ok {
			return err
		}
		r = r.Restored(now)
		return tx.PutRotation(&r)
	})
}
