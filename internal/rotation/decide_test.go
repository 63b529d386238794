package rotation_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// answers returns success, and an error of each class that package target has.
func answers() (list []rotation.Answer) {
	list = append(list, rotation.Answer{OK: true})
	for c := target.Unknown; c == target.Unknown || c.String() != target.Unknown.String(); c++ {
		list = append(list, rotation.Answer{Class: c, Text: "said " + c.String()})
	}
	return list
}

// TestEveryAnswer verifies what each class of answer means to each step: only a target that has
// answered moves a rotation.
func TestEveryAnswer(t *testing.T) {
	t.Parallel()
	type meaning struct {
		send, login, retire, revert, restore rotation.EventKind
		live                                 target.Liveness
		reached, mayFail                     bool
		pause                                time.Duration
	}
	failed := func(send rotation.EventKind) meaning {
		return meaning{
			send:    send,
			login:   rotation.Failed,
			retire:  rotation.Failed,
			revert:  rotation.Failed,
			restore: rotation.Failed,
		}
	}
	ok := meaning{
		send:    rotation.Accepted,
		login:   rotation.LoggedIn,
		retire:  rotation.Retired,
		revert:  rotation.Reverted,
		restore: rotation.Reverted,
		live:    target.Live,
		reached: true,
	}
	unknown, unreachable := failed(rotation.NoAnswer), failed(rotation.Unreached)
	refused := failed(rotation.Declined)
	refused.restore, refused.reached = rotation.Declined, true // its rules do not take the base again
	rejected := failed(rotation.NoAnswer)
	rejected.login, rejected.live, rejected.reached = rotation.NoLogin, target.Dead, true
	denied := failed(rotation.Denied)
	denied.pause, denied.reached = time.Minute, true
	admitted := failed(rotation.NoAnswer)
	admitted.login, admitted.live, admitted.reached = rotation.Proven, target.Live, true
	unclear := failed(rotation.NoAnswer)
	unclear.reached, unclear.mayFail = true, true
	rejected.mayFail = true
	want := map[string]meaning{
		"ok":                        ok,
		target.Admitted.String():    admitted,
		target.Unclear.String():     unclear,
		target.Unknown.String():     unknown,
		target.Unreachable.String(): unreachable,
		target.Refused.String():     refused,
		target.Rejected.String():    rejected,
		target.Denied.String():      denied,
	}
	single, overlap := record(rotation.Reverting), record(rotation.Reverting)
	single.Strategy = target.Single
	for _, a := range answers() {
		name := a.Class.String()
		if a.OK {
			name = "ok"
		}
		send, retire := rotation.AfterSend(a), rotation.After(rotation.Retired, a)
		login := rotation.AfterLogin(rotation.Record{}, a)
		revert, restore := rotation.AfterRevert(overlap, a), rotation.AfterRevert(single, a)
		got := meaning{
			send:    send.Kind,
			login:   login.Kind,
			retire:  retire.Kind,
			revert:  revert.Kind,
			restore: restore.Kind,
			live:    a.Liveness(),
			reached: a.Reached(),
			mayFail: login.LoginFailed,
			pause:   send.After,
		}
		if w, known := want[name]; !known || got != w {
			t.Errorf("%s: %+v; want %+v", name, got, w)
		}
		if login.LoginFailed != a.LoginFailed() {
			t.Errorf("%s: a failed login %t, and the answer says %t", name, login.LoginFailed, a.LoginFailed())
		}
		for _, e := range []rotation.Event{send, login, retire, revert, restore} {
			if e.Text != a.Text {
				t.Errorf("%s: the text of %s is %q", name, e.Kind, e.Text)
			}
			if e.Kind == rotation.Failed && e.After != want[name].pause {
				t.Errorf("%s: %s pauses for %s, want %s", name, e.Kind, e.After, want[name].pause)
			}
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("no answer is %s", name)
	}
}

// TestNotBegun verifies what follows when a step cannot be begun, in each state, and that the state
// takes that event.
func TestNotBegun(t *testing.T) {
	t.Parallel()
	for _, s := range rotation.States() {
		r := record(s)
		step := rotation.Plan(r, noon)
		if step == rotation.Nothing || step == rotation.Promote ||
			step == rotation.Expire { // nothing is asked of the target
			continue
		}
		for attempt, arrived := range []bool{false, false, true} {
			for _, final := range []bool{false, true} {
				want := rotation.Failed
				switch {
				case s == rotation.Prepared && final && !arrived:
					want = rotation.Impossible
				case s == rotation.Prepared:
					want = rotation.Denied
				case step == rotation.Prepare && final:
					want = rotation.Impossible
				}
				r.Attempt, r.Doubtful = attempt, arrived
				e := rotation.NotBegun(r, rotation.Answer{Class: target.Denied, Text: "why"}, final)
				if e.Kind != want || e.Text != "why" {
					t.Errorf("%s, attempt %d, final %t: %+v; want %s", s, attempt, final, e, want)
				}
				if _, err := rotation.Next(r, e, noon); err != nil {
					t.Errorf("%s, attempt %d, final %t: %v", s, attempt, final, err)
				}
			}
		}
	}
}

// TestResolution plays resolutions against targets, and verifies what is asked of them and what
// follows.
func TestResolution(t *testing.T) {
	t.Parallel()
	const live, dead, unknown = target.Live, target.Dead, target.NotKnown
	type questions = []rotation.Ask
	state, back := rotation.AskState, rotation.AskRevert
	candidate, base := rotation.AskCandidate, rotation.AskBase
	sent := func(r *rotation.Record) { r.SentAt = noon.Add(-time.Second) }
	rejections := func(n int) func(*rotation.Record) { return func(r *rotation.Record) { r.Rejections = n } }
	reapply := func(r *rotation.Record) { r.Mode = rotation.Reapply }
	resolved := func(c, b target.Liveness) rotation.Event {
		return rotation.Event{Kind: rotation.Resolved, Candidate: c, Base: b}
	}
	byLogin := func(e rotation.Event) rotation.Event { e.LoginFailed = true; return e }
	for _, tt := range []struct {
		name string
		with func(*rotation.Record)
		// tells is what the target's own state says of the candidate and of the base; works which of the
		// two can log in.
		tells, works [2]target.Liveness
		reverts      bool
		quiet        time.Duration
		down         rotation.Ask // the question that is not answered
		denied       rotation.Ask // the question that is answered with a refusal of the administrator
		asked        questions
		want         rotation.Event
	}{
		{
			name: "the target tells", tells: [2]target.Liveness{live, dead}, asked: questions{state},
			want: resolved(live, dead),
		},
		{
			name: "it tells that neither is live", tells: [2]target.Liveness{dead, dead}, asked: questions{state},
			want: resolved(dead, dead),
		},
		{
			name: "it is asked only for what it does not tell", tells: [2]target.Liveness{dead, unknown}, works: [2]target.Liveness{dead, live},
			asked: questions{state, base}, want: resolved(dead, live),
		},
		{
			name: "a login with the candidate", works: [2]target.Liveness{live, dead},
			asked: questions{state, candidate}, want: resolved(live, unknown),
		},
		{
			name: "and one with the base", works: [2]target.Liveness{dead, live},
			asked: questions{state, candidate, base}, want: byLogin(resolved(dead, live)),
		},
		{
			name: "neither logs in", works: [2]target.Liveness{dead, dead},
			asked: questions{state, candidate, base}, want: byLogin(resolved(dead, dead)),
		},
		{
			name: "a window later, the base", with: rejections(1), works: [2]target.Liveness{dead, live},
			asked: questions{state, base}, want: resolved(dead, live),
		},
		{
			name: "another window later, the candidate", with: rejections(2), works: [2]target.Liveness{dead, live},
			asked: questions{state, candidate}, want: byLogin(resolved(dead, dead)),
		},
		{
			name: "a repair has no base", with: reapply, works: [2]target.Liveness{dead, dead},
			asked: questions{state, candidate}, want: byLogin(resolved(dead, unknown)),
		},
		{
			name: "a window after a failed login", quiet: 40 * time.Second, asked: questions{state},
			want: rotation.Event{Kind: rotation.Failed, After: 40 * time.Second},
		},
		{
			name: "what was sent may be under way", with: sent, asked: questions{state},
			want: rotation.Event{Kind: rotation.Failed, After: 4 * time.Second},
		},
		{
			name: "it is taken back", with: sent, reverts: true, tells: [2]target.Liveness{dead, live}, asked: questions{state, back, state},
			want: rotation.Event{Kind: rotation.Resolved, Candidate: dead, Base: live, Settled: true},
		},
		{
			name: "a target that has the candidate takes nothing back", with: sent, reverts: true, tells: [2]target.Liveness{live, dead},
			asked: questions{state}, want: resolved(live, dead),
		},
		{
			name: "its administrator is refused", denied: state, works: [2]target.Liveness{dead, live},
			asked: questions{state, candidate, base}, want: byLogin(resolved(dead, live)),
		},
		{name: "its state is not told", down: state, asked: questions{state}, want: rotation.Event{Kind: rotation.Failed}},
		{
			name: "it does not take back", with: sent, reverts: true, tells: [2]target.Liveness{dead, live}, down: back,
			asked: questions{state, back}, want: rotation.Event{Kind: rotation.Failed},
		},
		{
			name: "no answer to the first login", down: candidate, asked: questions{state, candidate},
			want: rotation.Event{Kind: rotation.Failed},
		},
		{
			name: "no answer to the second login", down: base, works: [2]target.Liveness{dead, live},
			asked: questions{state, candidate, base}, want: byLogin(rotation.Event{Kind: rotation.Failed}),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := record(rotation.Unknown)
			if tt.with != nil {
				tt.with(&r)
			}
			var q rotation.Resolution
			var asked questions
			for {
				ask, event := q.Next(r, tt.reverts, tt.quiet, noon)
				if ask == rotation.AskNothing {
					event.Text = ""
					if event != tt.want || fmt.Sprint(asked) != fmt.Sprint(tt.asked) {
						t.Errorf("asked %v, and %+v follows; want %v and %+v", asked, event, tt.asked, tt.want)
					}
					if _, err := rotation.Next(r, event, noon); err != nil {
						t.Error(err)
					}
					return
				}
				if asked = append(asked, ask); len(asked) > 5 {
					t.Fatalf("asks on and on: %v", asked)
				}
				a := rotation.Answer{OK: true}
				switch {
				case ask == tt.down:
					a = rotation.Answer{Class: target.Unreachable}
				case ask == tt.denied:
					a = rotation.Answer{Class: target.Denied}
				case ask == candidate && tt.works[0] != live, ask == base && tt.works[1] != live:
					a = rotation.Answer{Class: target.Rejected}
				}
				q = q.Answered(ask, a, tt.tells[:]...)
			}
		})
	}
}

