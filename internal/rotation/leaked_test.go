package rotation_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestOverridable verifies that an emergency waits for nothing that the holder of the leaked
// credential can bring about, and for everything else that makes a rotation impossible.
func TestOverridable(t *testing.T) {
	t.Parallel()
	impossible := func(account string) target.Finding {
		return target.Finding{
			Code: "c", Verdict: target.Impossible, Account: account, InUse: account == "app", Text: "No.",
		}
	}
	drift := impossible("other")
	drift.Drift = true
	open := target.Finding{Code: "c", Verdict: target.NeedsConsent, Consent: "c", Account: "other", Text: "No."}
	others := open
	others.Others = true
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
		{"a consent about accounts of others", others, target.Double, nil, false},
		{"a consent was given", open, target.Double, []string{"c"}, false},
	} {
		overridable, others := rotation.Overridable([]target.Finding{tt.finding}, tt.strategy, tt.consents)
		if got := len(overridable) == 1; got != tt.want || len(overridable)+len(others) != 1 {
			t.Errorf("%s: an emergency does not wait: %v, want %v", tt.name, got, tt.want)
		}
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
		if ok != tt.want || ok && (next.State != rotation.Scheduled || next.ID != "v9") {
			t.Errorf("%s: begins: %v (%s, %q), want %v", tt.name, ok, next.State, next.ID, tt.want)
		}
	}
}

// TestEmergencyReturnsToTheQuarantine verifies that an emergency out of a quarantine that replaces
// nothing ends there, and that what was interrupted, with what had leaked, is not forgotten; and
// that it is over when the emergency has replaced the credential.
func TestEmergencyReturnsToTheQuarantine(t *testing.T) {
	t.Parallel()
	q := rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Emergency, At: noon}
	grace := rotation.Record{
		State: rotation.InGrace, ID: "v2", Mode: rotation.Rotate, Trigger: rotation.Manual, Strategy: target.Double,
		Base: "v1", Candidate: "v2", GraceUntil: noon.Add(time.Hour), GraceDeadline: noon.Add(time.Hour),
	}
	retiring := grace
	retiring.State, retiring.Trigger = rotation.Retiring, rotation.Emergency
	next := func(r rotation.Record, e rotation.Event) rotation.Record {
		t.Helper()
		r, err := rotation.Next(r, e, noon)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	stored := rotation.Event{Kind: rotation.Stored, Version: "v9", Replaces: "v2", Strategy: target.Double, Target: "db"}
	for name, before := range map[string]rotation.Record{
		"nothing":        {State: rotation.Idle},
		"a grace period": grace,
		"a retirement":   retiring,
	} {
		drifted := before.Drifted("v2", "db", target.Single, "no", noon)
		drifted.Waiting, drifted.BaseRetired, drifted.Foreign = 3, true, "Another password was left."
		drifted.PreviousDeadAt = noon.Add(-time.Minute)
		drifted.NoSession, drifted.Outlasts = "too many connections", "An event runs."
		begun, ok := drifted.Ask(q, noon)
		if !ok {
			t.Fatalf("%s: the emergency does not begin", name)
		}
		for how, ended := range map[string]rotation.Record{
			"cancelled":  next(begun, rotation.Event{Kind: rotation.Cancel}),
			"impossible": next(begun, rotation.Event{Kind: rotation.Impossible, Text: "No."}),
			"later":      next(next(begun, stored), rotation.Event{Kind: rotation.Impossible, Text: "No."}),
		} {
			want := drifted
			want.GivenUp, want.Reason, want.Steps = "v9", ended.Reason, ended.Steps
			if !reflect.DeepEqual(ended, want) || !strings.Contains(ended.Reason, "replaced nothing") {
				t.Errorf("%s, %s: the record is\n%+v, before it was\n%+v", name, how, ended, drifted)
			}
			if r := ended.Adopted("v3", ended.Interrupted != nil, noon, noon); r.GivenUp != "" {
				t.Errorf("%s, %s: after the repair, the record still says that emergency %s was given up", name, how, r.GivenUp)
			}
		}
		r := begun
		for _, e := range []rotation.Event{
			stored,
			{Kind: rotation.Sending},
			{Kind: rotation.Accepted},
			{Kind: rotation.LoggedIn},
		} {
			if r = next(r, e); !slices.Contains(r.Leaked(), "v2") {
				t.Errorf("%s, %s: the emergency does not name what has leaked: %v", name, e.Kind, r.Leaked())
			}
		}
		r = next(r, rotation.Event{Kind: rotation.Promoted})
		if r.Interrupted != nil || r.Quarantine != nil || r.State != rotation.Retiring {
			t.Errorf("%s: once the new credential is current, the record is %+v", name, r)
		}
	}
}

