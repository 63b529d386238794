package rotator

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
)

// TestFailingIsLogged verifies that the log names a rotation that fails again and again, once, with
// the reason and the command that helps.
func TestFailingIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	w := &worker{dispatcher: &dispatcher{rotator: &Rotator{config: Config{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Observe: unobserved{},
	}}}}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	r := rotation.Record{Secret: "db", ID: "r1", State: rotation.Retiring, Target: "pg"}
	failed := rotation.Event{Kind: rotation.Failed, Text: "the administrator was rejected"}
	for i, after := range []time.Duration{0, rotation.FailingAfter, 5 * time.Minute} {
		now = now.Add(after)
		next, err := rotation.Next(r, failed, now)
		if err != nil {
			t.Fatal(err)
		}
		w.report(&api.Turn{Record: r}, next, failed)
		r = next
		got, want := log.String(), i == 1
		for _, text := range []string{"level=ERROR", "secret=db", failed.Text, "keyturn rotation retry db"} {
			if strings.Contains(got, text) != want {
				t.Errorf("after report %d: contains %q is %t, want %t:\n%s", i+1, text, !want, want, got)
			}
		}
		log.Reset()
	}
}
