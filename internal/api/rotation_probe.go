package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// probesAtOnce is how many records ProbeRotation changes at once: each is a transaction of its own.
const probesAtOnce = 16

// probeRotation makes the engine probe credentials now, within its budget, instead of when they are
// due. DescribeRotation shows the result.
func probeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.ProbeRotationResponse, error) {
	if in.TargetName != "" {
		if _, err := c.existingTarget(c.Snapshot, in.TargetName); err != nil {
			return nil, err
		}
	}
	names, err := c.probedSecrets(in.SecretName)
	if err != nil {
		return nil, err
	}
	if in.SecretName != "" {
		reason, r, err := c.probeNow(ctx, names[0], in.TargetName)
		if err == nil && reason != "" && reason == unprobedNow(r) {
			reason, err = c.withoutState(r, reason)
		}
		if err != nil {
			return nil, err
		}
		if reason != "" {
			return &kms.ProbeRotationResponse{NotAsked: 1, Reason: reason}, nil
		}
		return &kms.ProbeRotationResponse{Asked: 1}, nil
	}
	var asked, elsewhere atomic.Int64
	errs := make([]error, probesAtOnce)
	var all sync.WaitGroup
	for w := range probesAtOnce {
		all.Go(func() {
			for i := w; i < len(names) && errs[w] == nil; i += probesAtOnce {
				var reason string
				reason, _, errs[w] = c.probeNow(ctx, names[i], in.TargetName)
				switch {
				case fault.KindOf(errs[w]) == fault.Throttled: // it was asked for a moment ago
					errs[w] = nil
				case reason == "" && errs[w] == nil:
					asked.Add(1)
				case reason == atAnotherTarget:
					elsewhere.Add(1)
				}
			}
		})
	}
	all.Wait()
	return &kms.ProbeRotationResponse{
		Asked:    int(asked.Load()),
		NotAsked: len(names) - int(asked.Load()) - int(elsewhere.Load()),
	}, errors.Join(errs...)
}

// probedSecrets returns the secret of that name, or without a name every secret that is rotated.
func (c *Call) probedSecrets(name string) (names []string, err error) {
	if name != "" {
		s, _, err := c.rotated(c.Snapshot, name)
		return []string{s.Name}, err
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if !withheld[r.Secret] {
			names = append(names, r.Secret)
		}
		return true
	})
	return names, err
}

// atAnotherTarget is why a credential is not asked about at a target.
const atAnotherTarget = "Its target is another one."

// probeNow makes the probe of one credential due, and takes it from the allowance of the secret. A
// probe that was asked for before and waits for its turn stays as it is, or it would lose that
// turn. reason says why it is not asked: the secret was deleted, is being rotated, or has another
// target. r is the record of its rotation. Several goroutines may call it.
func (c *Call) probeNow(ctx context.Context, name, targetName string) (reason string, r rotation.Record, err error) {
	err = store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(c.Account(), name, c.At)
		if err != nil {
			return err
		}
		if r, err = c.rotationOf(tx, s); err != nil {
			return err
		}
		if reason, err = c.unasked(tx, s, ok, r, targetName); err != nil || reason != "" || r.Health.Wanted {
			return err
		}
		if s, err = s.AskProbe(c.checkEvery(), c.At); err != nil {
			return err
		}
		wanted := r
		wanted.Health.NextAt, wanted.Health.Wanted = c.At, true
		return errors.Join(tx.PutRotation(&wanted), tx.PutSecret(s, nil))
	})
	return reason, r, err
}

// unasked returns why a call that is about targetName, or about any target if it is empty, does not
// make the probe of a secret due; empty if it does. ok is false for a secret that no longer exists.
func (c *Call) unasked(
	tx *store.Tx, s secret.Secret, ok bool, r rotation.Record, targetName string,
) (string, error) {
	if reason := unprobed(s, ok); reason != "" {
		return reason, nil
	}
	if targetName != "" && s.TargetName() != targetName {
		return atAnotherTarget, nil
	}
	if reason := unprobedNow(r); reason != "" {
		return reason, nil
	}
	bound, err := c.isBound(tx, s)
	if err != nil || bound {
		return "", err
	}
	return "Its target is not registered, or the secret is not bound to it.", nil
}

// withoutState returns a reason of unprobedNow, without the state of the rotation for a caller who
// may not call DescribeRotation.
func (c *Call) withoutState(r rotation.Record, reason string) (string, error) {
	if r.Target == secret.OwnUsers {
		return reason, nil
	}
	d, err := c.gate.decide(c, c.secretResource(r.Secret), actionDescribeRotation)
	if err != nil || d.Allowed {
		return reason, err
	}
	return "The credential is being changed.", nil
}

// unprobed returns why no target is asked about the credential of a secret; empty if the record of
// its rotation decides that. ok is false for a secret that no longer exists.
func unprobed(s secret.Secret, ok bool) string {
	switch {
	case !ok || s.Deleting():
		return "The secret is deleted."
	case !s.IsRotated():
		return "The secret is not rotated."
	}
	return ""
}

// unprobedNow returns why the target is not asked about the credential in use in the state of a
// rotation; empty if it is.
func unprobedNow(r rotation.Record) string {
	switch {
	case r.Target == secret.OwnUsers:
		return "The credential is an access key of this service, which needs no probe."
	case r.State == rotation.Quarantined:
		return fault.Message("The rotation is quarantined: keyturn rotation repair %s --probe asks the target.", r.Secret)
	case !r.Probeable():
		return fault.Message("The credential is being changed: the rotation is in state %s. keyturn rotation status %s "+
			"shows its progress.", r.State, r.Secret)
	}
	return ""
}

// skipped returns why the target is not asked about the credential of a record; empty if it is.
func (c *Call) skipped(r rotation.Record) (reason string, err error) {
	if reason = unprobedNow(r); reason != "" || !r.Health.NextAt.IsZero() {
		return reason, nil
	}
	s, ok, err := c.Snapshot.Secret(r.Account, r.Secret, c.At)
	return unprobed(s, ok), err
}
