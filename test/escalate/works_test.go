package escalate

import (
	"fmt"
	"slices"
	"strings"
)

// work is something that takes several calls and that people do often, with the rights that it
// takes. An attacker is mostly given all of the rights, or all but one; accounts, targets, users
// and secrets are drawn. Lines of other people are what happens around it. {me} is the attacker,
// {own} one of the attacker's secrets, {n} a number; "?" begins a line that is made every other
// time.
type work struct {
	rights []string
	steps  string
}

// onAccounts is how many works, the first ones, make the engine change an account. They are drawn
// more often: they have the most parameters.
const onAccounts = 3

var works = []work{
	{ // a credential is given to a secret, and rotated
		[]string{
			"kms:* on secret/{me}/*",
			"kms:CreateSecret on secret",
			"kms:ConfigureRotation on target/*",
			"kms:RotateAccount on target/*/account/*",
		}, `
		{me} CreateSecret SecretName={own} VersionId=v1 SecretData={"AccountName":"{account}","AccountPassword":"{password}"}
		{me} ConfigureRotation SecretName={own} TargetName={target} {schedule}
		wait 2h
		{me} RepairRotation SecretName={own} RepairAction={repair}
		engine
		? {me} RotateSecret SecretName={own} VersionId=n{n}
		wait 10m
		wait 10m`},
	{ // a pair of accounts, of which one is the attacker's own
		[]string{
			"kms:* on secret/{me}/*",
			"kms:CreateSecret on secret",
			"kms:ConfigureRotation on target/*",
			"kms:RotateAccount on target/*/account/*",
		}, `
		{me} CreateSecret SecretName={own} VersionId=v1 SecretData={"AccountName":"{me}","AccountPassword":"of-{me}"}
		{me} ConfigureRotation SecretName={own} TargetName={pairs} Strategy=double CloneAccountName={account2} {schedule}
		{me} RotateSecret SecretName={own} VersionId=n{n}
		wait 2h`},
	{ // a managed secret and its target, in either order
		[]string{"kms:* on secret/{me}/*", "kms:CreateSecret on secret", "kms:RotateAccount on target/*/account/*"}, `
		? root RegisterTarget TargetName={target} Kind={kind} Config={"address":"op:1"} AdminSecretName=prod/admin
		{me} CreateSecret SecretName={own} VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"{target}"}
		... SecretData={"Accounts":[{"AccountName":"{account}","AccountPassword":"{password}"}]} {schedule}
		root RegisterTarget TargetName={target} Kind={kind} Config={"address":"op:1"} AdminSecretName=prod/admin {accounts}
		? {me} RotateSecret SecretName={own} VersionId=n{n}
		wait 7h
		? {me} RepairRotation SecretName={own} RepairAction={repair}
		engine`},
	{ // a managed secret of a principal who may not rotate the account, whose target comes later
		[]string{"kms:CreateSecret on secret", "kms:* on secret/{me}/*"}, `
		{me} CreateSecret SecretName={own} VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"{target}"}
		... SecretData={"Accounts":[{"AccountName":"{account}","AccountPassword":"{password}"}]} {schedule}
		root RegisterTarget TargetName={target} Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin
		? {me} RotateSecret SecretName={own} VersionId=n{n}
		wait 7h`},
	{ // a user leaves, and one of the same name comes
		[]string{"ram:CreateUser on user/*", "ram:CreateAccessKey on user/*"}, `
		remove {user}
		{me} CreateUser UserName={user}
		{me} CreateAccessKey UserName={user}
		{me}/{user} GetSecretValue SecretName={secret}`},
	{ // a user is renamed, and another one takes the name
		[]string{"ram:CreateUser on user/*", "ram:CreateAccessKey on user/*", "ram:UpdateUser on user/*"}, `
		{me} UpdateUser UserName={user} NewUserName={user}-2
		{me} CreateUser UserName={user}
		{me} CreateAccessKey UserName={user}
		{me}/{user} GetSecretValue SecretName={secret}`},
	{ // accounts are prepared for a secret that may exist, and be closed to the attacker
		[]string{
			"kms:PrepareTargetAccounts on target/cache secret secret/{me}/*",
			"kms:RotateAccount on target/cache/account/*",
		}, `
		? boss CreateSecret SecretName={own} VersionId=v1 SecretData=value-number-{n}-of-the-operator
		? boss SetSecretPolicy SecretName={own} Policy=` + denyAttackers + `
		{me} PrepareTargetAccounts TargetName=cache AccountName={account} CloneAccountName={account2}
		... AccountPassword={password} Apply=true SecretName={own} VersionId=n{n}
		engine`},
	{ // a secret's policy denies what identity policies allow
		[]string{"kms:* on secret/*"}, `
		boss SetSecretPolicy SecretName=prod/plain Policy=` + denyAttackers + `
		{me} {operation} SecretName=prod/plain VersionId=n{n}`},
	{ // the schedule of a secret changes again and again
		[]string{
			"kms:* on secret/{me}/*",
			"kms:CreateSecret on secret",
			"kms:ConfigureRotation on target/*",
			"kms:RotateAccount on target/*/account/*",
		}, `
		{me} CreateSecret SecretName={own} VersionId=v1 SecretData={"AccountName":"{me}","AccountPassword":"of-{me}"}
		{me} ConfigureRotation SecretName={own} TargetName=cache {schedule}
		{me} RotateSecret SecretName={own} VersionId=n{n}
		wait 10m
		{me} EndRotationGrace SecretName={own}
		engine
		{me} ConfigureRotation SecretName={own} TargetName=cache EnableAutomaticRotation=true Cron={soon}
		? {me} UpdateSecretRotationPolicy SecretName={own} EnableAutomaticRotation=true RotationInterval={interval}
		wait 5h`},
	{ // a target with secrets is pointed elsewhere
		[]string{
			"kms:UpdateTarget on target/*",
			"kms:UpdateTarget on secret/prod/*",
			"kms:GetSecretValue on secret/prod/*",
		}, `
		{me} UpdateTarget TargetName={home} Config={"address":"evil:{me}"}
		? root RotateSecret SecretName={attached} VersionId=n{n}
		wait 7h`},
	{ // a target is registered that a secret has named before
		[]string{"kms:RegisterTarget on target", "kms:ProbeRotation on target/*"}, `
		boss CreateSecret SecretName=prod/{n} VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"later"}
		... SecretData={"Accounts":[{"AccountName":"report","AccountPassword":"of-the-report"}]}
		... EnableAutomaticRotation=true RotationInterval=6h
		{me} RegisterTarget TargetName=later Kind=self Config={"address":"evil:{me}"}
		? {me} ProbeRotation TargetName=later
		wait 7h`},
	{ // a target is replaced while a secret of it is about to be deleted, which is then wanted again
		[]string{"kms:RegisterTarget on target", "kms:DeregisterTarget on target/*", "kms:ProbeRotation on target/*"}, `
		? root ConfigureRotation SecretName={attached} EnableAutomaticRotation=true RotationInterval=6h
		boss DeleteSecret SecretName={attached}
		{me} DeregisterTarget TargetName={home}
		? root DeregisterTarget TargetName={home}
		{me} RegisterTarget TargetName={home} Kind=self Config={"address":"evil:{me}"}
		boss RestoreSecret SecretName={attached}
		? {me} ProbeRotation TargetName={home}
		wait 7h`},
	{ // a target moves
		[]string{"kms:*Target on target target/*", "kms:ProbeRotation on target/*"}, `
		? root DeregisterTarget TargetName={target} Detach=true
		{me} DeregisterTarget TargetName={target} {detach}
		{me} RegisterTarget TargetName={target} Kind=self Config={"address":"evil:{me}"}
		{me} ProbeRotation TargetName={target}
		? root RotateSecret SecretName=prod/client VersionId=n{n}
		wait 2h`},
	{ // access keys of a user become a secret
		[]string{
			"kms:* on secret/*",
			"kms:CreateSecret on secret",
			"ram:CreateAccessKey on user/{user}",
			"ram:DeleteAccessKey on user/{user}",
		}, `
		? {me} CreateAccessKey UserName={user}
		{me} CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"{user}"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"{key}","AccessKeySecret":"{secret}"}]} {schedule}
		? remove {user}
		? root CreateUser UserName={user}
		? root CreateAccessKey UserName={user}
		{me} RotateSecret SecretName=acs/ram/user/{user} VersionId=n{n}
		wait 25h`},
}

