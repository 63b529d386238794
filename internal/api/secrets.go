package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// policyName is the name of the one policy that a secret has.
const policyName = "default"

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
	if s.Rotated() {
		if err := c.plan(tx, &s, c.At); err != nil {
			return nil, err
		}
	}
	return out, tx.PutSecret(s, map[string][]byte{version: box})
}

// seal makes the sealed value of a version, and the digest that tells equal values.
func (e *Env) seal(key cmk.Key, name string, v secret.Version, data sensitive.Value) (secret.Version, []byte, error) {
	where := envelope.Binding{Account: key.Account, Secret: name, Version: v.ID}
	box, err := e.Keyring.Seal(key, where, data)
	if err != nil {
		return v, nil, err
	}
	v.Digest, err = e.Keyring.Digest(key, where, data)
	return v, box, err
}

// defaultKey finds the key of secrets that name none, and makes it when the account has none yet.
func (c *Call) defaultKey(ctx context.Context) (cmk.Key, error) {
	fresh := sync.OnceValues(func() (cmk.Key, error) {
		return c.Keyring.NewKey(c.Account(), uuid.NewString(), cmk.DefaultCreator, c.At)
	})
	return store.Update(ctx, c.DB, func(tx *store.Tx) (cmk.Key, error) {
		account, ok, err := tx.Account(c.Account())
		switch {
		case err != nil:
			return cmk.Key{}, err
		case !ok:
			account = store.Account{ID: c.Account(), CreatedAt: c.At}
		case account.DefaultKeyID != "":
			return loadKey(tx, c.Account(), account.DefaultKeyID)
		}
		key, err := fresh()
		if err != nil {
			return key, err
		}
		account.DefaultKeyID = key.ID
		if err := tx.PutAccount(account); err != nil {
			return key, err
		}
		return key, tx.PutKey(key)
	})
}

func loadKey(tx *store.Tx, account, id string) (cmk.Key, error) {
	key, ok, err := tx.Key(account, id)
	if err == nil && !ok {
		err = fault.New(fault.KeyNotFound, "")
	}
	return key, err
}

// planned is what responses say of the rotation of a secret; nothing for one that the service does not rotate.
func planned(s secret.Secret, now time.Time) (automatic, interval string, next time.Time) {
	if !s.Rotated() {
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

func putSecretValue(ctx context.Context, c *Call, in *kms.PutSecretValueRequest) (*kms.PutSecretValueResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.PutSecretValueResponse, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return nil, err
		}
		key, err := loadKey(tx, s.Account, s.KeyID)
		if err != nil {
			return nil, err
		}
		v, box, err := c.seal(key, s.Name, secret.Version{ID: in.VersionID, DataType: in.SecretDataType}, in.SecretData)
		if err != nil {
			return nil, err
		}
		_, repeated := s.Versions[in.VersionID]
		if s, err = s.Put(v, stages(in.VersionStages), c.At); err != nil {
			return nil, err
		}
		out := &kms.PutSecretValueResponse{SecretName: s.Name, VersionID: v.ID, VersionStages: s.Labels(v.ID)}
		if repeated {
			return out, nil
		}
		return out, tx.PutSecret(s, map[string][]byte{v.ID: box})
	})
}

