package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// TestGraceBeginsWhenThePromotionIsStored verifies that a store which is slow to confirm a
// promotion does not shorten the grace period: until then, consumers read the previous version.
func TestGraceBeginsWhenThePromotionIsStored(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	m.set("two", "y")
	lead, err := w.env.DB.Lead(t.Context(), "test", w.env.Now)
	if err != nil {
		t.Fatal(err)
	}
	slow := func(_, point string) {
		if point == "after storing "+string(rotation.Promoted) {
			w.now = w.now.Add(10 * time.Minute)
		}
	}
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{At: slow}).Steps(lead)
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	for range 20 {
		more, err := engine.Step(t.Context(), store.Due{Account: account, Name: "double"})
		if err != nil {
			t.Fatal(err)
		}
		if !more || w.record(t, "double").State == rotation.InGrace {
			break
		}
	}
	r := w.record(t, "double")
	if r.State != rotation.InGrace || r.GraceUntil.Sub(w.now) != r.Grace.Min || r.Grace.Min == 0 {
		t.Errorf("state %s: the grace period of %s has %s left", r.State, r.Grace.Min, r.GraceUntil.Sub(w.now))
	}
}

// TestPausesTakeNoResult verifies that a caller who pauses and resumes a secret during each step of
// its rotation does not delay it, and that the last of these calls counts.
func TestPausesTakeNoResult(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	m.set("two", "y")
	lead, err := w.env.DB.Lead(t.Context(), "test", w.env.Now)
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	disturb := func(_, point string) {
		if strings.HasPrefix(point, "before storing ") {
			steps++
			w.must(t, "ResumeRotation", "SecretName", "double")
			w.must(t, "UpdateSecretRotationPolicy", "SecretName", "double", "EnableAutomaticRotation", "true",
				"RotationInterval", fmt.Sprintf("%dd", 10+steps))
			w.must(t, "PauseRotation", "SecretName", "double")
			if point == "before storing "+string(rotation.Stored) { // a candidate waits for the end of a pause
				w.must(t, "ResumeRotation", "SecretName", "double")
			}
		}
	}
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{At: disturb}).Steps(lead)
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	for range 20 {
		more, err := engine.Step(t.Context(), store.Due{Account: account, Name: "double"})
		if err != nil {
			t.Fatal(err)
		}
		if !more || w.record(t, "double").State == rotation.InGrace {
			break
		}
	}
	if r := w.record(t, "double"); r.State != rotation.InGrace || !r.Paused || steps == 0 {
		t.Errorf("state %s, paused %t, after %d steps that were stored", r.State, r.Paused, steps)
	}
}

