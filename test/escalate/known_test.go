package escalate

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/protocol"
)

// known are sequences that once ended in a violation, in the shortest form that the search found,
// with the rights of the attacker widened as far as the last call must still be refused. A call
// that begins with "!" must be refused, every other one succeeds. A flood of notes of consumers,
// which takes seconds, is in TestLeavingNeedsARight of internal/api.
var known = []struct{ name, steps string }{
	{"a credential of the service's users needs rights on the user", `
		allow mallory kms:CreateSecret on secret
		! mallory CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"boss"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"none","AccessKeySecret":"none"}]} EnableAutomaticRotation=true
		... RotationInterval=6h
		wait 7h`},
	{"a key of another user does not become the attacker's to remove", `
		allow mallory system AliyunKMSSecretAdminAccess
		! mallory CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"boss"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"{key:boss:0}","AccessKeySecret":"{secret}"}]}
		! mallory RotateSecret SecretName=acs/ram/user/boss VersionId=v2
		engine`},
	{"a right to rotate secrets is no right on the users behind them", `
		root CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"boss"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"{key:boss:0}","AccessKeySecret":"{secret}"}]}
		allow eve kms:RotateSecret,kms:EmergencyRotation,kms:RehearseRotation,kms:GetSecretValue on secret/acs/ram/user/*
		! eve RotateSecret SecretName=acs/ram/user/boss VersionId=v2
		! eve EmergencyRotation SecretName=acs/ram/user/boss VersionId=v3
		! eve RehearseRotation SecretName=acs/ram/user/boss VersionId=v4
		engine`},
	{"a policy in CreateSecret needs kms:SetSecretPolicy", `
		allow eve kms:CreateSecret on secret
		! eve CreateSecret SecretName=eve/a VersionId=v1 SecretData=guess-1-of-eve
		... Policy={"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:user/eve"]},"Action":["kms:*"],"Resource":["*"]}]}`},
	{"a target with secrets is not pointed elsewhere", `
		allow mallory kms:*Target on target target/*
		! mallory UpdateTarget TargetName=idp Config={"address":"evil:mallory"}
		wait 1h`},
	{"a target with secrets is not registered anew", `
		allow mallory kms:*Target on target target/*
		allow mallory kms:ProbeRotation on target/*
		! mallory DeregisterTarget TargetName=idp
		! mallory DeregisterTarget TargetName=idp Detach=true
		! mallory RegisterTarget TargetName=idp Kind=self Config={"address":"evil:mallory"}
		mallory ProbeRotation TargetName=idp
		engine`},
	{"a target under the name of an earlier one gets nothing of it", `
		allow mallory kms:*Target on target target/*
		allow mallory kms:ProbeRotation on target/*
		root DeregisterTarget TargetName=idp Detach=true
		mallory RegisterTarget TargetName=idp Kind=self Config={"address":"evil:mallory"}
		mallory ProbeRotation TargetName=idp
		wait 2h`},
	{"a secret that is restored gets no target that was registered meanwhile", `
		allow mallory kms:RegisterTarget on target
		allow mallory kms:ProbeRotation on target/*
		root DeleteSecret SecretName=prod/app
		root DeregisterTarget TargetName=cache
		mallory RegisterTarget TargetName=cache Kind=self Config={"address":"evil:mallory"}
		root RestoreSecret SecretName=prod/app
		mallory ProbeRotation TargetName=cache
		wait 7h`},
	{"a target is not pointed elsewhere while a secret of it waits for its deletion", `
		allow mallory kms:UpdateTarget on target/cache secret/*
		allow mallory kms:GetSecretValue on secret/prod/admin
		allow mallory kms:DeleteSecret,kms:RestoreSecret on secret/prod/app
		mallory DeleteSecret SecretName=prod/app
		! mallory UpdateTarget TargetName=cache Config={"address":"evil:mallory"}
		mallory RestoreSecret SecretName=prod/app
		wait 7h`},
	{"a target gets nothing of a secret that named it before", `
		allow mallory kms:RegisterTarget on target
		allow mallory kms:ProbeRotation on target/*
		root CreateSecret SecretName=prod/early VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"later"}
		... SecretData={"Accounts":[{"AccountName":"report","AccountPassword":"of-the-report"}]}
		... EnableAutomaticRotation=true RotationInterval=6h
		mallory RegisterTarget TargetName=later Kind=self Config={"address":"evil:mallory"}
		mallory ProbeRotation TargetName=later
		wait 7h`},
	{"a secret made before its target has no right there", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		! mallory CreateSecret SecretName=mallory/a VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"later"}
		... SecretData={"Accounts":[{"AccountName":"default","AccountPassword":"guess-1-of-mallory"}]}
		root RegisterTarget TargetName=later Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin
		! mallory RotateSecret SecretName=mallory/a VersionId=v2
		engine`},
	{"a superuser is rotated only where the target's account policy names it", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:RotateAccount on target/*/account/*
		mallory CreateSecret SecretName=mallory/a VersionId=v1 SecretType=Rds
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"later"}
		... SecretData={"Accounts":[{"AccountName":"default","AccountPassword":"guess-1-of-mallory"}]}
		root RegisterTarget TargetName=later Kind=admin Config={"address":"op:1"} AdminSecretName=prod/admin Account.1=*
		mallory RotateSecret SecretName=mallory/a VersionId=v2
		wait 2h`},
	{"a right to configure rotations is no right on any account", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:ConfigureRotation on target/cache
		mallory CreateSecret SecretName=mallory/a VersionId=v1
		... SecretData={"AccountName":"report","AccountPassword":"guess-1-of-mallory"}
		! mallory ConfigureRotation SecretName=mallory/a TargetName=cache`},
	{"the administrator's account is nobody's to rotate", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:ConfigureRotation on target/cache
		allow mallory kms:RotateAccount on target/*/account/*
		mallory CreateSecret SecretName=mallory/a VersionId=v1
		... SecretData={"AccountName":"keyturn","AccountPassword":"guess-1-of-mallory"}
		! mallory ConfigureRotation SecretName=mallory/a TargetName=cache
		wait 2h
		! mallory RepairRotation SecretName=mallory/a RepairAction=apply
		engine`},
	{"the administrator's account is nobody's to rotate, however it is spelled", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:ConfigureRotation on target/*
		allow mallory kms:RotateAccount on target/*/account/*
		mallory CreateSecret SecretName=mallory/a VersionId=v1
		... SecretData={"AccountName":"mallory","AccountPassword":"of-mallory"}
		! mallory ConfigureRotation SecretName=mallory/a TargetName=store Strategy=double CloneAccountName=KEYTURN
		! mallory ConfigureRotation SecretName=mallory/a TargetName=store Strategy=double CloneAccountName='keyturn'
		! mallory ConfigureRotation SecretName=mallory/a TargetName=store Strategy=double CloneAccountName=keyturn@%
		! mallory ConfigureRotation SecretName=mallory/a TargetName=cache Strategy=double CloneAccountName=cn=keyturn
		wait 2h`},
	{"an access key that the caller does not hold becomes no secret", `
		allow mallory kms:* on secret/acs/ram/user/*
		allow mallory kms:CreateSecret on secret
		allow mallory ram:CreateAccessKey,ram:DeleteAccessKey on user/app
		! mallory CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"app"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"{key:app:0}","AccessKeySecret":"{secret}"}]}
		mallory CreateAccessKey UserName=app
		mallory CreateSecret SecretName=$Auto VersionId=v1 SecretType=RAMCredentials
		... ExtendedConfig={"SecretSubType":"RamUserAccessKey","UserName":"app"}
		... SecretData={"AccessKeys":[{"AccessKeyId":"{key:app:1}","AccessKeySecret":"{secret}"}]}`},
	{"a repair does not send a credential that the target never accepted", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:ConfigureRotation on target/cache
		allow mallory kms:RotateAccount on target/cache/account/report
		mallory CreateSecret SecretName=mallory/a VersionId=v1
		... SecretData={"AccountName":"report","AccountPassword":"guess-1-of-mallory"}
		mallory ConfigureRotation SecretName=mallory/a TargetName=cache
		wait 2h
		! mallory RepairRotation SecretName=mallory/a RepairAction=apply
		engine`},
	{"a rehearsal does not go back to a credential that the target never accepted", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:RotateAccount on target/*/account/*
		mallory CreateSecret SecretName=mallory/b SecretType=Rds VersionId=v1
		... SecretData={"Accounts":[{"AccountName":"report","AccountPassword":"guess-1-of-mallory"}]}
		... ExtendedConfig={"SecretSubType":"SingleUser","DBInstanceId":"cache"}
		mallory RehearseRotation SecretName=mallory/b VersionId=v2
		engine
		engine`},
	{"a schedule is no faster than the least interval", `
		allow mallory kms:* on secret/mallory/*
		allow mallory kms:CreateSecret on secret
		allow mallory kms:ConfigureRotation on target/cache
		allow mallory kms:RotateAccount on target/cache/account/mallory
		mallory CreateSecret SecretName=mallory/a VersionId=v1
		... SecretData={"AccountName":"mallory","AccountPassword":"of-mallory"}
		! mallory ConfigureRotation SecretName=mallory/a TargetName=cache EnableAutomaticRotation=true Cron=@every%201m
		! mallory ConfigureRotation SecretName=mallory/a TargetName=cache EnableAutomaticRotation=true Cron=*%20*%20*%20*%20*
		wait 10m
		wait 10m
		wait 10m`},
	{"a grant is of the user and not of the name", `
		allow mallory ram:CreateUser,ram:CreateAccessKey on user/*
		remove alice
		mallory CreateUser UserName=alice
		mallory CreateAccessKey UserName=alice
		! mallory/alice GetSecretValue SecretName=shared/alice`},
	{"a Deny reaches the preparation of accounts", `
		allow mallory kms:PrepareTargetAccounts on target/cache secret secret/mallory/*
		allow mallory kms:RotateAccount on target/cache/account/*
		root CreateSecret SecretName=mallory/a VersionId=v1 SecretData=plain-value-of-the-operator
		root SetSecretPolicy SecretName=mallory/a
		... Policy={"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::ACCOUNT:*"]},"Action":["kms:*"],"Resource":["*"]},{"Effect":"Deny","Principal":{"RAM":["acs:ram::ACCOUNT:user/mallory"]},"Action":["kms:*"],"Resource":["*"]}]}
		! mallory PrepareTargetAccounts TargetName=cache AccountName=mallory CloneAccountName=mallory-2
		... AccountPassword=of-mallory Apply=true SecretName=mallory/a VersionId=v2`},
	{"the preparation of accounts needs a right on both", `
		allow mallory kms:PrepareTargetAccounts on target/cache secret
		allow mallory kms:RotateAccount on target/cache/account/mallory
		! mallory PrepareTargetAccounts TargetName=cache AccountName=mallory CloneAccountName=report
		... AccountPassword=of-mallory Apply=true SecretName=mallory/a VersionId=v1
		allow mallory kms:RotateAccount on target/cache/account/*
		! mallory PrepareTargetAccounts TargetName=cache AccountName=mallory CloneAccountName=default
		... AccountPassword=of-mallory Apply=true SecretName=mallory/a VersionId=v1
		! mallory PrepareTargetAccounts TargetName=cache AccountName=mallory CloneAccountName=keyturn
		... AccountPassword=of-mallory Apply=true SecretName=mallory/a VersionId=v1`},
}

// TestKnownSequences verifies that what the search once found stays refused.
func TestKnownSequences(t *testing.T) {
	g, err := newGround(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	for _, k := range known {
		t.Run(k.name, func(t *testing.T) {
			w := g.world(t.Context())
			for _, line := range stepLines(k.steps) {
				line, refused := strings.CutPrefix(strings.TrimSpace(line), "! ")
				err := w.run(mustSteps(line)[0])
				if w.trouble != nil {
					t.Fatal(w.trouble)
				}
				if w.found != nil {
					t.Fatalf("%s: %s: %s", line, w.found.kind, w.found.text)
				}
				if (err != nil) != refused {
					t.Fatalf("%s: %v; want it refused: %t", line, err, refused)
				}
			}
			if err := w.end(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// open are the operations that any caller may use.
var open = []string{"WatchSecrets", "DescribeRegions", "GetCallerIdentity"}

// TestModelKnowsEveryOperation verifies that the reference model says of every operation what it
// needs, by the parameters that the operation has.
func TestModelKnowsEveryOperation(t *testing.T) {
	t.Parallel()
	m := newModel("1234567890123456")
	for _, o := range protocol.Operations() {
		s := step{verb: "call", who: "mallory", op: o.Name}
		for _, p := range o.Params() {
			if slices.Contains([]string{"SecretName", "TargetName", "UserName", "GroupName", "PolicyName"}, p.Name) {
				s.params = append(s.params, param{p.Name, "x"})
			}
		}
		list := m.needs(s, service(o.Name), nil)
		if len(list) == 0 != slices.Contains(open, o.Name) ||
			slices.ContainsFunc(list, func(n need) bool { return n.resource == unknown }) {
			t.Errorf("%s: the model needs %v", o.Name, list)
		}
		if service(o.Name) == "kms" &&
			o.Action != "" &&
			!slices.ContainsFunc(list, func(n need) bool { return n.action == o.Action }) {
			t.Errorf("%s: the model needs %v, and not %s", o.Name, list, o.Action)
		}
	}
}
