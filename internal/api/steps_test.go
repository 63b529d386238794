package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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

// TestStepIsNotBegunOnOldTerms verifies that no candidate is made after a pause, and none is sent
// after other settings or a login that has failed, although the engine has decided on that before.
func TestStepIsNotBegunOnOldTerms(t *testing.T) {
	t.Parallel()
	pause, check := []string{"PauseRotation", "SecretName", "db"}, []string{"CheckRotation", "SecretName", "db"}
	for _, tt := range []struct {
		name  string
		kind  rotation.EventKind
		call  []string // nil for other settings
		wrong bool     // the credential in use
		moved bool
	}{
		{"made after a pause", rotation.Stored, pause, false, true},
		{"made after other settings", rotation.Stored, nil, false, true},
		{"sent after a pause", rotation.Sending, pause, false, false},
		{"sent after other settings", rotation.Sending, nil, false, true},
		{"sent after a check", rotation.Sending, check, false, false},
		{"sent after a check that has failed", rotation.Sending, check, true, true},
	} {
		w, m := rotating(t)
		state := rotation.Prepared
		if tt.kind == rotation.Stored {
			state = rotation.Scheduled
		}
		w.inState(t, "db", state)
		engine, turn := w.turn(t, "db")
		if tt.wrong {
			m.set("app", "changed by hand")
		}
		if tt.call == nil {
			w.put(t, "db", func(s *secret.Secret, _ *rotation.Record) {
				s.Rotation.Settings = &secret.RotationSettings{Consents: []string{"x"}}
			})
			turn.Record.Seq = w.record(t, "db").Seq
		} else {
			w.must(t, tt.call[0], tt.call[1:]...)
		}
		_, err := engine.Move(t.Context(), turn, rotation.Event{Kind: tt.kind}, nil)
		turn.End()
		if got := errors.Is(err, api.ErrMoved); got != tt.moved || !got && err != nil {
			t.Errorf("%s: %v, want that it was outdated: %t", tt.name, err, tt.moved)
		}
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
