package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// TestDeletionNamesWhatRemains verifies that DescribeRotation says what a deletion of the secret
// leaves at the target, and has the command that removes an account which this service has made.
func TestDeletionNamesWhatRemains(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	var unequal error
	kind := w.env.Kinds["memory"]
	kind.Open = func(target.Settings) (target.Target, error) { return preparer{m, &unequal}, nil }
	w.env.Kinds["memory"] = kind
	w.must(t, "PrepareTargetAccounts", "TargetName", "pg", "AccountName", "gen", "AccountPassword", "p",
		"CloneAccountName", "gen2", "Apply", "true", "SecretName", "prepared", "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "double")
	w.put(t, "double", func(_ *secret.Secret, r *rotation.Record) {
		r.State, r.Strategy = rotation.InGrace, target.Double
	})
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.State = rotation.Scheduled }) // nothing was sent
	key := w.accessKey(t)
	const double = `Nothing changes at target "pg": accounts "one" and "two" stay, with their passwords. "one" is in use.`
	for _, tt := range []struct {
		name, want string
	}{
		{"bare", ""},
		{"db", `Nothing changes at target "pg": account "app" stays, with the credential in use.`},
		{"double", double + " The rotation in state grace has not ended, so a second credential may work there, too."},
		{
			"prepared",
			`Nothing changes at target "pg": accounts "gen" and "gen2" stay, with their passwords. "gen" is in use. If ` +
				`prepare-accounts has made "gen2", and no application uses that account, keyturn target prepare-accounts pg ` +
				"--account=gen --clone=gen2 --undo --apply removes it once the secret is deleted.",
		},
		{
			key,
			`The access keys of user "robot" stay, and work: keyturn user key list robot shows them, keyturn user key delete ` +
				"robot ACCESS-KEY-ID removes one.",
		},
	} {
		if got := w.describe(t, tt.name).Remains; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		w.must(t, "DeleteSecret", "SecretName", tt.name)
		if got := w.describe(t, tt.name).Remains; got != tt.want {
			t.Errorf("%s, in its deletion window: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestEmergencyNamesWhatItLeaves verifies that the end of an emergency, and of no other rotation,
// says what the kind of target leaves of an account.
func TestEmergencyNamesWhatItLeaves(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Kinds["memory"] = w.env.Kinds["memory"].Leaving(
		"Others were not touched: keyturn rotation check NAME shows them.", target.OpenSessions)
	for _, tt := range []struct {
		state   rotation.State
		trigger rotation.Trigger
		mode    rotation.Mode
		retired bool
		want    bool
	}{
		{rotation.Done, rotation.Emergency, rotation.Rotate, true, true},
		{rotation.Done, rotation.Emergency, rotation.Rotate, false, false}, // its retirement was cancelled
		{rotation.Done, rotation.Manual, rotation.Rotate, true, false},
		{rotation.Done, rotation.Manual, rotation.Rehearse, false, false},
		{rotation.Retiring, rotation.Emergency, rotation.Rotate, true, false},
		{rotation.Abandoned, rotation.Emergency, rotation.Rotate, false, false},
	} {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) {
			r.State, r.Trigger, r.Mode, r.BaseRetired = tt.state, tt.trigger, tt.mode, tt.retired
		})
		advice := w.describe(t, "db").Advice
		for _, part := range []string{"keyturn rotation check db shows them.", target.OpenSessions} {
			if strings.Contains(advice, part) != tt.want {
				t.Errorf("%s", fmt.Sprint(tt.state, tt.trigger, tt.mode, ": ", advice))
			}
		}
	}
}

// TestDeletionNamesTheOnlyPassword verifies that a deletion names the account in use where the
// other one has no password, and how to read the value that is lost with the secret: before the
// deletion, and in its window.
func TestDeletionNamesTheOnlyPassword(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("gen2", "q")
	w.must(t, "PutSecretValue", "SecretName", "gen", "VersionId", "v2", "SecretData",
		`{"username":"gen2","password":"q"}`)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "Strategy", "double",
		"CloneAccountName", "gen")
	const stay = `Nothing changes at target "pg": accounts "gen" and "gen2" stay`
	const only = stay + `. "gen2" is in use, and "gen" has no password. The credential in use is in this secret alone`
	remains := func(what, want string) {
		t.Helper()
		if got := w.describe(t, "gen").Remains; got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	remains("never rotated", stay+`, with their passwords. "gen2" is in use.`)
	w.put(t, "gen", func(_ *secret.Secret, r *rotation.Record) {
		r.State, r.Strategy, r.Retired = rotation.Done, target.Double, "v1"
	})
	remains("rotated", only+": keyturn secret get gen shows it.")
	w.must(t, "DeleteSecret", "SecretName", "gen")
	if w.describe(t, "gen").PlannedDeleteTime.IsZero() {
		t.Error("the rotation does not show that its secret is to be deleted")
	}
	remains("in the deletion window",
		only+". To read it, cancel the deletion (keyturn secret restore gen), then run keyturn secret get gen.")
	w.must(t, "RestoreSecret", "SecretName", "gen")
	w.put(t, "gen", func(_ *secret.Secret, r *rotation.Record) { r.Retired = "v2" })
	remains("the account has a credential again", stay+`, with their passwords. "gen2" is in use.`)
}

// TestDeletionNamesTheOnlyCopy verifies that a deletion says that a credential which a rotation has
// made is in the secret alone, also in a grace period; and in a quarantine that the target does not
// accept it.
func TestDeletionNamesTheOnlyCopy(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	const stays = `Nothing changes at target "pg": account "app" stays`
	const alone = " The credential in use is in this secret alone: keyturn secret get db shows it."
	made := func(state rotation.State, health rotation.Health) func(*secret.Secret, *rotation.Record) {
		return func(s *secret.Secret, r *rotation.Record) {
			v := s.Versions["v1"]
			v.MadeByRotation = true
			s.Versions = map[string]secret.Version{"v1": v}
			r.State, r.Health = state, health
		}
	}
	dead, live := rotation.Health{ProbedAt: w.now}, rotation.Health{ProbedAt: w.now, Live: true}
	for _, tt := range []struct {
		state  rotation.State
		health rotation.Health
		want   string
	}{
		{rotation.Done, live, stays + ", with the credential in use." + alone},
		{
			rotation.InGrace,
			live,
			stays + ", with the credential in use." + alone +
				" The rotation in state grace has not ended, so a second credential may work there, too.",
		},
		{
			rotation.Quarantined,
			dead,
			stays + ". The rotation is quarantined: the target does not accept the credential of the current version, and " +
				"may accept another one.",
		},
		{
			rotation.Quarantined,
			live,
			stays + ". The rotation is quarantined: the target may not accept the credential of the current version.",
		},
	} {
		w.put(t, "db", made(tt.state, tt.health))
		if got := w.describe(t, "db").Remains; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.state, got, tt.want)
		}
	}
}

