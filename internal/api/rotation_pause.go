package api

import (
	"context"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// pausing are the resources of PauseRotation and ResumeRotation: one secret, one target, or everything.
func pausing(c *Call, in *kms.PauseRotationRequest, _ []resource) ([]resource, error) {
	switch {
	case in.SecretName != "" && in.TargetName != "":
		return nil, fault.Parameter("TargetName", "give SecretName or TargetName, not both.")
	case in.SecretName != "":
		name, err := c.secretName(in.SecretName)
		in.SecretName = name
		return []resource{c.secretResource(name)}, err
	case in.TargetName != "":
		return []resource{c.targetResource(in.TargetName)}, nil
	}
	return []resource{{arn: "*"}}, nil
}

func pauseRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	return &kms.EmptyResponse{}, c.pause(ctx, in, true)
}

func resumeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	return &kms.EmptyResponse{}, c.pause(ctx, in, false)
}

func (c *Call) pause(ctx context.Context, in *kms.PauseRotationRequest, paused bool) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		switch {
		case in.SecretName != "":
			s, err := c.existing(tx, in.SecretName)
			if err != nil {
				return err
			}
			if err := s.CheckRotate(); err != nil {
				return err
			}
			r, err := c.record(tx, s)
			if err != nil {
				return err
			}
			r.Paused = paused
			return c.planWith(tx, &s, r, c.At)
		case in.TargetName != "":
			t, err := c.existingTarget(tx, in.TargetName)
			if err != nil {
				return err
			}
			t.Paused = paused
			return tx.PutTarget(t)
		}
		return tx.PauseAll(paused)
	})
}
