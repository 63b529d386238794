package rotation_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// record is a rotation in its first attempt, whose request was sent long ago.
func record(s rotation.State) rotation.Record {
	return rotation.Record{
		Account: "acc", Secret: "db", ID: "r1", State: s, Mode: rotation.Rotate, Trigger: rotation.Manual, Strategy: target.Overlap, Target: "t",
		Candidate: "v2", Base: "v1", Attempt: 1, Candidates: 1, Grace: rotation.Grace{Min: time.Hour, Max: 3 * time.Hour}, StartedAt: noon.Add(-time.Hour), SentAt: noon.Add(-time.Hour),
		GraceUntil: noon.Add(time.Hour), GraceDeadline: noon.Add(3 * time.Hour),
	}
}

var update = flag.Bool("update", false, "rewrite testdata/states.txt")

// following returns an event of a kind as it can follow any state. Resolved says that the candidate
// is live.
func following(kind rotation.EventKind) rotation.Event {
	return rotation.Event{
		Kind:      kind,
		Candidate: target.Live,
		Version:   "v3",
		Replaces:  "v1",
		Strategy:  target.Overlap,
		Target:    "t",
		Consumers: 2,
		Until:     noon.Add(time.Hour),
	}
}

// TestEveryEventInEveryState compares the table of states with testdata/states.txt: for each state,
// what follows from it alone, and for each event, the state after it. An event that follows no
// state is listed at the end. Review a change there line by line: it is the contract of the state
// machine.
func TestEveryEventInEveryState(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	follows := map[rotation.EventKind]bool{}
	for _, s := range rotation.States() {
		fmt.Fprintf(&b, "%s: %s\n", s, strings.Join(properties(s), ", "))
		for _, kind := range rotation.EventKinds() {
			got, err := rotation.Next(record(s), following(kind), noon)
			if err != nil {
				continue
			}
			follows[kind] = true
			fmt.Fprintf(&b, "    %s -> %s\n", kind, got.State)
			if len(got.Steps) != 1 || got.Steps[0].Event != kind || got.Steps[0].State != got.State {
				t.Errorf("%s in %s is recorded as %+v", kind, s, got.Steps)
			}
		}
	}
	for _, kind := range rotation.EventKinds() {
		if _, err := rotation.Next(record(""), following(kind), noon); err == nil {
			t.Errorf("%s follows the zero state", kind)
		}
		if !follows[kind] {
			fmt.Fprintf(&b, "no state: %s\n", kind)
		}
	}
	path := filepath.Join("testdata", "states.txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Split(string(want), "\n")
	for n, line := range strings.Split(b.String(), "\n") {
		if n >= len(wanted) || line != wanted[n] {
			t.Fatalf("%s, line %d: the table has %q; review it, and run the test with -update", path, n+1, line)
		}
	}
	if b.Len() != len(want) {
		t.Errorf("%s has lines that the table lacks", path)
	}
}

// properties returns what follows from a state alone, at a target that holds one credential.
func properties(s rotation.State) []string {
	r := record(s)
	r.Strategy = target.Single
	list := []string{"next " + string(s.Step())}
	for _, p := range []struct {
		is   bool
		text string
	}{
		{r.InFlight(), "in flight"},
		{r.BlocksReads(), "blocks reads"},
		{r.Pending(), "candidate is pending"},
		{s.Outcome() != "", s.Outcome()},
	} {
		if p.is {
			list = append(list, p.text)
		}
	}
	return list
}

// TestUnclearProbe verifies that an answer whose meaning is not known is shown, counts as a failed
// login, and decides nothing.
func TestUnclearProbe(t *testing.T) {
	t.Parallel()
	p := rotation.Probe{Version: "v1", Target: "t", Text: "SASL authentication failed (08P01)", LoginFailed: true}
	r, kind := record(rotation.Done).AfterProbe(p, noon, noon.Add(time.Hour))
	if kind != "" || r.State != rotation.Done || r.LoginFailedAt != noon || !strings.Contains(r.Why(), p.Text) {
		t.Errorf("%s, %q, a failed login at %s, shown as %q", r.State, kind, r.LoginFailedAt, r.Why())
	}
	if r = r.Seen("v1", noon, noon); r.Why() != "" {
		t.Errorf("shown after the next check: %q", r.Why())
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	type change = func(*rotation.Record)
	resolved := func(c, b target.Liveness, more ...func(*rotation.Event)) rotation.Event {
		e := rotation.Event{Kind: rotation.Resolved, Candidate: c, Base: b}
		for _, m := range more {
			m(&e)
		}
		return e
	}
	byLogin := func(e *rotation.Event) { e.LoginFailed = true }
	settled := func(e *rotation.Event) { e.Settled = true }
	single := func(r *rotation.Record) { r.Strategy = target.Single }
	mode := func(m rotation.Mode) change { return func(r *rotation.Record) { r.Mode = m } }
	cancel := rotation.Event{Kind: rotation.Cancel}
	wished := func(r *rotation.Record) { r.Cancelled = true }
	waiting := func(r *rotation.Record) { r.Then = &rotation.Request{Trigger: rotation.Emergency} }
	failedAt := func(ago time.Duration) change {
		return func(r *rotation.Record) { r.LoginFailedAt = noon.Add(-ago) }
	}
	failed := func(n int) change { return func(r *rotation.Record) { r.Failures = n } }
	failedOnce := failed(1)
	rejected := func(n int) change { return func(r *rotation.Record) { r.Rejections = n } }
	imposed := func(r *rotation.Record) { r.Imposed = true }
	neverSent := func(r *rotation.Record) { r.Attempt = 0 }
	heldFor := func(ago time.Duration) change {
		return func(r *rotation.Record) { r.HeldAt, r.Hold = noon.Add(-ago), 2*time.Second }
	}
	copiesSince := func(ago time.Duration) change {
		return func(r *rotation.Record) { r.CopiesAt = noon.Add(-ago) }
	}
	late := rotation.Event{Kind: rotation.CopiesLate, Lag: 10 * time.Second, Answered: true}
	sentAt := func(ago time.Duration) change {
		return func(r *rotation.Record) { r.SentAt = noon.Add(-ago) }
	}
	for _, tt := range []struct {
		name  string
		from  rotation.State
		with  []change
		event rotation.Event
		want  rotation.State
		next  time.Duration // until NextAt; 0 means at once
	}{
		{
			"the same candidate again", rotation.Unknown, nil, resolved(target.Dead, target.Live), rotation.Prepared,
			500 * time.Millisecond,
		},
		{
			"not before a window after a failed login", rotation.Unknown, nil,
			resolved(target.Dead, target.Live, byLogin), rotation.Prepared, time.Minute,
		},
		{
			"nothing is known", rotation.Unknown, nil, resolved(target.NotKnown, target.NotKnown), rotation.Unknown,
			500 * time.Millisecond,
		},
		{
			"of the base nothing is known", rotation.Unknown, nil, resolved(target.Dead, target.NotKnown),
			rotation.Unknown, 500 * time.Millisecond,
		},
		{
			"it may still be under way", rotation.Unknown, []change{sentAt(time.Second)},
			resolved(target.Dead, target.Live), rotation.Unknown, 4 * time.Second,
		},
		{
			"it may still be under way, by a clock set back", rotation.Unknown, []change{sentAt(-time.Hour)},
			resolved(target.Dead, target.Live), rotation.Unknown, 5 * time.Second,
		},
		{
			"it was under way and was taken back", rotation.Unknown, []change{sentAt(time.Second)},
			resolved(target.Dead, target.Live, settled), rotation.Prepared, 500 * time.Millisecond,
		},
		{
			"found by an engine that did not send it", rotation.Applying, nil, resolved(target.Dead, target.Live),
			rotation.Prepared, 500 * time.Millisecond,
		},
		{
			"neither, by the target's own state", rotation.Unknown, nil, resolved(target.Dead, target.Dead),
			rotation.Quarantined, 0,
		},
		{
			"neither, by logins", rotation.Unknown, nil, resolved(target.Dead, target.Dead, byLogin), rotation.Unknown,
			67500 * time.Millisecond,
		},
		{
			"neither, by logins, three times", rotation.Unknown,
			[]change{func(r *rotation.Record) { r.Rejections = 2 }}, resolved(target.Dead, target.Dead, byLogin),
			rotation.Quarantined, 0,
		},
		{
			"sent for the last time, one account", rotation.Unknown,
			[]change{single, func(r *rotation.Record) { r.Attempt = 10 }}, resolved(target.Dead, target.Live),
			rotation.Abandoned, 0,
		},
		{
			"sent for the last time, two credentials", rotation.Unknown,
			[]change{func(r *rotation.Record) { r.Attempt = 10 }}, resolved(target.Dead, target.Live),
			rotation.Reverting, 0,
		},
		{
			"a repair is sent for the last time", rotation.Unknown,
			[]change{mode(rotation.Reapply), func(r *rotation.Record) { r.Attempt = 10 }},
			resolved(target.Dead, target.NotKnown), rotation.Quarantined, 0,
		},
		{
			"a repair is sent again", rotation.Unknown, []change{mode(rotation.Reapply)},
			resolved(target.Dead, target.NotKnown), rotation.Prepared, 500 * time.Millisecond,
		},
		{
			"a probe changes nothing", rotation.Unknown,
			[]change{mode(rotation.Reapply), func(r *rotation.Record) { r.Attempt = 0 }},
			resolved(target.Dead, target.NotKnown), rotation.Quarantined, 0,
		},
		{
			"the last candidate is refused", rotation.Applying,
			[]change{func(r *rotation.Record) { r.Candidates = 5 }}, rotation.Event{Kind: rotation.Declined},
			rotation.Abandoned, 0,
		},
		{
			"a rehearsal whose base is not taken back is a rotation", rotation.Reverting,
			[]change{mode(rotation.Rehearse), func(r *rotation.Record) { r.Strategy = target.Single }},
			rotation.Event{Kind: rotation.Declined}, rotation.Verified, 0,
		},
		{
			"a repair is refused", rotation.Applying, []change{mode(rotation.Reapply)},
			rotation.Event{Kind: rotation.Declined}, rotation.Quarantined, 0,
		},
		{
			"taken, but rejected three times", rotation.Applied,
			[]change{func(r *rotation.Record) { r.Rejections = 2 }}, rotation.Event{Kind: rotation.NoLogin},
			rotation.Reverting, 0,
		},
		{
			"a repair is rejected three times", rotation.Applied,
			[]change{mode(rotation.Reapply), func(r *rotation.Record) { r.Rejections = 2 }},
			rotation.Event{Kind: rotation.NoLogin}, rotation.Quarantined, 0,
		},
		{
			"taken, but rejected", rotation.Applied, nil, rotation.Event{Kind: rotation.NoLogin, LoginFailed: true},
			rotation.Applied, 67500 * time.Millisecond,
		},
		{
			"a rehearsal turns back", rotation.Applied, []change{mode(rotation.Rehearse)},
			rotation.Event{Kind: rotation.LoggedIn}, rotation.Reverting, 0,
		},
		{
			"a rehearsal that was given up ends", rotation.Reverting,
			[]change{mode(rotation.Rehearse), func(r *rotation.Record) { r.Rejections = 3 }},
			rotation.Event{Kind: rotation.Reverted}, rotation.Abandoned, 0,
		},
		{
			"a rehearsal ends", rotation.Reverting, []change{mode(rotation.Rehearse)},
			rotation.Event{Kind: rotation.Reverted}, rotation.Done, 0,
		},
		{
			"a repair ends", rotation.Applied, []change{mode(rotation.Reapply)},
			rotation.Event{Kind: rotation.LoggedIn}, rotation.Done, 0,
		},
		{
			"one account has no grace", rotation.Verified, []change{single}, rotation.Event{Kind: rotation.Promoted},
			rotation.Done, 0,
		},
		{
			"an emergency has no grace", rotation.Verified, []change{func(r *rotation.Record) { *r = r.Urgent("") }},
			rotation.Event{Kind: rotation.Promoted}, rotation.Retiring, 0,
		},
		{"grace", rotation.Verified, nil, rotation.Event{Kind: rotation.Promoted}, rotation.InGrace, time.Hour},
		{
			"an emergency waits for no grace after an undo", rotation.Undoing, []change{waiting},
			rotation.Event{Kind: rotation.LoggedIn}, rotation.Retiring, 0,
		},
		{
			"nor after an undo that failed", rotation.Undoing, []change{waiting},
			rotation.Event{Kind: rotation.NoLogin, LoginFailed: true}, rotation.InGrace, 0,
		},
		{
			"an undo that failed", rotation.Undoing, nil, rotation.Event{Kind: rotation.NoLogin, LoginFailed: true},
			rotation.InGrace, time.Hour,
		},
		{
			"an undo a moment after a failed login", rotation.InGrace, []change{failedAt(20 * time.Second)},
			rotation.Event{Kind: rotation.Undo}, rotation.Undoing, 40 * time.Second,
		},
		{
			"a candidate a moment after a failed login", rotation.Scheduled, []change{failedAt(20 * time.Second)},
			rotation.Event{Kind: rotation.Stored}, rotation.Prepared, 40 * time.Second,
		},
		{
			"a candidate a moment after the rotation before", rotation.Scheduled, []change{sentAt(time.Second)},
			rotation.Event{Kind: rotation.Stored}, rotation.Prepared, 4 * time.Second,
		},
		{
			"a failed login in the future", rotation.InGrace, []change{failedAt(-time.Hour)},
			rotation.Event{Kind: rotation.Undo}, rotation.Undoing, time.Minute,
		},
		{
			"no grace, but consumers are waited for", rotation.Verified,
			[]change{func(r *rotation.Record) { r.Grace.Min = 0 }}, rotation.Event{Kind: rotation.Promoted},
			rotation.InGrace, 0,
		},
		{
			"a consumer is waited for until it counts as gone", rotation.InGrace, nil,
			rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: noon.Add(time.Minute)}, rotation.InGrace,
			time.Minute,
		},
		{
			"and no longer than to the deadline", rotation.InGrace, nil,
			rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: noon.Add(24 * time.Hour)}, rotation.InGrace,
			3 * time.Hour,
		},
		{
			"one that counts as gone already", rotation.InGrace, nil,
			rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: noon}, rotation.InGrace, time.Second,
		},
		{
			"the deadline has come", rotation.InGrace, []change{func(r *rotation.Record) { r.GraceDeadline = noon }},
			rotation.Event{Kind: rotation.Overran, Consumers: 1}, rotation.Retiring, 0,
		},
		{
			"cancelled before an attempt", rotation.Prepared, []change{func(r *rotation.Record) { r.Attempt = 0 }},
			cancel, rotation.Abandoned, 0,
		},
		{
			"cancelled during a back-off", rotation.Scheduled,
			[]change{func(r *rotation.Record) { r.NextAt = noon.Add(time.Hour) }}, cancel, rotation.Abandoned, 0,
		},
		{
			"cancelled after an attempt, one account", rotation.Prepared,
			[]change{single, func(r *rotation.Record) { r.NextAt = noon.Add(time.Hour) }}, cancel, rotation.Prepared,
			0,
		},
		{
			"a repair sent out of a quarantine is cancelled", rotation.Prepared, []change{single, neverSent, imposed},
			cancel, rotation.Quarantined, 0,
		},
		{"the same cancel again", rotation.Prepared, []change{single, wished}, cancel, rotation.Prepared, 0},
		{
			"cancelled again after a failure", rotation.Prepared, []change{single, wished, failedOnce}, cancel,
			rotation.Abandoned, 0,
		},
		{"cancelled while nothing is known", rotation.Unknown, []change{single}, cancel, rotation.Unknown, 0},
		{"the same cancel while nothing is known", rotation.Unknown, []change{wished}, cancel, rotation.Unknown, 0},
		{
			"cancelled again while nothing is known", rotation.Unknown, []change{wished, failedOnce}, cancel,
			rotation.Quarantined, 0,
		},
		{
			"cancelled, and the target has it", rotation.Unknown, []change{wished}, resolved(target.Live, target.NotKnown),
			rotation.Reverting, 0,
		},
		{
			"cancelled, and one account does not have it", rotation.Unknown, []change{single, wished},
			resolved(target.Dead, target.Live), rotation.Prepared, 0,
		},
		{"cancelled before a login", rotation.Applied, []change{single}, cancel, rotation.Reverting, 0},
		{
			"a repair is cancelled before a login", rotation.Applied, []change{mode(rotation.Reapply)}, cancel,
			rotation.Quarantined, 0,
		},
		{"cancelled while it is taken back", rotation.Reverting, nil, cancel, rotation.Reverting, 0},
		{
			"cancelled when it is not taken back", rotation.Reverting, []change{failedOnce}, cancel,
			rotation.Quarantined, 0,
		},
		{"an undo is cancelled", rotation.Undoing, nil, cancel, rotation.InGrace, time.Hour},
		{"a retirement is cancelled", rotation.Retiring, nil, cancel, rotation.Done, 0},
		{
			"the credential in use is not proven", rotation.Prepared, []change{single},
			rotation.Event{Kind: rotation.Unready, Answered: true}, rotation.Prepared, 500 * time.Millisecond,
		},
		{
			"nor after ten answers", rotation.Prepared, []change{single, failed(9)},
			rotation.Event{Kind: rotation.Unready, Answered: true}, rotation.Abandoned, 0,
		},
		{
			"a target that does not answer is waited for", rotation.Prepared, []change{single, failed(100)},
			rotation.Event{Kind: rotation.Unready}, rotation.Prepared, 150 * time.Second,
		},
		{
			"the credential in use is rejected", rotation.Prepared, []change{single},
			rotation.Event{Kind: rotation.Unready, Base: target.Dead, LoginFailed: true}, rotation.Prepared,
			67500 * time.Millisecond,
		},
		{
			"it is rejected three times before a first attempt", rotation.Prepared, []change{single, rejected(2), neverSent},
			rotation.Event{Kind: rotation.Unready, Base: target.Dead}, rotation.Quarantined, 0,
		},
		{
			"it is rejected three times after an attempt", rotation.Prepared, []change{single, rejected(2)},
			rotation.Event{Kind: rotation.Unready, Base: target.Dead}, rotation.Unknown, 0,
		},
		{
			"no session, and reads are blocked for a second", rotation.Applied, []change{single, heldFor(time.Second)},
			rotation.Event{Kind: rotation.Failed, After: time.Minute}, rotation.Applied, time.Second,
		},
		{
			"no session for as long as reads may be blocked", rotation.Applied, []change{single, heldFor(2 * time.Second)},
			rotation.Event{Kind: rotation.Failed}, rotation.Reverting, 0,
		},
		{
			"a login is rejected for as long as reads may be blocked", rotation.Applied,
			[]change{single, heldFor(2 * time.Second)}, rotation.Event{Kind: rotation.NoLogin}, rotation.Reverting, 0,
		},
		{
			"no session for a repair", rotation.Applied, []change{single, heldFor(time.Minute), mode(rotation.Reapply)},
			rotation.Event{Kind: rotation.Failed}, rotation.Quarantined, 0,
		},
		{
			"two credentials wait for an endpoint that is down", rotation.Applied, []change{failed(100)},
			rotation.Event{Kind: rotation.Failed}, rotation.Applied, 150 * time.Second,
		},
		{
			"and not for one that answers otherwise", rotation.Applied, []change{failed(9)},
			rotation.Event{Kind: rotation.Failed, Answered: true}, rotation.Reverting, 0,
		},
		{"a replica is late", rotation.Applied, nil, late, rotation.Applied, 5 * time.Second},
		{
			"a replica is still late", rotation.Applied, []change{copiesSince(7 * time.Second)}, late,
			rotation.Applied, 3 * time.Second,
		},
		{
			"a replica is later than it may be", rotation.Applied, []change{copiesSince(time.Minute)}, late,
			rotation.Applied, time.Minute,
		},
		{
			"a replica never learns of it", rotation.Applied, []change{copiesSince(time.Hour), failed(9)}, late,
			rotation.Reverting, 0,
		},
		{
			"the new credential is rejected before the old one is retired", rotation.Retiring, nil,
			rotation.Event{Kind: rotation.Unready, Base: target.Dead, LoginFailed: true}, rotation.Retiring,
			67500 * time.Millisecond,
		},
		{
			"three times", rotation.Retiring, []change{rejected(2)},
			rotation.Event{Kind: rotation.Unready, Base: target.Dead}, rotation.Undoing, 0,
		},
		{
			"a leaked credential does not come back", rotation.Retiring, []change{rejected(2), waiting},
			rotation.Event{Kind: rotation.Unready, Base: target.Dead}, rotation.Quarantined, 0,
		},
		{
			"neither the new credential nor the old one", rotation.Undoing, []change{rejected(3)},
			rotation.Event{Kind: rotation.NoLogin}, rotation.Quarantined, 0,
		},
		{
			"cancelled, and the target does not answer", rotation.Prepared, []change{single, wished},
			rotation.Event{Kind: rotation.Failed}, rotation.Prepared, 500 * time.Millisecond,
		},
		{
			"cancelled, and nothing is left", rotation.Prepared, []change{single, wished},
			rotation.Event{Kind: rotation.Cleared}, rotation.Abandoned, 0,
		},
		{
			"a repair cancelled before an attempt", rotation.Prepared,
			[]change{single, mode(rotation.Reapply), func(r *rotation.Record) { r.Attempt = 0 }}, cancel,
			rotation.Quarantined, 0,
		},
		{
			"a repair cancelled after an attempt", rotation.Prepared, []change{mode(rotation.Reapply)}, cancel,
			rotation.Prepared, 0,
		},
		{
			"a repair cancelled, and nothing is left", rotation.Prepared, []change{mode(rotation.Reapply), wished},
			rotation.Event{Kind: rotation.Cleared}, rotation.Quarantined, 0,
		},
		{
			"a rehearsal cancelled after an attempt is taken back", rotation.Reverting,
			[]change{mode(rotation.Rehearse), func(r *rotation.Record) { r.Rejections = rotation.MaxRejections }},
			rotation.Event{Kind: rotation.Reverted}, rotation.Abandoned, 0,
		},
		{
			"an administrator who is refused", rotation.Applied, nil,
			rotation.Event{Kind: rotation.Failed, After: time.Minute}, rotation.Applied, time.Minute,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := record(tt.from)
			for _, change := range tt.with {
				change(&r)
			}
			got, err := rotation.Next(r, tt.event, noon)
			if err != nil {
				t.Fatal(err)
			}
			wait := time.Duration(0)
			if got.NextAt.After(noon) {
				wait = got.NextAt.Sub(noon)
			}
			if got.State != tt.want || wait != tt.next {
				t.Errorf("%s after %s, want %s after %s", got.State, wait, tt.want, tt.next)
			}
		})
	}
}

