package rotation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestMayBegin verifies which findings stand in the way of a rotation, and what a check says of the
// strategy.
func TestMayBegin(t *testing.T) {
	t.Parallel()
	type finding = target.Finding
	note := target.Finding{Code: "expires", Verdict: target.Note, Text: "It expires."}
	plugin := target.Finding{
		Code: "plugin", Verdict: target.NeedsConsent, Text: "The plugin changes.", Consent: "change-auth-plugin",
	}
	limit := target.Finding{
		Code: "limit", Verdict: target.Impossible, Strategies: []target.Strategy{target.Single},
		Text: "The limit is reached.", Fix: "Raise it.",
	}
	empty := target.Finding{Code: "empty", Verdict: target.NeedsConsent, Text: "No token agrees to this."}
	for _, tt := range []struct {
		name      string
		findings  []finding
		strategy  target.Strategy
		consents  []string
		unchecked bool
		reason    string // a part; empty when it may begin
		verdict   rotation.Verdict
	}{
		{"nothing", nil, target.Single, nil, false, "", rotation.Safe},
		{"a note", []finding{note}, target.Single, nil, false, "", rotation.Safe},
		{"not reached", []finding{note}, target.Single, nil, true, "", rotation.NotChecked},
		{
			"no consent", []finding{note, plugin}, target.Overlap, nil,
			false, "--consent=change-auth-plugin", rotation.SafeWithConsent,
		},
		{"another consent", []finding{plugin}, target.Overlap, []string{"x"}, false, "plugin", rotation.SafeWithConsent},
		{"consent", []finding{plugin}, target.Overlap, []string{"change-auth-plugin"}, false, "", rotation.Safe},
		{
			"consent to nothing", []finding{empty}, target.Overlap, []string{""},
			false, "agree", rotation.SafeWithConsent,
		},
		{"impossible", []finding{plugin, limit}, target.Single, nil, true, "Raise it.", rotation.NotPossible},
		{"of another strategy", []finding{limit}, target.Double, nil, false, "", rotation.Safe},
		{
			"impossible, agreed to", []finding{limit}, target.Single, []string{"limit", ""},
			false, "limit", rotation.NotPossible,
		},
	} {
		reason, ok := rotation.MayBegin(tt.findings, tt.strategy, tt.consents)
		if ok != (tt.reason == "") || !strings.Contains(reason, tt.reason) {
			t.Errorf("%s: may begin %v, %q; want the reason %q", tt.name, ok, reason, tt.reason)
		}
		if got := rotation.VerdictFor(tt.findings, tt.strategy, tt.consents, tt.unchecked); got != tt.verdict {
			t.Errorf("%s: verdict %s; want %s", tt.name, got, tt.verdict)
		}
	}
}

// TestCheckIsBounded verifies that a stored check keeps what is serious, and not more than fits.
func TestCheckIsBounded(t *testing.T) {
	t.Parallel()
	var c rotation.Check
	for range 100 {
		c.Findings = append(c.Findings, target.Finding{Verdict: target.Note, Text: strings.Repeat("é", 5000)})
	}
	c.Findings = append(c.Findings, target.Finding{Code: "last", Verdict: target.Impossible})
	got := c.Bounded()
	if len(got.Findings) != 32 || got.Findings[0].Code != "last" || len([]rune(got.Findings[1].Text)) != 601 {
		t.Errorf("%d findings, first %+v", len(got.Findings), got.Findings[0])
	}
	if len(c.Findings) != 101 || c.Findings[0].Verdict != target.Note {
		t.Error("the check itself has changed")
	}
}

// TestReasonIsBounded verifies that the reason of a rotation does not grow with the findings.
func TestReasonIsBounded(t *testing.T) {
	t.Parallel()
	list := slices.Repeat([]target.Finding{{Verdict: target.Impossible, Text: "No."}}, 32)
	reason, ok := rotation.MayBegin(list, target.Single, nil)
	if want := "No. No. No. Further findings: 29."; ok || reason != want {
		t.Errorf("may begin %v, %q; want %q", ok, reason, want)
	}
}
