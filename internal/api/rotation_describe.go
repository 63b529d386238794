package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

func describeRotation(
	ctx context.Context, c *Call, in *kms.SecretNameRequest,
) (*kms.DescribeRotationResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	r, err := c.rotationOf(c.Snapshot, s)
	if err != nil {
		return nil, err
	}
	out := describeRecord(r, c.At)
	out.SecretName = s.Name
	out.EmergencyPossible = s.IsRotated() && r.TakesEmergency(c.At)
	if out.RepairActions, err = c.repairActions(c.Snapshot, s, r); err != nil {
		return nil, err
	}
	describeSettings(s, c.At, out)
	all, err := allPauses(c.Snapshot)
	if err != nil {
		return nil, err
	}
	t, _, err := c.Snapshot.Target(r.Account, r.Target)
	if err != nil {
		return nil, err
	}
	skip, err := c.probeSkip(c.Snapshot, s, true, r, c.At)
	if err != nil {
		return nil, err
	}
	out.ProbeSkipped, out.ProbeSkippedCode = skip.text, skip.code
	if isStuck(skip) {
		out.NextRotationDate, out.Reason = nextAndWhy(s, r, skip)
		out.ProbePending = false
	}
	if skip.code == kms.SkippedTaken {
		if err := c.describeTaken(s, out); err != nil {
			return nil, err
		}
	}
	if r.EndedEmergency() {
		leaves := fault.Named(strings.Join(c.Kinds[t.Kind].Leaves, " "), s.Name)
		out.Advice = strings.TrimSpace(out.Advice + " " + leaves)
	}
	out.Pauses = pausesOf(all, t, r)
	out.Paused = len(out.Pauses) > 0
	out.PlannedDeleteTime = s.DeleteAt
	out.Remains = remains(s, r, c.accountsInUse(s, r))
	if r.Check != nil {
		check := r.Check.For(s.Stages[secret.Current], c.At)
		out.CheckTime, out.CheckUnchecked = check.At, check.Unchecked
		out.CheckFindings = shownFindings(check.Findings, s.Settings().Consents)
		out.CheckStrategy = string(cmp.Or(check.Strategy, s.Settings().Strategy))
	}
	if r.State == rotation.InGrace {
		err = c.waitingFor(ctx, r, out)
	}
	return out, err
}

// describeTaken describes a secret whose account another one rotates. It names that to callers who
// may describe it.
func (c *Call) describeTaken(s secret.Secret, out *kms.DescribeRotationResponse) error {
	refusal := c.notTaken(c.Snapshot, s)
	if refusal == nil {
		return nil
	}
	if fault.KindOf(refusal) != fault.Exists {
		return refusal
	}
	out.Reason = strings.Replace(out.Reason, out.ProbeSkipped, refusal.Error(), 1)
	out.ProbeSkipped = refusal.Error()
	out.Advice, out.EmergencyPossible = "", false
	return nil
}

// isStuck reports whether nothing is asked of the target, and no rotation begins, before an
// operator has changed something.
func isStuck(skip probeSkip) bool {
	return skip.code == kms.SkippedNotBound || skip.code == kms.SkippedTaken
}

// nextAndWhy returns when a secret is rotated next, and why its rotation is where it is. Where no
// rotation can begin, the first is zero, and the second says why.
func nextAndWhy(s secret.Secret, r rotation.Record, skip probeSkip) (next time.Time, why string) {
	switch {
	case s.Deleting():
		return time.Time{}, r.Why()
	case !isStuck(skip):
		return r.Due, r.Why()
	}
	why = skip.text
	if skip.code == kms.SkippedNotBound {
		why += fault.Message(" Once the target is registered, keyturn rotation configure %s binds the secret.", s.Name)
	}
	if r.Reason != "" {
		why = strings.TrimSuffix(r.Reason, ".") + ". " + why
	}
	return time.Time{}, why
}

