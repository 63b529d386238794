package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// RotationConfig says how credentials are rotated where a secret does not say so itself. Every field
// must be set: package server has the settings with their defaults.
type RotationConfig struct {
	// Grace is how long an old credential works after a rotation at least.
	Grace time.Duration
	// GraceLimit is how long it works at most while a consumer still holds it. A limit that is no longer
	// than Grace means that the engine waits for no consumer.
	GraceLimit time.Duration
	// ProbeEvery is how often the engine checks that a target accepts the credential in use.
	ProbeEvery time.Duration
	// LeastInterval is the shortest RotationInterval.
	LeastInterval time.Duration
	// RequestEvery is how often a rotation of one secret may be requested, and a credential be tried
	// that is to be adopted, after the first few times.
	RequestEvery time.Duration
	// Events says whether a receiver of events is configured.
	Events bool
	// Hold is how long a read waits while the only credential of its secret is changed.
	Hold time.Duration
}

const (
	maxGrace = 365 * 24 * time.Hour
	maxGap   = 30 * 24 * time.Hour
)

// parseCron reads a cron expression; nil for none. The zone is the schedule's.
func parseCron(s rotation.Schedule) (rotation.Cron, error) {
	if s.Cron == "" {
		return nil, nil
	}
	parsed, err := cron.ParseStandard(s.Cron)
	if err != nil || len(s.Cron) > 0 && (s.Cron[0] == 'T' || s.Cron[0] == 'C') { // TZ= and CRON_TZ= have a parameter of their own
		return nil, fault.Parameter("Cron", "use five fields, minute hour day month weekday, or @daily, @weekly, @monthly; the zone goes into TimeZone.")
	}
	return parsed.Next, nil
}

// least is the shortest time between two rotations of a secret that a schedule may ask for.
func (e *Env) least() time.Duration { return e.Rotation.LeastInterval }

// checkCron reads a cron expression that a caller gives. It must not name times that are closer than rotations may be.
func (e *Env) checkCron(s rotation.Schedule) error {
	every, err := parseCron(s)
	if err != nil || every == nil {
		return err
	}
	if strings.HasPrefix(s.Cron, "@every") {
		return fault.Parameter("Cron", "@every is an interval; use RotationInterval.")
	}
	gap, ok := rotation.LeastGap(every)
	switch {
	case !ok:
		return fault.Parameter("Cron", "it names no time.")
	case gap < e.least():
		return fault.Parameter("Cron", "it names times that are %s apart; rotations are at least %s apart.", formatDuration(gap), formatDuration(e.least()))
	}
	return nil
}

// graceOf is how long the former credential of a secret works after a rotation at least, and at most when a consumer still holds it. Where
// it is to be retired at once nobody is waited for, unless the secret itself says so.
func (e *Env) graceOf(s secret.Secret) (grace, limit time.Duration) {
	own := s.Settings()
	grace, limit = e.Rotation.Grace, e.Rotation.GraceLimit
	if own.Grace != nil {
		grace = *own.Grace
	}
	switch {
	case own.GraceLimit != nil:
		limit = *own.GraceLimit
	case grace == 0:
		limit = 0
	}
	return grace, max(grace, limit)
}

// record reads the rotation record of a secret; a new one when it has none.
func (e *Env) record(tx *store.Tx, s secret.Secret) (rotation.Record, error) {
	r, ok, err := tx.Rotation(s.Account, s.Name)
	if err == nil && !ok {
		r = rotation.Record{Account: s.Account, Secret: s.Name, State: rotation.Idle}
	}
	return r, err
}

// plan works out anew when the next rotation is due, and stores it with the record. What the engine must not touch any more,
// or not yet, is due never.
func (e *Env) plan(tx *store.Tx, s *secret.Secret, now time.Time) error {
	r, err := e.record(tx, *s)
	if err != nil {
		return err
	}
	return e.planWith(tx, s, r, now)
}

