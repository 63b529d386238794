package api_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

const elsewhere = `{"address":"moved.example.test"}`

// waits puts a rotation into a state in which it waits for five minutes.
func (w *world) waits(t *testing.T, name string, failures int, last time.Time, admin bool) {
	t.Helper()
	w.inState(t, name, rotation.Prepared)
	w.put(t, name, func(_ *secret.Secret, r *rotation.Record) {
		r.Failures, r.AdminWait, r.NextAt = failures, admin, w.now.Add(5*time.Minute)
		r.Steps = []rotation.Entry{{At: last, State: rotation.Prepared}}
	})
}

// TestFixedTargetIsTriedAtOnce verifies which calls have tried again at once what has failed at a
// target: those that change it, its administrator, or the current version of the administrator's
// secret.
func TestFixedTargetIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		call  string
		with  []string
		tried bool
	}{
		{"UpdateTarget", []string{"TargetName", "pg", "Config", elsewhere}, true},
		{"UpdateTarget", []string{"TargetName", "pg", "Config", toMemory}, false},
		{"UpdateTarget", []string{"TargetName", "pg", "Config", " " + toMemory}, false},
		{"UpdateTarget", []string{"TargetName", "pg", "AdminSecretName", "other-admin"}, true},
		{"UpdateTarget", []string{"TargetName", "pg", "AdminSecretName", "pg-admin"}, false},
		{"UpdateTarget", []string{"TargetName", "pg", "Description", "another"}, false},
		{"UpdateTarget", []string{"TargetName", "other", "Config", elsewhere}, false},
		{"PutSecretValue", []string{"SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2"}, true},
		{"PutSecretValue", []string{"SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2",
			"VersionStages", `["next"]`}, false},
		{"PutSecretValue", []string{"SecretName", "bare", "SecretData", "x", "VersionId", "v2"}, false},
		{"UpdateSecretVersionStage", []string{"SecretName", "pg-admin", "VersionStage", "ACSCurrent",
			"RemoveFromVersion", "v1", "MoveToVersion", "v0"}, true},
		{"UpdateSecretVersionStage", []string{"SecretName", "pg-admin", "VersionStage", "ACSCurrent",
			"MoveToVersion", "v1"}, false},
		{"UpdateSecretVersionStage", []string{"SecretName", "pg-admin", "VersionStage", "older",
			"RemoveFromVersion", "v0", "MoveToVersion", "v1"}, false},
		{"TestTarget", []string{"TargetName", "pg", "SecretName", "db"}, false},
		{"RepairRotation", []string{"SecretName", "db", "RepairAction", kms.RepairProbe}, true},
		{"RepairRotation", []string{"SecretName", "gen", "RepairAction", kms.RepairAdopt, "VersionId", "v5",
			"SecretData", `{"username":"gen","password":"p"}`}, true},
	} {
		w, _ := rotating(t)
		w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
		w.must(t, "RegisterTarget", "TargetName", "other", "Kind", "memory", "Config", toMemory, "AdminSecretName",
			"pg-admin")
		w.must(t, "CreateSecret", "SecretName", "other-admin", "SecretData", adminValue, "VersionId", "v1")
		w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v0", "VersionStages",
			`["older"]`)
		w.must(t, "RegisterTarget", "TargetName", "with-gen", "Kind", "memory", "Config", toMemory, "AdminSecretName", "gen")
		w.gate.Hurry(t.Context())
		w.now = w.now.Add(time.Minute)
		w.inState(t, "gen", rotation.Quarantined)
		w.waits(t, "db", 3, w.now.Add(-time.Hour), false)
		if tt.with[1] == "gen" {
			w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Target = "with-gen" })
		}
		w.must(t, tt.call, tt.with...)
		w.gate.Hurry(t.Context())
		if at := w.record(t, "db").NextAt.Sub(w.now); at != 0 && tt.tried || at != 5*time.Minute && !tt.tried {
			t.Errorf("%s %v: what has failed is tried in %s", tt.call, tt.with, at)
		}
	}
}

// TestWhatIsTriedAtOnce verifies which rotations are tried again where a target was fixed, how
// often, and that the trail says so of each. A step that is under way keeps its result: its record
// is not written.
func TestWhatIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	ago := func(d time.Duration) time.Time { return w.now.Add(-d) }
	fixed := func(what, config string, at time.Duration, stored bool) {
		t.Helper()
		before := w.record(t, "db")
		w.must(t, "UpdateTarget", "TargetName", "pg", "Config", config)
		w.gate.Hurry(t.Context())
		after := w.record(t, "db")
		if got := after.NextAt.Sub(w.now); got != at || (after.Seq != before.Seq) != stored {
			t.Errorf("%s is tried in %s, want %s; stored: %t", what, got, at, after.Seq != before.Seq)
		}
		if said := w.describe(t, "db").Steps; stored && said[len(said)-1].Event != string(rotation.Hurried) {
			t.Errorf("%s: the last step is %v", what, said[len(said)-1])
		}
		if got := w.trail.has("RotationTargetChanged", "db"); got != stored {
			t.Errorf("%s: recorded: %t", what, got)
		}
		w.trail.refusing("") // forgets the records
		w.now = w.now.Add(20 * time.Second)
	}
	w.trail.refusing("")
	w.waits(t, "db", 0, ago(time.Hour), false)
	fixed("what has not failed", elsewhere, 5*time.Minute, false)
	w.waits(t, "db", 3, ago(time.Second), false)
	fixed("what has failed a second ago", toMemory, time.Minute-time.Second, true)
	w.waits(t, "db", 0, ago(time.Second), true)
	fixed("what waits for the administrator", elsewhere, 0, true)
	w.waits(t, "db", 3, ago(time.Hour), false)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Config", toMemory)
	w.gate.Hurry(t.Context())
	w.waits(t, "db", 3, ago(time.Hour), false)
	w.trail.refusing("")
	fixed("what was fixed a moment before", elsewhere, 5*time.Minute, false)
	w.gate.Hurry(t.Context())
	if at := w.record(t, "db").NextAt; !at.Equal(w.now) {
		t.Errorf("what was fixed twice is tried in %s after a pause", at.Sub(w.now))
	}
	w.now = w.now.Add(20 * time.Second)
	w.trail.refusing("")
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.NextAt = w.now })
	fixed("a step that is under way", toMemory, 0, false)
	before := w.record(t, "db").Seq
	w.must(t, "RepairRotation", "SecretName", "db", "RepairAction", kms.RepairProbe)
	if w.record(t, "db").Seq != before {
		t.Error("rotation retry takes the result of a step that is under way")
	}
}