func stages(names []string) []secret.Stage {
	list := make([]secret.Stage, len(names))
	for i, n := range names {
		list[i] = secret.Stage(n)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func getSecretValue(ctx context.Context, c *Call, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	if err := s.Usable(); err != nil {
		return nil, err
	}
	if s.Rotation.Hold {
		if s, err = c.settled(ctx, s, in); err != nil {
			return nil, err
		}
	}
	v, err := s.Select(secret.Stage(in.VersionStage), in.VersionID)
	if err != nil {
		return nil, err
	}
	c.concerns(v.ID, in.VersionStage)
	value, err := c.open(c.Snapshot, s, v)
	if err != nil {
		return nil, err
	}
	if !in.DryRun && (in.VersionStage == "" || in.VersionStage == string(secret.Current)) {
		c.noteRead(consumption{secret: s.Name, instance: in.Consumer, version: v.ID, rotated: s.Rotated()})
	}
	out := &kms.GetSecretValueResponse{
		SecretName: s.Name, SecretType: s.Type, SecretData: s.Present(v, value), SecretDataType: v.DataType,
		VersionID: v.ID, VersionStages: s.Labels(v.ID), CreateTime: v.CreatedAt, LastRotationDate: s.Rotation.Last,
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	if in.FetchExtendedConfig {
		out.ExtendedConfig = s.ExtendedConfig
	}
	return out, nil
}

// open reads and opens the value of a version.
func (e *Env) open(tx *store.Tx, s secret.Secret, v secret.Version) (sensitive.Value, error) {
	key, err := loadKey(tx, s.Account, s.KeyID)
	if err != nil {
		return sensitive.Value{}, err
	}
	box, err := tx.Value(s.Account, s.Name, v.ID)
	if err != nil {
		return sensitive.Value{}, err
	}
	value, err := e.Keyring.Open(key, envelope.Binding{Account: s.Account, Secret: s.Name, Version: v.ID}, box)
	if errors.Is(err, envelope.ErrDamaged) {
		err = fmt.Errorf("stored record %q: %w", store.ValueKey(s.Account, s.Name, v.ID), err)
	}
	return value, err
}

func getRandomPassword(_ context.Context, c *Call, in *kms.GetRandomPasswordRequest) (*kms.GetRandomPasswordResponse, error) {
	p, err := secret.Password(secret.PasswordSpec{
		Length: in.PasswordLength, Exclude: in.ExcludeCharacters,
		NoLower: in.ExcludeLowercase, NoUpper: in.ExcludeUppercase, NoDigits: in.ExcludeNumbers, NoPunctuation: in.ExcludePunctuation,
		EachClass: in.RequireEachIncludedType,
	}, c.Random)
	if err != nil {
		return nil, err
	}
	return &kms.GetRandomPasswordResponse{RandomPassword: p}, nil
}

func updateSecretVersionStage(ctx context.Context, c *Call, in *kms.UpdateSecretVersionStageRequest) (*kms.SecretNameResponse, error) {
	if in.MoveToVersion != "" {
		c.concerns(in.MoveToVersion, in.VersionStage)
	} else {
		c.concerns(in.RemoveFromVersion, in.VersionStage)
	}
	if err := secret.CheckMove(secret.Stage(in.VersionStage), in.MoveToVersion, in.RemoveFromVersion); err != nil {
		return nil, err
	}
	_, err := c.alter(ctx, in.SecretName, func(s secret.Secret) (secret.Secret, error) {
		return s.MoveStage(secret.Stage(in.VersionStage), in.MoveToVersion, in.RemoveFromVersion, c.At)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
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
		if s.Rotated() {
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
		if s.Rotated() {
			if err := c.plan(tx, &s, c.At); err != nil {
				return s, err
			}
		}
		return s, tx.PutSecret(s, nil)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
}

func getSecretPolicy(_ context.Context, c *Call, in *kms.GetSecretPolicyRequest) (*kms.GetSecretPolicyResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	if err := onlyDefault(in.PolicyName); err != nil {
		return nil, err
	}
	if s.Policy == "" {
		return &kms.GetSecretPolicyResponse{Policy: policy.DefaultSecretDocument(c.Account())}, nil
	}
	return &kms.GetSecretPolicyResponse{Policy: s.Policy}, nil
}

// checkPolicy refuses a document that cannot be the policy of a secret.
func (c *Call) checkPolicy(document string) (policy.Document, error) {
	d, err := policy.ParseSecret(document, c.Account())
	if err == nil {
		err = d.CheckOwner(c.grantable())
	}
	if err != nil {
		return d, fault.Parameter("Policy", "%s", err)
	}
	return d, nil
}

// namedIDs returns the IDs of the users that a policy names. A name that nobody has is refused: whoever takes it later is not
// the one who was meant.
func (c *Call) namedIDs(tx *store.Tx, d policy.Document) (map[string]string, error) {
	ids := map[string]string{}
	for _, arn := range d.Named() {
		id, err := tx.UserID(c.Account(), arn)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, fault.Parameter("Policy", "it names %s, and there is no such principal here; name a user of this account that exists.", arn)
		}
		ids[arn] = id
	}
	return ids, nil
}

func setSecretPolicy(ctx context.Context, c *Call, in *kms.SetSecretPolicyRequest) (*kms.EmptyResponse, error) {
	d, err := c.checkPolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.EmptyResponse, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return nil, err
		}
		if err := onlyDefault(in.PolicyName); err != nil {
			return nil, err
		}
		ids, err := c.namedIDs(tx, d)
		if err != nil {
			return nil, err
		}
		if s, err = s.SetPolicy(in.Policy, ids, c.At); err != nil {
			return nil, err
		}
		return &kms.EmptyResponse{}, tx.PutSecret(s, nil)
	})
}

func onlyDefault(name string) error {
	if name != policyName {
		return fault.New(fault.NotFound, "A secret has one policy, named default.")
	}
	return nil
}
