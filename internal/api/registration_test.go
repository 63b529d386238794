package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// holder makes a user who has exactly these rights, each as "action on resource resource".
func (w *world) holder(t *testing.T, name string, rights ...string) policy.Principal {
	t.Helper()
	p := policy.Principal{Kind: policy.KindRAMUser, Account: account, Name: name, ID: "id-of-" + name}
	w.user(t, p)
	var statements []string
	for _, right := range rights {
		action, resources, _ := strings.Cut(right, " on ")
		for resource := range strings.FieldsSeq(resources) {
			statements = append(statements, allow(action, "acs:kms:*:*:"+resource))
		}
	}
	w.must(t, "CreatePolicy", "PolicyName", name, "PolicyDocument", document(statements...))
	w.must(t, "AttachPolicyToUser", "UserName", name, "PolicyName", name, "PolicyType", ram.TypeCustom)
	return p
}

// answers makes a call and expects the code of its refusal, empty for none, and a text in it.
func (w *world) answers(t *testing.T, p policy.Principal, code, text, action string, params ...string) {
	t.Helper()
	out, err := w.call(t, p, action, params...)
	if err == nil && code == "" {
		return
	}
	got := protocol.CodeFor(err)
	if err == nil || got.Code != code || !strings.Contains(got.Message, text) {
		t.Errorf("%s %q by %s: %v, %s %s; want %s %s", action, params, p.Name, out, got.Code, got.Message, code, text)
	}
}

// TestDeletionWindowKeepsTheAddress verifies that a secret which waits for its deletion is sent
// nowhere else after it was restored: a target is pointed elsewhere only by who may read it.
func TestDeletionWindowKeepsTheAddress(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "crt", "SecretData", "a certificate", "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "LoginCertificateSecret", "crt")
	elsewhere := []string{"TargetName", "pg", "Config", `{"address":"evil.example.test"}`}
	operate := []string{"kms:UpdateTarget on target/pg secret/*", "kms:DeleteSecret on secret/*",
		"kms:RestoreSecret on secret/*"}
	all := []string{"pg-admin", "db", "double", "gen", "crt"}
	for _, victim := range all[1:] {
		rights := operate
		for _, name := range all {
			if name != victim {
				rights = append(rights, "kms:GetSecretValue on secret/"+name)
			}
		}
		eve := w.holder(t, "reads-all-but-"+victim, rights...)
		attached := victim
		if victim == "crt" {
			attached = "gen"
		}
		w.answers(t, eve, "", "", "DeleteSecret", "SecretName", attached)
		w.answers(t, eve, kms.CodeNoPermission, "", "UpdateTarget", elsewhere...)
		w.answers(t, eve, "", "", "RestoreSecret", "SecretName", attached)
	}
	w.must(t, "DeleteSecret", "SecretName", "db", "RecoveryWindowInDays", "7")
	reader := w.holder(t, "reads-all", append(operate, "kms:GetSecretValue on secret/*")...)
	w.answers(t, reader, "", "", "UpdateTarget", elsewhere...)
}

// replaced registers a target anew under its name, as a caller does who may register targets.
func (w *world) replaced(t *testing.T) {
	t.Helper()
	w.must(t, "DeregisterTarget", "TargetName", "pg", "Detach", "true")
	w.must(t, "RegisterTarget", "TargetName", "pg", "Kind", "memory", "Config", `{"address":"evil.example.test"}`,
		"AdminSecretName", "pg-admin")
}

// once runs a change between the judgement of the next call of an operation and its transaction.
func (w *world) once(operation string, change func()) {
	w.trail.between = func(r audit.Record) {
		if r.Operation == operation && r.Phase == audit.Intent {
			w.trail.between = nil
			change()
		}
	}
}

// sent reports whether the engine sends the value of a secret to the target of its name.
func (w *world) sent(t *testing.T, name string) bool {
	t.Helper()
	now, ok, err := store.Snapshot(t.Context(), w.env.DB).Target(account, "pg")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return w.stored(t, name).BoundTo(now.ID)
}