// TestSettled holds that only what was not answered keeps the next candidate waiting.
func TestSettled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind rotation.EventKind
		want time.Duration
	}{
		{
			rotation.Accepted, 0}, {rotation.Unreached, 0}, {rotation.Declined, 0}, {rotation.NoAnswer,
			5 * time.Second}, {rotation.Failed, 4 * time.Second},
	} {
		sent, err := rotation.Next(record(rotation.Prepared), rotation.Event{Kind: rotation.Sending}, noon.Add(-time.Second))
		if err != nil {
			t.Fatal(err)
		}
		got, err := rotation.Next(sent, rotation.Event{Kind: tt.kind}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if wait := max(0, got.SettledAt(noon).Sub(noon)); wait != tt.want {
			t.Errorf("after %q it settles in %s, want %s", tt.kind, wait, tt.want)
		}
	}
}

func TestNextLeavesItsRecord(t *testing.T) {
	t.Parallel()
	r := record(rotation.Prepared)
	r.Steps = make([]rotation.Entry, 1, 8)
	before := fmt.Sprintf("%+v", r)
	for range 2 {
		if _, err := rotation.Next(r, rotation.Event{Kind: rotation.Sending}, noon); err != nil {
			t.Fatal(err)
		}
	}
	if after := fmt.Sprintf("%+v", r); after != before || r.Steps[:2][1].Event != "" {
		t.Errorf("Next changed its record:\n%s\n%s", before, after)
	}
}

