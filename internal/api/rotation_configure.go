package api

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

func updateSecretRotationPolicy(
	ctx context.Context, c *Call, in *kms.UpdateSecretRotationPolicyRequest,
) (*kms.SecretNameResponse, error) {
	return c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		if in.EnableAutomaticRotation {
			var err error
			if s, _, err = c.bind(tx, s); err != nil {
				return s, err
			}
		}
		if settings := s.Settings(); settings.Schedule.Cron != "" {
			settings.Schedule.Cron = "" // the caller asks for an interval now
			s.Rotation.Settings = &settings
		}
		return s.SetRotation(in.EnableAutomaticRotation, in.RotationInterval, c.Rotation.LeastInterval, c.At)
	})
}

// reschedule changes one secret in one transaction, and plans its next rotation anew.
func (c *Call) reschedule(ctx context.Context, name string, rule secretRule) (*kms.SecretNameResponse, error) {
	return c.alter(ctx, name, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		s, err := rule(tx, s)
		if err != nil {
			return s, err
		}
		return c.plan(tx, s)
	})
}

// configureRotation changes the settings that a call names. It changes nothing at the target. The
// engine checks at once whether the credential works, and DescribeRotation then shows the result.
func configureRotation(
	ctx context.Context, c *Call, in *kms.ConfigureRotationRequest,
) (*kms.DescribeRotationResponse, error) {
	judged, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	settings, err := c.configuredSettings(judged, in)
	if err != nil {
		return nil, err
	}
	check, err := c.refuseImpossible(ctx, judged, settings)
	if err != nil {
		return nil, c.completed(err, judged, in)
	}
	var changes []kms.RotationSettingChange
	_, err = c.alter(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		if !reflect.DeepEqual(s.Settings(), judged.Settings()) {
			return s, fault.New(fault.InUse, "The settings of secret %q have changed at this moment; try again.", s.Name)
		}
		before := s
		s, err := c.configure(tx, s, settings, in)
		if err != nil {
			return s, err
		}
		changes = settingChanges(before, s)
		r, err := c.rotationOf(tx, s)
		if err != nil {
			return s, err
		}
		r.Check = keepingNotPrepared(r.Check, check)
		return c.planWith(tx, s, r)
	})
	if err != nil {
		return nil, err
	}
	out, err := c.describeAnew(ctx, in.SecretName)
	if err == nil {
		out.Changes = changes
	}
	return out, err
}

// standingWait bounds how long ConfigureRotation waits for a target.
const standingWait = 3 * time.Second

