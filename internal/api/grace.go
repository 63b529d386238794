package api

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// Holders counts the consumers that hold the previous credential and delay the end of a grace
// period. until is when the last of them no longer counts. A damaged record may stand for any
// consumer, so it delays the end until the deadline.
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
		env.Log.Error("the records of a secret's consumers cannot be read", "secret", r.Secret, "err", err)
		return n + 1, r.GraceDeadline, nil
	}
	return n, until, err
}

// ReleaseGrace ends a wait for consumers that nothing justifies any longer, right after the engine
// has stored it. A consumer that moves on between the engine's question and that record finds no
// wait that it could end.
func (e *Engine) ReleaseGrace(ctx context.Context, t *Turn) error {
	return releaseGrace(ctx, e.gate.env.DB, t.Record.Account, t.Record.Secret, e.Now())
}

// releaseGrace makes the engine end a grace period at once when no consumer that delays its end
// holds the previous credential. It is called after the record of a consumer has changed.
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