// describeRecord describes what is stored of a rotation.
func describeRecord(r rotation.Record, now time.Time) *kms.DescribeRotationResponse {
	previous, until, limit := r.Previous()
	earlier := rotation.Earlier{}
	if r.Earlier != nil {
		earlier = *r.Earlier
	}
	return &kms.DescribeRotationResponse{
		State:              string(r.State),
		RotationID:         r.ID,
		EndedRotationID:    r.GivenUp,
		Mode:               string(r.Mode),
		Trigger:            string(r.Trigger),
		Strategy:           string(r.Strategy),
		CandidateVersionID: r.Candidate,
		BaseVersionID:      previous,
		Attempt:            r.Attempt,
		Candidates:         r.Candidates,
		StartTime:          r.StartedAt,
		PromoteTime:        r.PromotedAt,
		GraceUntil:         until,
		GraceLimitTime:     limit,
		UndoPossible:       r.CanUndo(now),
		PreviousRetired:    r.BaseRetired,
		PreviousDeadTime:   r.PreviousDeadAt,
		EarlierVersionID:   earlier.Version,
		EarlierRetired:     earlier.Retired,
		EndTime:            r.EndedAt,
		Reason:             r.Why(),
		Advice:             r.Advice(),
		CredentialState:    r.Health.State(),
		ProbeTime:          r.Health.ProbedAt,
		ProbeAttemptTime:   r.Health.TriedAt,
		ProbePending:       r.ProbePending(now),
		NextAttemptTime:    nextAttempt(r, now),
		FailingSince:       r.FailingSince,
		Outcome:            r.State.Outcome(),
		WaitsFor:           r.WaitsFor(0, now),
		InProgress:         r.GoesOn(),
		WaitingFor:         []kms.SecretConsumer{},
		Steps:              shownSteps(r),
	}
}

// describeAnew answers a call that has changed a rotation: it describes the rotation as it is now.
// The principal behind a pause and the consumers are for callers who may call DescribeRotation.
func (c *Call) describeAnew(ctx context.Context, name string) (*kms.DescribeRotationResponse, error) {
	c.Snapshot = store.Snapshot(ctx, c.DB)
	out, err := describeRotation(ctx, c, &kms.SecretNameRequest{SecretName: name})
	if err != nil {
		return nil, err
	}
	d, err := c.gate.decide(c, c.secretResource(name), actionDescribeRotation)
	if err != nil {
		return nil, err
	}
	if !d.Allowed {
		out.WaitingFor = []kms.SecretConsumer{}
		for i := range out.Pauses {
			out.Pauses[i].Principal = ""
		}
	}
	return out, nil
}

// describeSettings describes how a secret is configured to rotate, when it was rotated, and when it
// is rotated next.
func describeSettings(s secret.Secret, now time.Time, out *kms.DescribeRotationResponse) {
	out.LastRotationDate = s.Rotation.Last
	out.AutomaticRotation, out.RotationInterval, out.NextRotationDate = planned(s, now)
	out.AutomaticRotation = cmp.Or(out.AutomaticRotation, secret.RotationDisabled)
	settings := s.Settings()
	out.TargetName = s.TargetName()
	out.ConfiguredStrategy = string(settings.Strategy)
	out.AccountName, out.CloneAccountName = settings.Account, settings.CloneAccount
	out.AccountMember, out.SecretMember = settings.AccountMember, settings.SecretMember
	out.Cron, out.TimeZone = settings.Schedule.Cron, settings.Schedule.Zone
	out.Window = settings.Schedule.Window.String()
	out.Blackouts = rotation.FormatBlackouts(settings.Schedule.Blackouts)
	out.Group = settings.Group
	out.LoginEndpoints, out.LoginDatabase = settings.Login.Endpoints, settings.Login.Database
	out.LoginRole, out.LoginCertificateSecret = settings.Login.Role, settings.Login.CertificateSecret
	out.Consents = settings.Consents
	if settings.Gap > 0 {
		out.GroupGap = formatDuration(settings.Gap)
	}
	if settings.Grace != nil {
		out.GracePeriod = formatDuration(*settings.Grace)
	}
	if settings.GraceLimit != nil {
		out.GraceLimit = formatDuration(*settings.GraceLimit)
	}
}

