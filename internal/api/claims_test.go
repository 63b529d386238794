package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// TestSpellingsAreOneAccount verifies that two secrets cannot rotate what the target takes for one
// account, whichever of them comes first, and that a claim of an earlier release counts.
func TestSpellingsAreOneAccount(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("GEN", "p")
	w.must(t, "CreateSecret", "SecretName", "loud", "SecretData", `{"username":"GEN","password":"p"}`, "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.refused(t, kms.CodeResourceExist, `The account "gen" of target "pg" is rotated by secret "gen" already.`,
		"ConfigureRotation", "SecretName", "loud", "TargetName", "pg")
	w.must(t, "RemoveRotation", "SecretName", "gen")
	w.must(t, "ConfigureRotation", "SecretName", "loud", "TargetName", "pg")
	w.refused(t, kms.CodeResourceExist, `The account "gen" of target "pg" is rotated by secret "loud" already.`,
		"ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	snapshot := store.Snapshot(t.Context(), w.env.DB)
	for _, name := range []string{"gen", "GEN"} {
		if owner, err := snapshot.Claim(account, "pg", name); owner != "loud" || err != nil {
			t.Errorf("%s is claimed by %q, %v", name, owner, err)
		}
	}
}

// steps returns an engine of the world that takes a step when it is called.
func (w *world) steps(t *testing.T) func(name string) {
	t.Helper()
	lead, err := w.env.DB.Lead(t.Context(), "test", w.env.Now)
	if err != nil {
		t.Fatal(err)
	}
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{}).Steps(lead)
	return func(name string) {
		t.Helper()
		for more, n := true, 0; more && n < 20; n++ {
			if more, err = engine.Step(t.Context(), store.Due{Account: account, Name: name}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// valueOf is the value of a managed secret with one account.
func valueOf(account, password string) string {
	return fmt.Sprintf(`{"Accounts":[{"AccountName":%q,"AccountPassword":%q}]}`, account, password)
}

// unclaim makes accounts as an earlier release has left them: secrets are bound to them, and none
// has a claim.
func (w *world) unclaim(t *testing.T, accounts ...string) {
	t.Helper()
	err := store.Do(t.Context(), w.env.DB, func(tx *store.Tx) error {
		for _, a := range accounts {
			if _, err := tx.Claim(account, "pg", a); err != nil {
				return err
			}
			if err := tx.PutClaim(store.Claim{Account: account, Target: "pg", User: a, Secret: "of-no-secret"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestBoundSecretsHoldTheirAccounts verifies that a managed secret holds its accounts from its
// creation on, or from the call that binds it, and that only callers with the right on an account
// can take it.
func TestBoundSecretsHoldTheirAccounts(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	w.must(t, "CreateSecret", "SecretName", "takes-one", "SecretData",
		`{"username":"one","password":"x"}`, "VersionId", "v1")
	w.must(t, "CreateSecret", "SecretName", "takes-app", "SecretData",
		`{"username":"APP","password":"the-applications-password"}`, "VersionId", "v1")
	const held = `is rotated by secret "%s" already.`
	w.refused(t, kms.CodeResourceExist, fmt.Sprintf(held, "double"), "ConfigureRotation", "SecretName", "takes-one",
		"TargetName", "pg")
	w.refused(t, kms.CodeResourceExist, fmt.Sprintf(held, "db"), "ConfigureRotation", "SecretName", "takes-app",
		"TargetName", "pg")
	create := func(name, data, to string) []string {
		return []string{"SecretName", name, "SecretType", kms.TypeRds, "SecretData", data, "VersionId", "v1",
			"ExtendedConfig", fmt.Sprintf(`{"SecretSubType":"SingleUser","DBInstanceId":%q}`, to)}
	}
	w.refused(t, kms.CodeResourceExist, fmt.Sprintf(held, "double"), "CreateSecret",
		create("second", valueOf("two", "y"), "pg")...)
	// Made before its target, a secret is bound, and holds its account, by the first call about it.
	w.must(t, "CreateSecret", create("early", valueOf("late", "p"), "later")...)
	w.must(t, "CreateSecret", create("other", valueOf("late", "p"), "later")...)
	w.must(t, "RegisterTarget", "TargetName", "later", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.must(t, "RotateSecret", "SecretName", "early", "VersionId", "v2")
	w.refused(t, kms.CodeResourceExist, fmt.Sprintf(held, "early"),
		"RotateSecret", "SecretName", "other", "VersionId", "v2")
	blind := w.holder(t, "blind", "kms:CreateSecret on secret")
	if _, err := w.call(t, blind, "CreateSecret", create("lock", valueOf("gen", "p"), "pg")...); err == nil {
		t.Error("a caller without the right on an account holds it")
	}
	// A claim counts for the accounts that its secret is bound to, and not for its name.
	w.must(t, "CreateSecret", create("name", valueOf("gen", "p"), "pg")...)
	w.must(t, "DeleteSecret", "SecretName", "name", "ForceDeleteWithoutRecovery", "true")
	w.must(t, "CreateSecret", create("name", valueOf("another", "p"), "pg")...)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
}

// TestClaimDuringARotation verifies that a secret holds the account that its rotation under way
// will retire, whatever account its settings name now.
func TestClaimDuringARotation(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "takes-app", "SecretData",
		`{"username":"app","password":"the-applications-password"}`, "VersionId", "v1")
	take := []string{"SecretName", "takes-app", "TargetName", "pg"}
	for _, state := range []rotation.State{rotation.InGrace, rotation.Retiring, rotation.Quarantined} {
		w.inState(t, "db", state)
		w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) { s.Rotation.Binding.Accounts = []string{"app2"} })
		w.refused(t, kms.CodeResourceExist, `is rotated by secret "db" already.`, "ConfigureRotation", take...)
	}
	w.inState(t, "db", rotation.Done)
	w.must(t, "ConfigureRotation", take...)
}

// TestDenyOfASpelling verifies that a Deny of an account counts under every spelling that the
// target takes for it.
func TestDenyOfASpelling(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "CreateSecret", "SecretName", "loud", "SecretData", `{"username":"GEN","password":"p"}`, "VersionId", "v1")
	configure := []string{"SecretName", "loud", "TargetName", "pg"}
	rights := []string{"kms:ConfigureRotation on *", "kms:GetSecretValue on *", "kms:RotateAccount on *"}
	kept, free := w.holder(t, "kept", rights...), w.holder(t, "free", rights...)
	w.must(t, "CreatePolicy", "PolicyName", "not-gen", "PolicyDocument",
		document(deny("kms:RotateAccount", "acs:kms:*:*:target/pg/account/gen")))
	w.must(t, "AttachPolicyToUser", "UserName", "kept", "PolicyName", "not-gen", "PolicyType", ram.TypeCustom)
	_, err := w.call(t, kept, "ConfigureRotation", configure...)
	if err == nil || !strings.Contains(err.Error(), "kms:RotateAccount") {
		t.Errorf("under another spelling: %v", err)
	}
	if _, err := w.call(t, free, "ConfigureRotation", configure...); err != nil {
		t.Errorf("without a Deny: %v", err)
	}
}

// TestNothingIsSentWithoutTheAccount verifies that nothing asks the target with a secret whose
// account another one holds, and that every operation says so.
func TestNothingIsSentWithoutTheAccount(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.unclaim(t, "app")
	w.must(t, "CreateSecret", "SecretName", "owner", "SecretData",
		`{"username":"app","password":"the-applications-password"}`, "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "owner", "TargetName", "pg")
	before := m.logins("app")
	step := w.steps(t)
	step("db")
	const owned = `The account "app" of target "pg" is rotated by secret "owner" already.`
	r := w.describe(t, "db")
	if r.ProbeSkippedCode != kms.SkippedTaken || !strings.Contains(r.Reason, owned) || !r.NextRotationDate.IsZero() ||
		len(r.CheckFindings) != 1 || r.CheckFindings[0].Code != "account-of-another-secret" {
		t.Errorf("described as %q %q, next due %s, findings %+v", r.ProbeSkippedCode, r.Reason, r.NextRotationDate,
			r.CheckFindings)
	}
	if stored := w.record(t, "db").Why(); strings.Contains(stored, "owner") || strings.Contains(stored, "right to see") {
		t.Errorf("the engine has written %q", stored)
	}
	if out := w.check(t, "db"); out.Verdict != "impossible" {
		t.Errorf("the check says %q: %+v", out.Verdict, out.Findings)
	}
	for action, params := range map[string][]string{
		"RotateSecret":      {"VersionId", "v2"},
		"RehearseRotation":  {"VersionId", "v2"},
		"EmergencyRotation": {"VersionId", "v2"},
		"TestTarget":        {"TargetName", "pg"},
	} {
		w.refused(t, kms.CodeResourceExist, owned, action, append(params, "SecretName", "db")...)
	}
	w.inState(t, "db", rotation.Quarantined)
	for _, params := range [][]string{
		{"RepairAction", kms.RepairProbe},
		{"RepairAction", kms.RepairApply},
		{"RepairAction", kms.RepairAdopt, "VersionId", "v3", "SecretData", valueOf("app", "the-applications-password")},
	} {
		w.refused(t, kms.CodeResourceExist, owned, "RepairRotation", append(params, "SecretName", "db")...)
	}
	if r := w.describe(t, "db"); len(r.RepairActions) != 0 || r.EmergencyPossible || !strings.Contains(r.Reason, owned) {
		t.Errorf("a quarantine offers %q, emergency %t: %q", r.RepairActions, r.EmergencyPossible, r.Reason)
	}
	blind := w.holder(t, "blind", "kms:DescribeRotation on secret/db")
	out, err := w.call(t, blind, "DescribeRotation", "SecretName", "db")
	if err != nil || strings.Contains(out.(*kms.DescribeRotationResponse).Reason, "owner") {
		t.Errorf("a caller without the right learns the other name: %+v, %v", out, err)
	}
	w.inState(t, "db", rotation.InGrace)
	for _, action := range []string{"UndoRotation", "EndRotationGrace"} {
		w.refused(t, kms.CodeResourceExist, owned, action, "SecretName", "db")
	}
	if n := m.logins("app"); n != before {
		t.Errorf("%d logins with an account of another secret", n-before)
	}
	// Of two earlier secrets, the one that the engine sees first takes the account.
	w.must(t, "RemoveRotation", "SecretName", "owner")
	w.inState(t, "db", rotation.Idle)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health.NextAt, r.NextAt = w.now, w.now })
	step("db")
	if owner, err := store.Snapshot(t.Context(), w.env.DB).Claim(account, "pg", "app"); owner != "db" || err != nil {
		t.Errorf("after its probe, %q holds the account, %v", owner, err)
	}
}
