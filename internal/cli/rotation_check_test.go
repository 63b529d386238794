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

STRATEGY  VERDICT                    WINDOW
single    safe-with-consent (scram)  One commit.
double    impossible (no-second, strategy-not-for-secret)

md5 (needs-consent)
  It has an md5 verifier.
  To agree: --consent scram

no-second (impossible, double)
  There is one account.
  Make another.

form (needs-consent, agreed)
  The form changes.
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
