package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/kms"
)

type rotationProbe struct {
	which
	Timeout time.Duration `help:"Wait for at most this long for the answers; 0s for not at all." default:"1m"`
}

// Help explains what the flags have no room for.
func (*rotationProbe) Help() string {
	var passing, failing []string
	for _, k := range kms.ProbeSkips {
		if k.Unknown {
			failing = append(failing, k.Text)
		} else {
			passing = append(passing, k.Text)
		}
	}
	return "At most ten credentials a second are checked, with at most one failed login per account and minute.\n\n" +
		"The exit status is 0 only if each credential was checked now and is live. With --target, --tag and --all, a " +
		"credential is left out of that if it is skipped because " + strings.Join(passing, "; or ") +
		". The exit status is 1 if one is skipped because " + strings.Join(failing, "; or ") + "."
}

func (c *rotationProbe) Run(e *env) error {
	in, atOnce, err := c.atOnce()
	if err != nil {
		return err
	}
	client, err := e.connect()
	if err != nil {
		return err
	}
	p := &prober{env: e, client: client, in: in, byName: len(c.Names) > 0}
	if !atOnce {
		list, others, err := c.plan(e, client, notRotated)
		switch {
		case err != nil:
			return err
		case c.DryRun, len(list) == 0: // without a name, the server would check more than these
			return e.showPlan(action{what: "checked"}, list, others)
		}
		for _, planned := range list {
			p.named = append(p.named, planned.SecretName)
		}
	}
	out, err := p.ask()
	if err != nil {
		return err
	}
	p.asked = out
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
	named  []string // the secrets that were selected by name or tag; nil if in selects them
	byName bool
	asked  *kms.ProbeRotationResponse
}

// ask has the server check the credentials. For several secrets, it adds up the answers.
func (p *prober) ask() (*kms.ProbeRotationResponse, error) {
	if p.named == nil {
		return p.client.ProbeRotation(p.ctx, &p.in)
	}
	sum := &kms.ProbeRotationResponse{}
	for _, name := range p.named {
		out, err := p.client.ProbeRotation(p.ctx, &kms.PauseRotationRequest{SecretName: name})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sum.Asked += out.Asked
		sum.NotAsked += out.NotAsked
		sum.RequestID = out.RequestID
		if sum.AskTime.IsZero() {
			sum.AskTime = out.AskTime
		}
	}
	return sum, nil
}

// probeResult is what the command prints for programs.
type probeResult struct {
	Asked     int                  `kms:"Asked"`
	NotAsked  int                  `kms:"NotAsked"`
	Reason    string               `kms:"Reason,omitempty"`
	AskTime   time.Time            `kms:"AskTime,omitempty"`
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
		err = fmt.Errorf("after %s: the server last answered at %s: %w", timeout, when(answered), err)
	}
	return cmp.Or(err, p.print(list))
}

// rotations returns the rotations that the probe is about.
func (p *prober) rotations(ctx context.Context) ([]kms.ListedRotation, error) {
	if p.named != nil {
		var list []kms.ListedRotation
		for _, name := range p.named {
			r, err := p.client.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: name})
			if err != nil {
				return nil, err
			}
			list = append(list, listed(r))
		}
		return list, nil
	}
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
	row := listed(r)
	row.ProbePending = r.ProbePending && !p.skipped()
	row.ProbeSkipped = cmp.Or(p.asked.Reason, r.ProbeSkipped)
	return []kms.ListedRotation{row}, nil
}

// pending reports whether a target has not been asked yet.
func pending(list []kms.ListedRotation) bool {
	return slices.ContainsFunc(list, func(r kms.ListedRotation) bool { return r.ProbePending })
}

// print prints what is known of each credential. It fails unless each was checked and is live,
// apart from those that [prober.leavesOut] names.
func (p *prober) print(list []kms.ListedRotation) error {
	sums, failed := probeSums{said: map[string]int{}}, false
	t := newTable("SECRET", "TARGET", "STATE", "CREDENTIAL", "REASON")
	for _, r := range list {
		said, reason := p.outcome(r)
		switch {
		case r.ProbePending:
			sums.waiting++
		case p.checked(r):
			sums.checked++
			sums.said[said]++
		default:
			sums.skipped++
			if said != probeSkipped {
				sums.said[said]++
			}
		}
		passes := said == rotation.CredentialLive || said == probeSkipped && p.leavesOut(r)
		failed = failed || !passes || r.State == kms.RotationQuarantined
		t.row(r.SecretName, r.TargetName, r.State, said, reason)
	}
	var err error
	if p.json() {
		err = printResponse(p.stdout, &probeResult{
			Asked:     p.asked.Asked,
			NotAsked:  p.asked.NotAsked,
			Reason:    p.asked.Reason,
			AskTime:   p.asked.AskTime,
			Rotations: list,
			RequestID: p.asked.RequestID,
		})
	} else {
		err = errors.Join(t.write(p.stdout), sums.write(p.stdout))
	}
	if err == nil && failed {
		err = coded{exitFailed, ""}
	}
	return err
}

// probeSums counts credentials: by what became of the question, and by what is known of them.
type probeSums struct {
	checked, skipped, waiting int
	said                      map[string]int
}

// write prints how many credentials there are of each kind.
func (n probeSums) write(w io.Writer) error {
	var list []string
	for _, said := range slices.Sorted(maps.Keys(n.said)) {
		list = append(list, fmt.Sprintf("%d %s", n.said[said], said))
	}
	text := fmt.Sprintf("%d checked, %d skipped", n.checked, n.skipped)
	if n.waiting > 0 {
		text += fmt.Sprintf(", %d %s", n.waiting, notAskedYet)
	}
	if len(list) > 0 {
		text += ": " + strings.Join(list, ", ")
	}
	_, err := fmt.Fprintln(w, text+".")
	return err
}

// The words of the command for a credential that was not checked, and for one that is about to be.
const (
	probeSkipped = "skipped"
	notAskedYet  = "not asked yet"
)

// checked reports whether the target was asked about the credential since the call. Without a
// target, and without the account, the service tries, too, and asks nothing.
func (p *prober) checked(r kms.ListedRotation) bool {
	return !p.skipped() && r.ProbeSkippedCode != kms.SkippedNotBound && r.ProbeSkippedCode != kms.SkippedTaken &&
		!r.ProbeAttemptTime.IsZero() && !r.ProbeAttemptTime.Before(p.asked.AskTime)
}

// leavesOut reports whether it does not matter that a credential was skipped.
func (p *prober) leavesOut(r kms.ListedRotation) bool {
	return p.in.SecretName == "" && !p.byName && slices.ContainsFunc(kms.ProbeSkips, func(k kms.ProbeSkip) bool {
		return k.Code == r.ProbeSkippedCode && !k.Unknown
	})
}

// outcome returns what came of the question about a credential, and why. One that is dead stays so
// while it is skipped.
func (p *prober) outcome(r kms.ListedRotation) (said, reason string) {
	switch {
	case r.ProbePending:
		return notAskedYet, r.Reason
	case p.checked(r) && r.ProbeAttemptTime.After(r.ProbeTime):
		return "no answer", r.Reason
	case p.checked(r), r.CredentialState == rotation.CredentialDead:
		return credentialWord(r.CredentialState), r.Reason
	}
	return probeSkipped, cmp.Or(r.ProbeSkipped, "It could not be checked, and can be now: repeat the command.")
}
