package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// byProducer is the scenario for a value that is not live before its target has been told, at a
// target that the engine does not know: a producer makes the calls.
func (p *player) byProducer(ctx context.Context) error {
	p.section(
		"3  BY A PRODUCER", accountSecret+": a program of yours tells the target, in several calls; v1 becomes v2",
	)
	p.note(
		"read back after each call: aliyun kms GetSecretValue --SecretName " + accountSecret + " --VersionStage LABEL",
	)
	if err := p.createAccount(ctx); err != nil {
		return err
	}
	v, err := p.newCredential(ctx, "3.2", "v2")
	if err != nil {
		return err
	}
	if err := p.storePending(ctx, "3.3", v); err != nil {
		return err
	}
	// Between these two the version that is current is refused: no pause for people here.
	began, err := p.register(ctx, "3.4", v)
	if err != nil {
		return err
	}
	if err := p.promote(ctx, "3.5", v, began); err != nil {
		return err
	}
	return p.clearPending(ctx, "3.6", v)
}

// createAccount stores what the target accepts before the rotation, and lets the consumer of it
// start.
func (p *player) createAccount(ctx context.Context) error {
	p.begin(
		"3.1", "create "+accountSecret,
		"aliyun kms CreateSecret --SecretName "+accountSecret+` --VersionId v1 --SecretData "$CREDENTIAL_1"`,
	)
	v, err := p.generate(ctx, "v1")
	if err != nil {
		return err
	}
	if err := p.create(ctx, accountSecret, v); err != nil {
		return err
	}
	if err := p.succeeded(ctx, "register v1", p.account.Register(ctx, v.data)); err != nil {
		return err
	}
	if err := p.expectLogin(ctx, p.account.Login, v, accepted); err != nil {
		return err
	}
	p.live, p.labels = v, labels{current: "v1"}
	p.login.login = p.account.Login
	p.startConsumer(ctx, p.login)
	if err := p.expectUse(ctx, p.login, "v1"); err != nil {
		return err
	}
	p.ok("v1 is ACSCurrent, the target lets it in, and the consumer logs in with v1")
	return p.breathe(ctx)
}

func (p *player) newCredential(ctx context.Context, number, id string) (version, error) {
	p.begin(
		number, "generate "+id,
		fmt.Sprintf("aliyun kms GetRandomPassword --PasswordLength %d --ExcludePunctuation true", passwordLength),
	)
	v, err := p.generate(ctx, id)
	if err != nil {
		return v, err
	}
	p.ok("%d characters; the secret data made with them is $NEW_CREDENTIAL", passwordLength)
	return v, p.breathe(ctx)
}

// storePending makes the new version durable before the target hears of it.
func (p *player) storePending(ctx context.Context, number string, v version) error {
	p.begin(
		number, "store "+v.id+" as pending",
		"aliyun kms PutSecretValue --SecretName "+accountSecret+" --VersionId "+v.id+` \`,
		`--SecretData "$NEW_CREDENTIAL" --VersionStages '["`+pendingLabel+`"]'`,
	)
	if err := p.put(ctx, accountSecret, v, pendingLabel); err != nil {
		return err
	}
	p.labels.pending = v.id
	if err := p.expectLabels(ctx, accountSecret, p.labels); err != nil {
		return err
	}
	p.ok("%v", p.labels)
	return p.breathe(ctx)
}

// register tells the target, and returns when that began.
func (p *player) register(ctx context.Context, number string, v version) (began time.Time, err error) {
	p.begin(number, "register "+v.id+" in the target", "in the target: "+p.account.Registration())
	began = time.Now()
	if err := p.succeeded(ctx, "register "+v.id, p.account.Register(ctx, v.data)); err != nil {
		return began, err
	}
	if err := p.expectLogin(ctx, p.account.Login, v, accepted); err != nil {
		return began, err
	}
	if err := p.expectLogin(ctx, p.account.Login, p.live, refused); err != nil {
		return began, err
	}
	p.ok("a login with %s works, one with %s is refused", v.id, p.live.id)
	p.live = v
	return began, nil
}

// promote moves ACSCurrent to the version that the target accepts.
func (p *player) promote(ctx context.Context, number string, v version, began time.Time) error {
	p.begin(number, "make "+v.id+" current", "aliyun kms UpdateSecretVersionStage --SecretName "+accountSecret+` \`,
		"--VersionStage "+kms.StageCurrent+" --MoveToVersion "+v.id)
	_, err := p.producer.UpdateSecretVersionStage(ctx, &kms.UpdateSecretVersionStageRequest{
		SecretName: accountSecret, VersionStage: kms.StageCurrent, MoveToVersion: v.id,
	})
	p.window = time.Since(began)
	if err := p.succeeded(ctx, "UpdateSecretVersionStage", err); err != nil {
		return err
	}
	p.labels.previous, p.labels.current = p.labels.current, v.id
	if err := p.expectLabels(ctx, accountSecret, p.labels); err != nil {
		return err
	}
	if err := p.expectUse(ctx, p.login, v.id); err != nil {
		return err
	}
	p.ok(
		"%s %s, %s %s; the consumer logs in with %s", kms.StageCurrent, v.id, kms.StagePrevious, p.labels.previous,
		v.id,
	)
	return p.breathe(ctx)
}

func (p *player) clearPending(ctx context.Context, number string, v version) error {
	p.begin(number, "remove "+pendingLabel, "aliyun kms UpdateSecretVersionStage --SecretName "+accountSecret+` \`,
		"--VersionStage "+pendingLabel+" --RemoveFromVersion "+v.id)
	_, err := p.producer.UpdateSecretVersionStage(ctx, &kms.UpdateSecretVersionStageRequest{
		SecretName: accountSecret, VersionStage: pendingLabel, RemoveFromVersion: v.id,
	})
	if err := p.succeeded(ctx, "UpdateSecretVersionStage", err); err != nil {
		return err
	}
	p.labels.pending = ""
	if err := p.expectLabels(ctx, accountSecret, p.labels); err != nil {
		return err
	}
	p.ok("%v", p.labels)
	return p.breathe(ctx)
}
