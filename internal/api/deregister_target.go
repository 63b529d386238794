package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// mostAttached is how many attached secrets an error names.
const mostAttached = 20

// deregisterTarget forgets a target. It is refused while secrets are attached, or, with Detach,
// ends their rotation first. A secret that is attached at this very moment stays bound to the
// target's ID, which no later target has.
func deregisterTarget(ctx context.Context, c *Call, in *kms.DeregisterTargetRequest) (*kms.TargetNameResponse, error) {
	t, err := c.existingTarget(c.Snapshot, in.TargetName)
	if err != nil {
		return nil, err
	}
	var names []string
	err = c.attachedSecrets(c.Snapshot, t, func(s secret.Secret) bool {
		names = append(names, s.Name)
		return true
	})
	if err != nil {
		return nil, err
	}
	if !in.Detach && len(names) > 0 {
		return nil, fault.New(fault.InUse,
			"Secrets are attached to target %q: %s. RemoveRotation or DeleteSecret detaches one; "+
				"DeregisterTarget with Detach detaches all.",
			t.Name, shortList(names, mostAttached))
	}
	for _, name := range names {
		if err := c.detach(ctx, name, t); err != nil {
			return nil, err
		}
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.TargetNameResponse, error) {
		now, err := c.existingTarget(tx, t.Name)
		if err == nil && now.ID != t.ID {
			err = fault.New(fault.InUse,
				"Target %q was registered anew at this moment; read DescribeTarget and try again.", t.Name)
		}
		if err != nil {
			return nil, err
		}
		tx.DeleteTarget(t.Account, t.Name)
		return c.targetNamed(t.Name), nil
	})
}

func shortList(names []string, most int) string {
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// detach ends the rotation of one secret at a target that is about to go. A managed secret keeps
// its type and is bound to nothing.
func (c *Call) detach(ctx context.Context, name string, t store.Target) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(t.Account, name, c.At)
		if err != nil || !ok || s.TargetName() != t.Name || !s.BoundTo(t.ID) {
			return err
		}
		r, err := c.record(tx, s)
		if err != nil {
			return err
		}
		if r.InFlight() && r.State != rotation.Quarantined {
			return fault.New(fault.InUse, "The rotation of secret %q at target %q has not ended.", s.Name, t.Name)
		}
		if s.Managed() {
			s, _ = s.Bind(detachedID, nil)
		} else if s, err = s.Detach(c.At); err != nil {
			return err
		}
		if err := c.plan(tx, &s, c.At); err != nil {
			return err
		}
		return tx.PutSecret(s, nil)
	})
}

// detachedID is the ID of no target.
const detachedID = "none"