// TestOnlyARejectionIsDead verifies that a login shows that a credential is dead only where the
// target has rejected it.
func TestOnlyARejectionIsDead(t *testing.T) {
	t.Parallel()
	for _, ask := range []rotation.Ask{rotation.AskCandidate, rotation.AskBase} {
		for _, a := range answers() {
			q := rotation.Resolution{}.Answered(rotation.AskState, rotation.Answer{OK: true}).Answered(ask, a)
			rejected := !a.OK && a.Class == target.Rejected
			admitted := !a.OK && a.Class == target.Admitted
			unclear := !a.OK && a.Class == target.Unclear
			if q.Failed != (!a.OK && !rejected && !admitted) || q.LoginFailed != (rejected || unclear) {
				t.Errorf("%v to question %d: %+v", a, ask, q)
			}
			_, e := q.Next(record(rotation.Unknown), false, 0, noon)
			if admitted && ask == rotation.AskCandidate && !strings.Contains(e.Text, a.Text) {
				t.Errorf("what the target said of the session is not shown: %q", e.Text)
			}
		}
	}
}

// TestStateDecides verifies that the target's own state promotes a candidate only where no endpoint
// has given an answer that may be a rejection: applications would get the same.
func TestStateDecides(t *testing.T) {
	t.Parallel()
	r := record(rotation.Applied)
	r.Strategy = target.Single
	for _, a := range answers() {
		e := rotation.AfterLogin(r, a)
		silent := !a.OK && (a.Class == target.Unknown || a.Class == target.Unreachable || a.Class == target.Denied)
		if got := r.AsksState(e); got != silent && a.Class != target.Refused {
			t.Errorf("%v: the state is asked: %v", a, got)
		}
		after := r
		after.HeldAt, after.LoginFailedAt = noon, noon.Add(time.Second)
		if after.AsksState(e) {
			t.Errorf("%v: the state is asked after an answer that may be a rejection", a)
		}
	}
}