// TestPlan verifies that nothing is done before its time, nor after the end, and that each step has
// a state in which it is due.
func TestPlan(t *testing.T) {
	t.Parallel()
	due := map[rotation.Step]bool{}
	for _, s := range rotation.States() {
		r := record(s)
		step := rotation.Plan(r, noon)
		due[step] = true
		if (step == rotation.Nothing) != (s.Ended() || s == rotation.Quarantined) {
			t.Errorf("in %s: %s", s, step)
		}
		r.NextAt = noon.Add(time.Second)
		if got := rotation.Plan(r, noon); r.InFlight() && got != rotation.Wait {
			t.Errorf("in %s before its time: %s", s, got)
		}
	}
	more := []rotation.Step{rotation.Wait, rotation.Clear, rotation.Begin, rotation.Postpone, rotation.CheckHealth}
	for _, step := range constants(t, "Step") { // some depend on more than the state
		if step := rotation.Step(step); !due[step] && !slices.Contains(more, step) {
			t.Errorf("no state in which %q is due", step)
		}
	}
}

// TestCancelled holds that nothing is sent any more once a person wants the end, and that nothing
// of the wish is left after it.
func TestCancelled(t *testing.T) {
	t.Parallel()
	r := record(rotation.Prepared)
	r.Strategy = target.Single
	r, err := rotation.Next(r, rotation.Event{Kind: rotation.Cancel}, noon)
	if err != nil || rotation.Plan(r, noon) != rotation.Clear || !r.Pending() || r.Advice() == "" {
		t.Fatalf("after a wish: %+v, %v; next %s", r, err, rotation.Plan(r, noon))
	}
	for _, kind := range []rotation.EventKind{rotation.Sending, rotation.Impossible} {
		if _, err := rotation.Next(r, rotation.Event{Kind: kind}, noon); err == nil {
			t.Errorf("%s is taken after a wish to end", kind)
		}
	}
	r, err = rotation.Next(r, rotation.Event{Kind: rotation.Cleared}, noon)
	if err != nil || r.Cancelled || r.Reason != "Cancelled by an operator." || !r.EndedAt.Equal(noon) {
		t.Errorf("at the end: %+v, %v", r, err)
	}
}

