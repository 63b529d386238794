package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

func endRotationGrace(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.EndGrace, "it has no grace period now")
}

func undoRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.Undo,
		"the previous credential works only in the grace period of the strategies overlap and double")
}

// request applies an event that a caller asks for to a rotation in a state that it follows.
// otherwise says why it is refused in any other; the error also names what can be done there.
func (c *Call) request(
	ctx context.Context, name string, kind rotation.EventKind, otherwise string,
) (*kms.SecretNameResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.SecretNameResponse, error) {
		s, r, err := c.rotated(tx, name)
		if err != nil {
			return nil, err
		}
		next, err := rotation.Next(r, rotation.Event{Kind: kind}, c.At)
		if err != nil {
			return nil, notInState(s, r, otherwise)
		}
		if err := c.notTaken(tx, s); err != nil {
			return nil, err
		}
		actions, err := c.repairActions(tx, s, r)
		if err != nil {
			return nil, err
		}
		if kind == rotation.Again && !slices.Contains(actions, kms.RepairApply) {
			return nil, fault.New(fault.InUse,
				"The target has never accepted version %q of secret %q, so it is not sent; keyturn rotation repair "+
					"%s --adopt=FILE takes a credential that the target accepts.", r.Candidate, s.Name, s.Name)
		}
		s, bound, err := c.bind(tx, s)
		if err == nil && bound {
			err = tx.PutSecret(s, nil)
		}
		if err != nil {
			return nil, err
		}
		out := &kms.SecretNameResponse{SecretName: s.Name}
		if kind == rotation.Probed && r.CanHurry() && !next.NextAt.Before(r.NextAt) {
			return out, nil // a write would take the result of a step that is under way
		}
		return out, tx.PutRotation(&next)
	})
}

// notInState refuses what an operator asked for, and names what can be done in that state.
func notInState(s secret.Secret, r rotation.Record, why string) error {
	next := r.State.WayOut(s.Name)
	if next == "" && (why == notQuarantined || why == nothingFailed) {
		next = fault.Command("rotation probe", s.Name) + " checks the credential in use."
	}
	if r.RejectsBase() {
		next = r.Advice()
	}
	if !strings.HasPrefix(next, "keyturn ") { // a command stays as it is
		next = fault.Capital(next)
	}
	text := fmt.Sprintf("The rotation of secret %q is in state %s: %s. %s", s.Name, r.State, why, next)
	return fault.New(fault.InUse, "%s", fault.Text(strings.TrimSpace(text)))
}

// cancelRotation ends a rotation on the safe way out of its state. When the candidate was sent
// before, the engine ends the rotation once nothing of it is left at the target.
func cancelRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.DescribeRotationResponse, error) {
	event := rotation.Event{Kind: rotation.Cancel}
	err := store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, before, err := c.rotated(tx, in.SecretName)
		if err != nil {
			return err
		}
		r, err := rotation.Next(before, event, c.At)
		if err != nil {
			return fault.New(fault.InUse, "The rotation of secret %q is in state %s and cannot be cancelled: %s",
				s.Name, before.State, before.State.InsteadOfCancel(s.Name))
		}
		_, err = c.putStep(tx, s, before, &r, step{event: event})
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.describeAnew(ctx, in.SecretName)
}

// pausing returns the resources of PauseRotation and ResumeRotation: one secret, one target, or
// everything.
func pausing(c *Call, in *kms.PauseRotationRequest, _ []resource) ([]resource, error) {
	switch {
	case in.SecretName != "" && in.TargetName != "":
		return nil, fault.Parameter("TargetName", "give SecretName or TargetName, not both.")
	case in.SecretName != "":
		return c.andSecret(nil, &in.SecretName)
	case in.TargetName != "":
		return []resource{c.targetResource(in.TargetName)}, nil
	}
	return []resource{{arn: "*"}}, nil
}

func pauseRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	_, err := c.pause(ctx, in, &rotation.Pause{Since: c.At, By: c.Principal.ARN()})
	return &kms.EmptyResponse{}, err
}

func resumeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.ResumeRotationResponse, error) {
	was, err := c.pause(ctx, in, nil)
	return &kms.ResumeRotationResponse{NothingPaused: !was}, err
}

// pause pauses new rotations; with no pause it resumes them. It returns whether they were paused.
func (c *Call) pause(ctx context.Context, in *kms.PauseRotationRequest, p *rotation.Pause) (was bool, err error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (was bool, err error) {
		switch {
		case in.SecretName != "":
			s, r, err := c.rotated(tx, in.SecretName)
			if err != nil {
				return false, err
			}
			if command, giveUp := continuing(r); p == nil && command != "" {
				if giveUp == "" { // an earlier release has stored the check
					giveUp = fault.Command("secret delete", s.Name, "--now")
				}
				return false, fault.New(fault.InUse, "The accounts of secret %q are not prepared, so its rotation stays "+
					"paused. %s continues that. To give up: %s.", s.Name, fault.Text(command), fault.Text(giveUp))
			}
			_, err = c.planWith(tx, s, r.WithPause(p))
			return r.Paused, err
		case in.TargetName != "":
			t, err := c.existingTarget(tx, in.TargetName)
			if err != nil {
				return false, err
			}
			return t.Paused, tx.PutTarget(t.WithPause(p))
		}
		all, err := tx.AllPaused()
		if err != nil {
			return false, err
		}
		return all.Paused, tx.PauseAll(p)
	})
}
