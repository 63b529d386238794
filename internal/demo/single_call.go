package demo

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// firstVersion stores the app secret that is live, and lets the consumer of it start.
func (p *player) firstVersion(ctx context.Context) error {
	p.section("1  ONE CALL", appSecret+": a new app secret is live at its provider at once, beside the old one")
	p.begin(
		"1.1", "create "+appSecret,
		"aliyun kms CreateSecret --SecretName "+appSecret+` --VersionId v1 --SecretData "$APP_SECRET_1"`,
	)
	data, err := p.provider.Issue()
	p.made(data)
	if err := p.succeeded(ctx, "issue an app secret", err); err != nil {
		return err
	}
	if err := p.create(ctx, appSecret, version{"v1", data}); err != nil {
		return err
	}
	if err := p.expectLogin(ctx, p.provider.Login, version{"v1", data}, accepted); err != nil {
		return err
	}
	p.began = time.Now()
	p.app.login = p.provider.Login
	p.startConsumer(ctx, p.app)
	if err := p.expectUse(ctx, p.app, "v1"); err != nil {
		return err
	}
	p.ok("v1 is ACSCurrent, the provider gives a token for it, and the consumer gets one")
	return p.breathe(ctx)
}

// singleCall is the scenario for a value that is live at its provider before it is stored.
func (p *player) singleCall(ctx context.Context) error {
	data, err := p.issueSecond(ctx)
	if err != nil {
		return err
	}
	p.begin(
		"1.3", "store v2 of "+appSecret,
		"aliyun kms PutSecretValue --SecretName "+appSecret+` --VersionId v2 --SecretData "$APP_SECRET_2"`,
	)
	if err := p.put(ctx, appSecret, version{"v2", data}); err != nil {
		return err
	}
	if err := p.expectLabels(ctx, appSecret, labels{current: "v2", previous: "v1"}); err != nil {
		return err
	}
	for _, stage := range []string{kms.StageCurrent, kms.StagePrevious} {
		v, err := read(ctx, p.producer, appSecret, stage)
		if err := p.succeeded(ctx, "read "+stage, err); err != nil {
			return err
		}
		if err := p.expectLogin(ctx, p.provider.Login, v, accepted); err != nil {
			return err
		}
	}
	p.ok("ACSCurrent v2, ACSPrevious v1, and a token is given for either")
	if err := p.breathe(ctx); err != nil {
		return err
	}
	if err := p.listVersions(ctx); err != nil {
		return err
	}
	return p.breathe(ctx)
}

// issueSecond has the provider make another app secret; both must work.
func (p *player) issueSecond(ctx context.Context) (sensitive.Value, error) {
	p.begin("1.2", "issue an app secret", "the provider issues $APP_SECRET_2")
	data, err := p.provider.Issue()
	p.made(data)
	if err := p.succeeded(ctx, "issue an app secret", err); err != nil {
		return data, err
	}
	for _, v := range []version{{"v1", p.stored[appSecret]["v1"]}, {"v2", data}} {
		if err := p.expectLogin(ctx, p.provider.Login, v, accepted); err != nil {
			return data, err
		}
	}
	p.ok("a token is given for the old app secret and for the new one")
	return data, p.breathe(ctx)
}

// listVersions checks the labels once more, by the list.
func (p *player) listVersions(ctx context.Context) error {
	p.begin("1.4", "list the versions of "+appSecret, "aliyun kms ListSecretVersionIds --SecretName "+appSecret)
	out, err := p.producer.ListSecretVersionIds(ctx, &kms.ListSecretVersionIdsRequest{SecretName: appSecret})
	if err := p.succeeded(ctx, "ListSecretVersionIds", err); err != nil {
		return err
	}
	var found []string
	for _, v := range out.VersionIDs {
		found = append(found, v.VersionID+" "+strings.Join(v.VersionStages, "+"))
	}
	slices.Sort(found)
	list := strings.Join(found, ", ")
	if err := p.expect(ctx, "versions", "v1 ACSPrevious, v2 ACSCurrent", list); err != nil {
		return err
	}
	if err := p.expectUse(ctx, p.app, "v2"); err != nil {
		return err
	}
	p.ok("%s; the consumer logs in with v2", list)
	return nil
}
