package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// TestCommandsNameTheirTarget verifies that the commands in what a target finds and answers are
// about the target.
func TestCommandsNameTheirTarget(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.env.TestTime = time.Millisecond
	m.says(target.Denied.Errorf("two accounts: keyturn target update TARGET --set account_host=HOST chooses one"),
		target.Finding{
			Code:    "md5-not-allowed",
			Verdict: target.Impossible,
			Text:    "It is stored as MD5.",
			Fix: `Allow it (keyturn target update TARGET --set='require_auth=["md5"]'), or run keyturn target ` +
				"prepare-accounts TARGET --account=app --clone=other.",
		})
	text := fmt.Sprintf("%+v", w.check(t, "db").Findings)
	for _, want := range []string{
		"keyturn target update pg --set account_host=HOST",
		`keyturn target update pg --set='require_auth=["md5"]'`,
		"keyturn target prepare-accounts pg --account=app --clone=other",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "TARGET") {
		t.Errorf("a command has a placeholder: %s", text)
	}
}

// TestEmergencyNamesNoCircle verifies that the refusal of an emergency sends an operator to the
// command that asks for agreement only if the call has not agreed, and something can be agreed to.
func TestEmergencyNamesNoCircle(t *testing.T) {
	t.Parallel()
	consent := target.Finding{Code: "one", Verdict: target.NeedsConsent, Text: "One.", Consent: "one"}
	final := target.Finding{Code: "two", Verdict: target.Impossible, Text: "Two."}
	for name, tt := range map[string]struct {
		findings []target.Finding
		agreed   string
		want     bool
	}{
		"can be agreed to":             {[]target.Finding{consent}, "false", true},
		"one of two can be agreed to":  {[]target.Finding{consent, final}, "false", true},
		"none can be agreed to":        {[]target.Finding{final}, "false", false},
		"agreed, and the other is not": {[]target.Finding{consent, final}, "true", false},
	} {
		w, m := rotating(t)
		m.says(nil, tt.findings...)
		_, err := w.call(t, rootPrincipal, "EmergencyRotation", "SecretName", "db", "VersionId", "e1",
			"AgreeToFindings", tt.agreed)
		if err == nil || !strings.Contains(err.Error(), "keyturn rotation check db shows all findings.") ||
			strings.Contains(err.Error(), "keyturn rotation emergency") != tt.want {
			t.Errorf("%s: %v; want the command: %t", name, err, tt.want)
		}
	}
}
