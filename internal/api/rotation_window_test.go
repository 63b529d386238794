package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestWindowSaysHowLong verifies that a check says how long reads wait with one credential, and how
// long the previous one works otherwise, by the settings of server and secret.
func TestWindowSaysHowLong(t *testing.T) {
	t.Parallel()
	w, _ := rotating(t)
	w.env.Rotation.ReadWait = 1500 * time.Millisecond
	w.env.Rotation.Grace = rotation.Grace{Min: 90 * time.Minute, Max: 24 * time.Hour}
	says := func(previous string) {
		t.Helper()
		for _, s := range w.check(t, "db").Strategies {
			want := previous
			if s.Strategy == "single" {
				want = " Reads wait meanwhile, for at most 1.5s. An application that keeps what it has read must read again."
			}
			if !strings.HasSuffix(s.Window, want) {
				t.Errorf("the window of %s: %q; want %q", s.Strategy, s.Window, want)
			}
		}
	}
	says(" The grace period lasts 1h30m, and while a consumer holds the previous credential up to 24h.")
	w.must(t, "ConfigureRotation", "SecretName", "db", "GracePeriod", "2h", "GraceLimit", "2h")
	says(" The grace period lasts 2h.")
	w.must(t, "ConfigureRotation", "SecretName", "db", "GracePeriod", "0s", "GraceLimit", "0s")
	says(" The grace period is 0s: an application that keeps the previous credential is refused at once.")
}
