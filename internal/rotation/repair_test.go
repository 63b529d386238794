package rotation

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// TestProbeOfADrift: asking what is live gives the target nothing, also after attempts to give it
// something have failed; only the request to apply does.
func TestProbeOfADrift(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	step := func(r Record, e Event) Record {
		t.Helper()
		next, err := Next(r, e, now)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	dead := Event{Kind: Resolved, Candidate: target.Dead}
	drifted := Record{}.Drifted("v1", "pg", target.Single, "rejected", now)
	failed := step(step(step(drifted, Event{Kind: Again}), Event{Kind: Sending}), Event{Kind: NoAnswer})
	failed.Attempt, failed.SentAt = MaxAttempts, time.Time{} // nothing is under way any more
	for name, r := range map[string]Record{"found": drifted, "after attempts": step(failed, dead)} {
		if r.State != Quarantined {
			t.Fatalf("%s: %s", name, r.State)
		}
		probed := step(r, Event{Kind: Probed})
		if got := step(probed, dead); got.State != Quarantined || got.Reason == "" {
			t.Errorf("%s, still dead: %s, %q; want quarantined again", name, got.State, got.Reason)
		}
		if got := step(probed, Event{Kind: Resolved, Candidate: target.Live}); got.State != Done {
			t.Errorf("%s, live again: %s; want done, without reads that wait for a login", name, got.State)
		}
		if got := step(step(probed, Event{Kind: Failed}), dead); got.State != Quarantined {
			t.Errorf("%s, dead after a target that did not answer: %s", name, got.State)
		}
	}
	sent := step(step(step(drifted, Event{Kind: Again}), Event{Kind: Sending}), Event{Kind: NoAnswer})
	if got := step(sent, Event{Kind: Resolved, Candidate: target.Dead, Settled: true}); got.State != Prepared {
		t.Errorf("applied without an answer and dead: %s; want another attempt", got.State)
	}
}

func TestRepairedCredentialIsProbedAgain(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	drifted := Record{
		Account: "a",
		Secret:  "s",
		State:   Done,
	}.Drifted(
		"v2",
		"t",
		target.Single,
		"its own state says so",
		noon,
	)
	drifted.Check = &Check{Findings: []target.Finding{
		{Code: CodeLoginRejected},
		{Code: "no-account", Missing: true},
		{Code: "no-password", Drift: true},
		{Code: "connection-limit"},
	}}
	keepsRest := func(r Record) bool {
		list := r.Check.Findings
		return len(list) == 1 && list[0].Code == "connection-limit" && len(drifted.Check.Findings) == 4
	}
	if !drifted.Wake().IsZero() {
		t.Errorf("a quarantined rotation wakes at %v", drifted.Wake())
	}
	applied := drifted
	for _, e := range []Event{{Kind: Again}, {Kind: Sending}, {Kind: Accepted}, {Kind: LoggedIn}} {
		var err error
		if applied, err = Next(applied, e, noon); err != nil {
			t.Fatal(err)
		}
	}
	if applied.State != Done || applied.Wake().IsZero() {
		t.Errorf("after apply: %s, wakes at %v", applied.State, applied.Wake())
	}
	adopted := drifted.Adopted("v3", false, drifted.LoginFailedAt, noon)
	if adopted.State != Done || adopted.Wake().IsZero() {
		t.Errorf("after adopt: %s, wakes at %v", adopted.State, adopted.Wake())
	}
	if !keepsRest(applied) || !keepsRest(adopted) {
		t.Errorf("findings after a repair: %+v; after an adoption: %+v", applied.Check.Findings, adopted.Check.Findings)
	}
}

// TestDriftInGrace: the credential in use is checked in its grace period, too. One that was changed
// is quarantined, and a repair continues the grace period.
func TestDriftInGrace(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	end, check := noon.Add(3*time.Hour), noon.Add(time.Hour)
	grace := Record{
		Account: "a", Secret: "s", ID: "v2", State: InGrace, Mode: Rotate, Trigger: Automatic, Strategy: target.Double,
		Target: "t", Candidate: "v2", Base: "v1", Attempt: 1, Candidates: 1, Swapped: true,
		StartedAt: noon, PromotedAt: noon, GraceUntil: end, GraceDeadline: end.Add(time.Hour), NextAt: end,
		Grace:    Grace{Min: 3 * time.Hour, Max: 4 * time.Hour},
		Accepted: "v2", Health: Health{NextAt: check},
	}
	for f := range reflect.TypeFor[Interrupted]().Fields() {
		if reflect.ValueOf(grace).FieldByName(f.Name).IsZero() {
			t.Fatalf("%s is not set, so this test does not see whether a repair restores it", f.Name)
		}
	}
	if at := grace.Wake(); !at.Equal(check) {
		t.Errorf("wakes at %v, want the check of the credential at %v", at, check)
	}
	for at, want := range map[time.Time]Step{noon: Wait, check: CheckHealth, end: Expire} {
		if got := Plan(grace, at); got != want {
			t.Errorf("at %v: %s, want %s", at, got, want)
		}
	}
	drifted, kind := grace.AfterProbe(
		Probe{Version: "v2", Target: "t", Live: target.Dead, Strategy: target.Single, Text: "rejected"}, check, end)
	if drifted.State != Quarantined || kind != Drift || !strings.Contains(drifted.Advice(), "keyturn rotation undo") {
		t.Fatalf("after the check: %s, %s, %q", drifted.State, kind, drifted.Advice())
	}
	step := func(r Record, kinds ...EventKind) Record {
		t.Helper()
		for _, kind := range kinds {
			var err error
			if r, err = Next(r, Event{Kind: kind}, check); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	repaired := step(drifted, Again, Sending, Accepted, LoggedIn)
	repaired.Steps, repaired.Health, repaired.Doubtful = nil, grace.Health, false
	repaired.SentAt, repaired.HeldAt = time.Time{}, time.Time{}
	if !reflect.DeepEqual(repaired, grace) {
		t.Errorf("after the repair:\n%+v, want\n%+v", repaired, grace)
	}
	undone := step(drifted, Undo, LoggedIn)
	if undone.State != InGrace || undone.Candidate != "v1" || undone.Base != "v2" {
		t.Errorf("after an undo: %s, candidate %s, base %s", undone.State, undone.Candidate, undone.Base)
	}
	if !undone.PreviousDeadAt.Equal(check) {
		t.Errorf("the credential that was undone is dead since %v, want %v", undone.PreviousDeadAt, check)
	}
	for _, failed := range []EventKind{NoLogin, Cancel} {
		r := step(drifted, Undo, failed)
		if r.State != Quarantined || strings.Contains(r.Advice(), "keyturn rotation undo") != (failed == Cancel) ||
			strings.Contains(r.Advice(), "An undo would probably fail: the target has rejected") != (failed == NoLogin) {
			t.Errorf("after an undo that ended with %s: %s, %q; want the quarantine, and no undo that the target has "+
				"just refused", failed, r.State, r.Advice())
		}
		if version, until, _ := r.Previous(); version != "v1" || !until.Equal(end) {
			t.Errorf("an undo returns to %q, and after a repair until %v; want v1 until %v", version, until, end)
		}
		if r = step(r, Again, Sending, Accepted, LoggedIn); r.State != InGrace || r.Base != "v1" || !r.NextAt.Equal(end) {
			t.Errorf("repaired after that: %s of %s until %v", r.State, r.Base, r.NextAt)
		}
	}
	for other, want := range map[string]State{"app_clone": InGrace, "app": Done} {
		goesOn := drifted.Outlives(target.Credential{Account: other}, target.Credential{Account: "app"})
		r := drifted.Adopted("v3", goesOn, time.Time{}, check)
		if r.State != want || r.Candidate != "v3" || want == InGrace && (r.Base != "v1" || !r.NextAt.Equal(end)) {
			t.Errorf("after adopt for %s: %s, %s instead of %s until %v; want %s", other, r.State, r.Candidate, r.Base,
				r.NextAt, want)
		}
	}
	urgent, ok := step(drifted, Again, Sending).Ask(Request{ID: "v4", Mode: Rotate, Trigger: Emergency}, check)
	if urgent = step(urgent, Accepted, LoggedIn); !ok || Plan(urgent, check) != Expire {
		t.Errorf("an emergency during the repair: %t, %s until %v; want no grace period", ok, urgent.State, urgent.NextAt)
	}
	leaked := grace
	leaked.State, leaked.Trigger, leaked.NextAt = Retiring, Emergency, time.Time{}
	leaked = step(leaked.Drifted("v2", "t", target.Single, "rejected", check), Again, Sending, Accepted, LoggedIn)
	if leaked.State != Retiring || leaked.Base != "v1" {
		t.Errorf("a repair before the retirement: %s of %s; want that v1, which may have leaked, is retired",
			leaked.State, leaked.Base)
	}
	if _, err := Next(Record{}.Drifted("v1", "t", target.Single, "rejected", noon), Event{Kind: Undo}, noon); err == nil {
		t.Error("an undo without a previous credential is taken")
	}
}

// TestUndoReturnsToTheQuarantine verifies that an undo that changes nothing invents no answer of
// the target: what is known of the credential in use stays, and how it is repaired.
func TestUndoReturnsToTheQuarantine(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	grace := Record{
		ID: "v2", State: InGrace, Mode: Rotate, Trigger: Manual, Strategy: target.Double, Candidate: "v2", Base: "v1",
		GraceUntil: noon.Add(time.Hour), GraceDeadline: noon.Add(2 * time.Hour), NextAt: noon.Add(time.Hour),
	}
	before := grace.Drifted("v2", "t", target.Single, "rejected", noon)
	if !before.CanUndo(noon) {
		t.Error("no undo out of the quarantine of a grace period")
	}
	for name, outcomes := range map[string][]Event{
		"cancelled": {{Kind: Cancel}},
		"rejected":  {{Kind: NoLogin, Text: "no such password", LoginFailed: true}},
		"undecided": slices.Repeat([]Event{{Kind: Failed, Text: "too many clients", Answered: true}}, MaxUndecided),
	} {
		r := before
		for i, e := range append([]Event{{Kind: Undo}}, outcomes...) {
			var err error
			if r, err = Next(r, e, noon.Add(time.Duration(i+1)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range r.Steps[1:] {
			if s.Event == Drift {
				t.Errorf("%s: another step says that the target was asked: %+v", name, s)
			}
		}
		if !strings.Contains(r.Reason, "when it was asked last") || !strings.Contains(r.Reason, outcomes[0].Text) {
			t.Errorf("%s: the reason is %q", name, r.Reason)
		}
		r.Steps, r.Reason, r.LoginFailedAt, r.PreviousDeadAt = before.Steps, before.Reason, before.LoginFailedAt, time.Time{}
		if !reflect.DeepEqual(r, before) {
			t.Errorf("%s:\n%+v, want\n%+v", name, r, before)
		}
	}
}

// TestUndecidedUndoKeepsTheRetirement verifies that the previous credential is retired after a
// repair when the undo that the engine had begun was neither possible nor rejected.
func TestUndecidedUndoKeepsTheRetirement(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	r := Record{
		State: Retiring, Mode: Rotate, Trigger: Manual, Strategy: target.Double, Candidate: "v2", Base: "v1", Attempt: 1,
	}
	events := slices.Concat(
		slices.Repeat([]Event{{Kind: Unready, Text: "rejected", LoginFailed: true, Base: target.Dead}}, MaxRejections),
		slices.Repeat([]Event{{Kind: Failed, Text: "too many clients", Answered: true}}, MaxUndecided),
	)
	step := func(events ...Event) {
		t.Helper()
		for _, e := range events {
			at = at.Add(time.Hour)
			var err error
			if r, err = Next(r, e, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	step(events...)
	if version, _, _ := r.Previous(); r.State != Quarantined || version != "v1" || r.CanUndo(at) {
		t.Fatalf("after an undo that nothing decided: %s, %s", r.State, version)
	}
	step(Event{Kind: Probed}, Event{Kind: Resolved, Candidate: target.Live})
	if r.State != Retiring || r.Base != "v1" || r.Strategy != target.Double {
		t.Errorf("after the repair: %s of %s; want that v1 is retired, which the target may still accept", r.State, r.Base)
	}
}

// TestDeadlineOfAGrace verifies that only a grace period that goes on, or is continued by a repair,
// has a deadline.
func TestDeadlineOfAGrace(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, s := range States() {
		r := Record{State: s, Base: "v1", GraceUntil: noon, GraceDeadline: noon.Add(time.Hour)}
		if _, _, limit := r.Previous(); limit.IsZero() == (s == InGrace) {
			t.Errorf("%s has the deadline %v", s, limit)
		}
		if _, _, limit := r.Drifted("v2", "t", target.Single, "", noon).Previous(); limit.IsZero() ==
			(s == InGrace || s == Undoing) {
			t.Errorf("a quarantine of %s has the deadline %v", s, limit)
		}
	}
}

// TestHealthFollowsTheProbe verifies that a probe of a quarantined credential that works says so in
// plain words, and leaves it live.
func TestHealthFollowsTheProbe(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	r := Record{State: Done, Strategy: target.Single, Accepted: "v1"}.
		Drifted("v1", "pg", target.Single, "password authentication failed", now)
	later := now.Add(time.Hour)
	r, err := Next(r, Event{Kind: Probed}, later)
	if err != nil {
		t.Fatal(err)
	}
	q := Resolution{Inspected: true, Known: [2]target.Liveness{target.Live}}
	ask, e := q.Next(r, false, 0, later)
	if ask != AskNothing || e.Text != "the stored credential works" {
		t.Errorf("asks %v, text %q", ask, e.Text)
	}
	if r, err = Next(r, e, later); err != nil {
		t.Fatal(err)
	}
	if r.Health.State() != CredentialLive || !r.Health.ProbedAt.Equal(later) {
		t.Errorf("the credential is %s since %s in state %s", r.Health.State(), r.Health.ProbedAt, r.State)
	}
}

// TestResolvedInWords verifies what each combination of answers is called.
func TestResolvedInWords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		mode            Mode
		candidate, base target.Liveness
		want            string
	}{
		{Rotate, target.Live, target.NotKnown, "the new credential works"},
		{Rotate, target.Live, target.Live, "the new credential works"},
		{Rotate, target.Dead, target.Live, "the new credential does not work, and the previous one does"},
		{Rotate, target.Dead, target.Dead, "neither the new credential nor the previous one works"},
		{Reapply, target.Live, target.NotKnown, "the stored credential works"},
		{Reapply, target.Dead, target.NotKnown, "the stored credential does not work"},
	} {
		if got := resolvedText(Record{Mode: tt.mode}, [2]target.Liveness{tt.candidate, tt.base}); got != tt.want {
			t.Errorf("%s, %v, %v: %q, want %q", tt.mode, tt.candidate, tt.base, got, tt.want)
		}
	}
}