func (e *Env) planWith(tx *store.Tx, s *secret.Secret, r rotation.Record, now time.Time) error {
	if !s.Rotated() {
		return tx.DeleteRotation(s.Account, s.Name)
	}
	every, err := parseCron(s.Settings().Schedule)
	if err != nil {
		return err
	}
	if !r.InFlight() && r.Target != s.TargetName() {
		r.Target, r.Accepted = s.TargetName(), ""
		r.Health = rotation.Health{} // it was about the former target
	}
	s.Rotation.Next = s.Planned(now, r.Earliest(s.Rotation.Last, e.least()), every)
	r.Due = s.Rotation.Next
	if s.Deleting() {
		r.Due = time.Time{}
	}
	switch {
	case s.Deleting(), s.TargetName() == secret.OwnUsers:
		r.Health.NextAt = time.Time{}
	case r.Health.NextAt.IsZero():
		r.Health.NextAt = now // the first look is the import: one login, and no change
	}
	return tx.PutRotation(&r)
}

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
	grace, _ := c.graceOf(s)
	out.CurrentVersionID = s.Stages[secret.Current]
	return tx.Consumers(s.Account, s.Name, "", func(_ string, u rotation.Consumer) bool {
		list, count := &out.Breaking, &out.BreakingCount
		if !u.GoneAt(grace).After(c.At) {
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
		if err := s.Rotate(); err != nil {
			return nil, err
		}
		r, err := c.record(tx, s)
		if err != nil {
			return nil, err
		}
		out := &kms.RotateSecretResponse{ARN: s.ARN(c.Region), SecretName: s.Name, VersionID: q.ID}
		if v, made := s.Versions[q.ID]; r.ID == q.ID || made && v.Rotated {
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
	q.Grace, q.Wait = c.graceOf(s)
	q.At = c.At
	next, ok := r.Ask(q, c.At)
	switch {
	case ok:
		return next, nil
	case r.State == rotation.Quarantined:
		return r, fault.New(fault.InUse, "The rotation of secret %q is quarantined: %s RepairRotation repairs it.", s.Name, r.Reason)
	case r.State == rotation.Grace:
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
	return fmt.Sprintf("%d of its consumers have moved, or until %s", r.Waiting, r.GraceLimit.UTC().Format(time.RFC3339))
}

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

func formatDuration(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

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

// hold makes a secret the one that rotates these accounts. A secret that is gone, or is not bound to the
// target any more, holds nothing.
func hold(tx *store.Tx, s secret.Secret, t store.Target, users ...string) error {
	for _, user := range users {
		holder, err := tx.Claim(s.Account, t.Name, user)
		if err != nil {
			return err
		}
		if holder == s.Name {
			continue
		}
		if holder != "" {
			other, ok, err := tx.Secret(s.Account, holder, s.UpdatedAt)
			if err != nil {
				return err
			}
			if ok && other.TargetName() == t.Name && other.BoundTo(t.ID) {
				return fault.New(fault.Exists, "The account %q of target %q is rotated by secret %q already.", user, t.Name, holder)
			}
		}
		claim := store.Claim{Account: s.Account, Target: t.Name, User: user, Secret: s.Name}
		if err := tx.PutClaim(claim); err != nil {
			return err
		}
	}
	return nil
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

func describeRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.DescribeRotationResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	r, err := c.record(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	settings := s.Settings()
	out := &kms.DescribeRotationResponse{
		SecretName: s.Name, State: string(r.State), RotationID: r.ID, Mode: string(r.Mode), Trigger: string(r.Trigger), Strategy: string(r.Strategy),
		TargetName: s.TargetName(), CandidateVersionID: r.Candidate, BaseVersionID: r.Base, Attempt: r.Attempt, Candidates: r.Candidates,
		StartTime: r.StartedAt, PromoteTime: r.PromotedAt, GraceUntil: r.GraceUntil, EndTime: r.EndedAt, LastRotationDate: s.Rotation.Last,
		Cron: settings.Schedule.Cron, TimeZone: settings.Schedule.Zone, Window: settings.Schedule.Window.String(),
		Blackouts: rotation.FormatBlackouts(settings.Schedule.Blackouts), Group: settings.Group, Paused: r.Paused,
		ConfiguredStrategy: string(settings.Strategy), AccountName: settings.Account, CloneAccountName: settings.CloneAccount,
		AccountMember: settings.AccountMember, SecretMember: settings.SecretMember, WaitingFor: []kms.SecretConsumer{},
		Reason: r.Reason, Advice: r.Advice(), CredentialState: credentialState(r.Health), ProbeTime: r.Health.ProbedAt, Steps: []kms.RotationStep{},
		RepairActions: []string{}, WaitsFor: r.WaitsFor(0, c.At), InProgress: r.GoesOn(),
	}
	if r.State == rotation.Quarantined {
		out.RepairActions = []string{"probe", "adopt"}
		if r.Repairable(s.Generated(r.Candidate)) {
			out.RepairActions = []string{"probe", "apply", "adopt"}
		}
	}
	if r.State == rotation.Grace {
		out.GraceLimitTime = r.GraceLimit
		if err := c.waitingFor(ctx, r, out); err != nil {
			return nil, err
		}
	}
	if settings.GraceLimit != nil {
		out.GraceLimit = formatDuration(*settings.GraceLimit)
	}
	if settings.Grace != nil {
		out.GracePeriod = formatDuration(*settings.Grace)
	}
	if settings.Gap > 0 {
		out.GroupGap = formatDuration(settings.Gap)
	}
	if r.InFlight() && r.NextAt.After(c.At) {
		out.NextAttemptTime = r.NextAt
	}
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = secret.RotationDisabled, "", time.Time{}
	if s.Rotated() {
		out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, c.At)
	}
	for _, e := range r.Steps {
		out.Steps = append(out.Steps, kms.RotationStep{
			Time:        e.At,
			State:       string(e.State),
			Event:       string(e.Event),
			Description: e.Event.Text(),
			Text:        e.Text,
		})
	}
	return out, nil
}

// mostShown is how many consumers DescribeRotation names; ListSecretConsumers names all.
const mostShown = 20

// waitingFor tells for whom the end of a grace period waits, or would.
func (c *Call) waitingFor(ctx context.Context, r rotation.Record, out *kms.DescribeRotationResponse) error {
	if err := c.Consumers.Sync(ctx, r.Account, r.Secret); err != nil {
		return err
	}
	err := store.Snapshot(ctx, c.DB).Consumers(r.Account, r.Secret, "", func(_ string, u rotation.Consumer) bool {
		if _, yes := r.Awaits(u, c.At); yes {
			if out.WaitingForCount++; len(out.WaitingFor) < mostShown {
				out.WaitingFor = append(out.WaitingFor, shownConsumer(u, r.Candidate))
			}
		}
		return true
	})
	if r.Waiting > 0 && out.WaitingForCount > 0 { // some may have moved since the engine has looked
		out.Reason = r.AwaitsText(out.WaitingForCount)
		out.WaitsFor = r.WaitsFor(out.WaitingForCount, c.At)
	}
	return err
}

func credentialState(h rotation.Health) string {
	switch {
	case h.ProbedAt.IsZero():
		return "unknown"
	case h.Live:
		return "live"
	}
	return "dead"
}

func listRotations(_ context.Context, c *Call, in *kms.ListRotationsRequest) (*kms.ListRotationsResponse, error) {
	after, err := afterToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	if in.State != "" && !slices.Contains(rotation.States(), rotation.State(in.State)) {
		return nil, fault.Parameter("State", "use one of %s.", fmt.Sprint(rotation.States()))
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	p := page[kms.ListedRotation]{rows: []kms.ListedRotation{}, most: in.MaxResults}
	err = c.Snapshot.Rotations(c.Account(), "", following(after), func(r rotation.Record) bool {
		if withheld[r.Secret] || in.State != "" && string(r.State) != in.State || in.TargetName != "" && r.Target != in.TargetName {
			return true
		}
		row := kms.ListedRotation{
			SecretName: r.Secret, State: string(r.State), RotationID: r.ID, Trigger: string(r.Trigger), TargetName: r.Target, Paused: r.Paused,
			StartTime: r.StartedAt, PromoteTime: r.PromotedAt, NextRotationDate: r.Due, CredentialState: credentialState(r.Health), Reason: r.Reason,
		}
		if r.InFlight() && r.NextAt.After(c.At) {
			row.NextAttemptTime = r.NextAt
		}
		return p.add(r.Secret, row)
	})
	return &kms.ListRotationsResponse{Rotations: p.rows, NextToken: p.marker()}, err
}

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
			if err := s.Rotate(); err != nil {
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

// probesAtOnce is how many records ProbeRotation changes at once: each is a transaction of its own.
const probesAtOnce = 16

// probeRotation has the engine look at credentials now, within its budget, instead of when they were to be looked at. What it
// finds is in DescribeRotation.
func probeRotation(ctx context.Context, c *Call, in *kms.PauseRotationRequest) (*kms.EmptyResponse, error) {
	if in.TargetName != "" {
		if _, err := c.existingTarget(c.Snapshot, in.TargetName); err != nil {
			return nil, err
		}
	}
	withheld, err := c.withheld("")
	if err != nil {
		return nil, err
	}
	var names []string
	if in.SecretName != "" {
		s, err := c.existing(c.Snapshot, in.SecretName)
		if err != nil {
			return nil, err
		}
		if err := s.Rotate(); err != nil {
			return nil, err
		}
		names = []string{s.Name}
	} else if err := c.Snapshot.Rotations(c.Account(), "", "", func(r rotation.Record) bool {
		if !r.InFlight() && !withheld[r.Secret] {
			names = append(names, r.Secret)
		}
		return true
	}); err != nil {
		return nil, err
	}
	errs := make([]error, probesAtOnce)
	var all sync.WaitGroup
	for w := range probesAtOnce {
		all.Go(func() {
			for i := w; i < len(names) && errs[w] == nil; i += probesAtOnce {
				errs[w] = c.probeNow(ctx, names[i], in.TargetName)
			}
		})
	}
	all.Wait()
	return &kms.EmptyResponse{}, errors.Join(errs...)
}

// probeNow makes one credential due to be looked at. One that is gone, under way, or of another target is left alone.
func (c *Call) probeNow(ctx context.Context, name, targetName string) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(c.Account(), name, c.At)
		if err != nil || !ok || s.Deleting() || !s.Rotated() || s.TargetName() == secret.OwnUsers || targetName != "" && s.TargetName() != targetName {
			return err
		}
		r, err := c.record(tx, s)
		if err != nil || r.InFlight() {
			return err
		}
		r.Health.NextAt = c.At
		return tx.PutRotation(&r)
	})
}

func endRotationGrace(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.EndGrace}, rotation.Grace, "it has no grace period now")
}

func undoRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.SecretNameResponse, error) {
	return c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.Undo}, rotation.Grace, "the former credential works only in the grace period of the strategies overlap and double")
}

