package rotator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
)

const (
	// maxTurns bounds what is done in one go; what is left is due again at once.
	maxTurns    = 64
	maxMoved    = 3 // turns in a row that are repeated at once because a caller has changed something
	pausedFor   = time.Minute
	slowStore   = 100 * time.Millisecond // of a promotion: a grace that is shorter by less is left so
	margin      = time.Second            // between the end of an effect and the end of the right to make it
	leastEffect = 4 * time.Second        // an effect is not begun with less time
)

// errLeadEnding means that the right does not outlast another effect. Nothing was done.
var errLeadEnding = errors.New("the right to rotate is about to end")

// worker works on one rotation.
type worker struct {
	*dispatcher
	account, secret string
}

// turn takes one step. more says that another can follow at once.
func (w *worker) turn(ctx context.Context) (more bool, err error) {
	t, ok, err := w.engine.Load(ctx, w.account, w.secret)
	if err != nil || !ok {
		return false, err
	}
	defer t.End()
	now := w.engine.Now()
	if t.Record.Wake().IsZero() || t.Record.Wake().After(now) {
		return false, nil
	}
	if t.Overdue(now) {
		r, err := w.engine.Note(ctx, t, rotation.Overdue, func(r rotation.Record) rotation.Record {
			r.Overdue = true
			return r
		})
		if err == nil {
			w.report(t, r, rotation.Event{Kind: rotation.Overdue})
		}
		return err == nil, err
	}
	if !t.Record.InFlight() {
		return w.idle(ctx, t, now)
	}
	step := rotation.Plan(t.Record, now)
	take, ok := steps[step]
	if !ok {
		return false, fmt.Errorf("the engine has no code for the step %q", step)
	}
	return take(w, ctx, t)
}

// steps has the code of every step of package rotation.
var steps = map[rotation.Step]func(*worker, context.Context, *api.Turn) (more bool, err error){
	rotation.Nothing:     (*worker).rest,
	rotation.Wait:        (*worker).rest,
	rotation.Begin:       (*worker).beginNext,
	rotation.CheckHealth: (*worker).probe,
	rotation.Prepare:     (*worker).prepare,
	rotation.Promote:     (*worker).promote,
	rotation.Expire:      (*worker).expire,
	rotation.Send:        atTarget((*worker).send),
	rotation.Resolve:     atTarget((*worker).resolve),
	rotation.Verify:      atTarget((*worker).verifyCandidate),
	rotation.CheckBase:   atTarget((*worker).verifyBase),
	rotation.Retire:      atTarget((*worker).retire),
	rotation.Revert:      atTarget((*worker).takeBack),
	rotation.Clear:       atTarget((*worker).clear),
}

func (w *worker) rest(context.Context, *api.Turn) (bool, error) { return false, nil }

func (w *worker) promote(ctx context.Context, t *api.Turn) (bool, error) {
	return w.move(ctx, t, rotation.Event{Kind: rotation.Promoted}, nil)
}

// move stores an event and reports it.
func (w *worker) move(ctx context.Context, t *api.Turn, e rotation.Event, c *api.Candidate) (bool, error) {
	e.Jitter = rand.Float64()
	ctx, cancel := context.WithTimeout(
		context.WithoutCancel(ctx),
		storeTimeout,
	) // what has happened is stored, also at the end
	defer cancel()
	w.at("before storing " + string(e.Kind))
	r, err := w.engine.Move(ctx, t, e, c)
	w.at("after storing " + string(e.Kind))
	if err != nil {
		return false, err
	}
	w.report(t, r, e)
	move := rotation.LabelsAfter(t.Record, r, e.Kind)
	began := r.State == rotation.InGrace && (move == rotation.PromoteCandidate || move == rotation.SwapLabels)
	t.Record = r
	if began {
		return true, w.wholeGrace(ctx, t)
	}
	return true, nil
}

// wholeGrace lets a grace period begin when everybody could read the new version, not when that was
// asked for: a store that was slow to answer has given out the old one meanwhile.
func (w *worker) wholeGrace(ctx context.Context, t *api.Turn) error {
	until := w.engine.Now().Add(t.Record.Grace.Min)
	if until.Sub(t.Record.GraceUntil) < slowStore {
		return nil
	}
	r, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		return r.WholeGrace(until.Add(-r.Grace.Min))
	})
	if err == nil {
		t.Record = r
	}
	return err
}