// TestRetiredBase verifies what the record says when the new credential was lost after the previous
// one was retired.
func TestRetiredBase(t *testing.T) {
	t.Parallel()
	retiring := rotation.Record{
		State: rotation.Retiring, Mode: rotation.Rotate, Trigger: rotation.Emergency, Strategy: target.Double,
		Base: "v1", Candidate: "v2",
	}
	lost := rotation.Event{Kind: rotation.Unready, Text: "it was not reached", BaseRetired: true}
	r, err := rotation.Next(retiring, lost, noon)
	if err != nil || !r.BaseRetired || strings.Contains(r.Reason, "is kept") {
		t.Errorf("the previous credential is retired, and the reason is %q (%v)", r.Reason, err)
	}
	r, err = rotation.Next(r, rotation.Event{Kind: rotation.Cancel}, noon)
	if err != nil || r.State != rotation.Done || strings.Contains(r.Reason, "still accepts") {
		t.Errorf("after a cancel the reason is %q (%v)", r.Reason, err)
	}
	r, err = rotation.Next(retiring, rotation.Event{Kind: rotation.Cancel}, noon)
	if err != nil || r.BaseRetired || !strings.Contains(r.Reason, "still accepts") {
		t.Errorf("after the cancel of a retirement the reason is %q (%v)", r.Reason, err)
	}
	r, err = rotation.Next(retiring, rotation.Event{Kind: rotation.Retired}, noon)
	if err != nil || !r.BaseRetired {
		t.Errorf("the base is retired, and the record does not say so (%v)", err)
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
		drifted := tt.before.Drifted("v2", "db", target.Single, "no", noon)
		r, err := rotation.Next(drifted, rotation.Event{Kind: rotation.Probed}, noon)
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
		if got := strings.Join(tt.record.Leaked(), " "); got != tt.want {
			t.Errorf("%s: %q has leaked, want %q", name, got, tt.want)
		}
	}
}

// TestAdoptionEndsBothQuarantines verifies that an emergency that is quarantined after it has left
// one leaves nothing behind once a credential is adopted: the interrupted rotation goes on,
// and an undo of it that changes nothing goes back to its grace period.
func TestAdoptionEndsBothQuarantines(t *testing.T) {
	t.Parallel()
	r := rotation.Record{
		State: rotation.InGrace, ID: "v2", Mode: rotation.Rotate, Trigger: rotation.Manual, Strategy: target.Double,
		Base: "v1", Candidate: "v2", GraceUntil: noon.Add(time.Hour), GraceDeadline: noon.Add(time.Hour),
	}.Drifted("v2", "db", target.Single, "no", noon)
	r.BaseRetired = true
	r, ok := r.Ask(rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Emergency, At: noon}, noon)
	if !ok {
		t.Fatal("the emergency does not begin")
	}
	for _, e := range []rotation.Event{
		{Kind: rotation.Stored, Version: "v9", Replaces: "v2", Strategy: target.Double, Target: "db"},
		{Kind: rotation.Sending, Checked: true, Outlasts: "An event runs."},
		{Kind: rotation.NoAnswer},
		{Kind: rotation.Cancel},
		{Kind: rotation.Failed, Text: "no answer"},
		{Kind: rotation.Cancel},
	} {
		var err error
		if r, err = rotation.Next(r, e, noon); err != nil {
			t.Fatalf("%s: %v", e.Kind, err)
		}
	}
	if r.State != rotation.Quarantined || r.Quarantine == nil {
		t.Fatalf("the emergency is not quarantined itself: %+v", r)
	}
	done := r.Adopted("v3", false, noon, noon)
	if done.Quarantine != nil || done.Interrupted != nil || done.Outlasts != "" {
		t.Errorf("an adoption that ends everything leaves %+v, %+v, %q", done.Quarantine, done.Interrupted, done.Outlasts)
	}
	adopted := r.Adopted("v3", true, noon, noon)
	if adopted.State != rotation.InGrace || adopted.ID != "v2" || adopted.Quarantine != nil || !adopted.BaseRetired ||
		adopted.Outlasts != "" {
		t.Fatalf("after the adoption: %+v", adopted)
	}
	undoing, err := rotation.Next(adopted, rotation.Event{Kind: rotation.Undo}, noon)
	if err != nil {
		t.Fatal(err)
	}
	back, err := rotation.Next(undoing, rotation.Event{Kind: rotation.Cancel}, noon)
	if err != nil || back.State != rotation.InGrace || back.Candidate != "v3" {
		t.Errorf("an undo that is cancelled goes back to %s with %s: %v", back.State, back.Candidate, err)
	}
}