// stopping is the work of a program with many secrets that stops. It takes no right, and seconds.
var stopping = work{steps: `
	{me} x201 WatchSecrets Consumer=app-1 Leaving=true Secret.N=500
	acknowledge`}

// denyAttackers is a secret's policy that lets everybody in but the attackers.
const denyAttackers = `{"Version":"1","Statement":[` +
	`{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:*"]},"Action":["kms:*"],"Resource":["*"]},` +
	`{"Effect":"Deny","Principal":{"RAM":["acs:ram::ACCOUNT:user/mallory","acs:ram::ACCOUNT:user/eve"]},` +
	`"Action":["kms:*"],"Resource":["*"]}]}`

// draw fills in what a work is about, once for its rights and its steps.
func (g *generator) draw(who string) *strings.Replacer {
	g.noted++
	account := g.account(who)
	account2 := g.account(who)
	password := fmt.Sprintf("guess-%d-of-%s", g.noted, who)
	if account == who {
		password = "of-" + who
	}
	user := pick(g, []string{"alice", "alice", "carol", "app", who, who})
	home := pick(g, []string{"cache", "idp"})
	secret := pick(g, []string{"shared/alice", "shared/alice", "prod/plain", "prod/app"})
	return strings.NewReplacer(
		"{me}", who,
		"{own}", who+"/"+pick(g, []string{"a", "b", "c"}),
		"{n}", fmt.Sprint(g.noted),
		"{account}", account,
		"{account2}", account2,
		"{password}", password,
		"{target}", pick(g, []string{"cache", "store", "store", "idp", "later", "later"}),
		"{user}", user,
		"{home}", home,
		"{pairs}", pick(g, []string{"cache", "store"}),
		"{attached}", map[string]string{"cache": "prod/app", "idp": "prod/client"}[home],
		"{kind}", pick(g, []string{"admin", "plain"}),
		"{accounts}", pick(g, []string{"", "Account.1=*"}),
		"{soon}", strings.ReplaceAll(g.soon(), " ", "%20"),
		"{interval}", pick(g, []string{"6h", "1s"}),
		"{key}", fmt.Sprintf("{key:%s:%d}", user, g.random.IntN(2)),
		"SecretName={secret}", "SecretName="+secret,
		"{repair}", pick(g, []string{"apply", "apply", "retry"}),
		"{detach}", pick(g, []string{"", "Detach=true"}),
		"{operation}", pick(g, []string{
			"GetSecretValue", "DescribeSecret", "DeleteSecret", "ListSecretVersionIds", "DescribeRotation",
		}),
		"{schedule}", pick(g, []string{
			"", "", "EnableAutomaticRotation=true RotationInterval=6h", "EnableAutomaticRotation=true Cron=@every%201m",
			"EnableAutomaticRotation=true Cron=*%20*%20*%20*%20*",
		}),
	)
}

// begin gives an attacker the rights of a work, or all but one, and plans its steps.
func (g *generator) begin(who string, w work) (rights []string) {
	words := g.draw(who)
	rights = slices.Clone(w.rights)
	if len(rights) > 1 && g.chance(0.3) {
		at := g.random.IntN(len(rights))
		rights = slices.Delete(rights, at, at+1)
	}
	for i := range rights {
		rights[i] = words.Replace(rights[i])
	}
	for _, line := range stepLines(w.steps) {
		line, optional := strings.CutPrefix(strings.TrimSpace(line), "? ")
		if g.chance(0.03) || optional && g.chance(0.5) {
			continue
		}
		g.planned = append(g.planned, mustSteps(words.Replace(line))...)
	}
	return rights
}
