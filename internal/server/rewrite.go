package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/store"
)

// turn does all that can be done now. damaged counts records that stop it.
func (r *rekeying) turn(ctx context.Context) (damaged int, err error) {
	meta, err := r.meta(ctx)
	if err != nil {
		return 0, err
	}
	if meta.RootKey != "" && meta.RootKey != r.ring.Current().ID() { // another node has rotated
		if err := r.load(ctx); err != nil {
			return 0, err
		}
	}
	if meta.Rotation != nil {
		damaged, err := rewriteAll(ctx, func(ctx context.Context) (store.Rewritten, error) {
			done, err := r.rewrite(ctx, *meta.Rotation)
			if err == nil {
				err = r.step("rewritten")
			}
			return done, err
		})
		if err != nil || damaged > 0 {
			return damaged, err
		}
		if meta, err = r.finish(ctx, *meta.Rotation); err != nil {
			return 0, err
		}
		if err := r.step("finished"); err != nil {
			return 0, err
		}
	}
	return 0, r.dropFormer(meta)
}

// rewriteAll makes passes over the store until one leaves nothing to do, or nothing but damaged
// records, which it counts. It returns an error when records still change after maxPasses.
func rewriteAll(ctx context.Context, pass func(context.Context) (store.Rewritten, error)) (damaged int, err error) {
	pause := passPause
	for n := 1; ; n++ {
		done, err := pass(ctx)
		switch {
		case err != nil:
			return 0, err
		case done.Changed == 0 && done.Conflicts == 0:
			return done.Damaged, nil
		case n == maxPasses:
			return 0, fmt.Errorf("records still change after %d passes: %d rewritten, %d in conflict",
				n, done.Changed, done.Conflicts)
		case done.Conflicts == 0:
			continue // the next pass verifies that nothing is left
		}
		t := time.NewTimer(pause + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return 0, ctx.Err()
		}
		pause *= 2
	}
}

// rewrite goes once through the store.
func (r *rekeying) rewrite(ctx context.Context, rotation store.KeyRotation) (store.Rewritten, error) {
	keyring := r.s.keyring
	w := store.Rewriter{
		Key: func(k cmk.Key) (cmk.Key, bool, error) {
			current := r.ring.IsCurrent(k.DigestKey)
			for _, v := range k.Versions {
				current = current && r.ring.IsCurrent(v.Material)
			}
			fresh := slices.ContainsFunc(k.Versions, func(v cmk.Version) bool { return !v.CreatedAt.Before(rotation.StartedAt) })
			if current && fresh {
				return k, false, nil
			}
			k, err := keyring.RewrapKey(k)
			if err == nil && !fresh {
				k, err = keyring.AddVersion(k, r.s.config.Now().UTC())
			}
			return k, true, err
		},
		AccessKey: func(k store.AccessKey) (store.AccessKey, bool, error) {
			if r.ring.IsCurrent(k.Secret) && (len(k.Token) == 0 || r.ring.IsCurrent(k.Token)) {
				return k, false, nil
			}
			var err error
			if k.Secret, err = keyring.RewrapAccessKey(k.ID, "secret", k.Secret); err != nil {
				return k, false, err
			}
			if len(k.Token) > 0 {
				k.Token, err = keyring.RewrapAccessKey(k.ID, "token", k.Token)
			}
			return k, true, err
		},
		Damaged: func(key string, err error) {
			r.s.config.Logger.Warn("a record cannot be opened while keys are rotated", "record", key, "err", err)
		},
	}
	if rotation.Values {
		w.Value = func(account, name, version string, box []byte) ([]byte, bool, error) {
			return r.reseal(ctx, envelope.Binding{Account: account, Secret: name, Version: version}, box)
		}
	}
	return r.s.db.Rewrite(ctx, w)
}

// reseal seals a value under the newest version of its master key.
func (r *rekeying) reseal(ctx context.Context, where envelope.Binding, box []byte) ([]byte, bool, error) {
	tx := store.Snapshot(ctx, r.s.db)
	s, ok, err := tx.Secret(where.Account, where.Secret, time.Time{})
	if err != nil || !ok {
		return nil, false, err // a value whose secret has just been deleted is deleted with it
	}
	key, ok, err := tx.Key(where.Account, s.KeyID)
	if err == nil && !ok {
		err = fmt.Errorf("the master key %q is missing", s.KeyID)
	}
	if err != nil {
		return nil, false, err
	}
	if by, err := envelope.SealedBy(box); err != nil || by == key.Primary {
		return nil, false, err
	}
	value, err := r.s.keyring.Open(key, where, box)
	if err != nil {
		return nil, false, err
	}
	again, err := r.s.keyring.Seal(key, where, value)
	return again, true, err
}
