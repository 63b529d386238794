package cli

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/kms"
)

// TestPrintCheck verifies that the answer of a check names each strategy, what is in the way, and
// the command or flag that helps.
func TestPrintCheck(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := printCheck(&b, &kms.CheckRotationResponse{
		SecretName: "db_cred",
		TargetName: "pg-main",
		Strategy:   "single",
		Verdict:    kms.VerdictSafeWithConsent,
		Unchecked:  "the login gave no proof.",
		Strategies: []kms.CheckedStrategy{
			{Strategy: "single", Verdict: kms.VerdictSafeWithConsent, Window: "One commit.", Consents: []string{"scram"}},
			{
				Strategy: "double",
				Verdict:  kms.VerdictImpossible,
				Window:   "None.",
				Consents: []string{"form"},
			},
		},
		Findings: []kms.RotationFinding{
			{Code: "md5", Verdict: "needs-consent", Text: "It has an md5 verifier.", Consent: "scram"},
			{
				Code:       "no-second",
				Verdict:    "impossible",
				Strategies: []string{"double"},
				Text:       "There is one account.",
				Fix:        "Make another.",
			},
			{
				Code:       "strategy-not-for-secret",
				Verdict:    "impossible",
				Strategies: []string{"double"},
				Text:       "The secret has one account.",
			},
			{Code: "form", Verdict: "needs-consent", Text: "The form changes.", Consent: "form", Agreed: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `A rotation of db_cred at target pg-main, strategy single: safe-with-consent.
Not checked: the login gave no proof.

STRATEGY  VERDICT                                          WINDOW
single    safe-with-consent (scram)                        One commit.
double    impossible (no-second, strategy-not-for-secret)

md5 (needs-consent)
  It has an md5 verifier.
  To agree: --consent scram

form (needs-consent, agreed)
  The form changes.

About strategies that rotations of db_cred do not use:

no-second (impossible, double)
  There is one account.
  Make another.
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

// TestStatusShowsFindingsOfItsStrategy verifies that the status of a rotation and the answer to
// configure show nothing that is about other strategies alone, whichever member of the answer says
// which strategy rotations use.
func TestStatusShowsFindingsOfItsStrategy(t *testing.T) {
	t.Parallel()
	found := []kms.RotationFinding{
		{Code: "wrong-strategy", Verdict: "impossible", Strategies: []string{"single"}, Text: "The credential is a key."},
		{Code: "key-options", Verdict: "note", Text: "The lines of the key have options."},
		{Code: "two-of-them", Verdict: "note", Strategies: []string{"single", "overlap"}, Text: "Both."},
		{Code: notForSecret, Verdict: "impossible", Strategies: []string{"overlap"}, Text: "Never."},
	}
	for name, tt := range map[string]struct {
		rotation kms.DescribeRotationResponse
		want     string
	}{
		"checked":         {kms.DescribeRotationResponse{CheckStrategy: "overlap"}, "key-options two-of-them"},
		"checked, single": {kms.DescribeRotationResponse{CheckStrategy: "single"}, "wrong-strategy key-options two-of-them"},
		"of the last one": {kms.DescribeRotationResponse{Strategy: "double", Mode: "rotate"}, "key-options"},
		"repaired": {
			kms.DescribeRotationResponse{Strategy: "double", Mode: "reapply"},
			"wrong-strategy key-options two-of-them",
		},
	} {
		tt.rotation.CheckFindings = found
		var b strings.Builder
		if err := printStatus(&b, &tt.rotation); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range found {
			if strings.Contains(b.String(), "\n"+f.Code+" (") {
				got = append(got, f.Code)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: shows %q, want %q", name, got, tt.want)
		}
	}
}

// TestQuarantineComesFirst verifies that a check names the quarantine before what was not checked,
// and once.
func TestQuarantineComesFirst(t *testing.T) {
	t.Parallel()
	const quarantined = "Quarantined since then: wrong."
	var b strings.Builder
	err := printCheck(&b, &kms.CheckRotationResponse{
		SecretName: "db",
		Unchecked:  "a login had failed within the minute before, so none was made",
		Findings: []kms.RotationFinding{
			{Code: kms.FindingQuarantined, Verdict: kms.VerdictImpossible, Text: quarantined, Fix: "Run it."},
			{Code: "limit", Verdict: kms.VerdictImpossible, Text: "No room."},
		},
	})
	text := b.String()
	first, then := strings.Index(text, quarantined+"\nRun it."), strings.Index(text, "Not checked:")
	if err != nil || first < 0 || then < first || strings.Count(text, quarantined) != 1 ||
		!strings.Contains(text, "No room.") {
		t.Errorf("%v\n%s", err, text)
	}
}
