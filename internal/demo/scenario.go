package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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

// results stops the consumers and tells what they saw.
func (p *player) results(ctx context.Context) error {
	p.step = "results"
	p.stopConsumers()
	app, managed, login := p.app.counts(), p.managed.counts(), p.login.counts()
	p.section("RESULT", fmt.Sprintf("what the consumer saw in %s", seconds(p.began)))
	rows := [][]string{
		{"", appSecret, p.engines.Secret, accountSecret},
		{"rotations", "1", fmt.Sprint(p.rotations), "1"},
	}
	for _, row := range []struct {
		name string
		of   func(tally) string
	}{
		{"reads", func(t tally) string { return fmt.Sprint(t.reads) }},
		{"failed reads", func(t tally) string { return fmt.Sprint(t.failedReads) }},
		{"logins", func(t tally) string { return fmt.Sprint(t.logins) }},
		{"refused at the first try, then in", func(t tally) string { return fmt.Sprint(len(t.waits)) }},
		{"  after at most", func(t tally) string { return longest(t.waits) }},
		{"failures (no login possible)", func(t tally) string { return fmt.Sprint(t.failures) }},
	} {
		rows = append(rows, []string{row.name, row.of(app), row.of(managed), row.of(login)})
	}
	p.table(rows)
	p.tellWindow()
	for _, c := range []struct {
		secret string
		tally  tally
	}{{appSecret, app}, {accountSecret, login}} {
		if err := p.expectNoHarm(ctx, c.secret, c.tally); err != nil {
			return err
		}
	}
	refusals := fmt.Sprint(len(app.waits))
	if err := p.expect(ctx, appSecret+": logins refused, though app secrets overlap", "0", refusals); err != nil {
		return err
	}
	if err := p.expectUnnoticed(ctx, managed); err != nil {
		return err
	}
	p.printf("  held: every step checked, no read failed, the consumer always got in\n")
	return p.verifyTrail(ctx, app.reads+managed.reads+login.reads)
}

// longest is "-" where there was no wait.
func longest(waits []time.Duration) string {
	if len(waits) == 0 {
		return "-"
	}
	return milliseconds(slices.Max(waits))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// tellWindow says what a producer with one account cannot spare its consumers.
func (p *player) tellWindow() {
	p.printf(
		"\n  A producer that changes one account has a window (here %s), from its registration to the\n",
		milliseconds(p.window),
	)
	p.printf("  move of ACSCurrent, in which ACSCurrent is refused; the consumer then reads once more.\n")
	p.printf("  With two accounts in turn, or credentials that overlap, as in %s, there is none.\n\n", p.engines.Secret)
}

func (p *player) expectNoHarm(ctx context.Context, secret string, t tally) error {
	const want = "0 failed reads, 0 failures"
	got := fmt.Sprintf("%d failed reads, %d failures", t.failedReads, t.failures)
	if t.trouble != nil {
		got += ", the first: " + t.trouble.Error()
	}
	return p.expect(ctx, "consumer of "+secret, want, got)
}
