package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// TestStatusHasEachFindingOnce verifies that the status of a rotation that findings have kept from
// beginning has each of them once, and that reason and steps refer to them.
func TestStatusHasEachFindingOnce(t *testing.T) {
	t.Parallel()
	const reason = "Role app must not log in. Run ALTER ROLE app LOGIN. Role app is at its limit. Further findings: 1. " +
		"keyturn rotation check db shows all findings."
	r := &kms.DescribeRotationResponse{
		SecretName: "db",
		State:      kms.RotationAbandoned,
		Reason:     reason,
		Steps:      []kms.RotationStep{{Time: time.Now(), State: kms.RotationAbandoned, Event: "cannot-begin", Text: reason}},
		CheckFindings: []kms.RotationFinding{
			{Code: "no-login", Verdict: "impossible", Text: "Role app must not log in.", Fix: "Run ALTER ROLE app LOGIN."},
			{Code: "limit", Verdict: "impossible", Text: "Role app is at its limit."},
			{Code: "other", Verdict: "note", Text: "Something else."},
		},
	}
	var b bytes.Buffer
	if err := printStatus(&b, r); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, f := range r.CheckFindings {
		if n := strings.Count(text, f.Text); n != 1 {
			t.Errorf("%s is there %d times:\n%s", f.Code, n, text)
		}
	}
	if n := strings.Count(text, "Findings, see below: no-login, limit."); n != 2 {
		t.Errorf("reason and step refer to the findings %d times:\n%s", n, text)
	}
	r.Reason = "The target did not answer."
	b.Reset()
	if err := printStatus(&b, r); err != nil || !strings.Contains(b.String(), r.Reason) {
		t.Errorf("%v, without the reason:\n%s", err, b.String())
	}
}

// TestStatusRefersToFindingsThatItShows verifies that a reason keeps the text of a finding about
// another strategy, which the status does not show.
func TestStatusRefersToFindingsThatItShows(t *testing.T) {
	t.Parallel()
	const other = "The second account must not log in."
	r := &kms.DescribeRotationResponse{
		SecretName:    "db",
		State:         kms.RotationAbandoned,
		Strategy:      "single",
		Reason:        other + " keyturn rotation check db shows all findings.",
		CheckFindings: []kms.RotationFinding{{Code: "no-login", Text: other, Strategies: []string{"double"}}},
	}
	var b bytes.Buffer
	if err := printStatus(&b, r); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, other) || strings.Contains(text, "see below") {
		t.Errorf("the reason refers to a finding that is not shown:\n%s", text)
	}
}