// TestAwait holds for whom the end of a grace waits, for how long, and that it is looked at as soon
// as they have moved.
func TestAwait(t *testing.T) {
	t.Parallel()
	r := record(rotation.InGrace)
	for _, tt := range []struct {
		name  string
		c     rotation.Sighting
		until time.Duration // 0 means that nobody waits for it
	}{
		{"has moved", rotation.Sighting{Version: "v2", Seen: noon}, 0},
		{"has moved, all of it", rotation.Sighting{Version: "v2", Oldest: "v2", Seen: noon}, 0},
		{"uses the former", rotation.Sighting{Version: "v1", Seen: noon.Add(-time.Minute)}, 59 * time.Minute},
		{"has something open with the former", rotation.Sighting{Version: "v2", Oldest: "v1", Seen: noon}, time.Hour},
		{"was not seen for a grace period", rotation.Sighting{Version: "v1", Seen: noon.Add(-time.Hour)}, 0},
		{"knows none", rotation.Sighting{Seen: noon}, 0},
	} {
		until, yes := r.Awaits(tt.c, noon)
		if yes != (tt.until > 0) || yes && until.Sub(noon) != tt.until {
			t.Errorf("%s: %t, until %s; want %s", tt.name, yes, until, tt.until)
		}
	}
	brief := r
	brief.Grace.Min = time.Second
	if until, yes := brief.Awaits(rotation.Sighting{Version: "v1", Seen: noon}, noon); !yes ||
		until.Sub(noon) != 15*time.Minute {
		t.Errorf("with a short grace a consumer counts as gone after %s", until.Sub(noon))
	}
	if _, yes := record(rotation.Retiring).Awaits(rotation.Sighting{Version: "v1", Seen: noon}, noon); yes {
		t.Error("somebody is waited for in another state")
	}

	if _, changed := r.Released(noon); changed {
		t.Error("a grace is released in its minimum, while nobody is waited for")
	}
	r.GraceUntil = noon.Add(-time.Minute)
	r, err := rotation.Next(r, rotation.Event{Kind: rotation.Awaiting, Consumers: 2, Until: noon.Add(time.Hour)}, noon)
	if err != nil || r.Waiting != 2 ||
		r.Reason != "Waits for 2 consumers that hold another version, until 2026-11-24T15:00:00Z at the latest." ||
		r.Advice() == "" {
		t.Errorf("while it waits: %+v, %v", r, err)
	}
	free, changed := r.Released(noon.Add(time.Minute))
	if !changed || free.Wake().After(noon.Add(time.Minute)) {
		t.Errorf("released: goes on at %s", free.Wake())
	}
	if _, again := free.Released(noon.Add(2 * time.Minute)); again {
		t.Error("released twice")
	}
	for _, kind := range []rotation.EventKind{rotation.EndGrace, rotation.Undo} {
		if _, err := rotation.Next(r, rotation.Event{Kind: kind}, noon); err != nil {
			t.Errorf("while it waits: %v", err)
		}
	}
	ended, _ := rotation.Next(r, rotation.Event{Kind: rotation.EndGrace}, noon)
	if _, err := rotation.Next(ended, rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: noon.Add(time.Hour)}, noon); err == nil {
		t.Error("a person has ended the grace, and it goes on")
	}
	for _, e := range []rotation.Event{{Kind: rotation.Overran, Consumers: 1}, {Kind: rotation.Awaiting}} {
		if _, err := rotation.Next(r, e, noon); err == nil {
			t.Errorf("before the deadline: %+v is taken", e)
		}
	}
	if over, err := rotation.Next(r, rotation.Event{Kind: rotation.Awaiting, Consumers: 1, Until: noon.Add(9 * time.Hour)}, r.GraceDeadline); err == nil {
		t.Errorf("after the deadline it waits until %s", over.NextAt)
	}
}

