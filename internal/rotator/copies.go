package rotator

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	copiesEvery = 250 * time.Millisecond // between two questions to the replicas
	copiesFor   = 5 * time.Second        // in one step; then the record says that the rotation waits
)

// withCopies returns e, the event of a login at the endpoints that decide, or the event that a
// replica does not accept the credential yet.
func (w *worker) withCopies(
	ctx context.Context, t *api.Turn, copied target.Copied, c target.Credential, e rotation.Event,
) rotation.Event {
	e.Lag = copied.Lag()
	if !t.Record.WaitsForCopies(e) {
		return e
	}
	a := w.askCopies(ctx, t, copied, c, min(e.Lag, copiesFor))
	return rotation.AfterCopies(e, a)
}

// askCopies asks the replicas until all accept the credential, or for some time.
func (w *worker) askCopies(
	ctx context.Context, t *api.Turn, copied target.Copied, c target.Credential, most time.Duration,
) rotation.Answer {
	until := time.Now().Add(most)
	for {
		err := w.within(ctx, func(ctx context.Context) error { return copied.VerifyCopies(ctx, c) })
		a := answerOf(t, err)
		if a.Liveness() == target.Live || ctx.Err() != nil || !time.Now().Add(copiesEvery).Before(until) {
			return a
		}
		sleep(ctx, copiesEvery)
	}
}

// lateCopies asks the replicas once about a credential that is live, and returns what one said that
// does not accept it; empty when all do.
func (w *worker) lateCopies(
	ctx context.Context, t *api.Turn, system target.Target, c target.Credential, live target.Liveness,
) string {
	copied, ok := system.(target.Copied)
	if !ok || copied.Lag() == 0 || live != target.Live || t.Record.InFlight() {
		return ""
	}
	return rotation.AfterCopies(rotation.Event{}, w.askCopies(ctx, t, copied, c, 0)).Text
}
