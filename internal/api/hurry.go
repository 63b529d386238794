package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// hurry has the engine go on now with the rotations at these targets that wait before they try
// again what has failed, because that may be fixed now. Each goes on at most once a minute, see
// [rotation.Record.CanHurry]. The call has done its work before, so an error is not an error of the
// call: what was not hurried goes on at its own time.
func (c *Call) hurry(ctx context.Context, targets ...string) {
	if len(targets) == 0 {
		return
	}
	at := map[string]bool{}
	for _, name := range targets {
		at[name] = true
	}
	var waiting []string
	err := store.Snapshot(ctx, c.DB).Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if at[r.Target] && r.CanHurry() {
			waiting = append(waiting, r.Secret)
		}
		return true
	})
	if err == nil {
		err = eachRecord(waiting, func(name string) error { return c.hurryOne(ctx, name) })
	}
	if err != nil && c.Log != nil {
		c.Log.Info("rotations that wait for another try go on at their own time", "targets", targets, "err", err)
	}
}

func (c *Call) hurryOne(ctx context.Context, name string) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		r, ok, err := tx.Rotation(c.Account(), name)
		if err != nil || !ok || !r.CanHurry() {
			return err
		}
		next, err := rotation.Next(r, rotation.Event{Kind: rotation.Probed}, c.At)
		if err != nil {
			return err
		}
		return tx.PutRotation(&next)
	})
}

// hurryAdministered is hurry for the targets whose administrator is in a secret that has another
// current version now.
func (c *Call) hurryAdministered(ctx context.Context, name string) {
	tx := store.Snapshot(ctx, c.DB)
	if used, err := tx.GuardUse(c.Account(), name); err != nil || !used {
		return
	}
	var list []string
	err := tx.Targets(c.Account(), "", func(t store.Target) bool {
		if t.AdminSecret == name {
			list = append(list, t.Name)
		}
		return true
	})
	if err == nil {
		c.hurry(ctx, list...)
	}
}
