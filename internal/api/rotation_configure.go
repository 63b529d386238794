package api

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

func updateSecretRotationPolicy(ctx context.Context, c *Call, in *kms.UpdateSecretRotationPolicyRequest) (*kms.SecretNameResponse, error) {
	_, err := c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		if in.EnableAutomaticRotation {
			var err error
			if s, _, err = c.bind(tx, s); err != nil {
				return s, err
			}
		}
		if settings := s.Settings(); settings.Schedule.Cron != "" {
			settings.Schedule.Cron = "" // an interval is what is asked for now
			s.Rotation.Settings = &settings
		}
		return s.SetRotation(in.EnableAutomaticRotation, in.RotationInterval, c.Rotation.LeastInterval, c.At)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
}

// reschedule changes a secret and works out anew when it is due.
func (c *Call) reschedule(ctx context.Context, name string, rule func(*store.Tx, secret.Secret) (secret.Secret, error)) (secret.Secret, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (secret.Secret, error) {
		s, err := c.existing(tx, name)
		if err != nil {
			return s, err
		}
		if s, err = rule(tx, s); err != nil {
			return s, err
		}
		if err := c.plan(tx, &s, c.At); err != nil {
			return s, err
		}
		return s, tx.PutSecret(s, nil)
	})
}

// configureRotation says how a secret is rotated. It changes nothing at the target. The engine checks at once whether the
// credential works, which DescribeRotation then shows.
func configureRotation(ctx context.Context, c *Call, in *kms.ConfigureRotationRequest) (*kms.DescribeRotationResponse, error) {
	settings, err := c.rotationSettings(in)
	if err != nil {
		return nil, err
	}
	if err := c.refusePrivileged(ctx, settings, in); err != nil {
		return nil, err
	}
	_, err = c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		return c.configure(tx, s, settings, in)
	})
	if err != nil {
		return nil, err
	}
	c.Snapshot = store.Snapshot(ctx, c.DB)
	return describeRotation(ctx, c, &kms.SecretNameRequest{SecretName: in.SecretName})
}

// standingWait bounds how long ConfigureRotation waits for a target.
const standingWait = 3 * time.Second

// refusePrivileged asks the target what the accounts of a secret with these settings are, and refuses those
// that the engine would refuse at the first rotation. It decides nothing when it gets no answer: the engine
// asks again before each change. Mistakes in the settings are left to [Call.configure].
func (c *Call) refusePrivileged(ctx context.Context, settings secret.RotationSettings, in *kms.ConfigureRotationRequest) error {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return err
	}
	if s.Managed() {
		settings.Target = ""
	}
	if s, err = s.Attach(settings, c.At); err != nil || s.TargetName() == "" || s.TargetName() == secret.OwnUsers {
		return err
	}
	t, ok, err := c.Snapshot.Target(s.Account, s.TargetName())
	if err != nil || !ok {
		return err // of a target that is not there, configure says so
	}
	ch, err := c.storedChanges(c.Snapshot, s)
	if err != nil || len(ch.names) == 0 {
		return err
	}
	if err := c.wasJudged(ch); err != nil {
		return err
	}
	system, _, err := c.openTarget(c.Snapshot, t)
	if err != nil {
		return err
	}
	defer func() { _ = system.Close() }() // nothing was changed
	bounded, ended := c.concealing(ctx, t, standingWait)
	err = c.admit(bounded, c.Snapshot, t, system, s.Name, ch.names)
	ended(err)
	if fault.KindOf(err) == fault.InUse {
		return err
	}
	return nil
}

