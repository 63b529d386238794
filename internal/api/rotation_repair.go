package api

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func repairRotation(
	ctx context.Context, c *Call, in *kms.RepairRotationRequest,
) (*kms.DescribeRotationResponse, error) {
	var err error
	switch in.RepairAction {
	case kms.RepairProbe:
		_, err = c.request(ctx, in.SecretName, rotation.Probed, nothingFailed)
	case kms.RepairApply:
		_, err = c.request(ctx, in.SecretName, rotation.Again, notQuarantined)
	default:
		err = c.adopt(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	return c.describeAnew(ctx, in.SecretName)
}

// notQuarantined says why a repair is refused in other states, and nothingFailed why a probe is.
const (
	notQuarantined = "nothing is quarantined"
	nothingFailed  = "nothing is quarantined, and no step of it has failed"
)

// repairActions returns the actions of a repair that are taken now. Of another registration of the
// target, it is not known what this one has accepted, so nothing is sent there. Where another
// secret rotates the account, none is.
func (e *Env) repairActions(tx *store.Tx, s secret.Secret, r rotation.Record) ([]string, error) {
	if !r.CanHurry() && r.State != rotation.Quarantined {
		return []string{}, nil
	}
	if _, _, other, err := e.takenFrom(tx, s); err != nil || other != "" {
		return []string{}, err
	}
	if r.CanHurry() {
		return []string{kms.RepairProbe}, nil
	}
	now, err := registered(tx, s.Account, s.TargetName(), s.UserName())
	if err != nil {
		return nil, err
	}
	if now.isAnother(s) || !r.Repairable(s.Generated(r.Candidate)) {
		return []string{kms.RepairProbe, kms.RepairAdopt}, nil
	}
	return []string{kms.RepairProbe, kms.RepairApply, kms.RepairAdopt}, nil
}

// adoption is a credential that a repair adopts.
type adoption struct {
	base       string          // the current version
	value      sensitive.Value // the value of base with the credential in it
	credential target.Credential
	lastFailed time.Time // when a login failed last before this one
	same       func(x, y sensitive.Value) bool
}

// like returns the credential in the words of another one if the target takes both for the same.
func (a adoption) like(other target.Credential) target.Credential {
	c := a.credential
	if c.Account == other.Account && a.same(c.Secret, other.Secret) {
		c.Secret = other.Secret
	}
	return c
}

// adopt takes a credential that the target accepts into the current value, after one login with it.
func (c *Call) adopt(ctx context.Context, in *kms.RepairRotationRequest) error {
	switch {
	case in.SecretData.IsZero():
		return fault.Required("SecretData")
	case in.VersionID == "":
		return fault.Required("VersionId")
	}
	c.concerns(in.VersionID, string(secret.Current))
	s, _, err := c.quarantined(c.Snapshot, in.SecretName)
	if err != nil {
		return err
	}
	if s, err = c.asBound(c.Snapshot, s); err != nil {
		return err
	}
	if err := c.notTaken(c.Snapshot, s); err != nil {
		return err
	}
	a, err := c.adoption(s, in.SecretData)
	if err != nil {
		return err
	}
	t, system, err := c.targetOf(s)
	if err != nil {
		return err
	}
	defer func() { _ = system.Close() }() // nothing of it is needed after its answer
	a.same = func(x, y sensitive.Value) bool { return target.SameSecret(system, x, y) }
	if a.lastFailed, err = c.trying(ctx, s.Name); err != nil {
		return err
	}
	c.releaseAdmins() // this login does not show whether the administrator is rejected
	_, err = c.logInOnce(t, a.credential.Account, func() error { return system.Verify(ctx, a.credential) })
	c.adminAnswered(t, err)
	switch {
	case fault.KindOf(err) == fault.Throttled:
		return err
	case err != nil && target.ClassOf(err) != target.Admitted:
		return fault.New(fault.InUse, "Target %q does not accept this credential: %s", s.TargetName(), err)
	}
	return c.adopted(ctx, in, s, a)
}

// adoption returns the current value of a secret with the credential of a value that the caller
// gives.
func (c *Call) adoption(s secret.Secret, given sensitive.Value) (adoption, error) {
	v, list, current, err := c.inUse(c.Snapshot, s)
	if err != nil {
		return adoption{}, err
	}
	ch, err := c.changesWith(c.Snapshot, s, list)
	if err != nil {
		return adoption{}, err
	}
	a := adoption{base: v.ID}
	a.value, a.credential, err = s.Adopted(current, given, ch.names)
	return a, err
}

// trying takes one login with a credential of the caller from the allowance of the secret. The
// allowance is stored before the login, so neither simultaneous calls nor a crash get more of them.
// It returns when a login failed last.
func (c *Call) trying(ctx context.Context, name string) (lastFailed time.Time, err error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (time.Time, error) {
		none := time.Time{}
		s, r, err := c.quarantined(tx, name)
		if err != nil {
			return none, err
		}
		if s, err = s.Try(c.Rotation.RequestEvery, c.At); err != nil {
			return none, err
		}
		tried := r.Trying(c.At)
		return r.LoginFailedAt, errors.Join(tx.PutRotation(&tried), tx.PutSecret(s, nil))
	})
}

// quarantined returns a secret whose rotation is quarantined, and its record.
func (c *Call) quarantined(tx *store.Tx, name string) (secret.Secret, rotation.Record, error) {
	s, r, err := c.rotated(tx, name)
	if err == nil && r.State != rotation.Quarantined {
		err = notInState(s, r, notQuarantined)
	}
	return s, r, err
}

// targetOf opens the target of a secret, to ask it and to change nothing.
func (c *Call) targetOf(s secret.Secret) (t store.Target, system target.Target, err error) {
	if s.TargetName() == secret.OwnUsers {
		return store.Target{Name: secret.OwnUsers}, &ownUsers{env: c.Env, account: s.Account}, nil
	}
	if t, err = c.existingTarget(c.Snapshot, s.TargetName()); err != nil {
		return t, nil, err
	}
	system, err = c.openFor(c.Snapshot, t, s)
	return t, system, err
}

// keptByAdoption returns the version that the rotation of a quarantined record goes on to retire
// after an adoption; empty for none.
func (c *Call) keptByAdoption(
	tx *store.Tx, s secret.Secret, r rotation.Record, a adoption,
) (string, error) {
	if r.Interrupted == nil {
		return "", nil
	}
	v, ok := s.Versions[r.Interrupted.Base]
	if !ok {
		return "", nil
	}
	list, _, err := credentials(c.Env, tx, s, v)
	if err != nil || !r.Outlives(a.like(list[0]), list[0]) {
		return "", err
	}
	return v.ID, nil
}

// notLeaked refuses to adopt a credential that an emergency replaces.
func (c *Call) notLeaked(tx *store.Tx, s secret.Secret, r rotation.Record, a adoption) error {
	for _, id := range r.Leaked() {
		v, ok := s.Versions[id]
		if !ok {
			continue
		}
		list, _, err := credentials(c.Env, tx, s, v)
		if err != nil {
			return err
		}
		if adopted := a.like(list[0]); list[0].Account == adopted.Account && list[0].Secret.Equal(adopted.Secret) {
			return fault.New(fault.InUse, "An emergency rotation replaces this credential of secret %q, because it may have "+
				"leaked. Set another one at the target, and adopt that.", s.Name)
		}
	}
	return nil
}

// adopted stores an adoption, unless the current version has changed during the login.
func (c *Call) adopted(ctx context.Context, in *kms.RepairRotationRequest, s secret.Secret, a adoption) error {
	err := store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, r, err := c.quarantined(tx, s.Name)
		if err != nil {
			return err
		}
		if s.Stages[secret.Current] != a.base {
			return fault.New(fault.InUse, "The current version of secret %q has changed meanwhile.", s.Name)
		}
		v, box, err := c.sealFor(tx, s, secret.Version{ID: in.VersionID, DataType: kms.DataText}, a.value)
		if err != nil {
			return err
		}
		if s, err = c.asBound(tx, s); err != nil {
			return err
		}
		ch, err := c.adoptedChanges(tx, s, a.value)
		if err != nil {
			return err
		}
		if err := c.notLeaked(tx, s, r, a); err != nil {
			return err
		}
		kept, err := c.keptByAdoption(tx, s, r, a)
		if err != nil {
			return err
		}
		if s, err = s.Adopt(v, kept, c.At); err != nil {
			return err
		}
		if s, _, err = c.bindTo(tx, s, ch); err != nil {
			return err
		}
		s.Rotation.Broken, s.Rotation.Hold = false, false
		before := r
		r = r.Adopted(in.VersionID, kept != "", a.lastFailed, c.At)
		if err := c.announce(tx, before, r, rotation.Adopted); err != nil {
			return err
		}
		if s, err = c.planWith(tx, s, r); err != nil {
			return err
		}
		return tx.PutSecret(s, map[string][]byte{v.ID: box})
	})
	if err == nil {
		c.gate.currentChanged(ctx, c.Account(), s.Name)
	}
	return err
}
