package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const (
	// rekeyEvery is how often a node checks whether a rotation of the keys is under way or has ended.
	rekeyEvery = 15 * time.Second
	// maxFormer is how many IDs of previous root keys the store keeps.
	maxFormer = 16
	// maxPasses is how many passes over the store one turn makes; the next turn does the rest.
	maxPasses = 4
	// passPause is the least pause between two passes of a turn. Each pause is twice the one before,
	// plus up to as much again at random.
	passPause = 100 * time.Millisecond
)

// rekeying rotates the root key, the key of the records' tags and the versions of the master keys.
// Each step leaves a state from which the next start goes on:
//
//  1. The provider holds the new root key beside the current one (a file is replaced
//     at once, or was prepared by the operator).
//  2. One transaction makes the new root key the one that wraps, with a new generation of the
//     key of the tags.
//  3. Everything that the previous keys have wrapped or tagged is wrapped or tagged again, until
//     nothing is left.
//  4. One transaction takes the previous keys out of use.
//  5. The previous root key is removed from the file.
//
// A change that was prepared with previous keys is not committed after step 2: the record meta
// guards it.
type rekeying struct {
	s    *Server
	ring *root.Ring
	wake chan struct{}
	// step is called after each step; an error of it stops there. For tests.
	step func(string) error

	mu sync.Mutex // held by Rotate
}

func newRekeying(s *Server, ring *root.Ring) *rekeying {
	r := &rekeying{s: s, ring: ring, wake: make(chan struct{}, 1), step: s.config.KeyStep}
	if r.step == nil {
		r.step = func(string) error { return nil }
	}
	return r
}

// load reads the keys of the store again.
func (r *rekeying) load(ctx context.Context) error {
	meta, found, err := r.s.db.SealedMeta(ctx)
	if err == nil && !found {
		err = errors.New("the description of the store has just gone from it")
	}
	if err != nil {
		return err
	}
	if err := r.ring.Use(meta.RootKey); err != nil {
		return err
	}
	records, err := r.s.keyring.OpenRecords(meta.SealedRecordKeys())
	if err != nil {
		return err
	}
	r.s.db.Authenticate(records)
	return nil
}

func (r *rekeying) meta(ctx context.Context) (store.Meta, error) {
	meta, found, err := store.Snapshot(ctx, r.s.db).Meta()
	if err == nil && !found {
		err = errors.New("the description of the store is missing")
	}
	return meta, err
}

// Describe returns which keys are in use.
func (r *rekeying) Describe(ctx context.Context) (kms.RootKeyResponse, error) {
	meta, err := r.meta(ctx)
	if err != nil {
		return kms.RootKeyResponse{}, err
	}
	if err := r.ring.Reload(); err != nil {
		return kms.RootKeyResponse{}, err
	}
	out := kms.RootKeyResponse{RootKeyID: r.ring.Current().ID(), RotationState: kms.RootKeyIdle}
	for generation := range meta.SealedRecordKeys() {
		out.RecordKeyGeneration = max(out.RecordKeyGeneration, int(generation))
	}
	if meta.Rotation != nil {
		out.RotationState = kms.RootKeyRotating
		out.StartedAt, out.FormerRootKeyID = meta.Rotation.StartedAt, meta.Rotation.Former
	}
	if next := r.unused(meta); next != nil {
		out.NextRootKeyID = next.ID()
	}
	return out, nil
}

// unused returns a key that the provider holds and the store has not used yet; nil if there is
// none.
func (r *rekeying) unused(meta store.Meta) *root.Key {
	for _, k := range r.ring.Keys() {
		id := k.ID()
		former := slices.Contains(meta.FormerRootKeys, id) || meta.Rotation != nil && meta.Rotation.Former == id
		if id != r.ring.Current().ID() && !former {
			return k
		}
	}
	return nil
}

