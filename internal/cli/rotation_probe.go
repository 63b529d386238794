package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

type rotationProbe struct {
	which
	Timeout time.Duration `help:"Wait for at most this long for the answers; 0s for not at all." default:"1m"`
}

// Help explains what the flags have no room for.
func (*rotationProbe) Help() string {
	return "At most ten credentials a second are tried, and one failed login of an account is caused a minute. The exit " +
		"status is 1 if a target does not accept a credential in use, or has not answered in time."
}

func (c *rotationProbe) Run(e *env) error {
	in, err := c.request()
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	out, err := client.ProbeRotation(e.ctx, &in)
	if err != nil {
		return err
	}
	if c.Timeout <= 0 {
		return e.done(out, "%s; keyturn rotation list shows what comes of it.", askedText(out))
	}
	p := &prober{env: e, client: client, in: in, asked: out}
	return p.follow(c.Timeout)
}

func askedText(out *kms.ProbeRotationResponse) string {
	text := fmt.Sprintf("credentials asked about: %d, not asked about: %d", out.Asked, out.NotAsked)
	if out.Reason != "" {
		text += ". " + out.Reason
	}
	return text
}

// prober waits for what targets say of credentials.
type prober struct {
	*env
	client *kms.Client
	in     kms.PauseRotationRequest
	asked  *kms.ProbeRotationResponse
}

// follow waits until the targets were asked, and prints what came of it.
func (p *prober) follow(timeout time.Duration) error {
	var list []kms.ListedRotation
	late, err := poll(p.ctx, timeout, func(ctx context.Context) (over bool, err error) {
		now, err := p.rotations(ctx)
		if err != nil {
			return false, err
		}
		list = now
		return !pending(list), nil
	})
	if list == nil || !late && err != nil {
		return err
	}
	return p.print(list)
}

// rotations returns the rotations that the probe is about.
func (p *prober) rotations(ctx context.Context) ([]kms.ListedRotation, error) {
	if p.in.SecretName == "" {
		out, err := listRotations(ctx, p.client, kms.ListRotationsRequest{TargetName: p.in.TargetName})
		if err != nil {
			return nil, err
		}
		return out.Rotations, nil
	}
	r, err := p.client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: p.in.SecretName})
	if err != nil {
		return nil, err
	}
	return []kms.ListedRotation{{
		SecretName:       r.SecretName,
		State:            r.State,
		TargetName:       r.TargetName,
		CredentialState:  r.CredentialState,
		ProbeTime:        r.ProbeTime,
		ProbeAttemptTime: r.ProbeAttemptTime,
		ProbePending:     r.ProbePending,
		Reason:           r.Reason,
	}}, nil
}

// pending reports whether a target has not been asked yet.
func pending(list []kms.ListedRotation) bool {
	return slices.ContainsFunc(list, func(r kms.ListedRotation) bool { return r.ProbePending })
}

// print prints what is known of each credential, and fails unless the targets accept all.
func (p *prober) print(list []kms.ListedRotation) error {
	counts := map[string]int{}
	t := newTable("SECRET", "TARGET", "STATE", "CREDENTIAL", "REASON")
	for _, r := range list {
		said := probed(r)
		counts[said]++
		t.row(r.SecretName, r.TargetName, r.State, said, cmp.Or(r.Reason, p.asked.Reason))
	}
	var err error
	if p.json() {
		err = printResponse(p.stdout, &kms.ListRotationsResponse{Rotations: list, RequestID: p.asked.RequestID})
	} else {
		err = errors.Join(t.write(p.stdout), p.sum(counts))
	}
	if err == nil && counts["live"] < len(list) {
		err = coded{exitFailed, ""}
	}
	return err
}

// sum prints how many credentials there are of each kind.
func (p *prober) sum(counts map[string]int) error {
	text := fmt.Sprintf("Asked about: %d, not asked about: %d.", p.asked.Asked, p.asked.NotAsked)
	for _, said := range slices.Sorted(maps.Keys(counts)) {
		text += fmt.Sprintf(" %s: %d.", fault.Capital(said), counts[said])
	}
	_, err := fmt.Fprintln(p.stdout, text)
	return err
}

// probed says what came of the last question about a credential.
func probed(r kms.ListedRotation) string {
	switch {
	case r.ProbePending:
		return "not asked yet"
	case r.ProbeAttemptTime.After(r.ProbeTime):
		return "no answer"
	}
	return credentialWord(r.CredentialState)
}
