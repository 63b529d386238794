package rotation_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// onTheWire returns the constants of package kms that states are declared by.
func onTheWire(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "kms", "states.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values[spec.Names[0].Name] = value
		}
		return true
	})
	return values
}

// constants returns the values of all constants of a type that the package declares.
func constants(t *testing.T, typeName string) (values []string) {
	t.Helper()
	wire := onTheWire(t)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != typeName {
				return true
			}
			for _, v := range spec.Values {
				switch v := v.(type) {
				case *ast.BasicLit:
					value, err := strconv.Unquote(v.Value)
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, value)
				case *ast.SelectorExpr:
					values = append(values, wire[v.Sel.Name])
				}
			}
			return true
		})
	}
	if len(values) == 0 {
		t.Fatalf("no constant of type %s was found", typeName)
	}
	return values
}

var isToken = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

// TestEveryStateHasARow verifies that each state is in the table of states, once, with all that
// operators read of it, and in the documents.
func TestEveryStateHasARow(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, s := range rotation.States() {
		rows = append(rows, string(s))
	}
	if declared := constants(t, "State"); !same(rows, declared) {
		t.Errorf("the table of states has %v, and the constants are %v", rows, declared)
	}
	for _, s := range rotation.States() {
		r := record(s)
		if !isToken.MatchString(string(s)) {
			t.Errorf("%q is no token", s)
		}
		if waits := r.WaitsFor(0, noon); (waits != "") != r.InFlight() {
			t.Errorf("%s waits for %q", s, waits)
		}
		_, err := rotation.Next(r, rotation.Event{Kind: rotation.Cancel}, noon)
		if instead := s.InsteadOfCancel("db"); (err != nil) != (instead != "") {
			t.Errorf("%s: cancelled with %v, and the advice is %q", s, err, instead)
		}
	}
	shown := slices.DeleteFunc(rows, func(s string) bool { return s == string(rotation.Idle) }) // nothing to explain
	if described := described(t, "## States of a rotation"); !same(shown, described) {
		t.Errorf("docs/rotation.md explains the states %v; want %v", described, shown)
	}
}

// TestWhatAStateSaysOfTheTarget verifies in which states the target has nothing of the candidate,
// and in which a login with the credential in use would say nothing.
func TestWhatAStateSaysOfTheTarget(t *testing.T) {
	t.Parallel()
	unsent := []rotation.State{rotation.Scheduled, rotation.Prepared, rotation.Refused}
	settled := append([]rotation.State{rotation.InGrace, rotation.Quarantined}, unsent...)
	for _, s := range rotation.States() {
		r := record(s)
		if got, want := r.HasSentNothing(), slices.Contains(unsent, s); got != want {
			t.Errorf("%s: the target has nothing of the candidate: %v, want %v", s, got, want)
		}
		if got, want := r.IsChanging(), r.InFlight() && !slices.Contains(settled, s); got != want {
			t.Errorf("%s: the credential in use is being changed: %v, want %v", s, got, want)
		}
		if r.Attempt, r.Doubtful = 1, true; r.HasSentNothing() {
			t.Errorf("%s: the target has nothing of an attempt that it has not answered", s)
		}
	}
}

// described returns the tokens in the first column of the table under a heading of
// docs/rotation.md.
func described(t *testing.T, heading string) (tokens []string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rotation.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n#")
	for line := range strings.Lines(section) {
		if row, ok := strings.CutPrefix(line, "| `"); ok {
			token, _, _ := strings.Cut(row, "`")
			tokens = append(tokens, token)
		}
	}
	return tokens
}

// TestEveryEventHasARow verifies that each event is in the table of events, once, and in the
// documents with its meaning and its name in the audit trail.
func TestEveryEventHasARow(t *testing.T) {
	t.Parallel()
	var rows []string
	for _, k := range rotation.EventKinds() {
		rows = append(rows, string(k))
	}
	if declared := constants(t, "EventKind"); !same(rows, declared) {
		t.Errorf("the table of events has %v, and the constants are %v", rows, declared)
	}
	for _, k := range rotation.EventKinds() {
		if !isToken.MatchString(string(k)) || k.Text() == "" {
			t.Errorf("%q is no token, or has no text: %q", k, k.Text())
		}
		name := "`" + k.Operation() + "`"
		switch k.Recording() {
		case rotation.RecordedTwice:
			name += ", before and after"
		case rotation.RecordedAsCall:
			name = "the operation that asked for it"
		case rotation.NotRecorded:
			name = ""
		}
		documented(t, strings.TrimRight(fmt.Sprintf("| `%s` | %s | %s", k, k.Text(), name), " ")+" |")
	}
	if described := described(t, "### Steps"); !same(rows, described) {
		t.Errorf("docs/rotation.md explains the events %v; want %v", described, rows)
	}
}

