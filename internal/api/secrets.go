package api

import (
	"context"
	"errors"
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
		Name:             in.SecretName,
		Type:             in.SecretType,
		DataType:         in.SecretDataType,
		Description:      in.Description,
		DKMSInstanceID:   in.DKMSInstanceID,
		ExtendedConfig:   in.ExtendedConfig,
		Policy:           in.Policy,
		Tags:             in.Tags,
		EnableRotation:   in.EnableAutomaticRotation,
		RotationInterval: in.RotationInterval,
		LeastInterval:    c.Rotation.LeastInterval,
		Data:             in.SecretData,
	}
}

// firstData returns the value of the first version of a secret: of some types the service makes it.
func firstData(in *kms.CreateSecretRequest) sensitive.Value {
	if in.SecretType == kms.TypeRedis || in.SecretType == kms.TypePolarDB {
		return secret.AutoAccounts(in.ExtendedConfig, secret.ManagedPassword)
	}
	return in.SecretData
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
	data := firstData(in)
	key, err := c.defaultKey(ctx)
	if err != nil {
		return nil, err
	}
	if id := in.EncryptionKeyID; id != "" && id != key.ID && id != cmk.ARN(c.Region, c.Account(), key.ID) {
		return nil, fault.New(fault.KeyNotFound, "There is no key %q. Leave the key out to use the default key.",
			protocol.Clip(id))
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.CreateSecretResponse, error) {
		return c.create(tx, key, spec, in.VersionID, data)
	})
}

func (c *Call) create(
	tx *store.Tx, key cmk.Key, spec secret.Spec, version string, data sensitive.Value,
) (*kms.CreateSecretResponse, error) {
	if err := c.freeSecret(tx, spec.Name); err != nil {
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
	if s, err = c.bindPolicy(tx, s); err != nil {
		return nil, err
	}
	if s.Managed() {
		if s, err = c.bindNew(tx, s, data); err != nil {
			return nil, err
		}
	}
	out := &kms.CreateSecretResponse{
		ARN:            s.ARN(c.Region),
		SecretName:     s.Name,
		VersionID:      version,
		SecretType:     s.Type,
		ExtendedConfig: s.ExtendedConfig,
		DKMSInstanceID: s.DKMSInstanceID,
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	if s.IsRotated() {
		if s, err = c.plan(tx, s); err != nil {
			return nil, err
		}
	}
	return out, tx.PutSecret(s, map[string][]byte{version: box})
}

// bindPolicy binds the policy of a new secret, if it has one, to the users that the policy names.
func (c *Call) bindPolicy(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
	if s.Policy == "" {
		return s, nil
	}
	ids, err := c.namedIn(tx, s.Policy)
	s.PolicyBinding = &secret.PolicyBinding{IDs: ids}
	return s, err
}

// freeSecret refuses a name that a secret has, and forgets a deleted secret that had it.
func (c *Call) freeSecret(tx *store.Tx, name string) error {
	old, ok, err := tx.Secret(c.Account(), name, c.At)
	switch {
	case err != nil:
		return err
	case ok && old.Deleting():
		return old.Usable()
	case ok:
		return fault.New(fault.Exists, "There is a secret %q already; PutSecretValue (keyturn secret put %s) stores a "+
			"new version of it.", name, name)
	}
	return tx.ForgetFormer(c.Account(), name)
}

// planned returns what responses say of the rotation of a secret; nothing for a secret that the
// service does not rotate.
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

// existing reads a secret that must exist. A handler gets no secret that is not among the resources
// of its operation, because no policy was evaluated for it.
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

// secretRule changes a secret. It may read more in the transaction that stores the secret.
type secretRule func(*store.Tx, secret.Secret) (secret.Secret, error)

// alter changes one secret in one transaction.
func (c *Call) alter(ctx context.Context, name string, rule secretRule) (*kms.SecretNameResponse, error) {
	return &kms.SecretNameResponse{SecretName: name}, c.alterAll(ctx, []string{name}, rule)
}

// alterAll changes several secrets in one transaction: all or none.
func (c *Call) alterAll(ctx context.Context, names []string, rule secretRule) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		for _, name := range names {
			s, err := c.existing(tx, name)
			if err != nil {
				return err
			}
			if s, err = rule(tx, s); err != nil {
				return err
			}
			if err := tx.PutSecret(s, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func describeSecret(c *Call, in *kms.DescribeSecretRequest) (*kms.DescribeSecretResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	out := &kms.DescribeSecretResponse{
		ARN:               s.ARN(c.Region),
		SecretName:        s.Name,
		SecretType:        s.Type,
		Description:       s.Description,
		CreateTime:        s.CreatedAt,
		UpdateTime:        s.UpdatedAt,
		PlannedDeleteTime: s.DeleteAt,
		LastRotationDate:  s.Rotation.Last,
		ExtendedConfig:    s.ExtendedConfig,
		DKMSInstanceID:    s.DKMSInstanceID,
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
	return c.alter(ctx, in.SecretName, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		return s.UpdateMetadata(in.Description, in.CustomData, c.At)
	})
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
		u, err := c.usesOf(tx, s.Name)
		if err != nil {
			return nil, err
		}
		if err := c.checkUnused(s.Name, u); err != nil {
			return nil, err
		}
		out := &kms.DeleteSecretResponse{SecretName: s.Name, PlannedDeleteTime: s.DeleteAt}
		if in.ForceDeleteWithoutRecovery {
			if !u.any() {
				tx.ForgetUse(s.Account, s.Name)
			}
			return out, tx.DeleteSecret(s.Account, s.Name)
		}
		if s, err = c.plan(tx, s); err != nil {
			return nil, err
		}
		return out, tx.PutSecret(s, nil)
	})
}

// uses is what does not work without a secret.
type uses struct {
	targets []string // that have its administrator
	secrets []string // with logins that have its client certificate
	later   bool     // a secret that waits for its deletion, and can be restored, has such logins
}

func (u uses) any() bool { return len(u.targets)+len(u.secrets) > 0 || u.later }

// usesOf returns what uses a secret. A change that depends on it is decided again if something
// begins to use the secret before the commit.
func (c *Call) usesOf(tx *store.Tx, name string) (u uses, err error) {
	noted, err := tx.GuardUse(c.Account(), name)
	if err != nil {
		return u, err
	}
	err = tx.Targets(c.Account(), "", func(t store.Target) bool {
		if t.AdminSecret == name {
			u.targets = append(u.targets, t.Name)
		}
		return true
	})
	if err != nil || !noted { // without the note, no login uses it
		return u, err
	}
	err = tx.Secrets(c.Account(), "", "", c.At, func(s secret.Secret) bool {
		switch {
		case s.Name == name || !s.IsRotated() || s.Settings().Login.CertificateSecret != name:
		case s.Deleting():
			u.later = true
		default:
			u.secrets = append(u.secrets, s.Name)
		}
		return true
	})
	return u, err
}

// checkUnused refuses to delete a secret without which a target, or the logins of an application,
// do not work: one with an administrator or a client certificate.
func (c *Call) checkUnused(name string, u uses) error {
	switch {
	case len(u.targets) > 0:
		shown, err := c.shownTargets(u.targets)
		if err != nil {
			return err
		}
		return fault.New(fault.InUse, "Secret %q has the administrator of these targets, where nothing can be checked or "+
			"rotated without it: %s. First give each another one (keyturn target update TARGET --admin-secret=SECRET), or "+
			"remove it (keyturn target remove TARGET).", name, shown)
	case len(u.secrets) > 0:
		shown, err := c.shownSecrets(u.secrets)
		if err != nil {
			return err
		}
		return fault.New(fault.InUse, "Secret %q has the client certificate for the logins of these secrets: %s. First name "+
			"another one for each (keyturn rotation configure NAME --login-certificate-secret=SECRET), or none (keyturn "+
			"rotation configure NAME --reset=login-certificate-secret).", name, shown)
	}
	return nil
}

func restoreSecret(
	ctx context.Context, c *Call, in *kms.RestoreSecretRequest,
) (out *kms.RestoreSecretResponse, err error) {
	_, err = c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		s, err := s.Restore(c.At)
		if err != nil {
			return s, err
		}
		out = &kms.RestoreSecretResponse{SecretName: s.Name}
		out.Warning, err = c.withoutCertificate(tx, s)
		return s, err
	})
	return out, err
}

