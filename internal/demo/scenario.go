package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	appSecret      = "demo/app"
	accountSecret  = "demo/account"
	pendingLabel   = "MyPendingLabel"
	passwordLength = 32
)

// labels are the versions that the labels of a secret mark; "" means none.
type labels struct{ current, previous, pending string }

func (l labels) String() string {
	none := func(id string) string {
		if id == "" {
			return "none"
		}
		return id
	}
	return fmt.Sprintf(
		"%s %s, %s %s, %s %s", kms.StageCurrent, none(l.current), kms.StagePrevious, none(l.previous), pendingLabel,
		none(l.pending),
	)
}

// create stores the first version of a secret.
func (p *player) create(ctx context.Context, secret string, v version) error {
	_, err := p.producer.CreateSecret(
		ctx, &kms.CreateSecretRequest{SecretName: secret, VersionID: v.id, SecretData: v.data},
	)
	p.stored[secret] = map[string]sensitive.Value{v.id: v.data}
	if err := p.succeeded(ctx, "CreateSecret", err); err != nil {
		return err
	}
	return p.expectLabels(ctx, secret, labels{current: v.id})
}

// generate makes a credential for the target with a password by the server.
func (p *player) generate(ctx context.Context, id string) (version, error) {
	out, err := p.producer.GetRandomPassword(
		ctx, &kms.GetRandomPasswordRequest{PasswordLength: passwordLength, ExcludePunctuation: true},
	)
	if err := p.succeeded(ctx, "GetRandomPassword", err); err != nil {
		return version{}, err
	}
	p.made(out.RandomPassword)
	length := fmt.Sprint(out.RandomPassword.Len())
	if err := p.expect(ctx, "length of the password", fmt.Sprint(passwordLength), length); err != nil {
		return version{}, err
	}
	data, err := p.account.NewCredential(out.RandomPassword)
	p.made(data)
	return version{id, data}, p.succeeded(ctx, "make a credential with the password", err)
}

// breathe is the pause after a step, for people.
func (p *player) breathe(ctx context.Context) error {
	pause(ctx, p.options.Pace)
	return ctx.Err()
}

// put stores a version under these labels, or as the current one when there are none.
func (p *player) put(ctx context.Context, secret string, v version, stages ...string) error {
	p.stored[secret][v.id] = v.data
	_, err := p.producer.PutSecretValue(ctx, &kms.PutSecretValueRequest{
		SecretName:    secret,
		VersionID:     v.id,
		SecretData:    v.data,
		VersionStages: stages,
	})
	return p.succeeded(ctx, "PutSecretValue", err)
}

// expectLabels reads what each label marks, as anybody would, and wants the very value that was
// stored.
func (p *player) expectLabels(ctx context.Context, secret string, want labels) error {
	var got labels
	for stage, id := range map[string]*string{
		kms.StageCurrent: &got.current, kms.StagePrevious: &got.previous, pendingLabel: &got.pending,
	} {
		v, err := read(ctx, p.producer, secret, stage)
		if errors.Is(err, kms.ErrResourceNotFound) {
			continue
		}
		if err := p.succeeded(ctx, "read "+stage, err); err != nil {
			return err
		}
		if *id = v.id; !v.data.Equal(p.stored[secret][v.id]) {
			return p.failed("value of "+stage, "what was stored as "+v.id, "another value")
		}
	}
	return p.expect(ctx, "labels of "+secret, want.String(), got.String())
}

// expectUse waits until a consumer uses a version.
func (p *player) expectUse(ctx context.Context, c *consumer, id string) error {
	return p.expect(ctx, "consumer of "+c.secret, settled(id), c.await(ctx, id, steadyLogins))
}

// The answers to a login.
const (
	accepted = "accepted"
	refused  = "refused by the target"
)

func (p *player) expectLogin(
	ctx context.Context, login func(context.Context, sensitive.Value) error, v version, want string,
) error {
	got := accepted
	if err := login(ctx, v.data); errors.Is(err, ErrRejected) {
		got = refused
	} else if err != nil {
		got = err.Error()
	}
	return p.expect(ctx, "login with "+v.id, want, got)
}