// TestDeletionOfWhatIsUsed verifies that a secret with the administrator of a target, or with the
// client certificate of an application's logins, is not deleted while it is used, and that the
// refusal names to a caller only what that caller may see.
func TestDeletionOfWhatIsUsed(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	eve := w.holder(t, "eve", "kms:DeleteSecret on secret/*", "kms:DescribeTarget on target/other")
	now := []string{"SecretName", "pg-admin", "ForceDeleteWithoutRecovery", "true"}
	later := []string{"SecretName", "pg-admin", "RecoveryWindowInDays", "7"}
	for _, params := range [][]string{now, later} {
		w.refused(t, inUse, "has the administrator of these targets, where nothing can be checked or rotated without it: "+
			"pg. First give each another one (keyturn target update TARGET --admin-secret=SECRET)", "DeleteSecret", params...)
		w.answers(t, eve, inUse, "without it: 1 target that you may not describe (kms:DescribeTarget). First",
			"DeleteSecret", params...)
	}
	w.must(t, "CreateSecret", "SecretName", "other-admin", "SecretData", adminValue, "VersionId", "v1")
	w.must(t, "UpdateTarget", "TargetName", "pg", "AdminSecretName", "other-admin")
	w.answers(t, eve, "", "", "DeleteSecret", later...)
	w.answers(t, eve, "", "", "DeleteSecret", now...)

	w.must(t, "CreateSecret", "SecretName", "pem", "SecretData", "-----BEGIN", "VersionId", "v1")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "LoginCertificateSecret", "pem")
	later = []string{"SecretName", "pem", "RecoveryWindowInDays", "7"}
	w.refused(t, inUse, `Secret "pem" has the client certificate for the logins of these secrets: gen. First`,
		"DeleteSecret", later...)
	w.answers(t, eve, inUse, "of these secrets: 1 secret that you may not describe", "DeleteSecret", later...)
	w.must(t, "ConfigureRotation", "SecretName", "gen", "Reset.1", "LoginCertificateSecret")
	w.answers(t, eve, "", "", "DeleteSecret", later...)
}