// TestTargetReplacedDuringACall verifies that a call which was judged for one registration of a
// target binds no secret to another, whose address another caller has chosen: the caller may not
// read the value, and did not need to.
func TestTargetReplacedDuringACall(t *testing.T) {
	t.Parallel()
	const changed = `The target "pg" has changed meanwhile; repeat the call.`
	pointed := func(w *world, t *testing.T) {
		w.must(t, "UpdateTarget", "TargetName", "pg", "Config", `{"address":"evil.example.test"}`)
	}
	for _, tt := range []struct {
		action string
		params []string
		state  rotation.State
	}{
		{action: "ConfigureRotation", params: []string{"GracePeriod", "1h"}},
		{action: "RotateSecret", params: []string{"VersionId", "v9"}},
		{action: "RehearseRotation", params: []string{"VersionId", "v9"}},
		{action: "EmergencyRotation", params: []string{"VersionId", "v9"}},
		{action: "UpdateSecretRotationPolicy", params: []string{"EnableAutomaticRotation", "true", "RotationInterval", "7d"}},
		{action: "RepairRotation", params: []string{"RepairAction", "probe"}, state: rotation.Quarantined},
		{action: "UndoRotation", state: rotation.InGrace},
		{action: "EndRotationGrace", state: rotation.InGrace},
	} {
		t.Run(tt.action, func(t *testing.T) {
			t.Parallel()
			for what, change := range map[string]func(*world, *testing.T){
				"registered anew": (*world).replaced, "pointed elsewhere": pointed,
			} {
				if tt.state == rotation.InGrace && what == "registered anew" {
					continue // the rotation keeps the target from being detached
				}
				w, _ := rotating(t)
				carol := w.holder(t, "carol", "kms:"+tt.action+" on secret/db target/pg",
					"kms:RotateAccount on target/pg/account/*")
				if tt.state != "" {
					w.inState(t, "db", tt.state)
				}
				w.once(tt.action, func() { change(w, t) })
				params := append([]string{"SecretName", "db"}, tt.params...)
				w.answers(t, carol, kms.CodeResourceInUse, changed, tt.action, params...)
				if what == "registered anew" && tt.state == "" && w.sent(t, "db") {
					t.Error("the secret is bound to the other registration")
				}
			}
		})
	}
	t.Run("while the target is asked", func(t *testing.T) {
		t.Parallel()
		w, m := rotating(t)
		carol := w.holder(t, "carol", "kms:ConfigureRotation on secret/db target/pg",
			"kms:RotateAccount on target/pg/account/*")
		m.meanwhile(func() { w.replaced(t) })
		w.answers(t, carol, kms.CodeResourceInUse, changed, "ConfigureRotation", "SecretName", "db", "GracePeriod", "1h")
		if w.sent(t, "db") {
			t.Error("the secret is bound to the other registration")
		}
	})
	t.Run("CreateSecret", func(t *testing.T) {
		t.Parallel()
		w, _ := rotating(t)
		w.once("CreateSecret", func() { w.replaced(t) })
		w.answers(t, rootPrincipal, kms.CodeResourceInUse, changed, "CreateSecret", "SecretName", "new", "SecretType",
			kms.TypeRds, "VersionId", "v1", "SecretData", `{"Accounts":[{"AccountName":"a","AccountPassword":"x"}]}`,
			"ExtendedConfig", `{"SecretSubType":"SingleUser","DBInstanceId":"pg"}`)
	})
	t.Run("CheckRotation", func(t *testing.T) {
		t.Parallel()
		w, m := rotating(t)
		m.meanwhile(func() { pointed(w, t) })
		w.answers(t, rootPrincipal, kms.CodeResourceInUse, changed, "CheckRotation", "SecretName", "db")
		if got := w.record(t, "db").Check; got != nil {
			t.Errorf("the answer of another address is stored: %+v", got)
		}
	})
}