// expire ends a grace period, or postpones its end while a consumer holds the previous credential.
// Where consumers are not waited for, nothing is asked.
func (w *worker) expire(ctx context.Context, t *api.Turn) (bool, error) {
	if !t.Record.WaitsForConsumers() {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Expired}, nil)
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	holders, until, err := w.engine.Holders(bounded, t)
	now := w.engine.Now()
	if err != nil && now.Before(t.Record.GraceDeadline) {
		return false, err
	}
	e := rotation.AfterGrace(t.Record, holders, until, now)
	more, err := w.move(ctx, t, e, nil)
	if err == nil && e.Kind == rotation.Awaiting {
		err = w.engine.ReleaseGrace(ctx, t)
	}
	return more, err
}

// idle begins what is due, or checks whether the credential in use still works.
func (w *worker) idle(ctx context.Context, t *api.Turn, now time.Time) (bool, error) {
	switch step, q, at := rotation.PlanIdle(t.Record, t.Paused(), t.Earliest(), now); {
	case step == rotation.CheckHealth:
		return w.probe(ctx, t)
	case step == rotation.Postpone && at.IsZero():
		return false, w.postpone(ctx, t, now.Add(pausedFor+rand.N(pausedFor)))
	case step == rotation.Postpone:
		return false, w.postpone(ctx, t, at)
	case step != rotation.Begin:
		return false, fmt.Errorf("the engine has no code for the step %q", step)
	case q.Trigger == rotation.Automatic:
		q.ID, q.At = uuid.NewString(), w.rotator.spread.slot(t.Secret.TargetName(), now)
		return w.begin(ctx, t, q)
	default:
		return w.begin(ctx, t, q)
	}
}

func (w *worker) begin(ctx context.Context, t *api.Turn, q rotation.Request) (bool, error) {
	r, err := w.engine.Begin(ctx, t, q)
	if err != nil {
		return false, err
	}
	w.report(t, r, rotation.Event{Kind: rotation.Begun})
	return true, nil
}

// beginNext begins the emergency that waited for the end of what is under way.
func (w *worker) beginNext(ctx context.Context, t *api.Turn) (bool, error) {
	return w.begin(ctx, t, *t.Record.Then)
}

// postpone moves the time of a rotation that may not begin.
func (w *worker) postpone(ctx context.Context, t *api.Turn, until time.Time) error {
	_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		switch {
		case r.InFlight():
			r.NextAt = until
		case r.Due.Equal(t.Record.Due): // else a caller has just planned another time
			r.Due = until
		}
		return r
	})
	return err
}

// standBack moves the next turn of a rotation that has not sent anything, or has not begun, by
// about a second. Another one, such as a probe, has a limit of its own.
func (w *worker) standBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	t, ok, err := w.engine.Load(ctx, w.account, w.secret)
	if err == nil && ok {
		defer t.End()
		step := t.Record.State.Step()
		if !t.Record.InFlight() || step == rotation.Prepare || step == rotation.Send {
			err = w.postpone(ctx, t, w.engine.Now().Add(leadRetry/2+rand.N(leadRetry)))
		}
	}
	if err != nil {
		sleep(ctx, leadRetry/2+rand.N(leadRetry))
	}
}

// adminSpread spreads the rotations that wait for the same administrator: one of them tries it.
const adminSpread = 5 * time.Second

// postponeFor moves the time of a rotation whose administrator may not be tried yet, and says why.
func (w *worker) postponeFor(ctx context.Context, t *api.Turn, wait *api.AdminWaitError) error {
	r, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		return r.AwaitAdmin(wait.From.Add(rand.N(adminSpread)), w.engine.Now(), wait.Error())
	})
	if err == nil && rotation.NoticeOf(t.Record, r, "") != rotation.NoNotice {
		w.report(t, r, rotation.Event{})
	}
	return err
}

// at lets a test follow, or stop, the engine.
func (w *worker) at(point string) {
	if w.rotator.config.At != nil {
		w.rotator.config.At(w.secret, point)
	}
}