// TestStepIsNotBegunOnOldTerms verifies that no candidate is made after a pause, none is sent after
// other settings, another target or a login that has failed, and no credential is quarantined for
// what another target said, although the engine has decided on that before; and that nothing else
// takes a step.
func TestStepIsNotBegunOnOldTerms(t *testing.T) {
	t.Parallel()
	call := func(action string, query ...string) func(*testing.T, *world, *memory) {
		return func(t *testing.T, w *world, _ *memory) { w.must(t, action, query...) }
	}
	settings := func(change func(*secret.RotationSettings)) func(*testing.T, *world, *memory) {
		return func(t *testing.T, w *world, _ *memory) {
			w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
				after := s.Settings()
				change(&after)
				s.Rotation.Settings = &after
			})
		}
	}
	consents := settings(func(s *secret.RotationSettings) { s.Consents = []string{"x"} })
	grace := settings(func(s *secret.RotationSettings) { s.Grace, s.Group = new(time.Hour), "g" })
	bound := func(t *testing.T, w *world, _ *memory) {
		w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
			s.Rotation.Binding = &secret.Binding{Target: s.Rotation.Binding.Target, Accounts: []string{"another"}}
		})
	}
	config := call("UpdateTarget", "TargetName", "pg", "Config", `{"address":"another"}`)
	described := call("UpdateTarget", "TargetName", "pg", "Description", "the database")
	failed := func(t *testing.T, w *world, m *memory) {
		m.set("app", "changed by hand")
		w.must(t, "CheckRotation", "SecretName", "db")
	}
	another := func(t *testing.T, w *world, _ *memory) {
		w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
			s.Versions, s.Stages = maps.Clone(s.Versions), maps.Clone(s.Stages)
			v := s.Versions["v1"]
			v.ID, v.Order = "v0", v.Order+1
			s.Versions[v.ID] = v
			s.Stages[secret.Current] = "v0"
		})
	}
	pause := call("PauseRotation", "SecretName", "db")
	for _, tt := range []struct {
		name   string
		kind   rotation.EventKind
		change func(*testing.T, *world, *memory)
		moved  bool
	}{
		{"made after a pause", rotation.Stored, pause, true},
		{"made after a pause of the target", rotation.Stored, call("PauseRotation", "TargetName", "pg"), true},
		{"made after a pause of all", rotation.Stored, call("PauseRotation"), true},
		{"made after other consents", rotation.Stored, consents, true},
		{"made for another binding", rotation.Stored, bound, true},
		{"made for another configuration", rotation.Stored, config, true},
		{"sent after a pause", rotation.Sending, pause, false},
		{"sent after a pause of the target", rotation.Sending, call("PauseRotation", "TargetName", "pg"), false},
		{"sent after other consents", rotation.Sending, consents, true},
		{"sent after another grace period", rotation.Sending, grace, false},
		{"sent to another binding", rotation.Sending, bound, true},
		{"sent to another configuration", rotation.Sending, config, true},
		{"sent after another description", rotation.Sending, described, false},
		{"sent after a check", rotation.Sending, call("CheckRotation", "SecretName", "db"), false},
		{"sent after a check that has failed", rotation.Sending, failed, true},
		{"quarantined, of another configuration", rotation.Drift, config, true},
		{"quarantined, after another version became current", rotation.Drift, another, true},
		{"quarantined, after a pause", rotation.Drift, pause, false},
		{"what was sent, after other consents", rotation.Accepted, consents, false},
		{"what was sent, to another configuration", rotation.Accepted, config, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, m := rotating(t)
			state := rotation.Prepared
			switch tt.kind {
			case rotation.Stored:
				state = rotation.Scheduled
			case rotation.Accepted:
				state = rotation.Applying
			case rotation.Drift:
				state = rotation.Done
			}
			w.inState(t, "db", state)
			engine, turn := w.turn(t, "db")
			tt.change(t, w, m)
			var err error
			if tt.kind == rotation.Drift {
				_, err = engine.Note(t.Context(), turn, tt.kind, func(r rotation.Record) rotation.Record {
					return r.Drifted("v1", "pg", target.Single, "no", w.now)
				})
			} else {
				_, err = engine.Move(t.Context(), turn, rotation.Event{Kind: tt.kind}, nil)
			}
			turn.End()
			if got := errors.Is(err, api.ErrMoved); got != tt.moved || !got && err != nil {
				t.Errorf("%v, want that it was outdated: %t", err, tt.moved)
			}
		})
	}
}

// TestRotationIsNotBegunOnOldTerms verifies that no automatic rotation begins after a pause, or at
// a time that was changed, although the engine has decided on that before.
func TestRotationIsNotBegunOnOldTerms(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string][][]string{
		"a pause":               {{"PauseRotation", "SecretName", "db"}},
		"a pause of the target": {{"PauseRotation", "TargetName", "pg"}},
		"a pause of all":        {{"PauseRotation"}},
		"another grace period":  {{"ConfigureRotation", "SecretName", "db", "GracePeriod", "3h"}},
		"another interval": {{"UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
			"RotationInterval", "90d"}},
		"a check": {{"CheckRotation", "SecretName", "db"}},
		"a pause that has ended": {
			{"PauseRotation", "SecretName", "db"},
			{"ResumeRotation", "SecretName", "db"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := rotating(t)
			w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
				"RotationInterval", "30d")
			engine, turn := w.turn(t, "db")
			for _, call := range calls {
				w.must(t, call[0], call[1:]...)
			}
			_, err := engine.Begin(t.Context(), turn, rotation.Request{
				ID:      "v2",
				Mode:    rotation.Rotate,
				Trigger: rotation.Automatic,
				At:      w.now,
			})
			turn.End()
			want := name != "a check" && name != "a pause that has ended"
			if got := errors.Is(err, api.ErrMoved); got != want || !got && err != nil {
				t.Errorf("%v, want that it was outdated: %t", err, want)
			}
		})
	}
}

// TestPlannedAgainIsNotOverdue verifies that a rotation is not reported as overdue if a caller has
// just planned it for another time, or paused it.
func TestPlannedAgainIsNotOverdue(t *testing.T) {
	t.Parallel()
	for name, call := range map[string][]string{
		"planned again": {"UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
			"RotationInterval", "90d"},
		"paused":       {"PauseRotation", "TargetName", "pg"},
		"only checked": {"CheckRotation", "SecretName", "db"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := rotating(t)
			w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
				"RotationInterval", "30d")
			w.now = w.now.Add(31 * 24 * time.Hour)
			engine, turn := w.turn(t, "db")
			if !turn.Overdue(w.now) {
				t.Fatal("the rotation is not overdue")
			}
			w.must(t, call[0], call[1:]...)
			_, err := engine.Note(t.Context(), turn, rotation.Overdue, func(r rotation.Record) rotation.Record {
				r.Overdue = true
				return r
			})
			turn.End()
			want := name != "only checked"
			if got := errors.Is(err, api.ErrMoved); got != want || !got && err != nil {
				t.Errorf("%v, want that it was outdated: %t", err, want)
			}
		})
	}
}