// TestAnotherRegistrationKeepsNoSetting verifies that what was agreed for one registration of a
// target is not taken over to another of the same name, by any call that binds the secret to it.
func TestAnotherRegistrationKeepsNoSetting(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, action string
		params       []string
	}{
		{"db", "ConfigureRotation", []string{"GracePeriod", "1h"}},
		{"db", "RotateSecret", []string{"VersionId", "v9"}},
		{"db", "EmergencyRotation", []string{"VersionId", "v9"}},
		{"db", "UpdateSecretRotationPolicy", []string{"EnableAutomaticRotation", "true", "RotationInterval", "7d"}},
		{"gen", "ConfigureRotation", []string{"GracePeriod", "1h"}},
		{"gen", "RotateSecret", []string{"VersionId", "v9"}},
	} {
		t.Run(tt.name+" "+tt.action, func(t *testing.T) {
			t.Parallel()
			w, _ := rotating(t)
			params := []string{
				"SecretName", tt.name, "Consent.1", "change-plugin", "LoginDatabase", "shop", "LoginEndpoint.1", "db:1",
				"Strategy", "single", "GroupGap", "1h", "Group", "g",
			}
			if tt.name == "gen" {
				params = append(params, "TargetName", "pg")
			}
			w.must(t, "ConfigureRotation", params...)
			w.put(t, tt.name, func(_ *secret.Secret, r *rotation.Record) {
				r.Accepted, r.Health = "v1", rotation.Health{ProbedAt: w.now, Live: true, NextAt: w.now.Add(time.Hour)}
			})
			if tt.name == "gen" { // only its deletion keeps the settings of a Generic secret
				w.must(t, "DeleteSecret", "SecretName", "gen", "RecoveryWindowInDays", "7")
			}
			w.replaced(t)
			if tt.name == "gen" {
				w.must(t, "RestoreSecret", "SecretName", "gen")
			}
			out := w.must(t, tt.action, append([]string{"SecretName", tt.name}, tt.params...)...)
			s := w.stored(t, tt.name).Settings()
			if len(s.Consents) > 0 || !s.Login.IsZero() || s.Strategy != "" || s.Group != "g" {
				t.Errorf("settings of the other registration: %+v", s)
			}
			if r := w.record(t, tt.name); r.Accepted != "" || r.BaseAccepted || r.Health.Live {
				t.Errorf("the record has answers of the other registration: %+v", r)
			}
			if tt.action != "ConfigureRotation" {
				return
			}
			want := []kms.RotationSettingChange{
				{Setting: "Strategy", Before: "single"}, {Setting: "GracePeriod", After: "3600s"},
				{Setting: "LoginEndpoint", Before: "db:1"}, {Setting: "LoginDatabase", Before: "shop"},
				{Setting: "Consent", Before: "change-plugin"},
			}
			if diff := cmp.Diff(want, out.(*kms.DescribeRotationResponse).Changes); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestRefusalsNameNoOtherSecret verifies that a refusal names no secret that the caller may not
// describe, and no pattern of an account policy.
func TestRefusalsNameNoOtherSecret(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "ConfigureRotation", "SecretName", "db")
	w.must(t, "CreateSecret", "SecretName", "mine", "SecretData", `{"username":"app","password":"p"}`, "VersionId", "v1")
	w.must(t, "CreateSecret", "SecretName", "rotator", "SecretData", `{"username":"rotator","password":"p"}`,
		"VersionId", "v1")
	w.must(t, "UpdateTarget", "TargetName", "pg", "Account.1", "app*", "Account.2", "private_*")
	rights := []string{"kms:ConfigureRotation on secret/* target/pg", "kms:RotateAccount on target/pg/account/*",
		"kms:GetSecretValue on secret/*"}
	carol := w.holder(t, "carol", rights...)
	reader := w.holder(t, "reader", append(rights, "kms:DescribeSecret on secret/db")...)
	w.answers(t, carol, kms.CodeResourceExist,
		`The account "app" of target "pg" is rotated by another secret already, whose name you have no right to see`,
		"ConfigureRotation", "SecretName", "mine", "TargetName", "pg")
	w.answers(t, reader, kms.CodeResourceExist, `The account "app" of target "pg" is rotated by secret "db" already.`,
		"ConfigureRotation", "SecretName", "mine", "TargetName", "pg")
	for name, want := range map[string]string{
		"rotator": `Account "rotator" is the administrator of target "pg"`,
		"gen": `The account policy of target "pg" does not allow account "gen". To add it, run keyturn target show pg, ` +
			`and then keyturn target update pg with --account for each pattern listed and for "gen": ` +
			`--account replaces the policy.`,
	} {
		_, err := w.call(t, carol, "ConfigureRotation", "SecretName", name, "TargetName", "pg")
		text := protocol.CodeFor(err).Message
		if !strings.Contains(text, want) || strings.Contains(text, "pg-admin") || strings.Contains(text, "private_") {
			t.Errorf("%s: %s; want %q and no name", name, text, want)
		}
	}
}
