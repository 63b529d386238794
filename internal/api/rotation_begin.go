package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// rotateSecret asks for a rotation. The engine makes it; the answer does not wait for the end.
func rotateSecret(ctx context.Context, c *Call, in *kms.RotateSecretRequest) (*kms.RotateSecretResponse, error) {
	return c.begin(ctx, in.SecretName, rotation.Request{ID: in.VersionID, Mode: rotation.Rotate, Trigger: rotation.Manual}, false)
}

func rehearseRotation(ctx context.Context, c *Call, in *kms.VersionedRequest) (*kms.RotateSecretResponse, error) {
	return c.begin(ctx, in.SecretName, rotation.Request{ID: in.VersionID, Mode: rotation.Rehearse, Trigger: rotation.Manual}, false)
}

func emergencyRotation(ctx context.Context, c *Call, in *kms.EmergencyRotationRequest) (*kms.EmergencyRotationResponse, error) {
	begun, err := c.begin(ctx, in.SecretName, rotation.Request{ID: in.VersionID, Mode: rotation.Rotate, Trigger: rotation.Emergency}, in.DryRun)
	if err != nil {
		return nil, err
	}
	out := &kms.EmergencyRotationResponse{ARN: begun.ARN, SecretName: begun.SecretName, VersionID: begun.VersionID, DryRun: in.DryRun}
	if in.DryRun {
		err = c.breaking(ctx, out)
	}
	return out, err
}

// mostBroken is how many consumers a dry run names of each sort.
const mostBroken = 100

// breaking tells who holds a credential that an emergency would make useless: every consumer, since none has the new one.
func (c *Call) breaking(ctx context.Context, out *kms.EmergencyRotationResponse) error {
	if err := c.Consumers.Sync(ctx, c.Account(), out.SecretName); err != nil {
		return err
	}
	tx := store.Snapshot(ctx, c.DB)
	s, err := c.existing(tx, out.SecretName)
	if err != nil {
		return err
	}
	grace := c.graceOf(s)
	out.CurrentVersionID = s.Stages[secret.Current]
	return tx.Consumers(s.Account, s.Name, "", func(_ string, u rotation.Sighting) bool {
		list, count := &out.Breaking, &out.BreakingCount
		if !u.GoneAt(grace.Min).After(c.At) {
			list, count = &out.Unknown, &out.UnknownCount
		}
		if *count++; len(*list) < mostBroken {
			*list = append(*list, shownConsumer(u, out.CurrentVersionID))
		}
		return true
	})
}

// begin starts a rotation, once for each ID. dry only finds out whether that is refused.
func (c *Call) begin(ctx context.Context, name string, q rotation.Request, dry bool) (*kms.RotateSecretResponse, error) {
	c.concerns(q.ID, "")
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.RotateSecretResponse, error) {
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
		out := &kms.RotateSecretResponse{ARN: s.ARN(c.Region), SecretName: s.Name, VersionID: q.ID}
		if v, made := s.Versions[q.ID]; r.ID == q.ID || made && v.MadeByRotation {
			return out, nil // asked for before
		} else if made {
			return nil, fault.New(fault.Exists, "Version %q of secret %q was not made by a rotation; use a new VersionId.", q.ID, s.Name)
		}
		if err := c.mayRotate(tx, s, r, q); err != nil {
			return nil, err
		}
		s, bound, err := c.bind(tx, s)
		if err != nil {
			return nil, err
		}
		before := r
		if r, err = c.begun(s, r, q); err != nil || dry {
			return out, err
		}
		if s, err = s.Ask(q.Trigger == rotation.Emergency, c.Rotation.RequestEvery, c.At); err != nil {
			return nil, err
		}
		if err := c.announce(tx, before, r, began(before)); err != nil {
			return nil, err
		}
		if r.InFlight() && r.ID != q.ID && r.Then == nil { // an emergency, and a rotation that replaces the credential already
			out.VersionID = r.ID
		}
		if bound {
			if err := tx.PutSecret(s, nil); err != nil {
				return nil, err
			}
		}
		return out, errors.Join(tx.PutRotation(&r), tx.PutSecret(s, nil))
	})
}

// began returns the event of a rotation that is asked for while the record is in that state: it begins, or waits for the end of
// the one before.
func began(before rotation.Record) rotation.EventKind {
	if before.InFlight() {
		return ""
	}
	return rotation.Begun
}

// mayRotate refuses a rotation that could not be made.
func (c *Call) mayRotate(tx *store.Tx, s secret.Secret, r rotation.Record, q rotation.Request) error {
	name := s.TargetName()
	t, ok, err := tx.Target(s.Account, name)
	if err != nil {
		return err
	}
	if !ok && name != secret.OwnUsers {
		return fault.New(fault.Unsupported, "No target %q is registered, so the credential of secret %q cannot be changed there; RegisterTarget makes one known.", name, s.Name)
	}
	if q.Trigger == rotation.Emergency {
		return nil // a pause does not keep a leaked credential alive
	}
	all, err := tx.AllPaused()
	switch {
	case err != nil:
		return err
	case r.Paused:
		return fault.New(fault.InUse, "The rotation of secret %q is paused; ResumeRotation lets it go on.", s.Name)
	case t.Paused:
		return fault.New(fault.InUse, "Rotations at target %q are paused; ResumeRotation lets them go on.", t.Name)
	case all:
		return fault.New(fault.InUse, "All rotations are paused; ResumeRotation without parameters lets them go on.")
	}
	return nil
}

// begun returns the record with the rotation that was asked for, at its beginning or waiting for the end of the one before.
func (c *Call) begun(s secret.Secret, r rotation.Record, q rotation.Request) (rotation.Record, error) {
	q.Grace = c.graceOf(s)
	q.At = c.At
	next, ok := r.Ask(q, c.At)
	switch {
	case ok:
		return next, nil
	case r.State == rotation.Quarantined:
		return r, fault.New(fault.InUse, "The rotation of secret %q is quarantined: %s RepairRotation repairs it.", s.Name, r.Reason)
	case r.State == rotation.InGrace:
		return r, fault.New(fault.InUse, "The former credential of secret %q works until %s; EndRotationGrace retires it now, EmergencyRotation replaces both.", s.Name, graceEnd(r, c.At))
	}
	return r, fault.New(fault.InUse, "The rotation %q of secret %q has not ended: it is in state %s%s. DescribeRotation shows what it waits for; CancelRotation ends it, if its candidate is not at the target.",
		r.ID, s.Name, r.State, nextTry(r, c.At))
}

// nextTry says when the engine tries again what has failed; empty when nothing has.
func nextTry(r rotation.Record, now time.Time) string {
	if !r.NextAt.After(now) {
		return ""
	}
	return ", and is tried again at " + r.NextAt.UTC().Format(time.RFC3339)
}

// graceEnd says in words when a grace period ends.
func graceEnd(r rotation.Record, now time.Time) string {
	if r.Waiting == 0 || r.GraceUntil.After(now) {
		return r.GraceUntil.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%d of its consumers have moved, or until %s", r.Waiting, r.GraceDeadline.UTC().Format(time.RFC3339))
}