// withoutCertificate says that the client certificate for the logins of a secret was deleted, or is
// about to be, and what to do; empty where it is not.
func (c *Call) withoutCertificate(tx *store.Tx, s secret.Secret) (string, error) {
	name := s.Settings().Login.CertificateSecret
	if !s.IsRotated() || name == "" || name == s.Name {
		return "", nil
	}
	certificate, ok, err := tx.Secret(s.Account, name, c.At)
	if err != nil || ok && !certificate.Deleting() {
		return "", err
	}
	state, remedy := "is deleted", ""
	if ok {
		state, remedy = "waits for its deletion", "cancel that deletion (keyturn secret restore SECRET), or "
	}
	shown, err := c.shownSecrets([]string{name})
	if err != nil {
		return "", err
	}
	return fault.Message("The secret with the client certificate for the logins of %s %s: %s. No rotation can begin "+
		"without it: "+remedy+"name another one (keyturn rotation configure %s --login-certificate-secret=SECRET).",
		s.Name, state, fault.Text(shown), s.Name), nil
}

const (
	purgeBatch = 64
	purgeTime  = 10 * time.Second // bounds the deletion of one secret
)

// Purge removes the secrets whose planned deletion time has come, each recorded as done by the
// service itself, and returns when the next one is due; zero when none is planned. The due times
// are in the store, so a restart changes nothing, and two nodes may purge at once.
func (g *Gate) Purge(ctx context.Context) (next time.Time, err error) {
	for {
		now := g.env.Now().UTC()
		due, at, err := store.Snapshot(ctx, g.env.DB).DueBefore(now, purgeBatch)
		if err != nil || len(due) == 0 {
			return at, err
		}
		for _, d := range due {
			if err := g.purge(ctx, d, now); err != nil {
				return at, err
			}
		}
	}
}

func (g *Gate) purge(ctx context.Context, d store.Due, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	c := g.systemCall("purge", "PurgeSecret", d.Account, d.Name)
	return g.recordTwice(ctx, c, func() error {
		return store.Do(ctx, g.env.DB, func(tx *store.Tx) error {
			u, err := c.usesOf(tx, d.Name)
			if err == nil && !u.any() {
				tx.ForgetUse(d.Account, d.Name)
			}
			return errors.Join(err, tx.PurgeSecret(d.Account, d.Name, now))
		})
	})
}
