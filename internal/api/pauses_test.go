package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

// TestPausesAreShown verifies that each pause is seen wherever a rotation that it holds back is,
// with who asked for it and since when, and that asking once more changes neither.
func TestPausesAreShown(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	by := rootPrincipal.ARN()
	var want []kms.RotationPause
	for _, scope := range []string{kms.PausedAll, kms.PausedTarget, kms.PausedSecret} {
		params := map[string][]string{
			kms.PausedTarget: {"TargetName", "pg"}, kms.PausedSecret: {"SecretName", "db"},
		}[scope]
		want = append(want, kms.RotationPause{Scope: scope, PauseTime: w.now, Principal: by})
		w.must(t, "PauseRotation", params...)
		w.now = w.now.Add(time.Minute)
		w.must(t, "PauseRotation", params...)
		w.seePauses(t, scope, want)
	}
	w.must(t, "ResumeRotation")
	w.must(t, "ResumeRotation", "SecretName", "db")
	w.seePauses(t, "resumed all and the secret", want[1:2])
	w.must(t, "ResumeRotation", "TargetName", "pg")
	w.seePauses(t, "resumed", nil)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Paused, r.Pause = true, nil })
	w.seePauses(t, "of an earlier release", []kms.RotationPause{{Scope: kms.PausedSecret}})
}

// seePauses expects the pauses of the secret db wherever they are shown.
func (w *world) seePauses(t *testing.T, what string, want []kms.RotationPause) {
	t.Helper()
	expect := func(where string, paused bool, got, want []kms.RotationPause) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" || paused != (len(want) > 0) {
			t.Errorf("%s: %s: paused %t (-want +got)\n%s", what, where, paused, diff)
		}
	}
	of := func(scopes ...string) (list []kms.RotationPause) {
		for _, p := range want {
			for _, s := range scopes {
				if p.Scope == s {
					list = append(list, p)
				}
			}
		}
		return list
	}
	d := w.describe(t, "db")
	expect("DescribeRotation", d.Paused, d.Pauses, want)
	list := w.must(t, "ListRotations").(*kms.ListRotationsResponse)
	expect("ListRotations", len(list.Pauses) > 0, list.Pauses, of(kms.PausedAll))
	for _, r := range list.Rotations {
		if r.SecretName == "db" {
			expect("its row", r.Paused, r.Pauses, want)
		}
	}
	g := w.must(t, "DescribeTarget", "TargetName", "pg").(*kms.DescribeTargetResponse)
	expect("DescribeTarget", g.Paused, g.Pauses, of(kms.PausedAll, kms.PausedTarget))
	targets := w.must(t, "ListTargets").(*kms.ListTargetsResponse)
	expect("ListTargets", len(targets.Pauses) > 0, targets.Pauses, of(kms.PausedAll))
	row := targets.Targets[0]
	expect("its row", row.Paused, row.Pauses, of(kms.PausedAll, kms.PausedTarget))
}

// TestPausedIsNotOverdue verifies that a rotation that is an hour late is reported as overdue once,
// and never while it is paused: itself, at its target, or with all.
func TestPausedIsNotOverdue(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	overdue := func() bool {
		t.Helper()
		turn, ok, err := w.gate.Engine(0).Load(t.Context(), account, "db")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return turn.Overdue(w.now)
	}
	due := func(ago time.Duration) {
		w.put(t, "db", func(s *secret.Secret, r *rotation.Record) {
			s.Rotation.Enabled, s.Rotation.Next, r.Due = true, w.now.Add(-ago), w.now.Add(-ago)
		})
	}
	for _, params := range [][]string{{"SecretName", "db"}, {"TargetName", "pg"}, nil} {
		w.must(t, "PauseRotation", params...)
		if due(2 * time.Hour); overdue() {
			t.Errorf("overdue although %q is paused", params)
		}
		w.must(t, "ResumeRotation", params...)
		if due(2 * time.Hour); !overdue() {
			t.Errorf("not overdue after the pause of %q", params)
		}
	}
	if due(time.Hour - time.Second); overdue() {
		t.Error("overdue within the hour")
	}
	due(2 * time.Hour)
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Overdue = true })
	if overdue() {
		t.Error("reported twice")
	}
}