// TestBounded holds that the wait for consumers takes at most half of the time to the next
// rotation, and never less than the grace.
func TestBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ due, want time.Duration }{{0, 3 * time.Hour}, {8 * time.Hour, 3 * time.Hour}, {4 * time.Hour, 2 * time.Hour}, {time.Hour, time.Hour}} {
		due := noon.Add(tt.due)
		if tt.due == 0 {
			due = time.Time{}
		}
		if got := record(rotation.InGrace).Bounded(due, noon).GraceDeadline.Sub(noon); got != tt.want {
			t.Errorf("with the next one due in %s the limit is %s, want %s", tt.due, got, tt.want)
		}
	}
	if r := record(rotation.Done).Bounded(noon.Add(time.Minute), noon); !r.GraceDeadline.Equal(noon.Add(3 * time.Hour)) {
		t.Error("the limit of another state is changed")
	}
	r := record(rotation.InGrace).WholeGrace(noon.Add(150 * time.Minute))
	if until := noon.Add(210 * time.Minute); !r.GraceUntil.Equal(until) || !r.NextAt.Equal(until) ||
		!r.GraceDeadline.Equal(until) {
		t.Errorf("a grace that began late: until %s, limit %s, next %s", r.GraceUntil, r.GraceDeadline, r.NextAt)
	}
}

