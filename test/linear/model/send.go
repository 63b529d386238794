package model

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Outcome says what is known of a call.
type Outcome int

// The outcomes: Answered is a final answer, a success or a refusal; NotSent never reached a
// server; Unknown is a change that may or may not have happened, or may still happen.
const (
	Answered Outcome = iota
	NotSent
	Unknown
)

// Send makes the call at a server. id is the request's ID when there was an answer. A call that
// got no final answer has its error beside the outcome.
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
		a, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName:     o.Name,
			VersionID:      o.Version,
			SecretData:     sensitive.New(o.Data),
			SecretDataType: o.DataType,
			Description:    o.Description,
		})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Type: a.SecretType, Version: a.VersionID}, a.RequestID, nil
	case Put:
		a, err := c.PutSecretValue(ctx, &kms.PutSecretValueRequest{
			SecretName:     o.Name,
			VersionID:      o.Version,
			SecretData:     sensitive.New(o.Data),
			SecretDataType: o.DataType,
			VersionStages:  o.Labels,
		})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Version: a.VersionID, Labels: sorted(a.VersionStages)}, a.RequestID, nil
	case Move:
		a, err := c.UpdateSecretVersionStage(ctx, &kms.UpdateSecretVersionStageRequest{
			SecretName:        o.Name,
			VersionStage:      o.Label,
			MoveToVersion:     o.To,
			RemoveFromVersion: o.From,
		})
		return byName(a, err)
	case Update, Tag, Untag, SetPolicy, Rotate, SetRotation:
		return o.sendMore(ctx, c)
	case Restore:
		a, err := c.RestoreSecret(ctx, &kms.RestoreSecretRequest{SecretName: o.Name})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName}, a.RequestID, nil
	case Delete:
		a, err := c.DeleteSecret(ctx, &kms.DeleteSecretRequest{
			SecretName:                 o.Name,
			ForceDeleteWithoutRecovery: o.Force,
			RecoveryWindowInDays:       o.Window,
		})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName, Planned: utc(a.PlannedDeleteTime)}, a.RequestID, nil
	}
	return o.read(ctx, c)
}

// sendMore sends the calls that are about the secret as a whole.
func (o Op) sendMore(ctx context.Context, c *kms.Client) (Reply, string, error) {
	switch o.Kind {
	case Update:
		return byName(c.UpdateSecret(ctx, &kms.UpdateSecretRequest{SecretName: o.Name, Description: &o.Description}))
	case Tag:
		var tags []kms.Tag
		for i := 0; i < len(o.Tags); i += 2 {
			tags = append(tags, kms.Tag{TagKey: o.Tags[i], TagValue: o.Tags[i+1]})
		}
		return empty(c.TagResource(ctx, &kms.TagResourceRequest{SecretName: o.Name, Tags: tags}))
	case Untag:
		return empty(c.UntagResource(ctx, &kms.UntagResourceRequest{SecretName: o.Name, TagKeys: o.Tags}))
	case SetPolicy:
		return empty(c.SetSecretPolicy(ctx, &kms.SetSecretPolicyRequest{SecretName: o.Name, Policy: o.Policy}))
	case Rotate:
		a, err := c.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: o.Name, VersionID: o.Version})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{Name: a.SecretName}, a.RequestID, nil
	case SetRotation:
		return byName(c.UpdateSecretRotationPolicy(ctx, &kms.UpdateSecretRotationPolicyRequest{
			SecretName:              o.Name,
			EnableAutomaticRotation: true,
			RotationInterval:        "7d",
		}))
	}
	panic("model: unknown operation " + string(o.Kind))
}

func empty(a *kms.EmptyResponse, err error) (Reply, string, error) {
	if err != nil {
		return Reply{}, "", err
	}
	return Reply{}, a.RequestID, nil
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
		a, err := c.GetSecretValue(ctx, &kms.GetSecretValueRequest{
			SecretName:   o.Name,
			VersionID:    o.Version,
			VersionStage: o.Label,
		})
		if err != nil {
			return Reply{}, "", err
		}
		return Reply{
			Name:     a.SecretName,
			Type:     a.SecretType,
			Version:  a.VersionID,
			Data:     a.SecretData.Reveal(),
			DataType: a.SecretDataType,
			Labels:   sorted(a.VersionStages),
			Created:  utc(a.CreateTime),
		}, a.RequestID, nil
	case Describe:
		a, err := c.DescribeSecret(ctx, &kms.DescribeSecretRequest{SecretName: o.Name, FetchTags: true})
		if err != nil {
			return Reply{}, "", err
		}
		r := Reply{
			Name: a.SecretName, Type: a.SecretType, Text: a.Description, Created: utc(a.CreateTime), Updated: utc(a.UpdateTime),
			Planned: utc(a.PlannedDeleteTime),
		}
		if a.Tags != nil {
			for _, t := range *a.Tags {
				r.Tags = append(r.Tags, t.TagKey+"="+t.TagValue)
			}
		}
		slices.Sort(r.Tags)
		return r, a.RequestID, nil
	case GetPolicy:
		a, err := c.GetSecretPolicy(ctx, &kms.GetSecretPolicyRequest{SecretName: o.Name})
		if err != nil {
			return Reply{}, "", err
		}
		if strings.Contains(a.Policy, "kms default secret policy") {
			a.Policy = DefaultPolicy
		}
		return Reply{Policy: a.Policy}, a.RequestID, nil
	case List:
		a, err := c.ListSecretVersionIds(ctx, &kms.ListSecretVersionIdsRequest{
			SecretName:        o.Name,
			IncludeDeprecated: o.Deprecated,
			PageNumber:        o.Page,
			PageSize:          o.Size,
		})
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