// request is what a person asks of a rotation in a certain state.
func (c *Call) request(ctx context.Context, name string, e rotation.Event, state rotation.State, otherwise string) (*kms.SecretNameResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*kms.SecretNameResponse, error) {
		s, err := c.existing(tx, name)
		if err != nil {
			return nil, err
		}
		if err := s.Rotate(); err != nil {
			return nil, err
		}
		r, err := c.record(tx, s)
		if err != nil {
			return nil, err
		}
		if r.State != state {
			return nil, fault.New(fault.InUse, "The rotation of secret %q is in state %s: %s.", s.Name, r.State, otherwise)
		}
		if e.Kind == rotation.Again && !r.Repairable(s.Generated(r.Candidate)) {
			return nil, fault.New(fault.InUse, "The target has never accepted version %q of secret %q, so it is not sent; RepairRotation with RepairAction adopt takes a credential that the target accepts.",
				r.Candidate, s.Name)
		}
		s, bound, err := c.bind(tx, s)
		if err != nil {
			return nil, err
		}
		if bound {
			if err := tx.PutSecret(s, nil); err != nil {
				return nil, err
			}
		}
		if r, err = rotation.Next(r, e, c.At); err != nil {
			return nil, err
		}
		return &kms.SecretNameResponse{SecretName: s.Name}, tx.PutRotation(&r)
	})
}

