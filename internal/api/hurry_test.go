package api_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

// TestMendedTargetIsTriedAtOnce verifies that a change of a target, or of its administrator, has
// the rotations there tried again which wait after a failure, and no others.
func TestMendedTargetIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		call  string
		with  []string
		tried bool
	}{
		{"UpdateTarget", []string{"TargetName", "pg", "Config", toMemory}, true},
		{"UpdateTarget", []string{"TargetName", "pg", "AdminSecretName", "pg-admin"}, true},
		{"UpdateTarget", []string{"TargetName", "pg", "Description", "another"}, false},
		{"UpdateTarget", []string{"TargetName", "other", "Config", toMemory}, false},
		{"PutSecretValue", []string{"SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v2"}, true},
		{"PutSecretValue", []string{"SecretName", "bare", "SecretData", "x", "VersionId", "v2"}, false},
		{"UpdateSecretVersionStage", []string{"SecretName", "pg-admin", "VersionStage", "ACSCurrent", "RemoveFromVersion",
			"v1", "MoveToVersion", "v0"}, true},
		{"RepairRotation", []string{"SecretName", "db", "RepairAction", kms.RepairProbe}, true},
	} {
		w, _ := rotating(t)
		w.must(t, "RegisterTarget", "TargetName", "other", "Kind", "memory", "Config", toMemory, "AdminSecretName",
			"pg-admin")
		w.must(t, "PutSecretValue", "SecretName", "pg-admin", "SecretData", adminValue, "VersionId", "v0", "VersionStages",
			`["older"]`)
		later := w.now.Add(5 * time.Minute)
		waiting := func(failures int, last time.Time) func(*secret.Secret, *rotation.Record) {
			return func(_ *secret.Secret, r *rotation.Record) {
				r.Failures, r.NextAt, r.Steps = failures, later, []rotation.Entry{{At: last, State: rotation.Prepared}}
			}
		}
		for name, change := range map[string]func(*secret.Secret, *rotation.Record){
			"db":     waiting(3, w.now.Add(-time.Hour)),
			"double": waiting(0, w.now.Add(-time.Hour)),
		} {
			w.inState(t, name, rotation.Prepared)
			w.put(t, name, change)
		}
		w.must(t, tt.call, tt.with...)
		if at := w.record(t, "db").NextAt; at.Equal(w.now) != tt.tried || at.Equal(later) == tt.tried {
			t.Errorf("%s %v: what has failed is tried in %s", tt.call, tt.with, at.Sub(w.now))
		}
		if at := w.record(t, "double").NextAt; !at.Equal(later) {
			t.Errorf("%s %v: what has not failed is tried in %s", tt.call, tt.with, at.Sub(w.now))
		}
		w.put(t, "db", waiting(3, w.now.Add(-time.Second)))
		if tt.tried && (tt.call == "UpdateTarget" || tt.call == "RepairRotation") { // which can be repeated as they are
			w.must(t, tt.call, tt.with...)
			if at := w.record(t, "db").NextAt; !at.Equal(w.now.Add(time.Minute - time.Second)) {
				t.Errorf("%s %v: what has failed a second ago is tried in %s", tt.call, tt.with, at.Sub(w.now))
			}
		}
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
			len(row.RepairActions) != len(d.RepairActions) {
			t.Errorf("%s: in progress %t, repairs %v, want %t, %v", row.SecretName, row.InProgress, row.RepairActions,
				d.InProgress, d.RepairActions)
		}
	}
}
