package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	adminSecret = "demo/admin"
	targetName  = "demo-target"
	// rotations are made by the engine, one right after the other.
	rotations = 20
	// maxShown is how long a configuration may be to be shown.
	maxShown = 60
	// rotationTimeout bounds the wait for one state.
	rotationTimeout = 20 * time.Second
)

// number is that of the next step of the scenario.
func (p *player) number() string {
	p.engineSteps++
	return fmt.Sprintf("2.%d", p.engineSteps)
}

// byItself is the scenario for a target that the engine knows: nobody but the engine changes
// anything there.
func (p *player) byItself(ctx context.Context) error {
	p.section("2  BY ITSELF", p.engines.Secret+": the engine changes target and secret as one thing, again and again")
	m, err := p.registerTarget(ctx)
	if err != nil {
		return err
	}
	if err := p.createManaged(ctx, m); err != nil {
		return err
	}
	first, err := p.rotateOnce(ctx)
	if err != nil {
		return err
	}
	before, began := p.managed.counts(), time.Now()
	p.begin(
		p.number(), "rotate again and again",
		fmt.Sprintf("the same two calls %d times more, up to v%d; each checked", p.rotations-1, p.rotations+1),
	)
	took := []time.Duration{first}
	for i := range p.rotations - 1 {
		d, err := p.rotateAgain(ctx, i+2)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	return p.tellRotations(ctx, took, before, began)
}

// registerTarget makes the live system known to the engine.
func (p *player) registerTarget(ctx context.Context) (Managed, error) {
	m := p.engines
	admin := ""
	if !m.Admin.IsZero() {
		admin = "--AdminSecretName " + adminSecret + " "
		p.begin(
			p.number(), "create "+adminSecret,
			"aliyun kms CreateSecret --SecretName "+adminSecret+` --VersionId v1 --SecretData "$ADMINISTRATOR"`,
		)
		if err := p.create(ctx, adminSecret, version{"v1", m.Admin}); err != nil {
			return m, err
		}
		p.ok("the credential that may change others is in a secret like any other")
	}
	config := "'" + m.Config + "'"
	if len(config) > maxShown {
		config = `"$CONFIG"`
	}
	lines := []string{
		"keyturn kms RegisterTarget --TargetName " + targetName + " --Kind " + m.Kind + ` \`,
		admin + "--Config " + config,
	}
	if admin == "" {
		lines = []string{strings.TrimSuffix(lines[0], `\`) + lines[1]}
	}
	for i, account := range m.Accounts {
		lines[len(lines)-1] += ` \`
		lines = append(lines, fmt.Sprintf("--Account.%d %s", i+1, account))
	}
	p.begin(p.number(), "register the target", lines...)
	_, err := p.producer.RegisterTarget(ctx, &kms.RegisterTargetRequest{
		TargetName:      targetName,
		Kind:            m.Kind,
		Config:          m.Config,
		AdminSecretName: adminNameOf(m),
		Accounts:        m.Accounts,
	})
	if err := p.succeeded(ctx, "RegisterTarget", err); err != nil {
		return m, err
	}
	if m.Admin.IsZero() { // nobody to try: an account changes itself
		p.ok("the engine knows the host and its key; the account changes its own list of keys")
		return m, p.breathe(ctx)
	}
	if err := p.testTarget(ctx, ""); err != nil {
		return m, err
	}
	p.ok("the engine gets in as the administrator, and nothing was changed")
	return m, p.breathe(ctx)
}

// testTarget has the server try the administrator, or the current version of a secret.
func (p *player) testTarget(ctx context.Context, secret string) error {
	out, err := p.producer.TestTarget(ctx, &kms.TestTargetRequest{TargetName: targetName, SecretName: secret})
	if err := p.succeeded(ctx, "TestTarget", err); err != nil {
		return err
	}
	return p.expect(ctx, "TestTarget", "ok", out.Result+ifAny(": ", out.Message))
}

func adminNameOf(m Managed) string {
	if m.Admin.IsZero() {
		return ""
	}
	return adminSecret
}

func ifAny(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// createManaged stores what is live, and lets the consumer of it start.
func (p *player) createManaged(ctx context.Context, m Managed) error {
	p.begin(
		p.number(), "create "+p.engines.Secret,
		"aliyun kms CreateSecret --SecretName "+p.engines.Secret+" --SecretType "+m.Type+` \`,
		`--VersionId v1 --SecretData "$CREDENTIALS" --ExtendedConfig \`, "'"+m.Extended+"'",
	)
	_, err := p.producer.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName:     p.engines.Secret,
		SecretType:     m.Type,
		VersionID:      "v1",
		SecretData:     m.Data,
		ExtendedConfig: m.Extended,
	})
	if err := p.succeeded(ctx, "CreateSecret", err); err != nil {
		return err
	}
	if p.current, err = read(ctx, p.producer, p.engines.Secret, kms.StageCurrent); err != nil {
		return p.succeeded(ctx, "GetSecretValue", err)
	}
	p.made(p.current.data)
	if err := p.expectLogin(ctx, m.Login, p.current, accepted); err != nil {
		return err
	}
	if err := p.testTarget(ctx, m.Secret); err != nil {
		return err
	}
	p.managed.login = m.Login
	p.startConsumer(ctx, p.managed)
	if err := p.expectUse(ctx, p.managed, "v1"); err != nil {
		return err
	}
	p.ok("v1 is ACSCurrent, and the consumer logs in with it; nothing was changed at the target")
	return p.breathe(ctx)
}

// rotateOnce tells one rotation as the engine has written it down.
func (p *player) rotateOnce(ctx context.Context) (time.Duration, error) {
	old := p.current
	p.begin(p.number(), "rotate to v2", "aliyun kms RotateSecret --SecretName "+p.engines.Secret+" --VersionId v2")
	took, err := p.rotateTo(ctx, "v2")
	if err != nil {
		return took, err
	}
	out, err := p.producer.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: p.engines.Secret})
	if err := p.succeeded(ctx, "DescribeRotation", err); err != nil {
		return took, err
	}
	p.tellSteps(out.Steps)
	p.ok("current after %s; in the target: %s", milliseconds(took), p.engines.Apply)
	for _, v := range []version{p.current, old} {
		if err := p.expectLogin(ctx, p.engines.Login, v, accepted); err != nil {
			return took, err
		}
	}
	if err := p.expectUse(ctx, p.managed, "v2"); err != nil {
		return took, err
	}
	p.ok("a login with v2 works, and one with v1 still does; the consumer has moved to v2")
	if err := p.breathe(ctx); err != nil {
		return took, err
	}

	p.begin(p.number(), "retire v1", "keyturn kms EndRotationGrace --SecretName "+p.engines.Secret)
	if out, err = p.retire(ctx, old); err != nil {
		return took, err
	}
	p.tellSteps(out.Steps[min(len(out.Steps), p.told):])
	p.ok("in the target: %s; a login with v1 is refused", p.engines.Retire)
	return took, p.breathe(ctx)
}

// tellSteps tells of the steps of a rotation.
func (p *player) tellSteps(steps []kms.RotationStep) {
	for _, s := range steps {
		text := s.Description + ifAny(": ", s.Text)
		p.printf("%s\n", strings.TrimRight(fmt.Sprintf("%s  %-9s  %-16s  %s", indent, s.State, s.Event, text), " "))
	}
	p.told += len(steps)
}

// rotateAgain makes one rotation more and holds it to the same. The consumer moves before the old
// credential is retired, as the grace period is for.
func (p *player) rotateAgain(ctx context.Context, from int) (time.Duration, error) {
	old, to := p.current, fmt.Sprintf("v%d", from+1)
	took, err := p.rotateTo(ctx, to)
	if err != nil {
		return took, err
	}
	if err := p.expect(ctx, "consumer of "+p.engines.Secret, settled(to), p.managed.await(ctx, to, 1)); err != nil {
		return took, err
	}
	_, err = p.retire(ctx, old)
	return took, err
}

// rotateTo asks for a version and waits until it is current.
func (p *player) rotateTo(ctx context.Context, id string) (time.Duration, error) {
	old, began := p.current.id, time.Now()
	_, err := p.producer.RotateSecret(ctx, &kms.RotateSecretRequest{SecretName: p.engines.Secret, VersionID: id})
	if err := p.succeeded(ctx, "RotateSecret to "+id, err); err != nil {
		return 0, err
	}
	if _, err := p.expectState(ctx, id, kms.RotationGrace); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for stage, want := range map[string]string{kms.StageCurrent: id, kms.StagePrevious: old} {
		v, err := read(ctx, p.producer, p.engines.Secret, stage)
		if err := p.succeeded(ctx, "read "+stage, err); err != nil {
			return took, err
		}
		if err := p.expect(ctx, stage, want, v.id); err != nil {
			return took, err
		}
		if stage == kms.StageCurrent {
			p.current = v
			p.made(v.data)
		}
	}
	return took, nil
}

// retire ends the grace period of a version, which the target refuses from then on.
func (p *player) retire(ctx context.Context, old version) (*kms.DescribeRotationResponse, error) {
	_, err := p.producer.EndRotationGrace(ctx, &kms.SecretNameRequest{SecretName: p.engines.Secret})
	if err := p.succeeded(ctx, "EndRotationGrace", err); err != nil {
		return nil, err
	}
	out, err := p.expectState(ctx, p.current.id, kms.RotationDone)
	if err != nil {
		return nil, err
	}
	return out, p.expectLogin(ctx, p.engines.Login, old, refused)
}

// expectState waits until the rotation to a version has come to a state.
func (p *player) expectState(ctx context.Context, id, want string) (*kms.DescribeRotationResponse, error) {
	for began := time.Now(); ; pause(ctx, breath) {
		out, err := p.producer.DescribeRotation(ctx, &kms.SecretNameRequest{SecretName: p.engines.Secret})
		switch {
		case err != nil:
			return nil, p.succeeded(ctx, "DescribeRotation", err)
		case out.State == want:
			return out, nil
		case time.Since(began) > rotationTimeout || ctx.Err() != nil:
			return nil, p.expect(ctx, "rotation to "+id, want, out.State+ifAny(": ", out.Reason))
		}
	}
}

// tellRotations says what all of them took, and fails when the consumer has noticed any.
func (p *player) tellRotations(ctx context.Context, took []time.Duration, before tally, began time.Time) error {
	after := p.managed.counts()
	slices.Sort(took)
	p.ok(
		"%d rotations in a row, the last %d in %s; from RotateSecret until it is current:", len(took),
		p.rotations-1, seconds(began),
	)
	p.printf(
		"%s    fastest %s, median %s, slowest %s\n", indent, milliseconds(took[0]), milliseconds(took[len(took)/2]),
		milliseconds(took[len(took)-1]),
	)
	if err := p.expect(ctx, "rotations", fmt.Sprint(p.rotations), fmt.Sprint(len(took))); err != nil {
		return err
	}
	if err := p.expectUse(ctx, p.managed, p.current.id); err != nil {
		return err
	}
	if err := p.expectUnnoticed(ctx, after); err != nil {
		return err
	}
	p.ok(
		"the consumer logged in %d times meanwhile: 0 failures, 0 refused at the first try",
		after.logins-before.logins,
	)
	return p.breathe(ctx)
}

// expectUnnoticed wants a consumer that was never refused, not even once before it read again.
func (p *player) expectUnnoticed(ctx context.Context, t tally) error {
	if err := p.expectNoHarm(ctx, p.engines.Secret, t); err != nil {
		return err
	}
	return p.expect(ctx, p.engines.Secret+": logins refused at the first try", "0", fmt.Sprint(len(t.waits)))
}
