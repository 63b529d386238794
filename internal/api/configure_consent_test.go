package api_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// TestConfigureChecksWithTheConsent verifies that a call which adds a consent is judged by, and
// answers with, what the target says with that consent: a check from a moment before does not
// stand.
func TestConfigureChecksWithTheConsent(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	before := target.Finding{Code: "not-allowed", Verdict: target.Impossible, Text: "MD5 is not allowed."}
	after := target.Finding{
		Code: "form-changes", Verdict: target.NeedsConsent, Text: "SCRAM, as agreed.", Consent: "change-plugin",
	}
	kind := w.env.Kinds["memory"]
	kind.Open = func(s target.Settings) (target.Target, error) {
		m.says(nil, before)
		if slices.Contains(s.Consent, after.Consent) {
			m.says(nil, after)
		}
		return m, nil
	}
	w.env.Kinds["memory"] = kind
	w.check(t, "db")
	w.refused(t, kms.CodeResourceInUse, before.Text, "ConfigureRotation", "SecretName", "db", "GracePeriod", "1h")
	agree := []string{"SecretName", "db", "Consent.1", after.Consent}
	out := w.must(t, "ConfigureRotation", agree...).(*kms.DescribeRotationResponse)
	var codes []string
	for _, f := range out.CheckFindings {
		if f.Code != "strategy-not-for-secret" {
			codes = append(codes, f.Code)
		}
		if f.Code == after.Code && !f.Agreed {
			t.Error("the finding is not agreed to")
		}
	}
	if got := strings.Join(codes, " "); got != after.Code {
		t.Errorf("the answer has the findings %q, want %q", got, after.Code)
	}
	asked := m.checked()
	if w.must(t, "ConfigureRotation", agree...); m.checked() != asked {
		t.Error("a consent that the secret has makes the service ask the target again")
	}

	// Past the allowance the target is not asked. No finding refuses what the consent may resolve.
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "Consent.1", after.Consent)
	w.refused(t, kms.CodeResourceInUse, before.Text, "ConfigureRotation", "SecretName", "gen", "Reset.1", "Consent")
	before = target.Finding{Code: "note", Verdict: target.Note, Text: "MD5 stays."}
	for range 20 {
		w.must(t, "ConfigureRotation", "SecretName", "gen", "Reset.1", "Consent")
		w.must(t, "ConfigureRotation", "SecretName", "gen", "Consent.1", after.Consent)
	}
	w.now = w.now.Add(time.Hour)
	before = target.Finding{Code: "not-allowed", Verdict: target.Impossible, Text: "MD5 is not allowed."}
	w.must(t, "ConfigureRotation", "SecretName", "gen", "Consent.1", after.Consent)
	before = target.Finding{Code: "note", Verdict: target.Note, Text: "MD5 stays."}
	w.must(t, "ConfigureRotation", "SecretName", "gen", "Reset.1", "Consent")
	before = target.Finding{Code: "not-allowed", Verdict: target.Impossible, Text: "MD5 is not allowed."}
	w.now = w.now.Add(time.Hour)
	for range 8 {
		w.check(t, "gen")
	}
	w.refused(t, "Rejected.Throttling", "8 checks of secret",
		"ConfigureRotation", "SecretName", "gen", "Consent.1", after.Consent)
}

// TestRefusedSettingsAreInTheCommand verifies that a command in a refusal of settings for another
// target works as it is printed: it names what the refused call has named, of which nothing is
// stored, unless it has another value for it.
func TestRefusedSettingsAreInTheCommand(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	says := func(fix string) {
		m.says(nil, target.Finding{Code: "no", Verdict: target.Impossible, Text: "MD5 is not allowed.", Fix: fix})
	}
	const agree = "To agree: keyturn rotation configure NAME --consent=change-plugin."
	says(agree)
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure gen --target=pg --strategy=single "+
		"--consent=change-plugin.", "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "Strategy", "single")
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure gen --target=pg --cron='0 3 * * 6' "+
		"--consent=change-plugin.", "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "Cron", "0 3 * * 6")
	says("Another: keyturn rotation configure NAME --strategy=double with --login-database.")
	w.refused(t, kms.CodeResourceInUse, "configure gen --target=pg --login-database=shop --strategy=double with --login-",
		"ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "Strategy", "single", "LoginDatabase", "shop")
	says(agree)
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure gen --target=pg --interval=7d "+
		"--login-endpoint=db:1 --replace --reset=grace-limit --consent=change-plugin.", "ConfigureRotation",
		"SecretName", "gen", "TargetName", "pg", "RotationInterval", "7d", "LoginEndpoint.1", "db:1", "Replace", "true",
		"Reset.1", "GraceLimit")
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure gen --target=pg --manual "+
		"--consent=change-plugin.", "ConfigureRotation",
		"SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "false")

	// A command about another secret stays as it is, and a name that begins with a hyphen at the end.
	for _, other := range []string{"gen_cred", "gen.x", "gen-x", "gen/x", "other"} {
		w.now = w.now.Add(time.Hour) // checks of a secret are bounded
		command := "First: keyturn rotation configure " + other + " --manual. "
		says(command + agree)
		w.refused(t, kms.CodeResourceInUse, command+"To agree: keyturn rotation configure gen --target=pg "+
			"--consent=change-plugin.", "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	}
	w.must(t, "CreateSecret", "SecretName", "--all", "SecretData", `{"username":"gen","password":"p"}`, "VersionId", "v1")
	const first = "First: keyturn rotation configure --manual -- --all-others. "
	says(first + "Or: keyturn rotation configure NAME. " + agree)
	w.refused(t, kms.CodeResourceInUse, first+"Or: keyturn rotation configure --target=pg --strategy=single -- --all. "+
		"To agree: keyturn rotation configure --target=pg --strategy=single --consent=change-plugin -- --all.",
		"ConfigureRotation", "SecretName", "--all", "TargetName", "pg", "Strategy", "single")

	says(agree)
	w.refused(t, kms.CodeResourceInUse, "To agree: keyturn rotation configure db --consent=change-plugin.",
		"ConfigureRotation", "SecretName", "db", "Strategy", "single")
}