// cancelRotation ends a rotation whose candidate the target does not have. One that has been sent before is ended by the engine, once
// the target holds nothing of it.
func cancelRotation(ctx context.Context, c *Call, in *kms.SecretNameRequest) (*kms.DescribeRotationResponse, error) {
	event := rotation.Event{Kind: rotation.Cancel}
	err := store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, err := c.existing(tx, in.SecretName)
		if err != nil {
			return err
		}
		if err := s.Rotate(); err != nil {
			return err
		}
		before, err := c.record(tx, s)
		if err != nil {
			return err
		}
		r, err := rotation.Next(before, event, c.At)
		if err != nil {
			return fault.New(fault.InUse, "The rotation of secret %q is in state %s and cannot be cancelled: %s", s.Name, before.State, before.State.InsteadOfCancel())
		}
		if err := c.announce(tx, before, r, event.Kind); err != nil {
			return err
		}
		changed, _, err := c.follow(tx, s, before, &r, event, nil)
		if err != nil {
			return err
		}
		if err := tx.PutRotation(&r); err != nil || changed == nil {
			return err
		}
		return tx.PutSecret(*changed, nil)
	})
	if err != nil {
		return nil, err
	}
	c.Snapshot = store.Snapshot(ctx, c.DB)
	return describeRotation(ctx, c, in)
}

func repairRotation(ctx context.Context, c *Call, in *kms.RepairRotationRequest) (*kms.DescribeRotationResponse, error) {
	var err error
	none := "nothing is quarantined"
	switch in.RepairAction {
	case "probe":
		_, err = c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.Probed}, rotation.Quarantined, none)
	case "apply":
		_, err = c.request(ctx, in.SecretName, rotation.Event{Kind: rotation.Again}, rotation.Quarantined, none)
	default:
		err = c.adopt(ctx, in)
	}
	if err != nil {
		return nil, err
	}
	c.Snapshot = store.Snapshot(ctx, c.DB)
	return describeRotation(ctx, c, &kms.SecretNameRequest{SecretName: in.SecretName})
}

