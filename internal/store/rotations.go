package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
)

// Rotation reads the rotation record of a secret; ok is false if it never had one.
func (tx *Tx) Rotation(account, name string) (rotation.Record, bool, error) {
	return rotationKind.load(tx, in(account, name))
}

// PutRotation writes a rotation record that was read in this transaction, and the time at which the
// engine must check it. It increases r.Seq if the write outdates a step, so that r is the record as
// stored.
func (tx *Tx) PutRotation(r *rotation.Record) error {
	old, ok, err := tx.unwake(r.Account, r.Secret)
	if err != nil {
		return err
	}
	if !ok || r.Outdates(old) {
		r.Seq++
	}
	if at := r.Wake(); !at.IsZero() {
		due := Due{Account: r.Account, Name: r.Secret}
		if err := wakeKind.saveAt(tx, duePath(at, r.Account, r.Secret), due); err != nil {
			return err
		}
	}
	return rotationKind.save(tx, *r)
}

// unwake removes the wake time of the stored record, and of an earlier write of this transaction,
// and returns the stored record; ok is false if there is none.
func (tx *Tx) unwake(account, name string) (old rotation.Record, ok bool, err error) {
	key := rotationKind.key(in(account, name))
	stored, ok := tx.reads[key]
	if !ok {
		return old, false, fmt.Errorf("the rotation of %q is written without having been read", name)
	}
	if data := tx.writes[key]; data != nil {
		written, err := rotationKind.decode(tx.db, key, data)
		if err != nil {
			return old, false, err
		}
		if at := written.Wake(); !at.IsZero() {
			wakeKind.delete(tx, duePath(at, account, name))
		}
	}
	if stored.data == nil {
		return old, false, nil
	}
	if old, err = rotationKind.decode(tx.db, key, stored.data); err != nil {
		return old, false, err
	}
	if at := old.Wake(); !at.IsZero() {
		wakeKind.delete(tx, duePath(at, account, name))
	}
	return old, true, nil
}

// DeleteRotation removes the rotation record of a secret, if it has one.
func (tx *Tx) DeleteRotation(account, name string) error {
	_, ok, err := tx.Rotation(account, name)
	if err != nil || !ok {
		return err
	}
	if _, _, err := tx.unwake(account, name); err != nil {
		return err
	}
	rotationKind.delete(tx, in(account, name))
	return nil
}

// Rotations calls visit for each rotation record of an account whose secret's name begins with
// prefix, in the order of names, from the name from (inclusive) on, until visit returns false.
func (tx *Tx) Rotations(account, prefix, from string, visit func(rotation.Record) bool) error {
	return rotationKind.scan(tx, in(account, prefix), in(account, from), visit)
}

// AllRotations calls visit for each rotation record of every account until visit returns false.
func (tx *Tx) AllRotations(visit func(rotation.Record) bool) error {
	return rotationKind.scan(tx, "", "", visit)
}

// Pause says whether all rotations are paused.
type Pause struct {
	Paused bool `json:"paused"`
	// Pause says who asked for it; it is empty for a pause that an earlier release stored.
	rotation.Pause
}

// PauseAll stores an order of [rotation.Pausing.After] for all rotations of the store. This is not
// a member of the engine's record, because that record is a fence and ends with its node.
func (tx *Tx) PauseAll(order *rotation.Pause) error {
	stored, err := tx.AllPaused()
	if err != nil {
		return err
	}
	after := Pause{}
	p := rotation.Pausing{Paused: stored.Paused, Pause: &stored.Pause}.After(order)
	if p.Paused {
		after = Pause{Paused: true, Pause: *p.Pause}
	}
	return pauseKind.save(tx, after)
}

// AllPaused says whether all rotations are paused.
func (tx *Tx) AllPaused() (Pause, error) {
	p, _, err := pauseKind.load(tx, "")
	return p, err
}

// Restored says that the store was restored from a backup, so that the credentials in it may be
// outdated.
type Restored struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// SetRestored records that the store was restored from a backup, until the engine has handled it.
func (db *DB) SetRestored(ctx context.Context, r Restored) error {
	return Do(ctx, db, func(tx *Tx) error { return restoredKind.save(tx, r) })
}

// Restored reads the record of a restore that the engine must handle; ok is false if there is none.
func (tx *Tx) Restored() (r Restored, ok bool, err error) { return restoredKind.load(tx, "") }

// DeleteRestored removes the record of a restore that the engine has handled.
func (tx *Tx) DeleteRestored() { restoredKind.delete(tx, "") }

// Changed waits until a secret, or its rotation, has changed since the snapshot, or ctx ends. It
// returns nil after a change.
func (tx *Tx) Changed(ctx context.Context, account, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := tx.db.prefix + secretKind.key(in(account, name))
	events := tx.db.client.Watch(ctx, key, clientv3.WithRev(tx.rev+1))
	select {
	case e, ok := <-events:
		if !ok || e.Err() != nil {
			return fault.New(fault.Unavailable, "The store did not answer; try again.")
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
