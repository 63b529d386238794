package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
)

type rotationProbe struct {
	which
	Timeout time.Duration `help:"Wait for at most this long for the answers; 0s for not at all." default:"1m"`
}

// Help explains what the flags have no room for.
func (*rotationProbe) Help() string {
	return "At most ten credentials a second are checked, and one failed login of an account is caused a minute. The " +
		"exit status is 0 only if each credential was checked now and is live. With --target and --all, credentials that " +
		"cannot be checked now are skipped: a rotation is changing them, or they are access keys of this service."
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
	p := &prober{env: e, client: client, in: in, asked: out}
	if c.Timeout > 0 {
		return p.follow(c.Timeout)
	}
	text := fmt.Sprintf("%d to check, %d skipped", out.Asked, out.NotAsked)
	if out.Reason != "" {
		text += ". " + out.Reason
	} else {
		text += "; keyturn rotation list shows the results."
	}
	if err := e.done(out, "%s", text); err != nil || !p.skipped() {
		return err
	}
	return coded{exitFailed, ""}
}

// prober waits for what targets say of credentials.
type prober struct {
	*env
	client *kms.Client
	in     kms.PauseRotationRequest
	asked  *kms.ProbeRotationResponse
}

// probeResult is what the command prints for programs.
type probeResult struct {
	Asked     int                  `kms:"Asked"`
	NotAsked  int                  `kms:"NotAsked"`
	Reason    string               `kms:"Reason,omitempty"`
	Rotations []kms.ListedRotation `kms:"Rotations,list=Rotation"`
	RequestID string               `kms:"RequestId"`
}

// skipped reports whether the one credential that the command names is not checked.
func (p *prober) skipped() bool { return p.in.SecretName != "" && p.asked.Asked == 0 }

// follow waits until the targets were asked, and prints the results.
func (p *prober) follow(timeout time.Duration) error {
	var list []kms.ListedRotation
	var answered time.Time
	late, err := poll(p.ctx, timeout, func(ctx context.Context) (over bool, err error) {
		now, err := p.rotations(ctx)
		if err != nil {
			return false, err
		}
		list, answered = now, time.Now()
		return !pending(list), nil
	})
	switch {
	case !late && err != nil:
		return err
	case late && p.ctx.Err() != nil:
		return errors.New("interrupted; the targets are asked automatically, keyturn rotation list shows the results")
	case late && answered.IsZero():
		return silent(timeout, err)
	case late && err != nil:
		err = fmt.Errorf("after %s: the server has answered at %s for the last time: %w", timeout, when(answered), err)
	}
	return cmp.Or(err, p.print(list))
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
		ProbePending:     r.ProbePending && !p.skipped(),
		ProbeSkipped:     cmp.Or(p.asked.Reason, r.ProbeSkipped),
		Reason:           r.Reason,
	}}, nil
}

// pending reports whether a target has not been asked yet.
func pending(list []kms.ListedRotation) bool {
	return slices.ContainsFunc(list, func(r kms.ListedRotation) bool { return r.ProbePending })
}

// print prints what is known of each credential. It fails unless the targets accept all that were
// checked, and if the one that the command names was not.
func (p *prober) print(list []kms.ListedRotation) error {
	counts := map[string]int{}
	failed := p.skipped()
	t := newTable("SECRET", "TARGET", "STATE", "CREDENTIAL", "REASON")
	for _, r := range list {
		said, reason := probed(r), r.Reason
		if said == probeSkipped {
			reason = r.ProbeSkipped
		} else {
			counts[said]++
		}
		failed = failed || r.State == kms.RotationQuarantined || said != "live" && said != probeSkipped
		t.row(r.SecretName, r.TargetName, r.State, said, reason)
	}
	var err error
	if p.json() {
		err = printResponse(p.stdout, &probeResult{
			Asked:     p.asked.Asked,
			NotAsked:  p.asked.NotAsked,
			Reason:    p.asked.Reason,
			Rotations: list,
			RequestID: p.asked.RequestID,
		})
	} else {
		err = errors.Join(t.write(p.stdout), p.sum(counts))
	}
	if err == nil && failed {
		err = coded{exitFailed, ""}
	}
	return err
}

// sum prints how many credentials there are of each kind.
func (p *prober) sum(counts map[string]int) error {
	var list []string
	for _, said := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d %s", counts[said], said))
	}
	text := fmt.Sprintf("%d checked, %d skipped", p.asked.Asked, p.asked.NotAsked)
	if len(list) > 0 {
		text += ": " + strings.Join(list, ", ")
	}
	_, err := fmt.Fprintln(p.stdout, text+".")
	return err
}

// probeSkipped is what the command says of a credential that was not checked.
const probeSkipped = "skipped"

// probed says what came of the last question about a credential. One that is dead stays so while it
// is skipped.
func probed(r kms.ListedRotation) string {
	switch {
	case r.ProbePending:
		return "not asked yet"
	case r.ProbeSkipped != "" && r.CredentialState != "dead":
		return probeSkipped
	case r.ProbeAttemptTime.After(r.ProbeTime):
		return "no answer"
	}
	return credentialWord(r.CredentialState)
}
