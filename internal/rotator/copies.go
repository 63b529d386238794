package rotator

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	copiesFirst = 250 * time.Millisecond // before the second question to the replicas; then it doubles
	copiesFor   = 5 * time.Second        // in the first step; then the record says that the rotation waits
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
	most := min(e.Lag, copiesFor)
	if !t.Record.CopiesAt.IsZero() { // the record has the waits
		most = 0
	}
	a := w.askCopies(ctx, t, copied, c, most)
	return rotation.AfterCopies(e, a)
}

// askCopies asks the replicas until all accept the credential, or for some time.
func (w *worker) askCopies(
	ctx context.Context, t *api.Turn, copied target.Copied, c target.Credential, most time.Duration,
) rotation.Answer {
	return untilLive(ctx, most, func() rotation.Answer {
		return answerOf(t, w.within(ctx, func(ctx context.Context) error { return copied.VerifyCopies(ctx, c) }))
	})
}

// untilLive asks until the answer is that a credential is live, or for some time. Each other answer
// may be a failed login, so the waits double.
func untilLive(ctx context.Context, most time.Duration, ask func() rotation.Answer) rotation.Answer {
	until := time.Now().Add(most)
	for wait := copiesFirst; ; wait *= 2 {
		a := ask()
		jittered := wait + rand.N(wait/4)
		if a.Liveness() == target.Live || ctx.Err() != nil || !time.Now().Add(jittered).Before(until) {
			return a
		}
		sleep(ctx, jittered)
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
