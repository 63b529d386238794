package plugin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

var inUse = target.Credential{Account: "app", Secret: sensitive.New("secret-in-use-marker")}

// answering returns a target whose plug-in gives one answer, and the messages that it got.
func answering(body string, proven bool) (*plugin.Target, *[]string) {
	var got []string
	return &plugin.Target{
		Settings: plugin.Settings{Strategy: target.Double, Checks: true},
		Name:     "crm",
		Call: func(_ context.Context, _ plugin.Step, message []byte, _ []sensitive.Value) (plugin.Answer, error) {
			got = append(got, string(message))
			return plugin.Answer{JSON: []byte(body), MayBeOK: true, Proven: proven}, nil
		},
	}, &got
}

func checkOf(t *testing.T, tt *plugin.Target) ([]target.Finding, error) {
	t.Helper()
	return tt.CheckAccount(t.Context(), target.CheckRequest{
		Current:    inUse,
		Partner:    "app_b",
		Strategies: []target.Strategy{target.Double},
	})
}

func TestCheckIsAsked(t *testing.T) {
	t.Parallel()
	tt, got := answering(`{"result":"ok","window":"Two seconds","findings":[
		{"code":"scopes","verdict":"note","message":"The key has scopes, which the new one gets"},
		{"code":"ip-list","verdict":"needs-consent","message":"It has addresses.","fix":"Remove them.","account":"app_b"},
		{"code":"expired","verdict":"impossible","message":"It has expired.","account":"app"}]}`, true)
	findings, err := checkOf(t, tt)
	if err != nil {
		t.Fatal(err)
	}
	want := []target.Finding{
		{Code: "plugin-scopes", Verdict: target.Note, Account: "app", InUse: true,
			Text: "The plug-in says: The key has scopes, which the new one gets."},
		{Code: "plugin-ip-list", Verdict: target.NeedsConsent, Account: "app_b", Consent: "plugin-ip-list",
			Text: "The plug-in says: It has addresses.", Fix: "Remove them."},
		{Code: "plugin-expired", Verdict: target.Impossible, Account: "app", InUse: true,
			Text: "The plug-in says: It has expired."},
	}
	if fmt.Sprint(findings) != fmt.Sprint(want) {
		t.Errorf("findings %+v\nwant %+v", findings, want)
	}
	if w := tt.Window(target.Double); w != "The plug-in says: Two seconds." {
		t.Errorf("window %q", w)
	}
	var m struct {
		Protocol               int
		Step, Account, Partner string
		Old                    struct{ Account, Secret string }
		New                    any
	}
	if err := json.Unmarshal([]byte((*got)[0]), &m); err != nil || m.Protocol != 1 || m.Step != "check" ||
		m.Account != "app" || m.Partner != "app_b" || m.Old.Secret != inUse.Secret.Reveal() || m.New != nil {
		t.Errorf("the message is %s, %v", (*got)[0], err)
	}
}

// TestCheckIsOptional verifies that a plug-in without the step is not asked, and that the check
// says so.
func TestCheckIsOptional(t *testing.T) {
	t.Parallel()
	tt, got := answering(`{"result":"ok"}`, true)
	tt.Settings.Checks = false
	findings, err := checkOf(t, tt)
	if err != nil || len(*got) != 0 || len(findings) != 1 || findings[0].Code != "check-not-made" ||
		findings[0].Verdict != target.Note {
		t.Errorf("%+v, %v, %d messages", findings, err, len(*got))
	}
	if w := tt.Window(target.Single); !strings.HasPrefix(w, "A login with the old credential is refused") {
		t.Errorf("window %q", w)
	}
}