// Rotate does the first two steps.
func (r *rekeying) Rotate(ctx context.Context, values, force bool, at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	meta, err := r.meta(ctx)
	if err != nil {
		return err
	}
	if err := mayRotate(meta, force, at); err != nil {
		return err
	}
	next, err := r.next(meta)
	if err != nil {
		return err
	}
	if err := r.step("kept"); err != nil {
		return err
	}
	rotation := store.KeyRotation{StartedAt: at, Former: r.ring.Current().ID(), Values: values}
	if err := r.switchTo(ctx, next, rotation, force); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	r.s.config.Logger.Info("the root key is rotated: the server wraps again what the previous one has wrapped",
		"root_key_id",
		next.ID())
	if err := r.step("switched"); err != nil {
		return err
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// mayRotate returns an error while another rotation is under way, and for [api.RootKeyInterval]
// after one began unless force is set. A last rotation in the future, by a clock that was set
// back since, refuses none.
func mayRotate(meta store.Meta, force bool, at time.Time) error {
	if meta.Rotation != nil {
		return fault.New(fault.InUse, "A rotation of the root key is under way; wait until it has ended.")
	}
	since := at.Sub(meta.RotatedAt)
	if force || meta.RotatedAt.IsZero() || since < 0 || since >= api.RootKeyInterval {
		return nil
	}
	return fault.New(fault.InUse, "The root key was last rotated at %s; the next rotation is allowed at %s. "+
		"The root account can rotate earlier with Force (keyturn root-key rotate --force).",
		meta.RotatedAt.UTC().Format(time.RFC3339), meta.RotatedAt.Add(api.RootKeyInterval).UTC().Format(time.RFC3339))
}

// next is the new root key, which the provider holds when it returns. The other nodes of a cluster
// must have it before this one uses it, so there an operator prepares it.
func (r *rekeying) next(meta store.Meta) (*root.Key, error) {
	if err := r.ring.Reload(); err != nil {
		return nil, err
	}
	if k := r.unused(meta); k != nil {
		return k, nil
	}
	keeper, ok := r.s.config.RootKey.(root.Keeper)
	if !ok || r.s.config.Cluster != nil || len(r.s.config.Etcd.Endpoints) > 0 {
		return nil, fault.New(fault.InUse, "There is no new root key yet: give it to every node beside the current one, in "+
			"its root key file (keyturn root-key prepare) or in the variable with %s behind its name.", root.Additional)
	}
	k, err := root.Generate(keeper.Name())
	if err != nil {
		return nil, err
	}
	if err := keeper.Keep(append(r.ring.Keys(), k)); err != nil {
		return nil, err
	}
	return k, r.ring.Reload()
}

// switchTo makes next the root key that wraps, in one transaction.
func (r *rekeying) switchTo(ctx context.Context, next *root.Key, rotation store.KeyRotation, force bool) error {
	ring := root.NewRing(r.ring.Keys()...)
	if err := ring.Use(next.ID()); err != nil {
		return err
	}
	keyring := envelope.New(ring)
	return store.Do(ctx, r.s.db, func(tx *store.Tx) error {
		meta, _, err := tx.Meta()
		if err != nil {
			return err
		}
		if err := mayRotate(meta, force, rotation.StartedAt); err != nil {
			return err
		}
		meta.RootKey, meta.Rotation, meta.RotatedAt = next.ID(), &rotation, rotation.StartedAt
		if err := rewrapMeta(keyring, &meta); err != nil {
			return err
		}
		return tx.PutMeta(meta)
	})
}

// rewrapMeta wraps the keys in meta anew, and adds a generation of the key of the tags.
func rewrapMeta(keyring *envelope.Keyring, meta *store.Meta) error {
	last, keys := uint32(0), []store.RecordKey(nil)
	for generation, sealed := range meta.SealedRecordKeys() {
		again, err := keyring.RewrapRecordKey(generation, sealed)
		if err != nil {
			return err
		}
		last = max(last, generation)
		if generation == 0 {
			meta.RecordKey = again
			continue
		}
		keys = append(keys, store.RecordKey{Generation: generation, Key: again})
	}
	fresh, err := keyring.NewRecordKey(last + 1)
	if err != nil {
		return err
	}
	meta.RecordKeys = append(keys, store.RecordKey{Generation: last + 1, Key: fresh})
	if len(meta.TrailKey) > 0 {
		meta.TrailKey, err = keyring.RewrapTrailKey(meta.TrailKey)
	}
	return err
}

// run does the steps that are left, until ctx ends.
func (r *rekeying) run(ctx context.Context) {
	t := time.NewTicker(rekeyEvery)
	defer t.Stop()
	damaged := 0
	for {
		n, err := r.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.s.config.Logger.Warn("the rotation of the root key failed; retrying", "err", err)
		case n > 0 && n != damaged:
			r.s.config.Logger.Error("the rotation of the root key cannot end: records cannot be opened; restore or delete them",
				"records", n)
		}
		damaged = n
		select {
		case <-t.C:
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// finish takes the previous keys out of use.
func (r *rekeying) finish(ctx context.Context, rotation store.KeyRotation) (store.Meta, error) {
	meta, err := store.Update(ctx, r.s.db, func(tx *store.Tx) (store.Meta, error) {
		meta, _, err := tx.Meta()
		if err != nil || meta.Rotation == nil || !meta.Rotation.StartedAt.Equal(rotation.StartedAt) {
			return meta, err // another node has finished it
		}
		newest := slices.MaxFunc(meta.RecordKeys,
			func(a, b store.RecordKey) int { return int(a.Generation) - int(b.Generation) })
		meta.RecordKey, meta.RecordKeys, meta.Rotation = nil, []store.RecordKey{newest}, nil
		meta.FormerRootKeys = append(slices.Clone(meta.FormerRootKeys), rotation.Former)
		if n := len(meta.FormerRootKeys); n > maxFormer {
			meta.FormerRootKeys = meta.FormerRootKeys[n-maxFormer:]
		}
		return meta, tx.PutMeta(meta)
	})
	if err != nil {
		return meta, err
	}
	return meta, r.load(ctx)
}

// dropFormer removes root keys that no longer open anything from the file.
func (r *rekeying) dropFormer(meta store.Meta) error {
	former := func(k *root.Key) bool { return slices.Contains(meta.FormerRootKeys, k.ID()) }
	if meta.Rotation != nil || !slices.ContainsFunc(r.ring.Keys(), former) {
		return nil
	}
	keeper, ok := r.s.config.RootKey.(root.Keeper)
	if !ok {
		return nil // the operator removes it from the environment
	}
	if err := r.ring.Reload(); err != nil {
		return err
	}
	keys := slices.DeleteFunc(r.ring.Keys(), former)
	if err := keeper.Keep(keys); err != nil {
		return err
	}
	r.s.config.Logger.Info("the previous root key is no longer needed, except for backups that were made before",
		"root_key_id", meta.RootKey)
	return r.ring.Reload()
}
