package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestWindowWithAnInterval verifies that a window, blackouts and the time zone hold also for
// rotations that are due by an interval.
func TestWindowWithAnInterval(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	out := w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "true",
		"RotationInterval", "7d", "Window", "Sat 02:00-05:00", "Blackouts", "2026-12-24..2027-01-02",
		"TimeZone", "Asia/Tokyo",
	).(*kms.DescribeRotationResponse)
	got := []string{out.RotationInterval, out.Window, out.Blackouts, out.TimeZone}
	want := []string{"604800s", "Sat 02:00-05:00", "2026-12-24..2027-01-02", "Asia/Tokyo"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	d := out.NextRotationDate.In(time.FixedZone("Tokyo", 9*3600))
	if d.Weekday() != time.Saturday || d.Hour() < 2 || d.Hour() > 4 {
		t.Errorf("the next rotation is due at %s, outside the window", d)
	}
	w.must(t, "UpdateSecretRotationPolicy",
		"SecretName", "gen", "EnableAutomaticRotation", "true", "RotationInterval", "8d")
	if d := w.describe(t, "gen"); d.Window != "Sat 02:00-05:00" || d.TimeZone != "Asia/Tokyo" {
		t.Errorf("after another interval: window %q, zone %q", d.Window, d.TimeZone)
	}
}

// configured calls ConfigureRotation of the secret gen, and returns the changes as
// "Setting: before > after".
func (w *world) configured(t *testing.T, params ...string) []string {
	t.Helper()
	params = append([]string{"SecretName", "gen"}, params...)
	out := w.must(t, "ConfigureRotation", params...).(*kms.DescribeRotationResponse)
	var list []string
	for _, c := range out.Changes {
		list = append(list, c.Setting+": "+c.Before+" > "+c.After)
	}
	return list
}

// TestConfigureKeepsWhatIsNotNamed verifies that a call changes the settings that it names and no
// other, and that its answer says which those are.
func TestConfigureKeepsWhatIsNotNamed(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	for _, tt := range []struct {
		what, params string
		want         []string
	}{
		{"the first time", "TargetName=pg RotationInterval=7d GracePeriod=1h GraceLimit=2h AccountMember=username",
			[]string{
				"TargetName:  > pg", "RotationInterval:  > 604800s", "AccountMember:  > username", "GracePeriod:  > 3600s",
				"GraceLimit:  > 7200s", "EnableAutomaticRotation: false > true",
			}},
		{"one setting", "GracePeriod=30m", []string{"GracePeriod: 3600s > 1800s"}},
		{"nothing", "", nil},
		{"zero is a value", "GracePeriod=0s", []string{"GracePeriod: 1800s > 0s"}},
		{"a default", "Reset.1=GraceLimit Reset.2=AccountMember",
			[]string{"AccountMember: username > ", "GraceLimit: 7200s > "}},
		{"an expression instead of the interval", "Cron=@weekly TimeZone=Europe/Berlin",
			[]string{"RotationInterval: 604800s > ", "Cron:  > @weekly", "TimeZone:  > Europe/Berlin"}},
		{"a window beside it", "Window=02:00-04:00", []string{"Window:  > 02:00-04:00"}},
		{"an interval instead of the expression", "RotationInterval=14d",
			[]string{"RotationInterval:  > 1209600s", "Cron: @weekly > "}},
		{"by hand", "EnableAutomaticRotation=false",
			[]string{"RotationInterval: 1209600s > ", "EnableAutomaticRotation: true > false"}},
		{"by hand as before", "Blackouts=2026-12-24..2026-12-26", []string{"Blackouts:  > 2026-12-24..2026-12-26"}},
		{"a group", "Group=g GroupGap=1h", []string{"Group:  > g", "GroupGap:  > 3600s"}},
		{"another group", "Group=h", []string{"Group: g > h"}},
		{"no group", "Reset.1=Group", []string{"Group: h > ", "GroupGap: 3600s > "}},
		{"a consent", "Consent.1=change-plugin", []string{"Consent:  > change-plugin"}},
		{"and another", "Consent.1=change-auth-plugin",
			[]string{"Consent: change-plugin > change-auth-plugin, change-plugin"}},
		{"only this consent", "Consent.1=change-plugin Reset.1=Consent",
			[]string{"Consent: change-auth-plugin, change-plugin > change-plugin"}},
		{"everything else", "Replace=true RotationInterval=7d",
			[]string{
				"RotationInterval:  > 604800s", "TimeZone: Europe/Berlin > ", "Window: 02:00-04:00 > ",
				"Blackouts: 2026-12-24..2026-12-26 > ", "GracePeriod: 0s > ", "Consent: change-plugin > ",
				"EnableAutomaticRotation: false > true",
			}},
		{"no schedule either", "Replace=true",
			[]string{"RotationInterval: 604800s > ", "EnableAutomaticRotation: true > false"}},
	} {
		var params []string
		for _, p := range strings.Fields(tt.params) {
			name, value, _ := strings.Cut(p, "=")
			params = append(params, name, value)
		}
		if diff := cmp.Diff(tt.want, w.configured(t, params...)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.what, diff)
		}
	}
	w.refused(t, invalid, `"Gracelimit" is no setting; use Strategy, AccountName,`,
		"ConfigureRotation", "SecretName", "gen", "Reset.1", "Gracelimit")
}