// TestRestoredWithoutItsCertificate verifies that a secret which is restored after its client
// certificate was deleted, or while that waits for its deletion, is restored with a warning, and
// that a certificate which was created again is not deleted while logins use it.
func TestRestoredWithoutItsCertificate(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	pem := func() {
		t.Helper()
		w.must(t, "CreateSecret", "SecretName", "pem", "SecretData", "-----BEGIN", "VersionId", "v1")
	}
	pem()
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "LoginCertificateSecret", "pem")
	deleteGen := func() {
		t.Helper()
		w.must(t, "DeleteSecret", "SecretName", "gen", "RecoveryWindowInDays", "30")
	}
	restore := func(want string) {
		t.Helper()
		out := w.must(t, "RestoreSecret", "SecretName", "gen").(*kms.RestoreSecretResponse)
		if out.SecretName != "gen" || (out.Warning == "") != (want == "") || !strings.Contains(out.Warning, want) {
			t.Errorf("the answer is %+v, want the warning %q", out, want)
		}
	}
	deleted := func() {
		t.Helper()
		w.must(t, "DeleteSecret", "SecretName", "pem", "ForceDeleteWithoutRecovery", "true")
	}
	used := func() {
		t.Helper()
		for _, how := range [][]string{{"ForceDeleteWithoutRecovery", "true"}, {"RecoveryWindowInDays", "7"}} {
			w.refused(t, inUse, `Secret "pem" has the client certificate for the logins of these secrets: gen. First`,
				"DeleteSecret", append([]string{"SecretName", "pem"}, how...)...)
		}
	}
	const another = "keyturn rotation configure gen --login-certificate-secret=SECRET"
	deleteGen()
	restore("")
	deleteGen()
	w.must(t, "DeleteSecret", "SecretName", "pem", "RecoveryWindowInDays", "7")
	restore("waits for its deletion: pem. No rotation can begin without it: cancel that deletion (keyturn secret " +
		"restore SECRET), or name another one (" + another + ").")
	w.must(t, "RestoreSecret", "SecretName", "pem")
	used()

	deleteGen()
	deleted()
	restore("for the logins of gen is deleted: pem. No rotation can begin without it: name another one (" + another + ").")
	pem()
	used()

	deleteGen()
	w.must(t, "DeleteSecret", "SecretName", "pem", "RecoveryWindowInDays", "7")
	w.now = w.now.Add(8 * 24 * time.Hour)
	if _, err := w.gate.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	restore("is deleted: pem.")
	pem()
	used()
	w.must(t, "ConfigureRotation", "SecretName", "gen", "Reset.1", "LoginCertificateSecret")
	deleted()
}

// TestEmergencyOutOfAnotherQuarantine verifies that the refusal of an emergency in a quarantine
// which has interrupted a rotation says when it works.
func TestEmergencyOutOfAnotherQuarantine(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.inState(t, "db", rotation.Quarantined)
	for _, part := range []string{
		`The credential of secret "db" is not replaced: its rotation is quarantined`,
		"works once the quarantine is ended: keyturn rotation repair db explains --apply and --adopt. Then repeat keyturn " +
			"rotation emergency db.",
		"The credential was changed outside of Keyturn.",
	} {
		w.refused(t, kms.CodeResourceInUse, part, "EmergencyRotation", "SecretName", "db", "VersionId", "v9")
	}
}

// TestThrottlingSaysWhatIsLimited verifies that the message of a limit that is none of requests
// does not begin with one.
func TestThrottlingSaysWhatIsLimited(t *testing.T) {
	t.Parallel()
	err := fault.New(fault.Throttled, "Target %q has rejected a login as its administrator a moment ago.", "pg")
	c := protocol.CodeFor(err)
	if c.Code != kms.CodeThrottling || c.Message != err.Msg {
		t.Errorf("%s: %q", c.Code, c.Message)
	}
	if c := protocol.CodeFor(fault.New(fault.Throttled, "")); c.Message != "QPS Limit Exceeded" {
		t.Errorf("without a text of its own: %q", c.Message)
	}
}
