package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func (c *Call) specOf(in *kms.CreateSecretRequest) secret.Spec {
	return secret.Spec{
		Name: in.SecretName, Type: in.SecretType, DataType: in.SecretDataType, Description: in.Description,
		DKMSInstanceID: in.DKMSInstanceID, ExtendedConfig: in.ExtendedConfig, Policy: in.Policy, Tags: in.Tags,
		EnableRotation: in.EnableAutomaticRotation, RotationInterval: in.RotationInterval, LeastInterval: c.Rotation.LeastInterval, Data: in.SecretData,
	}
}

func createSecret(ctx context.Context, c *Call, in *kms.CreateSecretRequest) (*kms.CreateSecretResponse, error) {
	spec, err := c.specOf(in).Check()
	if err != nil {
		return nil, err
	}
	c.resource = c.secretResource(spec.Name)
	if in.Policy != "" {
		if _, err := c.checkPolicy(in.Policy); err != nil {
			return nil, err
		}
	}
	data := in.SecretData
	if spec.Type == kms.TypeRedis || spec.Type == kms.TypePolarDB {
		data = secret.AutoAccounts(spec.ExtendedConfig, secret.ManagedPassword)
	}
	key, err := c.defaultKey(ctx)
	if err != nil {
		return nil, err
	}
	if in.EncryptionKeyID != "" && in.EncryptionKeyID != key.ID && in.EncryptionKeyID != cmk.ARN(c.Region, c.Account(), key.ID) {
		return nil, fault.New(fault.KeyNotFound, "There is no key %q; leave EncryptionKeyId out for the default key.", protocol.Clip(in.EncryptionKeyID))
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.CreateSecretResponse, error) {
		return c.create(tx, key, spec, in.VersionID, data)
	})
}

func (c *Call) create(tx *store.Tx, key cmk.Key, spec secret.Spec, version string, data sensitive.Value) (*kms.CreateSecretResponse, error) {
	old, ok, err := tx.Secret(c.Account(), spec.Name, c.At)
	switch {
	case err != nil:
		return nil, err
	case ok && old.Deleting():
		return nil, old.Usable()
	case ok:
		return nil, fault.New(fault.Exists, "There is a secret %q already; PutSecretValue stores a new version of it.", spec.Name)
	}
	if err := tx.ForgetFormer(c.Account(), spec.Name); err != nil {
		return nil, err
	}
	v, box, err := c.seal(key, spec.Name, secret.Version{ID: version, DataType: spec.DataType}, data)
	if err != nil {
		return nil, err
	}
	s, err := secret.New(c.Account(), spec, v, c.At)
	if err != nil {
		return nil, err
	}
	s.KeyID, s.DefaultKey, s.Creator = key.ID, true, c.Account()
	if s.Policy != "" {
		d, err := c.checkPolicy(s.Policy)
		if err != nil {
			return nil, err
		}
		ids, err := c.namedIDs(tx, d)
		if err != nil {
			return nil, err
		}
		s.PolicyBinding = &secret.PolicyBinding{IDs: ids}
	}
	if s.Managed() {
		if s, err = c.bindNew(tx, s, data); err != nil {
			return nil, err
		}
	}
	out := &kms.CreateSecretResponse{
		ARN: s.ARN(c.Region), SecretName: s.Name, VersionID: version, SecretType: s.Type,
		ExtendedConfig: s.ExtendedConfig, DKMSInstanceID: s.DKMSInstanceID,
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	if s.IsRotated() {
		if err := c.plan(tx, &s, c.At); err != nil {
			return nil, err
		}
	}
	return out, tx.PutSecret(s, map[string][]byte{version: box})
}

// planned is what responses say of the rotation of a secret; nothing for one that the service does not rotate.
func planned(s secret.Secret, now time.Time) (automatic, interval string, next time.Time) {
	if !s.IsRotated() {
		return "", "", time.Time{}
	}
	automatic = s.Rotation.Automatic(now)
	if automatic == secret.RotationDisabled {
		return automatic, "", time.Time{}
	}
	if s.Rotation.Interval > 0 { // a cron expression has none
		interval = s.Rotation.IntervalText()
	}
	return automatic, interval, s.Rotation.Next
}

// existing reads a secret that must be there. A handler reaches no secret that is not among the resources of its operation: no
// policy would have been asked.
func (c *Call) existing(tx *store.Tx, name string) (secret.Secret, error) {
	if c.op != nil && !slices.Contains(c.passed, name) {
		return secret.Secret{}, fmt.Errorf("%s reads the secret %q, which is not among its resources", c.op.Name, name)
	}
	s, ok, err := tx.Secret(c.Account(), name, c.At)
	if err == nil && !ok {
		err = secret.NotFound(name)
	}
	return s, err
}

// alter changes one secret in one transaction.
func (c *Call) alter(ctx context.Context, name string, rule func(secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (secret.Secret, error) {
		s, err := c.existing(tx, name)
		if err != nil {
			return s, err
		}
		if s, err = rule(s); err != nil {
			return s, err
		}
		return s, tx.PutSecret(s, nil)
	})
}

func describeSecret(_ context.Context, c *Call, in *kms.DescribeSecretRequest) (*kms.DescribeSecretResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	out := &kms.DescribeSecretResponse{
		ARN: s.ARN(c.Region), SecretName: s.Name, SecretType: s.Type, Description: s.Description,
		CreateTime: s.CreatedAt, UpdateTime: s.UpdatedAt, PlannedDeleteTime: s.DeleteAt, LastRotationDate: s.Rotation.Last,
		ExtendedConfig: s.ExtendedConfig, DKMSInstanceID: s.DKMSInstanceID,
	}
	if !s.DefaultKey {
		out.EncryptionKeyID = s.KeyID
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	if in.FetchTags {
		tags := s.SortedTags()
		out.Tags = &tags
	}
	return out, nil
}

func updateSecret(ctx context.Context, c *Call, in *kms.UpdateSecretRequest) (*kms.SecretNameResponse, error) {
	_, err := c.alter(ctx, in.SecretName, func(s secret.Secret) (secret.Secret, error) {
		return s.UpdateMetadata(in.Description, in.CustomData, c.At)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
}

func deleteSecret(ctx context.Context, c *Call, in *kms.DeleteSecretRequest) (*kms.DeleteSecretResponse, error) {
	window := time.Duration(in.RecoveryWindowInDays) * 24 * time.Hour
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.DeleteSecretResponse, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return nil, err
		}
		if s, err = s.Delete(in.ForceDeleteWithoutRecovery, window, c.At); err != nil {
			return nil, err
		}
		out := &kms.DeleteSecretResponse{SecretName: s.Name, PlannedDeleteTime: s.DeleteAt}
		if in.ForceDeleteWithoutRecovery {
			return out, tx.DeleteSecret(s.Account, s.Name)
		}
		if s.IsRotated() {
			if err := c.plan(tx, &s, c.At); err != nil {
				return nil, err
			}
		}
		return out, tx.PutSecret(s, nil)
	})
}

func restoreSecret(ctx context.Context, c *Call, in *kms.RestoreSecretRequest) (*kms.SecretNameResponse, error) {
	_, err := store.Update(ctx, c.DB, func(tx *store.Tx) (secret.Secret, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return s, err
		}
		if s, err = s.Restore(c.At); err != nil {
			return s, err
		}
		if s.IsRotated() {
			if err := c.plan(tx, &s, c.At); err != nil {
				return s, err
			}
		}
		return s, tx.PutSecret(s, nil)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
}