// TestRetryIsBounded verifies that a caller has a rotation that waits for its administrator tried
// again once a minute, as any other.
func TestRetryIsBounded(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.waits(t, "db", 0, w.now.Add(-time.Hour), true)
	for _, want := range []time.Duration{0, time.Minute} {
		w.must(t, "RepairRotation", "SecretName", "db", "RepairAction", kms.RepairProbe)
		if got := w.record(t, "db").NextAt.Sub(w.now); got != want {
			t.Errorf("tried in %s, want %s", got, want)
		}
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.NextAt = w.now.Add(5 * time.Minute) })
	}
}

// TestFixedDuringAStep verifies that a change of a target, or of its administrator, during a step
// that then fails has that tried again a minute later, instead of after its pause.
func TestFixedDuringAStep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		call string
		with []string
		want time.Duration
	}{
		{"UpdateTarget", []string{"TargetName", "pg", "Config", elsewhere}, time.Minute},
		{"UpdateTarget", []string{"TargetName", "pg", "Description", "another"}, 5 * time.Minute},
		{"PutSecretValue", []string{"SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2"}, time.Minute},
	} {
		w, _ := rotating(t)
		w.waits(t, "db", 20, w.now.Add(-time.Hour), false)
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.NextAt = w.now })
		engine, turn := w.turn(t, "db")
		w.must(t, tt.call, tt.with...)
		w.gate.Hurry(t.Context())
		if _, err := engine.Move(t.Context(), turn, rotation.Event{Kind: rotation.Failed, Jitter: 1}, nil); err != nil {
			t.Fatal(err)
		}
		turn.End()
		begin := w.now
		w.now = w.now.Add(20 * time.Second)
		w.gate.Hurry(t.Context())
		if got := w.record(t, "db").NextAt.Sub(begin); got != tt.want {
			t.Errorf("%s %v: tried after %s, want %s", tt.call, tt.with, got, tt.want)
		}
	}
}

// TestPromotedAdministratorIsTried verifies that a rotation of an administrator's secret has tried
// again what waits for that administrator.
func TestPromotedAdministratorIsTried(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	step := w.steps(t)
	m.set("one", "x")
	m.set("two", "y")
	w.must(t, "RegisterTarget", "TargetName", "inner", "Kind", "memory", "Config", toMemory, "AdminSecretName", "double")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "inner")
	w.waits(t, "gen", 3, w.now.Add(-time.Hour), true)
	w.must(t, "RotateSecret", "SecretName", "double", "VersionId", "v2")
	step("double")
	if r := w.record(t, "double"); r.State != rotation.InGrace {
		t.Fatalf("the administrator's rotation is in state %s: %s", r.State, r.Reason)
	}
	w.gate.Hurry(t.Context())
	if r := w.record(t, "gen"); !r.NextAt.Equal(w.now) {
		t.Errorf("what waits for the administrator waits for another %s", r.NextAt.Sub(w.now))
	}
}

// TestHurryFailsAndIsRepeated verifies that a store which does not answer loses no retry.
func TestHurryFailsAndIsRepeated(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.waits(t, "db", 3, w.now.Add(-time.Hour), false)
	w.must(t, "UpdateTarget", "TargetName", "pg", "Config", elsewhere)
	ended, end := context.WithCancel(t.Context())
	end()
	w.gate.Hurry(ended)
	w.now = w.now.Add(20 * time.Second)
	w.gate.Hurry(t.Context())
	if r := w.record(t, "db"); !r.NextAt.Equal(w.now) {
		t.Errorf("the rotation waits for another %s", r.NextAt.Sub(w.now))
	}
}

// TestListNamesRepairs verifies that the list of rotations says which repair each takes.
func TestListNamesRepairs(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.inState(t, "db", rotation.Prepared)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Failures = 1 })
	w.inState(t, "double", rotation.Quarantined)
	for _, row := range w.must(t, "ListRotations").(*kms.ListRotationsResponse).Rotations {
		d := w.describe(t, row.SecretName)
		if row.InProgress != d.InProgress || len(row.RepairActions) == 0 ||
			!slices.Equal(row.RepairActions, d.RepairActions) {
			t.Errorf("%s: in progress %t, repairs %v, want %t, %v", row.SecretName, row.InProgress, row.RepairActions,
				d.InProgress, d.RepairActions)
		}
	}
}