// TestRestored holds that nothing that a copy of the store says of the credential in use is
// believed, and nothing is promoted on its word.
func TestRestored(t *testing.T) {
	t.Parallel()
	for _, s := range append(rotation.States(), "") {
		r := record(s)
		r.Health = rotation.Health{ProbedAt: noon.Add(-time.Minute), Live: true, NextAt: noon.Add(time.Hour), Silent: 2}
		got := r.Restored(noon)
		want := s
		if s == rotation.Verified {
			want = rotation.Applied
		}
		if got.State != want || got.Health != (rotation.Health{NextAt: noon}) || len(got.Steps) != 1 ||
			got.BlocksReads() != r.BlocksReads() ||
			got.Pending() != r.Pending() {
			t.Errorf("%s becomes %+v", s, got)
		}
	}
}

// TestStates verifies that reads wait and labels are pending only where that is possible at all.
// The properties of each state are in testdata/states.txt.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, s := range append(rotation.States(), "") {
		r := record(s)
		for _, strategy := range []target.Strategy{target.Overlap, target.Double} {
			if r.Strategy = strategy; r.BlocksReads() {
				t.Errorf("%s with strategy %s blocks reads", s, strategy)
			}
		}
		if r.Mode = rotation.Reapply; r.Pending() {
			t.Errorf("%s in a repair has a pending label", s)
		}
	}
	if r := record(rotation.Quarantined); r.Drifted("v1", "t", target.Overlap, "", noon).Pending() {
		t.Error("drift has a pending label")
	}
}

