package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

func endRotationGrace(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.EndGrace}, rotation.InGrace, "it has no grace period now")
}

func undoRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.Undo}, rotation.InGrace, "the former credential works only in the grace period of the strategies overlap and double")
}

// request is what a person asks of a rotation in a certain state.
func (c *Call) request(ctx context.Context, name string, e rotation.Event, state rotation.State, otherwise string) (*kms.SecretNameResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.SecretNameResponse, error) {
		s, err := c.existing(tx, name)
		if err != nil {
			return nil, err
		}
		if err := s.CheckRotate(); err != nil {
			return nil, err
		}
		r, err := c.record(tx, s)
		if err != nil {
			return nil, err
		}
		if r.State != state {
			return nil, fault.New(fault.InUse, "The rotation of secret %q is in state %s: %s.", s.Name, r.State, otherwise)
		}
		if e.Kind == rotation.Again && !r.Repairable(s.Generated(r.Candidate)) {
			return nil, fault.New(fault.InUse, "The target has never accepted version %q of secret %q, so it is not sent; RepairRotation with RepairAction adopt takes a credential that the target accepts.",
				r.Candidate, s.Name)
		}
		s, bound, err := c.bind(tx, s)
		if err != nil {
			return nil, err
		}
		if bound {
			if err := tx.PutSecret(s, nil); err != nil {
				return nil, err
			}
		}
		if r, err = rotation.Next(r, e, c.At); err != nil {
			return nil, err
		}
		return &kms.SecretNameResponse{SecretName: s.Name}, tx.PutRotation(&r)
	})
}

// cancelRotation ends a rotation whose candidate the target does not have. One that has been sent before is ended by the engine, once
// the target holds nothing of it.
func cancelRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.DescribeRotationResponse, error) {
	event := rotation.Event{Kind: rotation.Cancel}
	err := store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return err
		}
		if err := s.CheckRotate(); err != nil {
			return err
		}
		before, err := c.record(tx, s)
		if err != nil {
			return err
		}
		r, err := rotation.Next(before, event, c.At)
		if err != nil {
			return fault.New(fault.InUse, "The rotation of secret %q is in state %s and cannot be cancelled: %s", s.Name, before.State, before.State.InsteadOfCancel())
		}
		if err := c.announce(tx, before, r, event.Kind); err != nil {
			return err
		}
		changed, _, err := c.follow(tx, s, before, &r, event, nil)
		if err != nil {
			return err
		}
		if err := tx.PutRotation(&r); err != nil || changed == nil {
			return err
		}
		return tx.PutSecret(*changed, nil)
	})
	if err != nil {
		return nil, err
	}
	c.Snapshot = store.Snapshot(ctx, c.DB)
	return describeRotation(ctx, c, in)
}
