package api

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// probesAtOnce is how many records ProbeRotation changes at once: each is a transaction of its own.
const probesAtOnce = 16

// probeRotation makes the engine probe credentials now, within its budget, instead of when they are
// due. DescribeRotation shows the result.
func probeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	if in.TargetName != "" {
		if _, err := c.existingTarget(c.Snapshot, in.TargetName); err != nil {
			return nil, err
		}
	}
	names, err := c.probedSecrets(in.SecretName)
	if err != nil {
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

// probedSecrets returns the secret of that name, or without a name every secret that no rotation
// changes at this moment.
func (c *Call) probedSecrets(name string) (names []string, err error) {
	if name != "" {
		_, _, err := c.rotated(c.Snapshot, name)
		return []string{name}, err
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if !r.InFlight() && !withheld[r.Secret] {
			names = append(names, r.Secret)
		}
		return true
	})
	return names, err
}

// probeNow makes the probe of one credential due. A secret that was deleted, is being rotated, or
// has another target is left alone.
func (c *Call) probeNow(ctx context.Context, name, targetName string) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := probeable(tx, c.Account(), name, c.At)
		if err != nil || !ok || targetName != "" && s.TargetName() != targetName {
			return err
		}
		r, err := c.rotationOf(tx, s)
		if err != nil || r.InFlight() {
			return err
		}
		r.Health.NextAt = c.At
		return tx.PutRotation(&r)
	})
}

// probeable reads a secret whose credential can be probed. ok is false for one that was deleted or
// is not rotated, and for an access key of this service, which needs no probe.
func probeable(tx *store.Tx, account, name string, now time.Time) (s secret.Secret, ok bool, err error) {
	s, ok, err = tx.Secret(account, name, now)
	return s, ok && !s.Deleting() && s.IsRotated() && s.TargetName() != secret.OwnUsers, err
}
