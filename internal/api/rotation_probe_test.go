package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

func (w *world) probe(t *testing.T, params ...string) *kms.ProbeRotationResponse {
	t.Helper()
	return w.must(t, "ProbeRotation", params...).(*kms.ProbeRotationResponse)
}

// TestProbesOfASecretAreBounded verifies that a caller cannot have a target asked about a secret
// without end, neither by its name nor with all others, and that a repeated call does not change
// when the credential is asked about.
func TestProbesOfASecretAreBounded(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	answered := func() {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health.Wanted = false })
	}
	const burst = 8
	for range burst {
		w.probe(t, "SecretName", "db")
		before := w.record(t, "db")
		for range 20 {
			w.now = w.now.Add(time.Millisecond)
			if out := w.probe(t, "SecretName", "db"); out.Asked != 1 {
				t.Fatalf("asked for again: %+v", out)
			}
		}
		if after := w.record(t, "db"); after.Seq != before.Seq || !after.Health.NextAt.Equal(before.Health.NextAt) {
			t.Fatalf("20 further calls have changed the record: %+v, %+v", before.Health, after.Health)
		}
		answered()
	}
	w.refused(t, kms.CodeThrottling, `8 probes of secret "db" were asked for; the next one may be asked for at `,
		"ProbeRotation", "SecretName", "db")
	if out := w.probe(t, "TargetName", "pg"); out.Asked != 1 || out.NotAsked != 1 {
		t.Errorf("a probe of all at its target: %+v, want db skipped", out)
	}
	w.now = w.now.Add(rotation.LoginWindow)
	if out := w.probe(t); out.NotAsked != 0 {
		t.Errorf("a minute later: %+v", out)
	}
	answered()
	w.refused(t, kms.CodeThrottling, "8 probes", "ProbeRotation", "SecretName", "db")
}

