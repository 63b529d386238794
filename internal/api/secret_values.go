package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// seal returns the sealed value of a version, and the version with the digest by which equal values
// are recognised.
func (e *Env) seal(key cmk.Key, name string, v secret.Version, data sensitive.Value) (secret.Version, []byte, error) {
	where := envelope.Binding{Account: key.Account, Secret: name, Version: v.ID}
	box, err := e.Keyring.Seal(key, where, data)
	if err != nil {
		return v, nil, err
	}
	v.Digest, err = e.Keyring.Digest(key, where, data)
	return v, box, err
}

// sealFor seals the value of a version under the key of its secret.
func (e *Env) sealFor(
	tx *store.Tx, s secret.Secret, v secret.Version, data sensitive.Value,
) (secret.Version, []byte, error) {
	key, err := loadKey(tx, s.Account, s.KeyID)
	if err != nil {
		return v, nil, err
	}
	return e.seal(key, s.Name, v, data)
}

// defaultKey returns the key of secrets that name none. It makes the key when the account has none
// yet.
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

func putSecretValue(ctx context.Context, c *Call, in *kms.PutSecretValueRequest) (*kms.PutSecretValueResponse, error) {
	replaces := false
	out, err := store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.PutSecretValueResponse, error) {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return nil, err
		}
		v, box, err := c.sealFor(tx, s, secret.Version{ID: in.VersionID, DataType: in.SecretDataType}, in.SecretData)
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
		replaces = s.Stages[secret.Current] == v.ID
		return out, tx.PutSecret(s, map[string][]byte{v.ID: box})
	})
	if err == nil && replaces {
		c.gate.currentChanged(ctx, c.Account(), out.SecretName)
	}
	return out, err
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
		if s, err = c.unblocked(ctx, s, in); err != nil {
			return nil, err
		}
	}
	v, err := s.Select(secret.Stage(in.VersionStage), in.VersionID)
	if err != nil {
		return nil, err
	}
	c.concerns(v.ID, in.VersionStage)
	value, err := c.unseal(c.Snapshot, s, v)
	if err != nil {
		return nil, err
	}
	if !in.DryRun && (in.VersionStage == "" || in.VersionStage == string(secret.Current)) {
		c.noteRead(consumption{secret: s.Name, instance: in.Consumer, version: v.ID, rotated: s.IsRotated()})
	}
	out := &kms.GetSecretValueResponse{
		SecretName:       s.Name,
		SecretType:       s.Type,
		SecretData:       s.Present(v, value),
		SecretDataType:   v.DataType,
		VersionID:        v.ID,
		VersionStages:    s.Labels(v.ID),
		CreateTime:       v.CreatedAt,
		LastRotationDate: s.Rotation.Last,
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	if in.FetchExtendedConfig {
		out.ExtendedConfig = s.ExtendedConfig
	}
	return out, nil
}

// unseal reads and decrypts the value of a version.
func (e *Env) unseal(tx *store.Tx, s secret.Secret, v secret.Version) (sensitive.Value, error) {
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

func getRandomPassword(c *Call, in *kms.GetRandomPasswordRequest) (*kms.GetRandomPasswordResponse, error) {
	p, err := secret.Password(secret.PasswordSpec{
		Length:        in.PasswordLength,
		Exclude:       in.ExcludeCharacters,
		NoLower:       in.ExcludeLowercase,
		NoUpper:       in.ExcludeUppercase,
		NoDigits:      in.ExcludeNumbers,
		NoPunctuation: in.ExcludePunctuation,
		EachClass:     in.RequireEachIncludedType,
	}, c.Random)
	if err != nil {
		return nil, err
	}
	return &kms.GetRandomPasswordResponse{RandomPassword: p}, nil
}

func updateSecretVersionStage(
	ctx context.Context, c *Call, in *kms.UpdateSecretVersionStageRequest,
) (*kms.SecretNameResponse, error) {
	c.concerns(cmp.Or(in.MoveToVersion, in.RemoveFromVersion), in.VersionStage)
	if err := secret.CheckMove(secret.Stage(in.VersionStage), in.MoveToVersion, in.RemoveFromVersion); err != nil {
		return nil, err
	}
	moved := false
	out, err := c.alter(ctx, in.SecretName, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		after, err := s.MoveStage(secret.Stage(in.VersionStage), in.MoveToVersion, in.RemoveFromVersion, c.At)
		moved = hasNewCurrent(s, after)
		return after, err
	})
	if err == nil && moved {
		c.gate.currentChanged(ctx, c.Account(), out.SecretName)
	}
	return out, err
}