// adoption is a credential that is to be adopted.
type adoption struct {
	base       string // the version that is current
	value      sensitive.Value
	credential target.Credential
	lastFailed time.Time // when a login failed last before this one
}

// adopt takes a credential that the target accepts, which one login shows, into the current value.
func (c *Call) adopt(ctx context.Context, in *kms.RepairRotationRequest) error {
	switch {
	case in.SecretData.IsZero():
		return fault.Required("SecretData")
	case in.VersionID == "":
		return fault.Required("VersionId")
	}
	c.concerns(in.VersionID, string(secret.Current))
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return err
	}
	if err := s.Rotate(); err != nil {
		return err
	}
	r, err := c.record(c.Snapshot, s)
	if err != nil {
		return err
	}
	if err := quarantined(s, r); err != nil {
		return err
	}
	a, err := c.adoption(s, in.SecretData)
	if err != nil {
		return err
	}
	system, err := c.targetOf(s)
	if err != nil {
		return err
	}
	defer func() { _ = system.Close() }() // it has answered; there is nothing to lose
	if a.lastFailed, err = c.trying(ctx, s.Name); err != nil {
		return err
	}
	if err := system.Verify(ctx, a.credential); err != nil {
		return fault.New(fault.InUse, "Target %q does not accept this credential: %s", s.TargetName(), err)
	}
	return c.adopted(ctx, in, s, a)
}

// adoption takes the credential of a value that the caller gives into the current value.
func (c *Call) adoption(s secret.Secret, given sensitive.Value) (adoption, error) {
	v, err := s.Select(secret.Current, "")
	if err != nil {
		return adoption{}, err
	}
	list, current, err := credentials(c.Env, c.Snapshot, s, v)
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

// trying takes a login with a credential of the caller's from the allowance of the secret. It is
// stored before the login: calls at the same time and a crash get no more of them. It returns when a
// login failed last.
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
func (c *Call) quarantined(tx *store.Tx, name string) (s secret.Secret, r rotation.Record, err error) {
	if s, err = c.existing(tx, name); err != nil {
		return s, r, err
	}
	if r, err = c.record(tx, s); err != nil {
		return s, r, err
	}
	return s, r, quarantined(s, r)
}

func quarantined(s secret.Secret, r rotation.Record) error {
	if r.State == rotation.Quarantined {
		return nil
	}
	return fault.New(fault.InUse, "The rotation of secret %q is in state %s: nothing is quarantined.", s.Name, r.State)
}

// targetOf opens the target of a secret.
func (c *Call) targetOf(s secret.Secret) (target.Target, error) {
	if s.TargetName() == secret.OwnUsers {
		return &ownUsers{env: c.Env, account: s.Account}, nil // asked, never changed
	}
	t, err := c.existingTarget(c.Snapshot, s.TargetName())
	if err != nil {
		return nil, err
	}
	system, _, err := c.openTarget(c.Snapshot, t)
	return system, err
}

func (c *Call) adopted(ctx context.Context, in *kms.RepairRotationRequest, s secret.Secret, a adoption) error {
	return store.Do(ctx, c.DB, func(tx *store.Tx) error {
		s, r, err := c.quarantined(tx, s.Name)
		if err != nil {
			return err
		}
		if s.Stages[secret.Current] != a.base {
			return fault.New(fault.InUse, "The current version of secret %q has changed meanwhile.", s.Name)
		}
		key, err := loadKey(tx, s.Account, s.KeyID)
		if err != nil {
			return err
		}
		v, box, err := c.seal(key, s.Name, secret.Version{ID: in.VersionID, DataType: kms.DataText}, a.value)
		if err != nil {
			return err
		}
		ch, err := c.adoptedChanges(tx, s, a.value)
		if err != nil {
			return err
		}
		if s, err = s.Adopt(v, c.At); err != nil {
			return err
		}
		if s, _, err = c.bindTo(tx, s, ch); err != nil {
			return err
		}
		s.Rotation.Broken, s.Rotation.Hold = false, false
		before := r
		r = r.Adopted(in.VersionID, a.lastFailed, c.At)
		if err := c.announce(tx, before, r, rotation.Adopted); err != nil {
			return err
		}
		if err := c.planWith(tx, &s, r, c.At); err != nil {
			return err
		}
		return tx.PutSecret(s, map[string][]byte{v.ID: box})
	})
}
