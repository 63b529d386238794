package model

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Outcome says what is known of a call.
type Outcome int

// The outcomes: Answered is a final answer, a success or a refusal; NotSent never reached a server; Unknown is a change
// that may or may not have happened, or may still happen.
const (
	Answered Outcome = iota
	NotSent
	Unknown
)

// Send makes the call at a server. id is the request's ID when there was an answer. A call that got no final answer has
// its error beside the outcome.
func Send(ctx context.Context, c *kms.Client, o Op) (r Reply, id string, known Outcome, err error) {
	r, id, err = o.send(ctx, c)
	if err == nil {
		return r, id, Answered, nil
	}
	var e *kms.Error
	var op *net.OpError
	switch {
	case errors.As(err, &e) && e.HTTPStatus < 500:
		return Reply{Code: e.Code}, e.RequestID, Answered, nil
	case errors.As(err, &op) && op.Op == "dial":
		return r, "", NotSent, err
	}
	return r, id, Unknown, err
}

func sorted(labels []string) []string {
	if len(labels) == 0 {
		return nil
	}
	return slices.Sorted(slices.Values(labels))
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func (o Op) send(ctx context.Context, c *kms.Client) (Reply, string, error) {
	switch o.Kind {
	case Create:
		a, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{SecretName: o.Name, VersionID: o.Version, SecretData: sensitive.New(o.Data), SecretDataType: o.DataType, Description: o.Description})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Type: a.SecretType, Version: a.VersionID}, a.RequestID, nil
	case Put:
		a, err := c.PutSecretValue(ctx, &kms.PutSecretValueRequest{SecretName: o.Name, VersionID: o.Version, SecretData: sensitive.New(o.Data), SecretDataType: o.DataType, VersionStages: o.Labels})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Version: a.VersionID, Labels: sorted(a.VersionStages)}, a.RequestID, nil
	case Move:
		a, err := c.UpdateSecretVersionStage(ctx, &kms.UpdateSecretVersionStageRequest{SecretName: o.Name, VersionStage: o.Label, MoveToVersion: o.To, RemoveFromVersion: o.From})
		return byName(a, err)
	case Restore:
		a, err := c.RestoreSecret(ctx, &kms.RestoreSecretRequest{SecretName: o.Name})
		return byName(a, err)
	case Delete:
		a, err := c.DeleteSecret(ctx, &kms.DeleteSecretRequest{SecretName: o.Name, ForceDeleteWithoutRecovery: o.Force, RecoveryWindowInDays: o.Window})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Planned: utc(a.PlannedDeleteTime)}, a.RequestID, nil
	}
	return o.read(ctx, c)
}

func byName(a *kms.SecretNameResponse, err error) (Reply, string, error) {
	if err != nil {
		return Reply{}, "", err
	}
	return Reply{Name: a.SecretName}, a.RequestID, nil
}

func (o Op) read(ctx context.Context, c *kms.Client) (Reply, string, error) {
	switch o.Kind {
	case Get:
		a, err := c.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: o.Name, VersionID: o.Version, VersionStage: o.Label})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{
			Name: a.SecretName, Type: a.SecretType, Version: a.VersionID, Data: a.SecretData.Reveal(), DataType: a.SecretDataType,
			Labels: sorted(a.VersionStages), Created: utc(a.CreateTime),
		}, a.RequestID, nil
	case Describe:
		a, err := c.DescribeSecret(ctx, &kms.DescribeSecretRequest{SecretName: o.Name})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{
			Name: a.SecretName, Type: a.SecretType, Text: a.Description, Created: utc(a.CreateTime), Updated: utc(a.UpdateTime),
			Planned: utc(a.PlannedDeleteTime),
		}, a.RequestID, nil
	case List:
		a, err := c.ListSecretVersionIds(ctx, &kms.ListSecretVersionIdsRequest{SecretName: o.Name, IncludeDeprecated: o.Deprecated, PageNumber: o.Page, PageSize: o.Size})
		if err != nil {
			return Reply{}, "", err
		}
		r := Reply{Name: a.SecretName, Page: a.PageNumber, Size: a.PageSize, Total: a.TotalCount}
		for _, v := range a.VersionIDs {
			r.Rows = append(r.Rows, Row{v.VersionID, sorted(v.VersionStages), utc(v.CreateTime)})
		}
		return r, a.RequestID, nil
	}
	panic("model: unknown operation " + string(o.Kind))
}