// TestAnotherTargetKeepsNoSettingOfTheFormer verifies that what was agreed for one target, and how
// an application logs in there, is not taken over to another.
func TestAnotherTargetKeepsNoSettingOfTheFormer(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.configured(t, "TargetName", "pg", "RotationInterval", "7d", "Consent.1", "change-plugin", "Strategy", "single",
		"LoginDatabase", "shop", "GracePeriod", "1h")
	w.must(t, "RegisterTarget", "TargetName", "other", "Kind", "memory", "Config", toMemory, "AdminSecretName", "pg-admin")
	got := w.configured(t, "TargetName", "other")
	want := []string{
		"TargetName: pg > other", "Strategy: single > ", "LoginDatabase: shop > ", "Consent: change-plugin > ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// stateful is a memory whose own state shows which credentials it accepts.
type stateful struct{ *memory }

func (m stateful) Inspect(_ context.Context, list []target.Credential) ([]target.Liveness, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refusal != nil {
		m.inspections++
		return nil, m.refusal
	}
	var seen []target.Liveness
	for _, c := range list {
		is := target.Dead
		if m.passwords[c.Account].Equal(c.Secret) {
			is = target.Live
		}
		seen = append(seen, is)
	}
	return seen, nil
}

// SameSecret ignores case.
func (m stateful) SameSecret(a, b sensitive.Value) bool {
	return strings.EqualFold(a.Reveal(), b.Reveal())
}

// shows makes the targets with a memory show its state.
func (w *world) shows(m *memory) {
	kind := w.env.Kinds["memory"]
	kind.Open = func(target.Settings) (target.Target, error) { return stateful{m}, nil }
	w.env.Kinds["memory"] = kind
}

// TestConfigureRefusesAWrongCredential verifies that a secret whose credential the target's own
// state shows to be wrong is not attached, and that no login finds that out. In a quarantine, which
// is about such a credential, and while a rotation changes it, settings can be changed.
func TestConfigureRefusesAWrongCredential(t *testing.T) {
	t.Parallel()
	w, m := rotating(t)
	w.shows(m)
	m.set("gen", "another")
	const wrong = `The target does not accept the stored credential of gen: its own state says so.`
	for _, part := range []string{wrong, "(keyturn secret put gen), or set this one at the target"} {
		w.refused(t, kms.CodeResourceInUse, part, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	}
	if s := w.stored(t, "gen"); s.IsRotated() || m.logins("gen") != 0 {
		t.Errorf("it is attached to %q, after %d logins", s.TargetName(), m.logins("gen"))
	}
	m.set("gen", "p")
	w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg")
	m.set("gen", "another")
	w.now = w.now.Add(time.Hour)
	w.refused(t, kms.CodeResourceInUse, wrong, "ConfigureRotation", "SecretName", "gen", "GracePeriod", "1h")
	for _, state := range []rotation.State{rotation.Quarantined, rotation.Applying, rotation.Prepared} {
		w.inState(t, "gen", state)
		w.must(t, "ConfigureRotation", "SecretName", "gen", "GracePeriod", "1h")
	}
}