// refuseImpossible checks a secret with these settings at its target, and refuses what the engine
// would refuse at the first rotation. Without an answer it refuses nothing: the engine asks again
// before each change. Mistakes in the settings are left to [Call.configure]. It makes no login: the
// engine's first probe does; but it refuses a credential that the target's own state shows to be
// another. The check is nil if the target was not asked.
func (c *Call) refuseImpossible(
	ctx context.Context, s secret.Secret, settings secret.RotationSettings,
) (*rotation.Check, error) {
	before := s
	if s.Managed() {
		settings.Target = ""
	}
	s, err := s.Attach(settings, c.At)
	if err != nil || s.TargetName() == "" || s.TargetName() == secret.OwnUsers {
		return nil, err
	}
	t, ok, err := c.Snapshot.Target(s.Account, s.TargetName())
	if err != nil || !ok {
		return nil, err // configure reports a target that does not exist
	}
	ch, err := c.storedChanges(c.Snapshot, s)
	if err != nil || len(ch.names) == 0 {
		return nil, err
	}
	if err := c.wasJudged(s.Name, ch); err != nil {
		return nil, err
	}
	r, err := c.rotationOf(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	if check := c.adminRefused(t); check != nil {
		if answersFor(before, s, r, t) {
			check = withFirst(check.Findings[0], *r.Check)
		}
		return check, nil
	}
	k, err := c.inspection(s, r, t)
	if err != nil {
		return nil, err
	}
	defer func() { _ = k.system.Close() }() // nothing was changed
	standing := c.isChecked(before, s, r, t)
	// A consent is part of some answers: what a rotation would do to a hash, and whether it can.
	consentsChange := !slices.Equal(before.Settings().Consents, s.Settings().Consents)
	var throttled error
	if !standing || consentsChange || !isAnswered(*r.Check) {
		// The answers say what the target has, such as a database: each question counts as a check.
		// After too many without an answer, the last one stands.
		throttled = c.takeCheck(ctx, s.Name)
		if throttled == nil {
			fix := ""
			if !before.IsRotated() {
				fix = fault.Message("Store the value that the target accepts (keyturn secret put %s), or set this one at the "+
					"target; then repeat the call.", s.Name)
			}
			k.ask(ctx, func(ctx context.Context) { k.accountAndState(ctx, fix) })
			check := k.check.Bounded()
			return &check, k.refusal()
		}
		if !standing || fault.KindOf(throttled) != fault.Throttled {
			return nil, throttled
		}
	}
	k.check = *r.Check
	k.check.Findings = slices.DeleteFunc(slices.Clone(r.Check.Findings), isNotPrepared) // it refuses no settings
	err = k.refusal()
	if err != nil && consentsChange { // which the consent may resolve
		err = throttled
	}
	return r.Check, err
}

// adminRefused returns the check of a target that has rejected its administrator a moment ago,
// which is not tried again yet; nil otherwise.
func (c *Call) adminRefused(t store.Target) *rotation.Check {
	if t.AdminSecret == "" {
		return nil
	}
	admin, version, err := c.adminCredential(c.Snapshot, t)
	if err != nil { // it is the error of opening the target
		return nil
	}
	if err = c.adminMayLogIn(t, admin.Account, version); err == nil {
		return nil
	}
	return &rotation.Check{At: c.At, Target: t.Name, Findings: []target.Finding{deniedCheck(t, err)}}
}

// withFirst returns a check with a finding that replaces an earlier one of its code, before the
// others.
func withFirst(f target.Finding, check rotation.Check) *rotation.Check {
	others := slices.DeleteFunc(slices.Clone(check.Findings), func(o target.Finding) bool { return o.Code == f.Code })
	check.Findings = append([]target.Finding{f}, others...)
	check = check.Bounded()
	return &check
}

// isAnswered reports whether the target has answered all that a check asks.
func isAnswered(check rotation.Check) bool {
	return check.Unchecked == "" && !slices.ContainsFunc(check.Findings, func(f target.Finding) bool {
		return isNotPrepared(f) || f.Code == codeCheckDenied
	})
}

// isChecked reports whether the last check of a secret answers for the settings that it is about to
// get, and was made a moment ago.
func (c *Call) isChecked(before, after secret.Secret, r rotation.Record, t store.Target) bool {
	return answersFor(before, after, r, t) && !r.Check.At.After(c.At) && c.At.Sub(r.Check.At) < rotation.LoginWindow
}

// answersFor reports whether the last check of a secret was made of its present version, and of
// settings that ask for nothing else at the target than those that it is about to get.
func answersFor(before, after secret.Secret, r rotation.Record, t store.Target) bool {
	if r.Check == nil || r.Check.Target != t.Name || before.TargetName() != t.Name || !before.BoundTo(t.ID) {
		return false
	}
	for _, at := range []time.Time{t.UpdatedAt, r.PromotedAt, after.Versions[after.Stages[secret.Current]].CreatedAt} {
		if at.After(r.Check.At) {
			return false
		}
	}
	return askTheSame(before.Settings(), after.Settings())
}

// namedSettings reads the settings that a request names. It refuses what no secret could have.
func (c *Call) namedSettings(in *kms.ConfigureRotationRequest) (s secret.RotationSettings, err error) {
	s = secret.RotationSettings{
		Target:        in.TargetName,
		Strategy:      target.Strategy(in.Strategy),
		Account:       in.AccountName,
		CloneAccount:  in.CloneAccountName,
		AccountMember: in.AccountMember,
		SecretMember:  in.SecretMember,
		Group:         in.Group,
	}
	if s.Schedule, err = c.scheduleOf(in); err != nil {
		return s, err
	}
	if s.Grace, err = boundedOrNil("GracePeriod", in.GracePeriod, maxGrace); err != nil {
		return s, err
	}
	if s.GraceLimit, err = boundedOrNil("GraceLimit", in.GraceLimit, maxGrace); err != nil {
		return s, err
	}
	if in.GroupGap != "" {
		if s.Gap, err = bounded("GroupGap", in.GroupGap, maxGap); err != nil {
			return s, err
		}
	}
	s.Login = target.Login{
		Endpoints:         in.LoginEndpoints,
		Database:          in.LoginDatabase,
		Role:              in.LoginRole,
		CertificateSecret: in.LoginCertificateSecret,
	}
	s.Consents, err = consentsOf(in.Consents)
	return s, err
}

// consentsOf returns tokens of consents, sorted and each once.
func consentsOf(tokens []string) ([]string, error) {
	list := slices.Compact(slices.Sorted(slices.Values(tokens)))
	for _, token := range list {
		if len(token) > 64 || token == "" || strings.Trim(token, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return nil, fault.Parameter("Consent.N", "use tokens of lower-case letters, digits and hyphens, as "+
				"keyturn rotation check NAME shows them.")
		}
	}
	return list, nil
}

// scheduleOf reads when the secret of a request may be rotated.
func (c *Call) scheduleOf(in *kms.ConfigureRotationRequest) (s rotation.Schedule, err error) {
	s = rotation.Schedule{Cron: in.Cron, Zone: in.TimeZone}
	if in.Cron != "" && in.RotationInterval != "" {
		return s, fault.Parameter("Cron", "give RotationInterval or Cron, not both.")
	}
	if _, err := s.Location(); err != nil {
		return s, fault.Parameter("TimeZone", "%s.", err)
	}
	if in.Window != "" {
		if s.Window, err = rotation.ParseWindow(in.Window); err != nil {
			return s, fault.Parameter("Window", "%s.", err)
		}
	}
	if s.Blackouts, err = rotation.ParseBlackouts(in.Blackouts); err != nil {
		return s, fault.Parameter("Blackouts", "%s.", err)
	}
	return s, nil
}

// boundedOrNil reads a duration of at most most; nil for an empty text.
func boundedOrNil(param, text string, most time.Duration) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := bounded(param, text, most)
	return &d, err
}