// TestStepsAreListed verifies that Steps has every step but the one that PlanIdle alone returns, so
// that the engine has code for each.
func TestStepsAreListed(t *testing.T) {
	t.Parallel()
	listed := []string{string(rotation.Postpone)}
	for _, s := range rotation.Steps() {
		listed = append(listed, string(s))
	}
	if declared := constants(t, "Step"); !same(listed, declared) {
		t.Errorf("Steps returns %v, and the constants are %v", listed, declared)
	}
}

// TestEveryNoticeIsDocumented verifies that docs/rotation.md names the type of each event that
// receivers may get.
func TestEveryNoticeIsDocumented(t *testing.T) {
	t.Parallel()
	for _, n := range constants(t, "Notice") {
		if n != "" {
			documented(t, "`io.keyturn."+n+"`")
		}
	}
}

func documented(t *testing.T, text string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rotation.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), text) {
		t.Errorf("docs/rotation.md lacks %s", text)
	}
}

// TestTokensAreStable pins what stores, audit trails and dashboards have of events. A change here
// breaks them.
func TestTokensAreStable(t *testing.T) {
	t.Parallel()
	pinned := map[string]string{
		"begun":                 "RotationBegun",
		"candidate-stored":      "RotationCandidateStored",
		"sending":               "RotationSending",
		"accepted":              "RotationAccepted",
		"not-reached":           "RotationNotReached",
		"denied":                "RotationDenied",
		"no-answer":             "RotationNoAnswer",
		"refused":               "RotationRefused",
		"resolved":              "RotationResolved",
		"logged-in":             "RotationLoggedIn",
		"proven":                "RotationProven",
		"not-ready":             "RotationNotReady",
		"copies-late":           "RotationCopiesLate",
		"login-rejected":        "RotationLoginRejected",
		"promoted":              "RotationPromoted",
		"grace-over":            "RotationGraceOver",
		"waiting-for-consumers": "RotationWaitingForConsumers",
		"grace-limit-reached":   "RotationGraceLimitReached",
		"evicting":              "RotationEvicting",
		"retired":               "RotationRetired",
		"reverted":              "RotationReverted",
		"failed":                "RotationFailed",
		"cannot-begin":          "RotationCannotBegin",
		"cleared":               "RotationCleared",
		"probe-requested":       "",
		"apply-requested":       "",
		"undo-requested":        "",
		"grace-ended":           "",
		"cancelled":             "",
		"adopted":               "",
		"target-changed":        "RotationTargetChanged",
		"overdue":               "",
		"drift-found":           "",
		"store-restored":        "",
	}
	for _, k := range rotation.EventKinds() {
		name, ok := pinned[string(k)]
		recorded := k.Recording() == rotation.RecordedOnce || k.Recording() == rotation.RecordedTwice
		if !ok || recorded != (name != "") || recorded && k.Operation() != name {
			t.Errorf("%s is recorded as %s; pinned is %q", k, k.Operation(), name)
		}
		delete(pinned, string(k))
	}
	for k := range pinned {
		t.Errorf("the event %s is gone", k)
	}
	durable := []rotation.EventKind{
		rotation.Stored, rotation.Sending, rotation.Promoted, rotation.Evicting, rotation.Retired,
	}
	for _, k := range rotation.EventKinds() {
		if (k.Recording() == rotation.RecordedTwice) != slices.Contains(durable, k) {
			t.Errorf("%s is recorded before and after: %t", k, k.Recording() == rotation.RecordedTwice)
		}
	}
}

// TestStepsBeforeTokens reads a record of a release that stored each event as prose.
func TestStepsBeforeTokens(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "record-before-tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r rotation.Record
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	var got []rotation.EventKind
	var triggers []string
	for _, step := range r.Steps {
		if step.Event == rotation.Begun {
			triggers = append(triggers, step.Text)
		}
		got = append(got, step.Event)
	}
	slices.Sort(got)
	want := rotation.EventKinds()
	want = slices.DeleteFunc(want, func(k rotation.EventKind) bool {
		newer := k == rotation.Proven || k == rotation.Unready || k == rotation.CopiesLate || k == rotation.Denied ||
			k == rotation.Hurried
		return newer || k == rotation.Evicting || k == rotation.Overdue // which was never a step
	})
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("read as %v; want %v", got, want)
	}
	if !slices.Equal(triggers, []string{"manual", "automatic", "emergency"}) {
		t.Errorf("the triggers are %v", triggers)
	}
}