// TestSkippedProbes verifies what a call says about credentials that it skips, and that the state
// of a rotation is shown only to callers who may see it.
func TestSkippedProbes(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.managed(t, "lost", "SingleUser", `{"Accounts":[{"AccountName":"gen","AccountPassword":"p"}]}`, "unknown")
	before := w.record(t, "lost")
	out := w.probe(t, "SecretName", "lost")
	const unbound = "Its target is not registered, or the secret is not bound to it."
	if out.Asked != 0 || out.NotAsked != 1 || out.Reason != unbound {
		t.Errorf("the target is not registered: %+v", out)
	}
	if after := w.record(t, "lost"); after.Seq != before.Seq {
		t.Error("a probe that is skipped has changed the record")
	}
	w.must(t, "RegisterTarget", "TargetName", "other", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	w.inState(t, "db", rotation.Quarantined)
	if out := w.probe(t, "TargetName", "other"); out.Asked+out.NotAsked != 0 {
		t.Errorf("nothing is attached to the target: %+v", out)
	}
	blind := w.holder(t, "blind", "kms:ProbeRotation on secret/db")
	sees := w.holder(t, "sees", "kms:ProbeRotation on secret/db", "kms:DescribeRotation on secret/db")
	const (
		begins = "A rotation is about to change the credential, and has changed nothing at the target yet: it is in state "
		// A target that was sent a candidate may have it.
		changes  = "The credential is being changed: the rotation is in state "
		progress = ". keyturn rotation status db shows its progress."
	)
	for state, shown := range map[rotation.State]string{
		rotation.Scheduled:   begins + "scheduled" + progress,
		rotation.Prepared:    begins + "prepared" + progress,
		rotation.Refused:     begins + "refused" + progress,
		rotation.Applying:    changes + "applying" + progress,
		rotation.Applied:     changes + "applied" + progress,
		rotation.Quarantined: "The rotation is quarantined: keyturn rotation repair db --probe asks the target.",
	} {
		w.inState(t, "db", state)
		for p, want := range map[*policy.Principal]string{&blind: "A rotation of the secret has not ended.", &sees: shown} {
			out, err := w.call(t, *p, "ProbeRotation", "SecretName", "db")
			if err != nil {
				t.Fatal(err)
			}
			if got := out.(*kms.ProbeRotationResponse).Reason; got != want {
				t.Errorf("%s, %s gets %q, want %q", state, p.Name, got, want)
			}
		}
	}
}

// TestSkippedProbesSayWhy verifies that a call skips exactly the credentials of which
// DescribeRotation and ListRotations say so beforehand, for every cause.
func TestSkippedProbesSayWhy(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	data := func(user string) string { return strings.Replace(appValue, `"app"`, `"`+user+`"`, 1) }
	w.managed(t, kms.SkippedDeleted, "SingleUser", data("a"), "pg")
	w.must(t, "DeleteSecret", "SecretName", kms.SkippedDeleted)
	w.managed(t, kms.SkippedChanging, "SingleUser", data("b"), "pg")
	w.inState(t, kms.SkippedChanging, rotation.Prepared)
	w.managed(t, kms.SkippedQuarantined, "SingleUser", data("c"), "pg")
	w.inState(t, kms.SkippedQuarantined, rotation.Quarantined)
	w.managed(t, kms.SkippedNotBound, "SingleUser", data("d"), "unknown")
	w.managed(t, kms.SkippedThrottled, "SingleUser", data("e"), "pg")
	for range 8 {
		w.probe(t, "SecretName", kms.SkippedThrottled)
		w.put(t, kms.SkippedThrottled, func(_ *secret.Secret, r *rotation.Record) {
			*r = r.Seen("v1", w.now, w.now.Add(time.Hour))
		})
	}
	w.managed(t, kms.SkippedTaken, "SingleUser", data("f"), "pg")
	w.unclaim(t, "f")
	w.managed(t, "owner", "SingleUser", data("f"), "pg")
	key := w.accessKey(t)
	if r := w.describe(t, "gen"); r.ProbeSkippedCode != kms.SkippedNotRotated || r.ProbeSkipped == "" {
		t.Errorf("a secret that is not rotated: %q, %q", r.ProbeSkippedCode, r.ProbeSkipped)
	}
	seen := map[string]bool{kms.SkippedNotRotated: true}
	asked, skipped := 0, 0
	for _, r := range w.must(t, "ListRotations").(*kms.ListRotationsResponse).Rotations {
		name, want := r.SecretName, r.SecretName
		switch name {
		case "db", "double", "owner":
			want = ""
			asked++
		case key:
			want = kms.SkippedAccessKey
		}
		if want != "" {
			skipped++
		}
		seen[want] = true
		d := w.describe(t, name)
		same := r.ProbeSkipped == d.ProbeSkipped || name == kms.SkippedTaken // the latter names the other secret
		if r.ProbeSkippedCode != want || d.ProbeSkippedCode != want || !same || (r.ProbeSkipped == "") != (want == "") {
			t.Errorf("%s: listed %q, %q, described %q, %q", name, r.ProbeSkippedCode, r.ProbeSkipped, d.ProbeSkippedCode,
				d.ProbeSkipped)
		}
	}
	for _, k := range kms.ProbeSkips {
		if !seen[k.Code] {
			t.Errorf("no credential is skipped for the cause %q", k.Code)
		}
	}
	if out := w.probe(t); out.Asked != asked || out.NotAsked != skipped {
		t.Errorf("of all %+v, want %d and %d skipped", out, asked, skipped)
	}
}

// TestFirstProbeAfterACheck verifies that the first probe, which a check under way has put off, is
// made at the end of a check without a failed login, and that no wait for a login is shown as an
// answer that decided nothing.
func TestFirstProbeAfterACheck(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	waits := rotation.Probe{Version: "v1", Text: rotation.TooSoon(time.Minute).Text, Wait: time.Minute}
	m.meanwhile(func() {
		w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { *r, _ = r.AfterProbe(waits, w.now, w.now) })
	})
	w.check(t, "db")
	m.meanwhile(nil)
	if r := w.describe(t, "db"); r.Reason != "" || !r.ProbePending {
		t.Errorf("after a check that logged in: reason %q, pending %t", r.Reason, r.ProbePending)
	}
	w.put(t, "db", func(_ *secret.Secret, r *rotation.Record) { r.Health.Text = waits.Text })
	if r := w.describe(t, "db"); r.Reason != "" {
		t.Errorf("what an earlier release has stored is shown: %q", r.Reason)
	}
}