// nextAttempt returns when the engine continues a rotation that waits; zero for one that does not.
func nextAttempt(r rotation.Record, now time.Time) time.Time {
	if r.InFlight() && r.NextAt.After(now) {
		return r.NextAt
	}
	return time.Time{}
}

func shownSteps(r rotation.Record) []kms.RotationStep {
	steps := []kms.RotationStep{}
	for _, e := range r.Steps {
		steps = append(steps, kms.RotationStep{
			Time:        e.At,
			State:       string(e.State),
			Event:       string(e.Event),
			Description: e.Event.Text(),
			Text:        e.Text,
		})
	}
	return steps
}

// mostShown is how many consumers DescribeRotation names; ListSecretConsumers names all.
const mostShown = 20

// waitingFor describes the consumers that delay the end of a grace period, or would delay it.
func (c *Call) waitingFor(ctx context.Context, r rotation.Record, out *kms.DescribeRotationResponse) error {
	if err := c.Consumers.Sync(ctx, r.Account, r.Secret); err != nil {
		return err
	}
	err := store.Snapshot(ctx, c.DB).Consumers(r.Account, r.Secret, "", func(_ string, u rotation.Sighting) bool {
		if _, yes := r.Awaits(u, c.At); yes {
			if out.WaitingForCount++; len(out.WaitingFor) < mostShown {
				out.WaitingFor = append(out.WaitingFor, shownConsumer(u, r.Candidate))
			}
		}
		return true
	})
	if r.Waiting > 0 && out.WaitingForCount > 0 { // some may have moved since the engine counted them
		out.Reason = r.AwaitsText(out.WaitingForCount)
		out.WaitsFor = r.WaitsFor(out.WaitingForCount, c.At)
	}
	return err
}

func listRotations(c *Call, in *kms.ListRotationsRequest) (*kms.ListRotationsResponse, error) {
	p, err := newPage[kms.ListedRotation]("NextToken", in.NextToken, in.MaxResults)
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
	all, err := allPauses(c.Snapshot)
	if err != nil {
		return nil, err
	}
	var failed error
	err = c.Snapshot.Rotations(c.Account(), "", nextName(p.after), func(r rotation.Record) bool {
		if withheld[r.Secret] ||
			in.State != "" && string(r.State) != in.State ||
			in.TargetName != "" && r.Target != in.TargetName {
			return true
		}
		t, _, err := c.Snapshot.Target(r.Account, r.Target)
		s, ok, err2 := c.Snapshot.Secret(r.Account, r.Secret, c.At)
		if failed = errors.Join(err, err2); failed != nil {
			return false
		}
		skip, err := c.probeSkip(c.Snapshot, s, ok, r, c.At)
		if failed = err; failed != nil {
			return false
		}
		actions, err := c.repairActions(c.Snapshot, s, r)
		if failed = err; failed != nil {
			return false
		}
		pauses := pausesOf(all, t, r)
		next, why := nextAndWhy(s, r, skip)
		return p.add(r.Secret, kms.ListedRotation{
			SecretName:        r.Secret,
			State:             string(r.State),
			RotationID:        r.ID,
			Trigger:           string(r.Trigger),
			TargetName:        r.Target,
			InProgress:        r.GoesOn(),
			RepairActions:     actions,
			Paused:            len(pauses) > 0,
			Pauses:            pauses,
			StartTime:         r.StartedAt,
			PromoteTime:       r.PromotedAt,
			NextRotationDate:  next,
			PlannedDeleteTime: s.DeleteAt,
			NextAttemptTime:   nextAttempt(r, c.At),
			FailingSince:      r.FailingSince,
			CredentialState:   r.Health.State(),
			ProbeTime:         r.Health.ProbedAt,
			ProbeAttemptTime:  r.Health.TriedAt,
			ProbePending:      r.ProbePending(c.At) && !isStuck(skip),
			ProbeSkipped:      skip.text,
			ProbeSkippedCode:  skip.code,
			Reason:            why,
		})
	})
	return &kms.ListRotationsResponse{Rotations: p.rows, Pauses: all, NextToken: p.marker()}, errors.Join(err, failed)
}