// TestProbeKeepsALaterCheck verifies that the check of a probe does not replace one that a caller
// has made meanwhile.
func TestProbeKeepsALaterCheck(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	engine, turn := w.turn(t, "db")
	system, err := turn.Open()
	if err != nil {
		t.Fatal(err)
	}
	into := turn.Check(t.Context(), system, true)
	w.now = w.now.Add(time.Second)
	m.says(nil, target.Finding{Code: "later", Verdict: target.Note, Text: "Found later."})
	turn.End()
	w.must(t, "CheckRotation", "SecretName", "db")
	r, err := engine.Note(t.Context(), turn, "", into)
	isLater := func(f target.Finding) bool { return f.Code == "later" }
	if err != nil || r.Check == nil || !slices.ContainsFunc(r.Check.Findings, isLater) {
		t.Errorf("the record has the check %+v, %v", r.Check, err)
	}
}

// TestChangesSetNoPace verifies that a caller who changes the target during each turn of a rotation
// does not make the engine ask the target as fast as it can.
func TestChangesSetNoPace(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	m.set("one", "x")
	m.set("two", "y")
	var turns atomic.Int64
	disturb := func(_, point string) {
		if point == "before storing "+string(rotation.Sending) {
			w.must(t, "UpdateTarget", "TargetName", "pg", "Config", fmt.Sprintf(`{"address":"%d"}`, turns.Add(1)))
		}
	}
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{At: disturb})
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	engine.Run(ctx)
	if n := turns.Load(); n < 2 || n > 12 {
		t.Errorf("%d turns in 3 seconds", n)
	}
}