// after returns the record after events.
func after(t *testing.T, r rotation.Record, events ...rotation.Event) rotation.Record {
	t.Helper()
	for _, e := range events {
		var err error
		if r, err = rotation.Next(r, e, noon); err != nil {
			t.Fatalf("%s: %v", e.Kind, err)
		}
	}
	return r
}

// TestOutlasts verifies that the record of an emergency says until the next rotation what the
// holder of the leaked credential can use afterwards: what the last check has found, also where the
// candidate is sent again without one.
func TestOutlasts(t *testing.T) {
	t.Parallel()
	const text = "An event runs."
	r := rotation.Record{
		State: rotation.Prepared, Mode: rotation.Rotate, Trigger: rotation.Emergency, Strategy: target.Double,
		Base: "v1", Candidate: "v2",
	}
	r = after(t, r,
		rotation.Event{Kind: rotation.Sending, Checked: true, Outlasts: "Another event runs."},
		rotation.Event{Kind: rotation.Unreached},
		rotation.Event{Kind: rotation.Sending, Checked: true, Outlasts: text},
		rotation.Event{Kind: rotation.NoAnswer},
		rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Base: target.Live, Settled: true},
		rotation.Event{Kind: rotation.Sending},
		rotation.Event{Kind: rotation.Accepted},
		rotation.Event{Kind: rotation.LoggedIn},
		rotation.Event{Kind: rotation.Promoted},
		rotation.Event{Kind: rotation.Retired, Text: "Another password was removed."},
	)
	if r.State != rotation.Done || r.Why() != "Another password was removed. "+text {
		t.Errorf("%s: the reason is %q", r.State, r.Why())
	}
	if r = r.Begin(rotation.Request{ID: "v3", Mode: rotation.Rotate}, noon); r.Outlasts != "" {
		t.Errorf("the next rotation says %q", r.Outlasts)
	}
}

// TestRefusedSession verifies that the record of an emergency says until the next rotation that the
// target refused the session of the new credential, and only then.
func TestRefusedSession(t *testing.T) {
	t.Parallel()
	const text = "too many connections for role \"b\""
	for _, strategy := range []target.Strategy{target.Single, target.Overlap, target.Double} {
		applied := rotation.Record{
			State: rotation.Applied, Mode: rotation.Rotate, Trigger: rotation.Emergency, Strategy: strategy,
			Base: "v1", Candidate: "v2",
		}
		login := rotation.Answer{Class: target.Unreachable, Text: text}
		proofs := map[rotation.Event]bool{
			rotation.AfterLogin(applied, rotation.Answer{Class: target.Admitted, Text: text}): true,
			rotation.AfterLogin(applied, rotation.Answer{OK: true}):                           false,
		}
		if strategy == target.Single {
			failed := rotation.AfterLogin(applied, login)
			read := rotation.Answer{OK: true}
			proofs[rotation.AfterState(applied, failed, read, target.Live, target.NotKnown)] = false
		}
		for proof, refused := range proofs {
			r := after(t, applied, proof, rotation.Event{Kind: rotation.Promoted})
			if strategy != target.Single {
				r = after(t, r, rotation.Event{Kind: rotation.Retired})
			}
			if said := strings.Contains(r.Why(), text+". Applications"); said != refused || r.State != rotation.Done {
				t.Errorf("%s: after %+v the state is %s, the reason %q", strategy, proof, r.State, r.Why())
			}
		}
	}
}

// TestAskingBlocksNoReads verifies that reads go on while the target is asked again about a
// quarantined credential, and wait while one that a repair sends is unknown.
func TestAskingBlocksNoReads(t *testing.T) {
	t.Parallel()
	drifted := rotation.Record{State: rotation.Idle}.Drifted("v1", "db", target.Single, "no", noon)
	for kind, blocks := range map[rotation.EventKind]bool{rotation.Probed: false, rotation.Again: true} {
		r, err := rotation.Next(drifted, rotation.Event{Kind: kind}, noon)
		if err == nil && kind == rotation.Again {
			r, err = rotation.Next(r, rotation.Event{Kind: rotation.Sending, Hold: time.Minute}, noon)
		}
		if err != nil || r.BlocksReads() != blocks {
			t.Errorf("%s: state %s, reads wait: %t, %v", kind, r.State, r.BlocksReads(), err)
		}
	}
}

