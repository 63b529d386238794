package rotation_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestOverridable verifies that an emergency waits for nothing that the holder of the leaked
// credential can bring about, and for everything else that makes a rotation impossible.
func TestOverridable(t *testing.T) {
	t.Parallel()
	impossible := func(account string) target.Finding {
		return target.Finding{Code: "c", Verdict: target.Impossible, Account: account, Text: "No."}
	}
	drift := impossible("other")
	drift.Drift = true
	open := target.Finding{Code: "c", Verdict: target.NeedsConsent, Consent: "c", Account: "other", Text: "No."}
	for _, tt := range []struct {
		name     string
		finding  target.Finding
		strategy target.Strategy
		consents []string
		want     bool
	}{
		{"the account in use, double", impossible("app"), target.Double, nil, true},
		{"the account in use, overlap", impossible("app"), target.Overlap, nil, true},
		{"the only account", impossible("app"), target.Single, nil, false},
		{"another account", impossible("other"), target.Double, nil, false},
		{"no account", impossible(""), target.Double, nil, false},
		{"the credential is not there", drift, target.Single, nil, true},
		{"a consent is missing", open, target.Double, nil, true},
		{"a consent was given", open, target.Double, []string{"c"}, false},
	} {
		overridable, others := rotation.Overridable([]target.Finding{tt.finding}, tt.strategy, tt.consents, "app")
		if got := len(overridable) == 1; got != tt.want || len(overridable)+len(others) != 1 {
			t.Errorf("%s: an emergency does not wait: %v, want %v", tt.name, got, tt.want)
		}
	}
	if list, _ := rotation.Overridable([]target.Finding{impossible("")}, target.Double, nil, ""); len(list) > 0 {
		t.Error("a finding about no account is overridden where no account is in use")
	}
}

// TestEmergencyLeavesQuarantine verifies that an emergency begins where the target no longer
// accepts the credential in use, unless a repair has to end another rotation first.
func TestEmergencyLeavesQuarantine(t *testing.T) {
	t.Parallel()
	emergency := rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Emergency, At: noon}
	manual := rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Manual, At: noon}
	idle := rotation.Record{State: rotation.Idle}
	in := func(s target.Strategy) rotation.Record {
		return rotation.Record{State: rotation.InGrace, Mode: rotation.Rotate, Strategy: s, Base: "v1", Candidate: "v2"}
	}
	stuck := rotation.Record{State: rotation.Quarantined, Mode: rotation.Rotate, Base: "v1", Candidate: "v2"}
	drifted := func(r rotation.Record) rotation.Record { return r.Drifted("v2", "db", target.Single, "no", noon) }
	for _, tt := range []struct {
		name   string
		record rotation.Record
		asked  rotation.Request
		want   bool
	}{
		{"drift", drifted(idle), emergency, true},
		{"drift, not urgent", drifted(idle), manual, false},
		{"drift in the grace period of two accounts", drifted(in(target.Double)), emergency, true},
		{"drift in the grace period of one account", drifted(in(target.Overlap)), emergency, false},
		{"a rotation that is stuck", stuck, emergency, false},
	} {
		next, ok := tt.record.Ask(tt.asked, noon)
		if ok != tt.want || ok && (next.State != rotation.Scheduled || next.ID != "v9" || next.Interrupted != nil) {
			t.Errorf("%s: begins: %v (%s, %q), want %v", tt.name, ok, next.State, next.ID, tt.want)
		}
	}
}

// TestEmergencyAfterAFailedRepair verifies that an emergency that waits for the end of a repair
// begins when the repair ends in the quarantine again, unless it must not leave that.
func TestEmergencyAfterAFailedRepair(t *testing.T) {
	t.Parallel()
	q := rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Emergency, At: noon}
	grace := rotation.Record{
		State: rotation.InGrace, Mode: rotation.Rotate, Strategy: target.Overlap, Base: "v1", Candidate: "v2",
	}
	for name, tt := range map[string]struct {
		before rotation.Record
		want   rotation.Step
	}{
		"nothing was under way":              {rotation.Record{State: rotation.Idle}, rotation.Begin},
		"a grace period was, of one account": {grace, rotation.Nothing},
	} {
		r, err := rotation.Next(tt.before.Drifted("v2", "db", target.Single, "no", noon), rotation.Event{Kind: rotation.Probed}, noon)
		if err != nil {
			t.Fatal(err)
		}
		r, ok := r.Ask(q, noon)
		if !ok || r.State != rotation.Unknown || r.Then == nil {
			t.Fatalf("%s: an emergency in a repair: %v, %+v", name, ok, r)
		}
		r, err = rotation.Next(r, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Settled: true}, noon)
		if err != nil || r.State != rotation.Quarantined {
			t.Fatalf("%s: the repair failed: %s, %v", name, r.State, err)
		}
		if got := rotation.Plan(r, noon); got != tt.want {
			t.Errorf("%s: the next step is %q, want %q", name, got, tt.want)
		}
		if wakes := !r.Wake().IsZero() && !r.Wake().After(noon); wakes != (tt.want == rotation.Begin) {
			t.Errorf("%s: the engine reads the record at %s", name, r.Wake())
		}
	}
}

// TestLeaked verifies which credential may not be adopted out of an emergency.
func TestLeaked(t *testing.T) {
	t.Parallel()
	retiring := rotation.Record{
		State: rotation.Retiring, Mode: rotation.Rotate, Trigger: rotation.Emergency, Strategy: target.Double,
		Base: "v1", Candidate: "v2",
	}
	other := retiring
	other.Trigger = rotation.Manual
	for name, tt := range map[string]struct {
		record rotation.Record
		want   string
	}{
		"an emergency":                 {retiring, "v1"},
		"an emergency, interrupted":    {retiring.Drifted("v2", "db", target.Single, "no", noon), "v1"},
		"a rotation":                   {other, ""},
		"a rotation, interrupted":      {other.Drifted("v2", "db", target.Single, "no", noon), ""},
		"an emergency that has ended":  {rotation.Record{State: rotation.Done, Trigger: rotation.Emergency, Base: "v1"}, ""},
		"a drift without any rotation": {rotation.Record{}.Drifted("v2", "db", target.Single, "no", noon), ""},
	} {
		if got := tt.record.Leaked(); got != tt.want {
			t.Errorf("%s: %q has leaked, want %q", name, got, tt.want)
		}
	}
}
