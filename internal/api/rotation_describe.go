package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

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
		RepairActions: []string{}, Outcome: r.State.Outcome(), WaitsFor: r.WaitsFor(0, c.At), InProgress: r.GoesOn(),
	}
	if r.State == rotation.Quarantined {
		out.RepairActions = []string{"probe", "adopt"}
		if r.Repairable(s.Generated(r.Candidate)) {
			out.RepairActions = []string{"probe", "apply", "adopt"}
		}
	}
	if r.State == rotation.InGrace {
		out.GraceLimitTime = r.GraceDeadline
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
	if s.IsRotated() {
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
	err := store.Snapshot(ctx, c.DB).Consumers(r.Account, r.Secret, "", func(_ string, u rotation.Sighting) bool {
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
