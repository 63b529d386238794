package rotation

import (
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
	if r := drifted.Adopted("v3", drifted.LoginFailedAt, noon); r.State != Done || r.Wake().IsZero() {
		t.Errorf("after adopt: %s, wakes at %v", r.State, r.Wake())
	}
}