func TestWake(t *testing.T) {
	t.Parallel()
	due, then, look, next := noon.Add(3*time.Hour), noon.Add(2*time.Hour), noon.Add(4*time.Hour), noon.Add(time.Minute)
	for _, s := range append(rotation.States(), "") {
		r := record(s)
		r.StartedAt = noon.Add(time.Hour) // the clock was set back
		switch at := r.Wake(); {
		case s == rotation.Quarantined, !r.InFlight():
			if !at.IsZero() {
				t.Errorf("%s wakes at %s", s, at)
			}
		case at.IsZero() || at.After(noon):
			t.Errorf("%s wakes at %s, want at once", s, at)
		}
		r.NextAt, r.Due, r.Health.NextAt = next, due, look
		want := next
		if !r.InFlight() {
			want = due
		} else if s == rotation.Quarantined {
			want = time.Time{}
		}
		if at := r.Wake(); !at.Equal(want) {
			t.Errorf("%s wakes at %s, want %s", s, at, want)
		}
	}
	r := rotation.Record{
		State:  rotation.Done,
		Due:    due,
		Health: rotation.Health{NextAt: look},
		Then:   &rotation.Request{At: then},
	}
	if at := r.Wake(); !at.Equal(then) {
		t.Errorf("with one that waits: %s", at)
	}
	r.Then, r.Paused = nil, true
	if at := r.Wake(); !at.Equal(look) {
		t.Errorf("paused: %s, want the next probe", at)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{-1: 0, 0: 0, 1: time.Second, 2: 2 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1 << 40: 5 * time.Minute} {
		if got := rotation.Backoff(n); got != want {
			t.Errorf("Backoff(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]time.Duration{0: 15 * time.Minute, 1: 15 * time.Minute, 2: 30 * time.Minute, 5: 4 * time.Hour, 6: 6 * time.Hour, 1 << 40: 6 * time.Hour} {
		if got := rotation.Retry(n); got != want {
			t.Errorf("Retry(%d) = %s, want %s", n, got, want)
		}
	}
	r := record(rotation.Applied)
	for range 40 {
		r, _ = rotation.Next(r, rotation.Event{Kind: rotation.Failed, Jitter: 0.999}, noon)
	}
	if wait := r.NextAt.Sub(noon); wait <= 4*time.Minute || wait > 5*time.Minute {
		t.Errorf("after many failures it waits %s", wait)
	}
}

func TestStoryIsBounded(t *testing.T) {
	t.Parallel()
	r := rotation.Record{
		State: rotation.Idle,
	}.Begin(
		rotation.Request{ID: "r1", Mode: rotation.Rotate, Trigger: rotation.Manual},
		noon,
	)
	for n := range 200 {
		var err error
		if r, err = rotation.Next(r, rotation.Event{Kind: rotation.Failed, Text: fmt.Sprint(n)}, noon); err != nil {
			t.Fatal(err)
		}
	}
	if first, last := r.Steps[0], r.Steps[len(r.Steps)-1]; len(r.Steps) != 64 || first.Event != rotation.Begun ||
		first.Text != "manual" ||
		last.Text != "199" {
		t.Errorf("%d entries, from %+v to %+v; want 64, the first and the last kept", len(r.Steps), first, last)
	}
	for range 50 {
		r, _ = rotation.Next(r, rotation.Event{Kind: rotation.Failed, Text: "199"}, noon.Add(time.Hour))
	}
	if last := r.Steps[len(r.Steps)-1]; len(r.Steps) != 64 || !last.At.Equal(noon.Add(time.Hour)) ||
		r.Steps[len(r.Steps)-2].Text == "199" {
		t.Errorf("what happens over and over is told more than once, or with another time than its last: %+v", last)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	var full rotation.Record
	fill(reflect.ValueOf(&full).Elem())
	for _, r := range []rotation.Record{{}, record(rotation.InGrace), full} {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back rotation.Record
		if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s comes back as %+v, %v; want %+v", data, back, err, r)
		}
	}
}

// fill gives every field a value, so that none can be left out.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(noon))
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

// TestStoredGrace verifies the names under which a grace period is stored in a record and in a
// request.
func TestStoredGrace(t *testing.T) {
	t.Parallel()
	grace := rotation.Grace{Min: 1, Max: 2}
	r := rotation.Record{Grace: grace, GraceDeadline: noon, Then: &rotation.Request{ID: "r2", Grace: grace}}
	const want = `{"account":"","secret":"","state":"","grace_period":1,"grace_wait":2,` +
		`"grace_limit":"2026-11-24T12:00:00Z","then":{"id":"r2","mode":"","trigger":"","grace":1,"wait":2}}`
	if data, err := json.Marshal(r); err != nil || string(data) != want {
		t.Errorf("stored as %s, %v; want %s", data, err, want)
	}
}

// TestReasonIsTheAnswer verifies that the reason is what the target said, also after the engine has
// only waited before another login.
func TestReasonIsTheAnswer(t *testing.T) {
	t.Parallel()
	const said = "SASL authentication failed (08P01) at pool:6432"
	r := record(rotation.Applied)
	r.Strategy, r.HeldAt, r.Hold = target.Single, noon, 2*time.Second
	now := noon
	for _, e := range []rotation.Event{
		{Kind: rotation.Failed, Text: said, Answered: true, LoginFailed: true},
		rotation.TooSoon(time.Minute),
		rotation.TooSoon(time.Minute),
	} {
		var err error
		if r, err = rotation.Next(r, e, now); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(r.Reason, said) || strings.Contains(r.Reason, "waiting before") {
			t.Errorf("%s: the reason is %q", r.State, r.Reason)
		}
		if now = now.Add(time.Second); r.State != rotation.Applied {
			break
		}
	}
	if r.State != rotation.Reverting {
		t.Errorf("in %s", r.State)
	}
}
