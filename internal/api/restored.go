package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// Restored reports whether the store was restored from a backup that no engine has handled yet.
func (e *Engine) Restored(ctx context.Context) (store.Restored, bool, error) {
	return store.Snapshot(ctx, e.gate.env.DB).Restored()
}

// Doubt marks the state of every credential as unknown after the store was restored from a backup,
// and makes its probe due as soon as its turn comes. It may be repeated after it was interrupted.
// It returns the number of rotations.
func (e *Engine) Doubt(ctx context.Context, r store.Restored) (int, error) {
	var list []store.Due
	err := store.Snapshot(ctx, e.gate.env.DB).AllRotations(func(r rotation.Record) bool {
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
	err = e.do(ctx, func(tx *store.Tx) error {
		now, ok, err := tx.Restored()
		if err == nil && ok && now.At.Equal(r.At) { // the store may have been restored again meanwhile
			tx.DeleteRestored()
		}
		return err
	})
	return len(list), err
}

// doubt marks the state of one credential as unknown, if a target can be asked about it.
func (e *Engine) doubt(ctx context.Context, d store.Due) error {
	now := e.Now()
	return e.do(ctx, func(tx *store.Tx) error {
		s, there, err := tx.Secret(d.Account, d.Name, now)
		if err != nil {
			return err
		}
		r, ok, err := tx.Rotation(d.Account, d.Name)
		if err != nil || !ok {
			return err
		}
		why, err := e.gate.env.probeSkip(tx, s, there, r, now)
		if err != nil || why.isForGood() {
			return err
		}
		r = r.Restored(now)
		return tx.PutRotation(&r)
	})
}