func bounded(param, text string, most time.Duration) (time.Duration, error) {
	d, err := secret.ParseDuration(param, text)
	if err == nil && d > most {
		err = fault.Parameter(param, "use at most %s.", formatDuration(most))
	}
	return d, err
}

// configure checks the settings against secret and target, and attaches them.
func (c *Call) configure(
	tx *store.Tx, s secret.Secret, settings secret.RotationSettings, in *kms.ConfigureRotationRequest,
) (secret.Secret, error) {
	switch {
	case s.Managed() && settings.Target != "" && settings.Target != s.TargetName():
		return s, fault.Parameter("TargetName", "a secret of type %s names its target in ExtendedConfig: %q.",
			s.Type, s.TargetName())
	case s.Managed():
		settings.Target = ""
	case settings.Target == "":
		return s, fault.Required("TargetName")
	}
	before := s
	s, err := s.Attach(settings, c.At)
	if err != nil {
		return s, err
	}
	r, err := c.rotationOf(tx, s)
	if err != nil {
		return s, err
	}
	if !before.Settings().SameCredential(settings) && (r.Accepted != "" || r.BaseAccepted) {
		// The target has accepted other members of these versions.
		r.Accepted, r.BaseAccepted = "", false
		if err := tx.PutRotation(&r); err != nil {
			return s, err
		}
	}
	if r.InFlight() && before.TargetName() != s.TargetName() {
		return s, fault.New(fault.InUse, "The rotation %q at target %q has not ended.", r.ID, before.TargetName())
	}
	if s.TargetName() == secret.OwnUsers {
		if !settings.Login.IsZero() {
			return s, fault.Parameter("LoginEndpoint.N", "access keys of this service have no settings of their logins.")
		}
		if err := checkConsents(ownKind, settings.Consents); err != nil {
			return s, err
		}
		s, err = c.bindConfigured(tx, s)
	} else {
		s, err = c.bindChecked(tx, s)
	}
	if err != nil {
		return s, err
	}
	return c.scheduleAfter(s, in)
}

// bindChecked binds a secret to its target and claims the accounts. It refuses a secret that could
// not be rotated there, and an account that another secret rotates or that the target does not
// allow.
func (c *Call) bindChecked(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
	t, err := c.existingTarget(tx, s.TargetName())
	if err != nil {
		return s, err
	}
	if err := checkConsents(c.Kinds[t.Kind], s.Settings().Consents); err != nil {
		return s, err
	}
	system, err := c.openUnused(tx, t, s)
	if err != nil {
		return s, err
	}
	defer func() { _ = system.Close() }() // nothing was asked of it
	m, err := c.methodFor(tx, s, t, c.strategies(t, system))
	if err != nil {
		return s, err
	}
	if s, err = c.bindConfigured(tx, s); err != nil {
		return s, err
	}
	return s, c.claimAccounts(tx, s, t, m.accounts...)
}

// bindConfigured binds a secret whose settings were made for its target as it is registered now.
func (c *Call) bindConfigured(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
	ch, err := c.storedChanges(tx, s)
	if err == nil {
		s, _, err = c.bindTo(tx, s, ch)
	}
	return s, err
}

// checkConsents refuses consents that no finding of a kind asks for.
func checkConsents(k target.Kind, consents []string) error {
	for _, token := range consents {
		if err := k.CheckConsent(token); err != nil {
			return fault.Parameter("Consent.N", "%s.", err)
		}
	}
	return nil
}

func removeRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.reschedule(ctx, in.SecretName, func(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
		r, err := c.rotationOf(tx, s)
		if err != nil {
			return s, err
		}
		if r.InFlight() && r.State != rotation.Quarantined {
			return s, fault.New(fault.InUse, "The rotation %q of secret %q has not ended.", r.ID, s.Name)
		}
		return s.Detach(c.At)
	})
}