// TestStateAfterRejection verifies that a candidate that a target no longer has, or not at all
// hosts, is sent again where reads are not blocked, and that the state proves nothing there.
func TestStateAfterRejection(t *testing.T) {
	t.Parallel()
	for _, strategy := range []target.Strategy{target.Overlap, target.Double} {
		r := record(rotation.Applied)
		r.Strategy, r.Attempt = strategy, 1
		for _, a := range answers() {
			e := rotation.AfterLogin(r, a)
			proves := e.Kind == rotation.LoggedIn || e.Kind == rotation.Proven
			if got, want := r.AsksState(e), !proves && a.Reached(); got != want {
				t.Errorf("%s, %v: the state is asked: %v", strategy, a, got)
			}
			if !r.AsksState(e) {
				continue
			}
			for _, live := range [][2]target.Liveness{
				{target.NotKnown, target.Live},
				{target.Live, target.Live},
				{target.Live, target.Dead},
				{target.Dead, target.Dead}, // the holder of a leaked credential may bring that about
				{target.Dead, target.NotKnown},
			} {
				if got := rotation.AfterState(r, e, rotation.Answer{OK: true}, live[0], live[1]); got != e {
					t.Errorf("%s, %v: a state of %v makes %+v of it", strategy, a, live, got)
				}
			}
			if got := rotation.AfterState(r, e, rotation.Answer{}, target.Dead, target.Live); got != e {
				t.Errorf("%s, %v: a state that was not read makes %+v of it", strategy, a, got)
			}
			r := after(t, r, rotation.AfterState(r, e, rotation.Answer{OK: true}, target.Dead, target.Live))
			if r.State != rotation.Unknown || !r.NextAt.IsZero() {
				t.Fatalf("%s, %v: the rotation is %s until %s", strategy, a, r.State, r.NextAt)
			}
			r = after(t, r, rotation.Event{Kind: rotation.Resolved, Candidate: target.Dead, Base: target.Live, Settled: true})
			if r.State != rotation.Prepared {
				t.Errorf("%s, %v: the candidate is not sent again: %s", strategy, a, r.State)
			}
		}
	}
}