// TestFindingsAreNotTrusted verifies that an answer cannot fill a record, hide a finding, name an
// account that was not asked for, or put control characters or secrets before an operator.
func TestFindingsAreNotTrusted(t *testing.T) {
	t.Parallel()
	const good = `{"code":"a","verdict":"note","message":"m"}`
	long := strings.Repeat("a", 41)
	for name, list := range map[string]string{
		"21 findings with ":                    strings.Join(slices.Repeat([]string{good}, 21), ","),
		"finding 1 with a code":                `{"code":"A b","verdict":"note","message":"m"}`,
		"finding 2 with a code":                good + `,{"code":"` + long + `","verdict":"note","message":"m"}`,
		"finding 1 with a verdict":             `{"code":"a","verdict":"safe","message":"m"}`,
		"finding 1 with no message":            `{"code":"a","verdict":"note"}`,
		"finding 1 with an account":            `{"code":"a","verdict":"note","message":"m","account":"root"}`,
		"not the JSON object of the protocol":  `{"code":"a","verdict":"note","message":"m","consent":"x"}`,
		"not the JSON object of the protocol ": `"a"`,
	} {
		tt, _ := answering(`{"result":"ok","findings":[`+list+`]}`, true)
		_, err := checkOf(t, tt)
		want := strings.TrimSuffix(strings.TrimSpace(name), " with")
		if target.ClassOf(err) != target.Unknown || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: class %v, %v", name, target.ClassOf(err), err)
		}
	}
	tt, _ := answering(`{"result":"ok","findings":[{"code":"a","verdict":"impossible","message":"`+
		strings.Repeat("x", 290)+` secret-in-use-marker","fix":"run\u202e\u001b[2J secret-in-use-marker"}]}`, true)
	findings, err := checkOf(t, tt)
	if err != nil || len(findings) != 1 {
		t.Fatal(findings, err)
	}
	f := findings[0]
	if text := f.Text + f.Fix; strings.Contains(text, "marker") || strings.Contains(text, "secret-in") ||
		strings.ContainsAny(text, "\u202e\u001b") || len([]rune(f.Text)) > 400 {
		t.Errorf("the finding is %q, %q", f.Text, f.Fix)
	}
}

// TestWordsWithoutTLS verifies that callers read only tokens of a sender without proven identity.
func TestWordsWithoutTLS(t *testing.T) {
	t.Parallel()
	tt, _ := answering(`{"result":"ok","window":"banner","findings":[
		{"code":"expired","verdict":"impossible","message":"banner","fix":"banner"}]}`, false)
	findings, err := checkOf(t, tt)
	if err != nil || len(findings) != 1 || findings[0].Code != "plugin-expired" ||
		findings[0].Verdict != target.Impossible ||
		strings.Contains(fmt.Sprint(findings, tt.Window(target.Double)), "banner") {
		t.Errorf("%+v, %v", findings, err)
	}
}

// TestClassesOfAnswers verifies what an answer to a login and to a check means.
func TestClassesOfAnswers(t *testing.T) {
	t.Parallel()
	verify := func(tt *plugin.Target) error { return tt.Verify(t.Context(), inUse) }
	check := func(tt *plugin.Target) error { _, err := checkOf(t, tt); return err }
	set := func(tt *plugin.Target) error {
		return tt.Apply(t.Context(), target.Change{Strategy: target.Double, New: inUse, Old: inUse})
	}
	for _, tt := range []struct {
		result string
		do     func(*plugin.Target) error
		class  target.Class
	}{
		{"admitted", verify, target.Admitted},
		{"unclear", verify, target.Unclear},
		{"rejected", verify, target.Rejected},
		{"admitted", set, target.Unknown},
		{"unclear", set, target.Unknown},
		{"denied", check, target.Denied},
		{"unavailable", check, target.Unreachable},
		{"admitted", check, target.Unknown},
		{"rejected", check, target.Unknown},
	} {
		for _, proven := range []bool{true, false} {
			asked, _ := answering(`{"result":"`+tt.result+`","code":"E7","message":"limit of 5 sessions"}`, proven)
			err := tt.do(asked)
			shows := strings.Contains(fmt.Sprint(err), "limit of 5 sessions (E7)")
			if target.ClassOf(err) != tt.class || tt.class != target.Unknown && shows != proven {
				t.Errorf("%s, proven %v: class %v, %v; want %v", tt.result, proven, target.ClassOf(err), err, tt.class)
			}
		}
	}
}