// TestNoticeOf verifies which changes of a rotation those outside are told of.
func TestNoticeOf(t *testing.T) {
	t.Parallel()
	mode := func(m rotation.Mode) func(*rotation.Record) { return func(r *rotation.Record) { r.Mode = m } }
	interrupts := func(s rotation.State) func(*rotation.Record) {
		return func(r *rotation.Record) {
			r.Mode, r.Interrupted = rotation.Reapply, &rotation.Interrupted{State: s, GraceUntil: noon.Add(time.Hour)}
		}
	}
	live := rotation.Event{Kind: rotation.Resolved, Candidate: target.Live}
	want := map[rotation.Notice]bool{}
	for _, tt := range []struct {
		from   rotation.State
		with   func(*rotation.Record)
		event  rotation.Event
		notice rotation.Notice
	}{
		{rotation.Applying, nil, rotation.Event{Kind: rotation.Accepted}, rotation.NoNotice},
		{rotation.Verified, nil, rotation.Event{Kind: rotation.Promoted}, rotation.NoticeSucceeded},
		{rotation.Scheduled, nil, rotation.Event{Kind: rotation.Impossible}, rotation.NoticeFailed},
		{rotation.Scheduled, nil, rotation.Event{Kind: rotation.Cancel}, rotation.NoticeFailed},
		{rotation.Reverting, mode(rotation.Rehearse), rotation.Event{Kind: rotation.Reverted}, rotation.NoticeRehearsed},
		{rotation.Applied, mode(rotation.Rehearse), rotation.Event{Kind: rotation.LoggedIn}, rotation.NoNotice},
		{rotation.Applied, mode(rotation.Reapply), rotation.Event{Kind: rotation.LoggedIn}, rotation.NoticeRepaired},
		{rotation.Applied, interrupts(rotation.InGrace), rotation.Event{Kind: rotation.LoggedIn}, rotation.NoticeRepaired},
		{rotation.Unknown, interrupts(rotation.Retiring), live, rotation.NoticeRepaired},
		{rotation.Applied, interrupts(rotation.InGrace), rotation.Event{Kind: rotation.Cancel}, rotation.NoticeQuarantined},
		{rotation.Quarantined, interrupts(rotation.InGrace), rotation.Event{Kind: rotation.Undo}, rotation.NoNotice},
		{rotation.Reverting, nil, rotation.Event{Kind: rotation.Declined}, rotation.NoticeQuarantined},
		{rotation.Quarantined, nil, rotation.Event{Kind: rotation.Probed}, rotation.NoNotice},
		{rotation.Undoing, nil, rotation.Event{Kind: rotation.LoggedIn}, rotation.NoticeUndone},
		{rotation.Undoing, nil, rotation.Event{Kind: rotation.Proven}, rotation.NoticeUndone},
		{rotation.Undoing, nil, rotation.Event{Kind: rotation.NoLogin}, rotation.NoNotice},
		{rotation.InGrace, nil, rotation.Event{Kind: rotation.Expired}, rotation.NoNotice},
		{
			rotation.InGrace, func(r *rotation.Record) { r.GraceDeadline = noon },
			rotation.Event{Kind: rotation.Overran, Consumers: 1}, rotation.NoticeGraceLimit,
		},
		{rotation.Retiring, nil, rotation.Event{Kind: rotation.Retired}, rotation.NoNotice},
		{
			rotation.Retiring, func(r *rotation.Record) { r.FailingSince = noon.Add(-rotation.FailingAfter) },
			rotation.Event{Kind: rotation.Failed}, rotation.NoticeFailing,
		},
	} {
		old := record(tt.from)
		if tt.with != nil {
			tt.with(&old)
		}
		r, err := rotation.Next(old, tt.event, noon)
		if got := rotation.NoticeOf(old, r, tt.event.Kind); err != nil || got != tt.notice {
			t.Errorf("%s in %s: %q, %v; want %q", tt.event.Kind, tt.from, got, err, tt.notice)
		}
		want[tt.notice] = true
	}
	idle, stuck := record(rotation.Done), record(rotation.Quarantined)
	overdue := idle
	overdue.Overdue = true
	for _, tt := range []struct {
		old, r rotation.Record
		kind   rotation.EventKind
		notice rotation.Notice
	}{
		{idle, idle.Begin(rotation.Request{ID: "r2"}, noon), rotation.Begun, rotation.NoticeStarted},
		{idle, idle.Drifted("v2", "t", "", "", noon), rotation.Drift, rotation.NoticeDrift},
		{idle, overdue, rotation.Overdue, rotation.NoticeOverdue},
		{stuck, stuck.Adopted("v3", false, noon, noon), rotation.Adopted, rotation.NoticeRepaired},
		{idle, idle.Restored(noon), rotation.Restored, rotation.NoNotice},
		{idle, idle.Seen("v2", noon, noon), "", rotation.NoNotice},
	} {
		if got := rotation.NoticeOf(tt.old, tt.r, tt.kind); got != tt.notice {
			t.Errorf("%s: %q, want %q", tt.kind, got, tt.notice)
		}
		want[tt.notice] = true
	}
	for _, n := range constants(t, "Notice") {
		if !want[rotation.Notice(n)] {
			t.Errorf("no case leads to %q", n)
		}
	}
}

func same(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
