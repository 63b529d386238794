package target

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyturn/keyturn/sensitive"
)

// hostile is a target whose own words are in what it finds.
type hostile struct {
	Target
	text string
}

func (h hostile) CheckAccount(context.Context, CheckRequest) ([]Finding, error) {
	f := Finding{Code: "x", Verdict: NeedsConsent, Text: h.text, Fix: h.text, Account: h.text}
	return []Finding{{Code: "n", Verdict: Note}, f}, nil
}

// TestFindingsAreClean verifies that a check shows nothing of a target that a terminal would obey,
// that would fill a record, or that is the credential.
func TestFindingsAreClean(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"an escape":             "a\x1b[2Jb",
		"a line break":          "a\r\nverdict: safe",
		"a mark of direction":   "a\u202eb",
		"the credential":        "it is hunter2-hunter2",
		"megabytes":             strings.Repeat("x", 20<<20),
		"what is no text":       "a\xff\x00b",
		"a separator of lines":  "a\u2028b",
		"a C1 control sequence": "a\u009b2Jb",
	} {
		credential := Credential{Account: "app", Secret: sensitive.New("hunter2-hunter2")}
		list, err := CheckAccount(t.Context(), hostile{text: text}, CheckRequest{Current: credential})
		if err != nil || len(list) != 2 || list[0].Code != "x" {
			t.Fatalf("%s: %d findings, %v; want the serious one first", name, len(list), err)
		}
		for _, shown := range []string{list[0].Text, list[0].Fix, list[0].Account} {
			if len(shown) > 2000 || strings.ContainsAny(shown, "\x1b\r\n\x00\u202e\u2028\u009b") ||
				!utf8.ValidString(shown) || strings.Contains(shown, "hunter2") {
				t.Errorf("%s: shown as %.100q", name, shown)
			}
		}
	}
}

// TestFixIsNotCut verifies that a finding shows no part of a command, and no statement without its
// end.
func TestFixIsNotCut(t *testing.T) {
	t.Parallel()
	var statements []string
	for i := range 30 {
		statements = append(statements, "DROP `"+strings.Repeat("ä", 60)+strconv.Itoa(i)+"`;")
	}
	secret := sensitive.New("ääää") // its replacement is longer
	shown, left := WholeStatements(statements, " ", "Run:", secret)
	if left == 0 || left == len(statements) || shown != strings.Join(statements[:len(statements)-left], " ") {
		t.Errorf("%d statements are left out of %q", left, shown)
	}
	if all, left := WholeStatements(statements[:2], " ", "Run:"); left != 0 || all != strings.Join(statements[:2], " ") {
		t.Errorf("%d of two statements are left out of %q", left, all)
	}
	for _, fix := range []string{"Run: " + shown, "Run: " + strings.Join(statements, " ")} {
		got := BoundedFindings([]Finding{{Fix: fix}}, secret)[0].Fix
		if begins := strings.Count(got, "DROP"); begins != strings.Count(got, "`;") || strings.Contains(got, "…") {
			t.Errorf("a statement is cut: %s", got)
		}
		if (got == longFix) != (fix != "Run: "+shown) {
			t.Errorf("fix: %s", got)
		}
	}
}

// TestNotesAfterALeakComeFirst verifies that many other notes do not displace the ones that matter
// after a leak.
func TestNotesAfterALeakComeFirst(t *testing.T) {
	t.Parallel()
	list := make([]Finding, maxFindings, maxFindings+2)
	for i := range list {
		list[i] = Finding{Code: "n", Verdict: Note}
	}
	list = append(list, Finding{Code: "o", Verdict: Note, Outlasts: true}, Finding{Code: "c", Verdict: NeedsConsent})
	got := BoundedFindings(list)
	if len(got) != maxFindings || got[0].Code != "c" || got[1].Code != "o" {
		t.Errorf("first are %s and %s", got[0].Code, got[1].Code)
	}
}

// TestReopening verifies that an emergency says what opening a closed account does.
func TestReopening(t *testing.T) {
	t.Parallel()
	for _, emergency := range []bool{false, true} {
		f := CheckRequest{Emergency: emergency}.OfCurrent()
		f.Closed("account-locked", "The account is locked.", "Unlock it.")
		want := "Unlock it."
		if emergency {
			want += " The leaked credential works again from then on, so repeat the emergency at once."
		}
		if got := f.List[0]; got.Fix != want || got.Verdict != Impossible {
			t.Errorf("emergency %t: %+v, want the fix %q", emergency, got, want)
		}
	}
}

// TestDenied verifies which errors of the administrator's calls are findings about its rights.
func TestDenied(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err     error
		finding bool
	}{
		{nil, false},
		{Denied.Errorf("no right"), true},
		{Unreachable.Errorf("no connection"), false},
		{AsAdmin(Rejected.Errorf("wrong password")), false},
		{AsAdmin(Failed(Denied, CodeEgress, "not permitted")), false},
	} {
		f := CheckRequest{}.OfCurrent()
		err := f.Denied("not-read", tt.err, "Give it the right.")
		if found := len(f.List) == 1; found != tt.finding || (err == nil) != (tt.finding || tt.err == nil) {
			t.Errorf("%v: a finding: %t, error %v", tt.err, found, err)
		}
	}
}