func (c *Call) rotationSettings(in *kms.ConfigureRotationRequest) (s secret.RotationSettings, err error) {
	s = secret.RotationSettings{
		Target: in.TargetName, Strategy: target.Strategy(in.Strategy), Account: in.AccountName, CloneAccount: in.CloneAccountName,
		AccountMember: in.AccountMember, SecretMember: in.SecretMember, Group: in.Group,
		Schedule: rotation.Schedule{Cron: in.Cron, Zone: in.TimeZone},
	}
	if in.Cron != "" && in.RotationInterval != "" {
		return s, fault.Parameter("Cron", "give RotationInterval or Cron, not both.")
	}
	if err := c.checkCron(s.Schedule); err != nil {
		return s, err
	}
	if _, err := s.Schedule.Location(); err != nil {
		return s, fault.Parameter("TimeZone", "%s.", err)
	}
	if in.Window != "" {
		if s.Schedule.Window, err = rotation.ParseWindow(in.Window); err != nil {
			return s, fault.Parameter("Window", "%s.", err)
		}
	}
	if s.Schedule.Blackouts, err = rotation.ParseBlackouts(in.Blackouts); err != nil {
		return s, fault.Parameter("Blackouts", "%s.", err)
	}
	if in.GracePeriod != "" {
		grace, err := bounded("GracePeriod", in.GracePeriod, maxGrace)
		if err != nil {
			return s, err
		}
		s.Grace = &grace
	}
	if in.GraceLimit != "" {
		limit, err := bounded("GraceLimit", in.GraceLimit, maxGrace)
		if err != nil {
			return s, err
		}
		s.GraceLimit = &limit
	}
	if (in.Group == "") != (in.GroupGap == "") {
		return s, fault.Parameter("GroupGap", "Group and GroupGap go together.")
	}
	if in.GroupGap != "" {
		s.Gap, err = bounded("GroupGap", in.GroupGap, maxGap)
	}
	return s, err
}

func bounded(param, text string, most time.Duration) (time.Duration, error) {
	d, err := secret.ParseDuration(param, text)
	if err == nil && d > most {
		err = fault.Parameter(param, "use at most %s.", formatDuration(most))
	}
	return d, err
}

// configure checks the settings against secret and target, and attaches them.
func (c *Call) configure(tx *store.Tx, s secret.Secret, settings secret.RotationSettings, in *kms.ConfigureRotationRequest) (secret.Secret, error) {
	switch {
	case s.Managed() && settings.Target != "" && settings.Target != s.TargetName():
		return s, fault.Parameter("TargetName", "a secret of type %s names its target in ExtendedConfig: %q.", s.Type, s.TargetName())
	case s.Managed():
		settings.Target = ""
	case settings.Target == "":
		return s, fault.Required("TargetName")
	}
	before := s.TargetName()
	s, err := s.Attach(settings, c.At)
	if err != nil {
		return s, err
	}
	r, err := c.record(tx, s)
	if err != nil {
		return s, err
	}
	if r.InFlight() && before != s.TargetName() {
		return s, fault.New(fault.InUse, "The rotation %q at target %q has not ended.", r.ID, before)
	}
	if name := s.TargetName(); name != secret.OwnUsers {
		t, err := c.existingTarget(tx, name)
		if err != nil {
			return s, err
		}
		if s, err = c.fits(tx, s, t); err != nil {
			return s, err
		}
	} else if s, _, err = c.bind(tx, s); err != nil {
		return s, err
	}
	if in.Cron != "" {
		s.Rotation.Enabled, s.Rotation.Interval = in.EnableAutomaticRotation, 0
		return s, nil
	}
	return s.SetRotation(in.EnableAutomaticRotation, in.RotationInterval, c.Rotation.LeastInterval, c.At)
}

// fits binds a secret to the target, and refuses one that could not be rotated there: no such strategy,
// no credential in its value, an account that another secret rotates or that the target does not allow.
func (c *Call) fits(tx *store.Tx, s secret.Secret, t store.Target) (secret.Secret, error) {
	system, _, err := c.openTarget(tx, t) // it does not connect
	if err != nil {
		return s, err
	}
	defer func() { _ = system.Close() }() // nothing was asked of it
	strategy, err := s.Strategy(c.strategies(t, system))
	if err != nil {
		return s, err
	}
	if t.AdminSecret == s.Name && strategy != target.Double {
		return s, fault.New(fault.InUse, "Secret %q is the only way into target %q; only the strategy double may rotate an administrator.", s.Name, t.Name)
	}
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return s, err
	}
	list, stored, err := credentials(c.Env, tx, s, v)
	if err != nil {
		return s, err
	}
	users := []string{list[0].Account}
	if strategy == target.Double {
		other, err := c.otherAccount(tx, s, list)
		if err != nil {
			return s, err
		}
		if err := s.Tells(stored, other); err != nil {
			return s, err
		}
		users = append(users, other)
	}
	if s, _, err = c.bind(tx, s); err != nil {
		return s, err
	}
	return s, hold(tx, s, t, users...)
}

func removeRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	_, err := c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		r, err := c.record(tx, s)
		if err != nil {
			return s, err
		}
		if r.InFlight() && r.State != rotation.Quarantined {
			return s, fault.New(fault.InUse, "The rotation %q of secret %q has not ended.", r.ID, s.Name)
		}
		return s.Detach(c.At)
	})
	return &kms.SecretNameResponse{SecretName: in.SecretName}, err
}
