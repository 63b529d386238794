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
	row := w.must(t, "ListTargets").(*kms.ListTargetsResponse).Targets[0]
	expect("ListTargets", row.Paused, row.Pauses, of(kms.PausedAll, kms.PausedTarget))
}
