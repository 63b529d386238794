package rotator

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

func TestQuiet(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tt := range []struct {
		name             string
		stored, remember time.Time
		want             time.Duration // 0 means that a login may be tried
		kept             bool
	}{
		{"none has failed", time.Time{}, time.Time{}, 0, false},
		{"one is stored", ago(20 * time.Second), time.Time{}, 40 * time.Second, false},
		{"one was long ago", ago(time.Hour), time.Time{}, 0, false},
		{"one could not be stored", time.Time{}, ago(20 * time.Second), 40 * time.Second, true},
		{"the last one could not be stored", ago(50 * time.Second), ago(20 * time.Second), 40 * time.Second, true},
		{"it was stored in the end", ago(10 * time.Second), ago(20 * time.Second), 50 * time.Second, false},
		{"what could not be stored was long ago", time.Time{}, ago(time.Hour), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := &worker{dispatcher: &dispatcher{}, account: "a", secret: "s"}
			key := store.Due{Account: "a", Name: "s"}
			if !tt.remember.IsZero() {
				w.failed.Store(key, tt.remember)
			}
			w.failed.Store(store.Due{Account: "a", Name: "other"}, now)
			if got := max(0, w.quiet(rotation.Record{LoginFailedAt: tt.stored}, now)); got != tt.want {
				t.Errorf("waits %s, want %s", got, tt.want)
			}
			if _, kept := w.failed.Load(key); kept != tt.kept {
				t.Errorf("remembered afterwards: %v, want %v", kept, tt.kept)
			}
		})
	}
}

// TestEveryStepIsTaken verifies that the engine has code for every step of package rotation.
func TestEveryStepIsTaken(t *testing.T) {
	t.Parallel()
	for _, s := range rotation.Steps() {
		if steps[s] == nil {
			t.Errorf("the engine has no code for the step %q", s)
		}
	}
}
