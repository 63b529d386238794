package rotator

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestReplicasAreAskedSeldom verifies how many logins a replica rejects within its lag, however
// long that is.
func TestReplicasAreAskedSeldom(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			asked, began := 0, time.Now()
			rejects := func() rotation.Answer {
				asked++
				return rotation.Answer{Class: target.Rejected, Text: "28P01"}
			}
			r := rotation.Record{State: rotation.Applied, Strategy: target.Double}
			most := min(lag, copiesFor)
			for r.Failures == 0 {
				a := untilLive(t.Context(), most, rejects)
				var err error
				if r, err = rotation.Next(r, rotation.AfterCopies(rotation.Event{Lag: lag}, a), time.Now()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Until(r.NextAt))
				most = 0
			}
			if asked > 11 || time.Since(began) < lag {
				t.Errorf("lag %s: %d logins in %s", lag, asked, time.Since(began))
			}
		})
	}
}
