package api

import (
	"context"
	"errors"
	"sync"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// probesAtOnce is how many records ProbeRotation changes at once: each is a transaction of its own.
const probesAtOnce = 16

// probeRotation has the engine look at credentials now, within its budget, instead of when they were to be looked at. What it
// finds is in DescribeRotation.
func probeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	if in.TargetName != "" {
		if _, err := c.existingTarget(c.Snapshot, in.TargetName); err != nil {
			return nil, err
		}
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	var names []string
	if in.SecretName != "" {
		s, err := c.existing(c.Snapshot, in.SecretName)
		if err != nil {
			return nil, err
		}
		if err := s.CheckRotate(); err != nil {
			return nil, err
		}
		names = []string{s.Name}
	} else if err := c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if !r.InFlight() && !withheld[r.Secret] {
			names = append(names, r.Secret)
		}
		return true
	}); err != nil {
		return nil, err
	}
	errs := make([]error, probesAtOnce)
	var all sync.WaitGroup
	for w := range probesAtOnce {
		all.Go(func() {
			for i := w; i < len(names) && errs[w] == nil; i += probesAtOnce {
				errs[w] = c.probeNow(ctx, names[i], in.TargetName)
			}
		})
	}
	all.Wait()
	return &kms.EmptyResponse{}, errors.Join(errs...)
}

// probeNow makes one credential due to be looked at. One that is gone, under way, or of another target is left alone.
func (c *Call) probeNow(ctx context.Context, name, targetName string) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(c.Account(), name, c.At)
		if err != nil || !ok || s.Deleting() || !s.IsRotated() || s.TargetName() == secret.OwnUsers || targetName != "" && s.TargetName() != targetName {
			return err
		}
		r, err := c.record(tx, s)
		if err != nil || r.InFlight() {
			return err
		}
		r.Health.NextAt = c.At
		return tx.PutRotation(&r)
	})
}
