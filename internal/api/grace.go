package api

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// Holders counts the consumers for whom the end of a grace period waits, and says when all of them count as gone. What is damaged may be anybody,
// until the deadline.
func (e *Engine) Holders(ctx context.Context, t *Turn) (n int, until time.Time, err error) {
	env, r, now := e.gate.env, t.Record, e.Now()
	if err := env.Consumers.Sync(ctx, r.Account, r.Secret); err != nil {
		return 0, until, err
	}
	err = store.Snapshot(ctx, env.DB).Consumers(r.Account, r.Secret, "", func(_ string, c rotation.Sighting) bool {
		if gone, yes := r.Awaits(c, now); yes {
			n++
			if gone.After(until) {
				until = gone
			}
		}
		return true
	})
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		env.Log.Error("what is known of the consumers of a secret cannot be read", "secret", r.Secret, "err", err)
		return n + 1, r.GraceDeadline, nil
	}
	return n, until, err
}

// releaseGrace has the engine look at a grace period at once, when nobody holds the former credential any more for whom its end waits. It is
// called after what is known of a consumer has changed.
func releaseGrace(ctx context.Context, db *store.DB, account, name string, now time.Time) error {
	return store.Do(ctx, db, func(tx *store.Tx) error {
		r, ok, err := tx.Rotation(account, name)
		if err != nil || !ok {
			return err
		}
		next, changed := r.Released(now)
		if !changed {
			return nil
		}
		held := false
		err = tx.Consumers(account, name, "", func(_ string, c rotation.Sighting) bool {
			_, held = r.Awaits(c, now)
			return !held
		})
		if err != nil || held {
			return err
		}
		return tx.PutRotation(&next)
	})
}