// TestRetiredAccount verifies that the record knows which account a rotation with two accounts has
// left without a credential, through a repair, until something may have arrived at that account.
func TestRetiredAccount(t *testing.T) {
	t.Parallel()
	retiring := rotation.Record{
		State: rotation.Retiring, Mode: rotation.Rotate, Strategy: target.Double, Base: "v1", Candidate: "v2",
	}
	lost := after(t, retiring, rotation.Event{Kind: rotation.Unready, Text: "no", BaseRetired: true},
		rotation.Event{Kind: rotation.Cancel})
	if lost.Retired != "v1" {
		t.Errorf("after a login with the new credential failed: %q", lost.Retired)
	}
	r := after(t, retiring, rotation.Event{Kind: rotation.Retired}).Drifted("v2", "db", target.Single, "no", noon)
	r = after(t, r,
		rotation.Event{Kind: rotation.Again},
		rotation.Event{Kind: rotation.Sending},
		rotation.Event{Kind: rotation.Accepted},
		rotation.Event{Kind: rotation.LoggedIn},
	)
	if r.Retired != "v1" {
		t.Errorf("after a repair: %q", r.Retired)
	}
	r = after(t, r.Begin(rotation.Request{ID: "v3", Mode: rotation.Rotate}, noon),
		rotation.Event{Kind: rotation.Stored, Version: "v3", Replaces: "v2", Strategy: target.Double, Target: "db"},
		rotation.Event{Kind: rotation.Sending},
		rotation.Event{Kind: rotation.Unreached},
	)
	if r.Retired != "v1" {
		t.Errorf("when nothing was sent to the account: %q", r.Retired)
	}
	for _, kind := range []rotation.EventKind{rotation.NoAnswer, rotation.Accepted} {
		sent := after(t, r, rotation.Event{Kind: rotation.Sending}, rotation.Event{Kind: kind})
		if sent.Retired != "" {
			t.Errorf("after %s, the account still counts as one without a credential: %q", kind, sent.Retired)
		}
	}
}

// TestEarlierCredential verifies that an emergency that has waited for the end of a rotation knows
// the previous credential of that one, and says so where its retirement was cancelled.
func TestEarlierCredential(t *testing.T) {
	t.Parallel()
	emergency := rotation.Request{ID: "v9", Mode: rotation.Rotate, Trigger: rotation.Emergency, At: noon}
	for name, tt := range map[string]struct {
		strategy target.Strategy
		end      rotation.EventKind
		retired  bool
	}{
		"retired":                    {target.Overlap, rotation.Retired, true},
		"cancelled":                  {target.Overlap, rotation.Cancel, false},
		"cancelled, of two accounts": {target.Double, rotation.Cancel, false},
	} {
		grace := rotation.Record{
			State: rotation.InGrace, ID: "v2", Mode: rotation.Rotate, Strategy: tt.strategy, Base: "v1", Candidate: "v2",
		}
		waiting, ok := grace.Ask(emergency, noon)
		if !ok {
			t.Fatalf("%s: the emergency is refused", name)
		}
		ended := after(t, after(t, waiting, rotation.Event{Kind: rotation.Expired}), rotation.Event{Kind: tt.end})
		r := ended.Begin(emergency, noon)
		if want := (rotation.Earlier{Version: "v1", Retired: tt.retired}); r.Earlier == nil || *r.Earlier != want {
			t.Errorf("%s: the earlier credential is %+v, want %+v", name, r.Earlier, want)
		}
		done := r
		done.State = rotation.Done
		if said := strings.Contains(done.Why(), "version v1"); said == tt.retired || r.Why() != "" {
			t.Errorf("%s: the reason is %q at the beginning, and %q at the end", name, r.Why(), done.Why())
		}
		for replaces, retired := range map[bool]bool{false: tt.retired, true: true} {
			applied := r
			applied.State, applied.Strategy, applied.Candidate = rotation.Applied, tt.strategy, "v9"
			verified := after(t, applied, rotation.Event{Kind: rotation.LoggedIn, ReplacesEarlier: replaces})
			if verified.Earlier.Retired != retired || r.Earlier.Retired != tt.retired {
				t.Errorf("%s: after a login, replaced %t, the earlier credential is %+v", name, replaces, verified.Earlier)
			}
		}
		if next := r.Begin(rotation.Request{ID: "v10", Mode: rotation.Rotate}, noon); next.Earlier != nil {
			t.Errorf("%s: the next rotation has %+v", name, next.Earlier)
		}
	}
}

// TestAbandonedEmergency verifies that the advice after an emergency that has replaced nothing is
// to repeat it: an ordinary rotation would give the leaked credential a grace period.
func TestAbandonedEmergency(t *testing.T) {
	t.Parallel()
	r := rotation.Record{
		State:   rotation.Abandoned,
		Mode:    rotation.Rotate,
		Trigger: rotation.Emergency,
		Secret:  "s",
		Reason:  "No.",
	}
	if advice := r.Advice(); !strings.Contains(advice, "keyturn rotation emergency s") ||
		strings.Contains(advice, "rotation rotate") {
		t.Errorf("the advice is %q", advice)
	}
}