// TestQuiet verifies that one login at most fails in a window, also when the store does not have
// the last one.
func TestQuiet(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	for _, tt := range []struct {
		name             string
		stored, unstored time.Time
		want             time.Duration // 0 means that a login may be tried
	}{
		{"none has failed", time.Time{}, time.Time{}, 0},
		{"one is stored", ago(20 * time.Second), time.Time{}, 40 * time.Second},
		{"one was long ago", ago(time.Hour), time.Time{}, 0},
		{"one could not be stored", time.Time{}, ago(20 * time.Second), 40 * time.Second},
		{"the last one could not be stored", ago(50 * time.Second), ago(20 * time.Second), 40 * time.Second},
		{"it was stored in the end", ago(10 * time.Second), ago(20 * time.Second), 50 * time.Second},
		{"the clock was set back", ago(-time.Hour), time.Time{}, time.Minute},
	} {
		if got := max(0, rotation.Record{LoginFailedAt: tt.stored}.Quiet(tt.unstored, noon)); got != tt.want {
			t.Errorf("%s: waits %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestLabelsAfter verifies which label moves with which event.
func TestLabelsAfter(t *testing.T) {
	t.Parallel()
	want := map[rotation.EventKind]rotation.LabelMove{
		rotation.Stored:   rotation.LabelCandidate,
		rotation.Promoted: rotation.PromoteCandidate,
	}
	for _, from := range rotation.States() {
		for _, kind := range rotation.EventKinds() {
			old := record(from)
			r, err := rotation.Next(old, following(kind), noon)
			if err != nil {
				continue // see TestEveryEventInEveryState
			}
			move, always := want[kind]
			switch {
			case always:
			case from == rotation.Undoing && (kind == rotation.LoggedIn || kind == rotation.Proven):
				move = rotation.SwapLabels
			case old.Pending() && (r.State.Ended() || r.State == rotation.Scheduled):
				move = rotation.DropCandidate
			}
			if got := rotation.LabelsAfter(old, r, kind); got != move {
				t.Errorf("%s in %s moves %d, want %d", kind, from, got, move)
			}
			ends := r.State == rotation.Done || r.State == rotation.Abandoned || kind == rotation.Promoted
			if got := rotation.PlansAgain(old, r, kind); got != ends {
				t.Errorf("%s in %s plans the next rotation: %t", kind, from, got)
			}
		}
	}
}

// TestPlanIdle verifies what a record needs on which no rotation is under way.
func TestPlanIdle(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Hour)
	urgent := &rotation.Request{ID: "r2", Trigger: rotation.Emergency, At: noon}
	waits := *urgent
	waits.At = later
	for _, tt := range []struct {
		name     string
		with     func(*rotation.Record)
		paused   bool
		earliest time.Time
		step     rotation.Step
		trigger  rotation.Trigger
		at       time.Time
	}{
		{"nothing is due", func(*rotation.Record) {}, false, noon, rotation.CheckHealth, "", time.Time{}},
		{"not due yet", func(r *rotation.Record) { r.Due = later }, false, noon, rotation.CheckHealth, "", time.Time{}},
		{"due", func(r *rotation.Record) { r.Due = noon }, false, noon, rotation.Begin, rotation.Automatic, time.Time{}},
		{
			"due, but paused", func(r *rotation.Record) { r.Due, r.Paused = noon, true }, false, noon,
			rotation.CheckHealth, "", time.Time{},
		},
		{"due at a paused target", func(r *rotation.Record) { r.Due = noon }, true, noon, rotation.Postpone, "", time.Time{}},
		{"due too soon", func(r *rotation.Record) { r.Due = noon }, false, later, rotation.Postpone, "", later},
		{
			"an emergency waits", func(r *rotation.Record) { r.Then, r.Paused = urgent, true }, true, later,
			rotation.Begin, rotation.Emergency, time.Time{},
		},
		{
			"its time has not come", func(r *rotation.Record) { r.Then, r.Due = &waits, later }, false, noon,
			rotation.CheckHealth, "", time.Time{},
		},
	} {
		r := record(rotation.Done)
		tt.with(&r)
		step, q, at := rotation.PlanIdle(r, tt.paused, tt.earliest, noon)
		if step != tt.step || q.Trigger != tt.trigger || !at.Equal(tt.at) {
			t.Errorf("%s: %s, %q, %s; want %s, %q, %s", tt.name, step, q.Trigger, at, tt.step, tt.trigger, tt.at)
		}
	}
}

// TestAwaitsResume verifies that no pause keeps a leaked credential alive.
func TestAwaitsResume(t *testing.T) {
	t.Parallel()
	r := record(rotation.Scheduled)
	if r.AwaitsResume(false) || !r.AwaitsResume(true) {
		t.Error("a pause of the target does not count")
	}
	r.Paused = true
	if !r.AwaitsResume(false) {
		t.Error("a pause of the secret does not count")
	}
	if r = r.Urgent(""); r.AwaitsResume(true) {
		t.Error("an emergency waits for the end of a pause")
	}
}

// TestAsk verifies what becomes of a request in each state.
func TestAsk(t *testing.T) {
	t.Parallel()
	q := rotation.Request{ID: "r2", Mode: rotation.Rotate, Trigger: rotation.Manual, At: noon}
	urgent := q
	urgent.Trigger = rotation.Emergency
	for _, s := range rotation.States() {
		r := record(s)
		r.NextAt = noon.Add(time.Hour)
		if next, ok := r.Ask(q, noon); ok != !r.InFlight() || ok && (next.ID != "r2" || next.State != rotation.Scheduled) {
			t.Errorf("asked in %s: %t, %+v", s, ok, next)
		}
		next, ok := r.Ask(urgent, noon)
		begins := next.ID == "r2" && next.Trigger == rotation.Emergency
		waits := next.Then != nil && next.Then.ID == "r2" && next.ID == r.ID
		takesOver := next.ID == r.ID && next.Trigger == rotation.Emergency && next.Grace == rotation.Grace{}
		good := ok && takesOver
		switch s {
		case rotation.Quarantined:
			good = !ok
		case rotation.InGrace:
			good = ok && waits && !next.NextAt.After(noon) // it does not wait for the end of the grace period
		case rotation.Retiring, rotation.Undoing, rotation.Reverting:
			good = ok && waits
		case rotation.Scheduled, rotation.Refused:
			good = ok && takesOver && !next.NextAt.After(noon)
		case rotation.Idle, rotation.Done, rotation.Abandoned:
			good = ok && begins
		}
		if !good {
			t.Errorf("an emergency in %s: %t, %+v", s, ok, next)
		}
	}
	for _, with := range []func(*rotation.Record){
		func(r *rotation.Record) { r.Cancelled = true },
		func(r *rotation.Record) { r.Mode = rotation.Rehearse },
	} {
		r := record(rotation.Prepared)
		with(&r)
		if next, ok := r.Ask(urgent, noon); !ok || next.Then == nil || next.Trigger == rotation.Emergency {
			t.Errorf("an emergency after %+v: %t, %+v", r, ok, next)
		}
	}
}

// TestAfterGrace verifies for whom the end of a grace period waits, and no longer than to its
// limit.
func TestAfterGrace(t *testing.T) {
	t.Parallel()
	r := record(rotation.InGrace)
	r.GraceUntil = noon
	until := noon.Add(time.Minute)
	if e := rotation.AfterGrace(r, 0, until, noon); e.Kind != rotation.Expired {
		t.Errorf("nobody holds it: %+v", e)
	}
	if e := rotation.AfterGrace(r, 2, until, noon); e.Kind != rotation.Awaiting || e.Consumers != 2 ||
		!e.Until.Equal(until) {
		t.Errorf("two hold it: %+v", e)
	}
	if e := rotation.AfterGrace(r, 2, until, r.GraceDeadline); e.Kind != rotation.Overran || e.Consumers != 2 ||
		e.Text == "" {
		t.Errorf("at the limit: %+v", e)
	}
	r.GraceDeadline = r.GraceUntil
	if e := rotation.AfterGrace(r, 2, until, noon); e.Kind != rotation.Expired || r.WaitsForConsumers() {
		t.Errorf("without a longer limit: %+v", e)
	}
}

// TestProbePending verifies when the target is still to be asked about the credential in use.
func TestProbePending(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Hour)
	for name, tt := range map[string]struct {
		state  rotation.State
		health rotation.Health
		want   bool
	}{
		"never asked":           {rotation.Idle, rotation.Health{}, false},
		"first probe":           {rotation.Idle, rotation.Health{NextAt: noon}, true},
		"of an earlier release": {rotation.Done, rotation.Health{ProbedAt: noon, Live: true, NextAt: later}, false},
		"asked for":             {rotation.Done, rotation.Health{ProbedAt: noon, NextAt: later, Wanted: true}, true},
		"put off by a limit":    {rotation.Done, rotation.Health{ProbedAt: noon, NextAt: later, DueAt: noon}, true},
		"a rotation began":      {rotation.Applying, rotation.Health{ProbedAt: noon, NextAt: noon, Wanted: true}, true},
		"due in a rotation":     {rotation.Applying, rotation.Health{ProbedAt: noon, NextAt: noon}, false},
		"quarantined":           {rotation.Quarantined, rotation.Health{ProbedAt: noon, NextAt: noon, Wanted: true}, false},
	} {
		r := record(tt.state)
		r.Health = tt.health
		if got := r.ProbePending(noon); got != tt.want {
			t.Errorf("%s: pending %t, want %t", name, got, tt.want)
		}
	}
	asked := record(rotation.Done)
	asked.Health = rotation.Health{NextAt: noon, Wanted: true}
	for _, live := range []target.Liveness{target.Live, target.NotKnown, target.Dead} {
		r, _ := asked.AfterProbe(rotation.Probe{Version: "v2", Live: live}, noon, later)
		if r.ProbePending(noon) {
			t.Errorf("after the answer %v it is still to be asked", live)
		}
	}
}

// TestAfterProbe verifies what a probe means for the record.
func TestAfterProbe(t *testing.T) {
	t.Parallel()
	next := noon.Add(time.Hour)
	r := record(rotation.Done)
	live, kind := r.AfterProbe(rotation.Probe{Version: "v2", Live: target.Live}, noon, next)
	if kind != "" || !live.Health.Live || live.Accepted != "v2" || !live.Health.NextAt.Equal(next) {
		t.Errorf("it is live: %q, %+v", kind, live)
	}
	silent, kind := live.AfterProbe(rotation.Probe{Version: "v2", Live: target.NotKnown}, next, next.Add(time.Hour))
	if kind != "" || silent.Health.Silent != 1 || !silent.Health.Live || silent.State != rotation.Done {
		t.Errorf("no answer: %q, %+v", kind, silent)
	}
	p := rotation.Probe{Version: "v2", Live: target.NotKnown, Text: "waiting", Wait: time.Minute}
	waits, kind := live.AfterProbe(p, next, next.Add(time.Hour))
	if kind != "" || !waits.Health.TriedAt.Equal(noon) || waits.Health.Silent != 0 ||
		!waits.Health.NextAt.Equal(next.Add(time.Minute)) ||
		waits.Why() != "" {
		t.Errorf("the target was not asked, because a login must wait: %q, %+v", kind, waits)
	}
	live.Health.Wanted = true
	if waits, _ := live.AfterProbe(p, next, next); !waits.ProbePending(next) {
		t.Errorf("a probe that was asked for is pending no longer, because a login must wait: %+v", waits)
	}
	for _, failed := range []bool{false, true} {
		p := rotation.Probe{Version: "v2", Target: "t", Live: target.Dead, Strategy: target.Single, LoginFailed: failed}
		dead, kind := live.AfterProbe(p, noon, next)
		if kind != rotation.Drift || dead.State != rotation.Quarantined || dead.Candidate != "v2" ||
			dead.LoginFailedAt.Equal(noon) != failed {
			t.Errorf("it is dead, by a login %t: %q, %+v", failed, kind, dead)
		}
	}
	if e := rotation.NotProven(rotation.Probe{Live: target.NotKnown, Text: "x"}); e.Kind != rotation.Failed ||
		e.Text != "x" {
		t.Errorf("a rehearsal without an answer: %+v", e)
	}
	if e := rotation.NotProven(rotation.Probe{Live: target.Dead, LoginFailed: true}); e.Kind != rotation.Impossible ||
		!e.LoginFailed {
		t.Errorf("a rehearsal with a dead credential: %+v", e)
	}
}

// TestTwoAccountsNeedASession verifies that an account whose sessions are refused never becomes
// the one that applications use, although its credential is proven; with one account it is proof
// enough, since applications have no other.
func TestTwoAccountsNeedASession(t *testing.T) {
	t.Parallel()
	admitted := rotation.Answer{Class: target.Admitted, Text: "no right to connect"}
	for strategy, want := range map[target.Strategy]rotation.EventKind{
		target.Single:  rotation.Proven,
		target.Overlap: rotation.Proven,
		target.Double:  rotation.Failed,
	} {
		e := rotation.AfterLogin(rotation.Record{Strategy: strategy}, admitted)
		if e.Kind != want || e.Text != admitted.Text {
			t.Errorf("%s: %+v, want %s", strategy, e, want)
		}
	}
}

// TestOpenOutcomeIsTakenBack verifies that a rotation whose target answers, and never says which
// credential it accepts, ends with a known outcome: in quarantine reads would be answered with a
// credential that may have been replaced.
func TestOpenOutcomeIsTakenBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for mode, want := range map[rotation.Mode]rotation.State{
		rotation.Rotate:   rotation.Reverting,
		rotation.Rehearse: rotation.Reverting,
		rotation.Reapply:  rotation.Quarantined,
	} {
		r := rotation.Record{State: rotation.Unknown, Mode: mode, Strategy: target.Single, Candidate: "b", Base: "a"}
		for n := 1; n <= rotation.MaxUndecided; n++ {
			if r.State != rotation.Unknown {
				t.Errorf("%s: %s after %d answers, want %d", mode, r.State, n-1, rotation.MaxUndecided)
				break
			}
			next, err := rotation.Next(r, rotation.Event{Kind: rotation.Failed, Answered: true, Text: "denied"}, now)
			if err != nil {
				t.Fatal(err)
			}
			r = next
		}
		if r.State != want || !strings.Contains(r.Reason, "did not say which") || !strings.Contains(r.Reason, "denied") {
			t.Errorf("%s: %s, %q; want %s with the reason", mode, r.State, r.Reason, want)
		}
	}
}

// TestEmergencyNeedsNoLeakedCredential verifies that an emergency does not wait for a login with a
// credential that it makes useless, and that every other rotation does.
func TestEmergencyNeedsNoLeakedCredential(t *testing.T) {
	t.Parallel()
	r := record(rotation.Prepared)
	r.Strategy = target.Single
	if urgent := r.Urgent(""); !r.NeedsBase() || urgent.NeedsBase() {
		t.Errorf("a login with the base: %t, and in an emergency %t", r.NeedsBase(), urgent.NeedsBase())
	}
	r = record(rotation.Retiring)
	waited := r
	waited.Then = &rotation.Request{Trigger: rotation.Emergency}
	if !r.NeedsCandidate() || !r.Urgent("").NeedsCandidate() || waited.NeedsCandidate() {
		t.Errorf("a login with the new credential before the previous one is retired: %t, in an emergency %t, before one %t",
			r.NeedsCandidate(), r.Urgent("").NeedsCandidate(), waited.NeedsCandidate())
	}
}

// TestAfterClearing verifies what follows when the target does not take back what an attempt may
// have left.
func TestAfterClearing(t *testing.T) {
	t.Parallel()
	ended := rotation.Event{Kind: rotation.Denied, Text: "permission denied", Answered: true}
	declined := rotation.Event{Kind: rotation.Declined, Text: "too short"}
	for _, a := range answers() {
		refused := !a.OK && a.Class == target.Denied
		for _, e := range []rotation.Event{ended, declined} {
			want := rotation.Failed
			if a.OK || refused && e.Kind == rotation.Denied {
				want = e.Kind
			}
			got := rotation.AfterClearing(record(rotation.Applying), e, a)
			if got.Kind != want || refused && !strings.Contains(got.Text, a.Text) {
				t.Errorf("%s after %s: %+v; want %s", answerName(a), e.Kind, got, want)
			}
		}
	}
}

// TestReplicas verifies that a promotion waits for a replica that does not accept the new
// credential yet, where reads are not blocked, and that only a login that was proven counts.
func TestReplicas(t *testing.T) {
	t.Parallel()
	r := record(rotation.Applied)
	single := r
	single.Strategy = target.Single
	in := rotation.Event{Kind: rotation.LoggedIn, Lag: time.Minute}
	rejected := rotation.Event{Kind: rotation.NoLogin, Lag: time.Minute}
	at := rotation.Event{Kind: rotation.LoggedIn}
	if !r.WaitsForCopies(in) || r.WaitsForCopies(rejected) || r.WaitsForCopies(at) || single.WaitsForCopies(in) {
		t.Errorf("waits: %t, after a rejection %t, without a replica %t, while reads are blocked %t; want true once",
			r.WaitsForCopies(in), r.WaitsForCopies(rejected), r.WaitsForCopies(at), single.WaitsForCopies(in))
	}
	for _, a := range answers() {
		want := rotation.CopiesLate
		if a.Liveness() == target.Live {
			want = rotation.LoggedIn
		}
		if got := rotation.AfterCopies(in, a); got.Kind != want || got.Lag != in.Lag {
			t.Errorf("a replica answers %s: %+v; want %s", answerName(a), got, want)
		}
	}
}

// TestMayRetire verifies that the target's own state permits the retirement after a wait and after
// an answer that decides nothing, and never after a rejection.
func TestMayRetire(t *testing.T) {
	t.Parallel()
	ok := rotation.Answer{OK: true}
	wait := rotation.TooSoon(time.Minute)
	if !rotation.MayRetire(wait, ok, target.Live) || rotation.MayRetire(wait, ok, target.NotKnown) ||
		rotation.MayRetire(wait, rotation.Answer{Class: target.Denied}, target.Live) {
		t.Error("a wait for a login: the state alone must permit it")
	}
	for _, a := range answers() {
		e, ready := rotation.Before(a)
		if want := ready || a.Class != target.Rejected; rotation.MayRetire(e, ok, target.Live) != want {
			t.Errorf("after %s: want %t", answerName(a), want)
		}
	}
}

// TestMissingCredentialIsProbed verifies that a rotation which the target refuses, because its own
// state lacks the credential in use, has that credential probed at once: the last probe may have
// found it live.
func TestMissingCredentialIsProbed(t *testing.T) {
	t.Parallel()
	later := noon.Add(time.Hour)
	for _, tt := range []struct {
		name  string
		base  target.Liveness
		probe time.Time
		want  time.Time
	}{
		{"missing", target.Dead, later, noon},
		{"not known", target.NotKnown, later, later},
		{"no probes are made", target.Dead, time.Time{}, time.Time{}},
	} {
		r := record(rotation.Prepared)
		r.Attempt, r.Health = 0, rotation.Health{ProbedAt: noon, Live: true, NextAt: tt.probe, Wanted: true, DueAt: tt.probe}
		r, err := rotation.Next(r, rotation.Event{Kind: rotation.Impossible, Base: tt.base}, noon)
		if err != nil || r.State != rotation.Abandoned || !r.Health.NextAt.Equal(tt.want) ||
			r.Health.IsDue(noon) != tt.want.Equal(noon) {
			t.Errorf("%s: %s, probed at %v, want %v; %v", tt.name, r.State, r.Health.NextAt, tt.want, err)
		}
	}
}

// TestWhatOutdatesAStep verifies that a pause, another plan of the next rotation and a check leave
// a step, or a probe, under way valid, and that nothing else does.
func TestWhatOutdatesAStep(t *testing.T) {
	t.Parallel()
	for _, state := range []rotation.State{rotation.Applied, rotation.Idle, rotation.Done} {
		t.Run(string(state), func(t *testing.T) { t.Parallel(); testOutdates(t, state) })
	}
}

func testOutdates(t *testing.T, state rotation.State) {
	plan := map[string]bool{
		"Seq": true, "Due": true, "Paused": true, "Pause": true, "Check": true, "LoginFailedAt": true,
	}
	before := record(state)
	fields := reflect.TypeFor[rotation.Record]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		if name == "State" {
			continue
		}
		r := before
		field := reflect.ValueOf(&r).Elem().Field(i)
		changed := field.Interface()
		for n := int64(0); reflect.DeepEqual(changed, field.Interface()); n++ {
			setField(t, name, field, n)
		}
		if got := r.Outdates(before); got == plan[name] {
			t.Errorf("%s: outdates: %t, want %t", name, got, !plan[name])
		}
	}
}

// setField gives a field another value than zero, of its own for each n.
func setField(t *testing.T, name string, field reflect.Value, n int64) {
	t.Helper()
	switch {
	case field.Type() == reflect.TypeFor[time.Time]():
		field.Set(reflect.ValueOf(noon.Add(time.Duration(n+1) * time.Second)))
		return
	case field.Kind() == reflect.Pointer:
		field.Set(reflect.New(field.Type().Elem()))
		return
	case field.Kind() == reflect.Slice:
		field.Set(reflect.MakeSlice(field.Type(), int(n+1), int(n+1)))
		return
	case field.Kind() == reflect.Struct:
		setField(t, name, field.Field(0), n)
		return
	case field.CanInt():
		field.SetInt(n + 1)
		return
	case field.Kind() == reflect.Bool:
		field.SetBool(true)
		return
	case field.Kind() == reflect.String:
		field.SetString(fmt.Sprint("x", n))
		return
	}
	t.Fatalf("no other value for %s", name)
}
