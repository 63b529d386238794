package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/kms"
)

// TestWindowWithAnInterval verifies that a window, blackouts and the time zone hold also for
// rotations that are due by an interval.
func TestWindowWithAnInterval(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	out := w.must(t, "ConfigureRotation", "SecretName", "gen", "TargetName", "pg", "EnableAutomaticRotation", "true",
		"RotationInterval", "7d", "Window", "Sat 02:00-05:00", "Blackouts", "2026-12-24..2027-01-02", "TimeZone", "Asia/Tokyo",
	).(*kms.DescribeRotationResponse)
	got := []string{out.RotationInterval, out.Window, out.Blackouts, out.TimeZone}
	want := []string{"604800s", "Sat 02:00-05:00", "2026-12-24..2027-01-02", "Asia/Tokyo"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if d := out.NextRotationDate.In(time.FixedZone("Tokyo", 9*3600)); d.Weekday() != time.Saturday || d.Hour() < 2 || d.Hour() > 4 {
		t.Errorf("the next rotation is due at %s, outside the window", d)
	}
	w.must(t, "UpdateSecretRotationPolicy", "SecretName", "gen", "EnableAutomaticRotation", "true", "RotationInterval", "8d")
	if d := w.describe(t, "gen"); d.Window != "Sat 02:00-05:00" || d.TimeZone != "Asia/Tokyo" {
		t.Errorf("after another interval: window %q, zone %q", d.Window, d.TimeZone)
	}
}