// TestChangesKeepNoWorkers verifies that a caller who changes a target without end, at which more
// rotations wait than there are workers, does not delay an emergency at another target.
func TestChangesKeepNoWorkers(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.must(t, "RegisterTarget", "TargetName", "other", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	add := func(name, targetName string) {
		m.set(name+"1", "x")
		m.set(name+"2", "y")
		w.managed(t, name, "DoubleUsers", fmt.Sprintf(`{"Accounts":[{"AccountName":"%[1]s1","AccountPassword":"x"},`+
			`{"AccountName":"%[1]s2","AccountPassword":"y"}]}`, name), targetName)
	}
	add("victim", "other")
	for i := range 40 {
		name := fmt.Sprintf("a%d", i)
		add(name, "pg")
		w.must(t, "RotateSecret", "SecretName", name, "VersionId", "v2")
	}
	slow := func(name, point string) {
		if name != "victim" && point == "before a call" {
			time.Sleep(50 * time.Millisecond)
		}
	}
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{At: slow})
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	var work sync.WaitGroup
	work.Go(func() { engine.Run(ctx) })
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			_, err := w.call(t, rootPrincipal, "UpdateTarget", "TargetName", "pg", "Config", fmt.Sprintf(`{"address":"%d"}`, n))
			if err != nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	defer work.Wait()
	defer stop()
	time.Sleep(time.Second)
	w.must(t, "EmergencyRotation", "SecretName", "victim", "VersionId", "v2", "AgreeToFindings", "true")
	for w.record(t, "victim").State != rotation.Done {
		if ctx.Err() != nil {
			t.Fatalf("the emergency is %s after 19 seconds", w.record(t, "victim").State)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestPausesTakeNoProbe verifies that a caller who pauses and resumes a secret during each probe
// causes no more probes, and that the last of these calls counts.
func TestPausesTakeNoProbe(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	engine, turn := w.turn(t, "db")
	w.must(t, "PauseRotation", "SecretName", "db")
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "db", "EnableAutomaticRotation", "true",
		"RotationInterval", "90d")
	planned := w.record(t, "db").Due
	_, err := engine.Note(t.Context(), turn, "", func(r rotation.Record) rotation.Record {
		return r.Seen("v1", w.now, w.now.Add(time.Hour))
	})
	turn.End()
	if r := w.record(t, "db"); err != nil || !r.Health.ProbedAt.Equal(w.now) || !r.Paused || !r.Due.Equal(planned) {
		t.Errorf("%v: probed at %v, paused %t, next rotation at %v, want %v",
			err, r.Health.ProbedAt, r.Paused, r.Due, planned)
	}
}

// turn returns an engine, and what it has read of a secret before it takes a step.
func (w *world) turn(t *testing.T, name string) (*api.Engine, *api.Turn) {
	t.Helper()
	lead, err := w.env.DB.Lead(t.Context(), "test", w.env.Now)
	if err != nil {
		t.Fatal(err)
	}
	engine := w.gate.Engine(lead.Token)
	turn, ok, err := engine.Load(t.Context(), account, name)
	if err != nil || !ok {
		t.Fatalf("load: %v, %v", ok, err)
	}
	return engine, turn
}

// TestMissingCredentialEndsInAQuarantine verifies that a rotation which finds at the target that
// the account lacks the credential in use, or does not exist, has it probed at once, although the
// last probe was a moment ago.
func TestMissingCredentialEndsInAQuarantine(t *testing.T) {
	t.Parallel()
	for _, f := range []target.Finding{
		{Code: "no-password", Verdict: target.Impossible, Text: "It lacks it.", Drift: true},
		{Code: "no-account", Verdict: target.Impossible, Text: "There is no account.", Missing: true},
	} {
		t.Run(f.Code, func(t *testing.T) { t.Parallel(); testMissing(t, f) })
	}
}

func testMissing(t *testing.T, f target.Finding) {
	w, m := rotating(t)
	m.set("one", "changed by hand")
	m.says(nil, f)
	step := w.steps(t)
	w.put(t, "double", func(_ *secret.Secret, r *rotation.Record) {
		*r = r.Seen("v1", w.now, w.now.Add(time.Hour))
	})
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	for range 10 {
		step("double")
		w.now = w.now.Add(rotation.LoginWindow)
	}
	if r := w.record(t, "double"); r.State != rotation.Quarantined || r.Health.Live {
		t.Errorf("state %s, live %t: %s", r.State, r.Health.Live, r.Reason)
	}
}

// leading receives whether an engine has the right to rotate.
type leading chan bool

func (l leading) Moved(rotator.Event) {}
func (l leading) Leading(yes bool)    { l <- yes }

// TestFencedEngineStops verifies that an engine which finds that another one has taken over stops,
// and asks for the right to rotate again.
func TestFencedEngineStops(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	observed := make(leading, 16)
	engine := rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{Observe: observed})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); engine.Run(ctx) }()
	defer func() { stop(); <-ended }()
	next := func(want bool) {
		t.Helper()
		select {
		case got := <-observed:
			if got != want {
				t.Fatalf("leads: %t, want %t", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("does not report that it leads: %t", want)
		}
	}
	next(true)
	if _, err := w.env.DB.Lead(t.Context(), "other", w.env.Now); err != nil {
		t.Fatal(err)
	}
	w.must(t, "RotateSecret", "SecretName", "db", "VersionId", "v2")
	next(false)
	next(true)
}

// TestAnotherTargetIsNotProven verifies that what is known of a credential at one target does not
// count for the next one.
func TestAnotherTargetIsNotProven(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.must(t, "RegisterTarget", "TargetName", "pg2", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	w.put(t, "gen", func(_ *secret.Secret, r *rotation.Record) {
		*r = r.Seen("v1", w.now, w.now.Add(time.Hour))
	})
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg2")
	want := rotation.Health{NextAt: w.now} // the import
	if r := w.record(t, "gen"); r.Target != "pg2" || r.Accepted != "" || r.Health != want {
		t.Errorf("target %s, accepted %q, health %+v; want %+v", r.Target, r.Accepted, r.Health, want)
	}
}

// TestDryRunNamesManyConsumers verifies that a dry run names a hundred consumers and counts all,
// those known by their reads also apart.
func TestDryRunNamesManyConsumers(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Consumers = api.NewConsumers(w.env.DB, w.env.Now, slog.New(slog.DiscardHandler))
	for n := range 101 {
		if _, err := w.by(t.Context(), rootPrincipal, "192.0.2.1",
			"GetSecretValue", "SecretName", "db", "Consumer", fmt.Sprintf("app-%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, source := range []string{"192.0.2.8", "192.0.2.9"} {
		if _, err := w.by(t.Context(), rootPrincipal, source, "GetSecretValue", "SecretName", "db"); err != nil {
			t.Fatal(err)
		}
	}
	out := w.must(t, "EmergencyRotation", "SecretName", "db", "VersionId", "v2",
		"DryRun", "true").(*kms.EmergencyRotationResponse)
	if len(out.Breaking) != 100 || out.BreakingCount != 103 || out.BreakingInferredCount != 2 {
		t.Errorf("%d consumers are named, %d counted, %d of them by their reads", len(out.Breaking), out.BreakingCount,
			out.BreakingInferredCount)
	}
}
