package rotator

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// effect is a step at an open target.
type effect func(w *worker, ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error)

// atTarget returns the step that opens the target and then takes e there.
func atTarget(e effect) func(*worker, context.Context, *api.Turn) (bool, error) {
	return func(w *worker, ctx context.Context, t *api.Turn) (bool, error) {
		if w.timeLeft() == 0 {
			return false, errLeadEnding
		}
		change, err := t.Change()
		if err != nil {
			return false, err
		}
		system, err := t.Open()
		if wait := (*api.AdminWaitError)(nil); errors.As(err, &wait) {
			return false, w.postponeFor(ctx, t, wait)
		}
		if err != nil {
			return w.move(ctx, t, notBegun(t, err), nil)
		}
		defer func() { _ = system.Close() }() // what it has answered is stored
		return e(w, ctx, t, system, change)
	}
}

// timeLeft is how long an effect may take that begins now: it must end before the right to make it
// does. 0 means that there is not enough for another.
func (w *worker) timeLeft() time.Duration {
	whole := w.rotator.config.EffectTimeout
	left := min(whole, w.lead.Left()-margin)
	if left < min(whole, leastEffect) {
		return 0
	}
	return left
}

// within calls a target for at most the time of one effect.
func (w *worker) within(ctx context.Context, call func(context.Context) error) error {
	left := w.timeLeft()
	if left == 0 {
		return target.NotSent("not begun", errLeadEnding)
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	w.at("before a call")
	defer w.at("after a call")
	err := call(ctx)
	if target.Withholds(err) {
		w.rotator.config.Logger.Info("a target did not answer as it should", "err", err, "detail", target.DetailOf(err))
	}
	return err
}

// send proves the only credential of an account before it is destroyed, stores the intent, and then
// gives the candidate to the target. Where there is only one credential, reads wait from the
// intent on, and a consumer that read a moment before has time to log in before the change.
func (w *worker) send(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	sending := rotation.Event{Kind: rotation.Sending, Hold: w.engine.Hold()}
	base := target.NotKnown
	admit := func(ctx context.Context) (err error) {
		if err := t.Admit(ctx, system, change.New.Account); err != nil {
			return err
		}
		if base, err = baseState(ctx, t, system, change.Old); err != nil || base == target.Dead {
			return err
		}
		sending, err = t.MayBegin(ctx, system, sending)
		return err
	}
	if err := w.within(ctx, admit); err != nil {
		e := notBegun(t, err)
		e.Base = sending.Base
		return w.end(ctx, t, system, change, e)
	}
	if t.Record.NeedsBase() {
		if base == target.Dead {
			return w.end(ctx, t, system, change, rotation.BaseDead())
		}
		if e, ready := w.logsIn(ctx, t, system, change.Old); !ready {
			return w.end(ctx, t, system, change, e)
		}
		sending.Base = target.Live
	}
	if _, err := w.move(ctx, t, sending, nil); err != nil {
		return false, err
	}
	if t.Record.BlocksReads() {
		sleep(ctx, w.rotator.config.Lead)
	}
	if w.timeLeft() == 0 || ctx.Err() != nil {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Unreached, Text: errLeadEnding.Error()}, nil)
	}
	err := w.within(ctx, func(ctx context.Context) error { return system.Apply(ctx, change) })
	return w.end(ctx, t, system, change, rotation.AfterSend(answerAsAdmin(t, err)))
}

// baseState returns what the target's own state says of the base, where a login with it must
// succeed before the candidate is sent, or a system of the target's kind has not answered yet. No
// failed login is spent then. It returns an error unless such a system answers, where that is not
// known yet and the kind can answer without a login of the account. Nothing has been sent then.
// Only the log distinguishes a system of another kind from one that does not answer.
func baseState(
	ctx context.Context, t *api.Turn, system target.Target, base target.Credential,
) (target.Liveness, error) {
	answered := t.Proven() || t.Record.Attempt > 0
	if answered && !t.Record.NeedsBase() {
		return target.NotKnown, nil
	}
	known := make([]target.Liveness, 1)
	err := inspect(ctx, system, []target.Credential{base}, known)
	if err != nil && !answered && !answerOf(t, err).Reached() {
		return target.NotKnown, err
	}
	return known[0], nil // the login decides where the state is not known
}

// end stores the outcome of an attempt. Before a change is given up, the target takes back what an
// attempt may have left. One that does not let the administrator do that keeps no change from its
// end of which nothing has happened.
func (w *worker) end(
	ctx context.Context,
	t *api.Turn,
	system target.Target,
	change target.Change,
	e rotation.Event,
) (bool, error) {
	after, err := rotation.Next(t.Record, e, w.engine.Now())
	reverter, ok := system.(target.Reverter)
	if !ok || err != nil || after.State != rotation.Abandoned || t.Record.Attempt == 0 {
		return w.move(ctx, t, e, nil)
	}
	err = w.within(ctx, func(ctx context.Context) error { return reverter.Revert(ctx, change) })
	return w.move(ctx, t, rotation.AfterClearing(t.Record, e, answerAsAdmin(t, err)), nil)
}

// simple takes a step that is tried again until it succeeds.
func (w *worker) simple(
	ctx context.Context,
	t *api.Turn,
	done rotation.EventKind,
	call func(context.Context) error,
) (bool, error) {
	return w.move(ctx, t, rotation.After(done, answerAsAdmin(t, w.within(ctx, call))), nil)
}

func (w *worker) verifyCandidate(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change,
) (bool, error) {
	return w.login(ctx, t, system, change, change.New)
}

func (w *worker) verifyBase(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change,
) (bool, error) {
	return w.login(ctx, t, system, change, change.Old)
}

// retire makes the base useless, after a login with the candidate has succeeded where one is
// needed.
func (w *worker) retire(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	if e, ready := w.mayRetire(ctx, t, system, change); !ready {
		return w.move(ctx, t, e, nil)
	}
	var e rotation.Event
	for range rotation.MaxEvictions {
		answer, found, err := w.retireOrEvict(ctx, t, system, change)
		if err != nil {
			return false, err
		}
		e = rotation.AfterRetiring(t.Record, answer, found)
		if !answer.OK || !t.Record.Evicts(found) {
			break
		}
	}
	if e.Kind == rotation.Retired && t.Record.Trigger == rotation.Emergency {
		// A session of the leaked account may have acted as the other one, and set its password too.
		if lost, ready := w.mayRetire(ctx, t, system, change); !ready {
			e, e.BaseRetired = lost, true
		} else {
			e = w.outlasting(ctx, t, system, e)
		}
	}
	return w.move(ctx, t, e, nil)
}

// outlasting returns the end of an emergency with what the holder of the leaked credential can use
// afterwards. They may have set that up since the check before the candidate was sent.
func (w *worker) outlasting(
	ctx context.Context, t *api.Turn, system target.Target, retired rotation.Event,
) rotation.Event {
	err := w.within(ctx, func(ctx context.Context) (err error) {
		retired.Outlasts, err = t.Outlasts(ctx, system)
		return err
	})
	retired.Checked = true
	if err != nil {
		retired.Outlasts = rotation.NotReadAgain(t.Record.Outlasts, answerOf(t, err).Text, t.Secret.Name)
	}
	return retired
}

// mayRetire reports whether the base may be made useless, and returns the event if it may not.
func (w *worker) mayRetire(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change,
) (e rotation.Event, ready bool) {
	if !t.Record.NeedsCandidate() {
		return e, true
	}
	if e, ready = w.logsIn(ctx, t, system, change.New); ready {
		return e, true
	}
	known := make([]target.Liveness, 1)
	err := w.within(ctx, func(ctx context.Context) error {
		return inspect(ctx, system, []target.Credential{change.New}, known)
	})
	return e, rotation.MayRetire(e, answerOf(t, err), known[0])
}

// retireOrEvict asks the target to retire the base. found is another password of its account: an
// emergency removes it, and stores that before. err is one of the store.
func (w *worker) retireOrEvict(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change,
) (answer rotation.Answer, found target.Foreign, err error) {
	evictor, ok := system.(target.Evictor)
	if !ok {
		err := w.within(ctx, func(ctx context.Context) error { return system.Retire(ctx, change) })
		return answerAsAdmin(t, err), found, nil
	}
	var stored error
	decide := func(ctx context.Context, f target.Foreign) (bool, error) {
		found = f
		found.Text = fault.Targeted(fault.Named(f.Text, t.Secret.Name), t.Secret.TargetName())
		if !t.Record.Evicts(f) {
			return false, nil
		}
		_, stored = w.move(ctx, t, rotation.BeforeEvicting(), nil)
		return stored == nil, stored
	}
	said := w.within(ctx, func(ctx context.Context) error { return evictor.RetireOrEvict(ctx, change, decide) })
	return answerAsAdmin(t, said), found, stored
}

func (w *worker) clear(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	reverter, ok := system.(target.Reverter)
	if !ok {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Cleared}, nil)
	}
	return w.simple(ctx, t, rotation.Cleared, func(ctx context.Context) error { return reverter.Revert(ctx, change) })
}

// takeBack ends a rehearsal, or a candidate that cannot log in.
func (w *worker) takeBack(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	if change.Strategy == target.Single && !t.Restorable() {
		return w.move(
			ctx,
			t,
			rotation.Event{Kind: rotation.Declined, Text: "it has never accepted that one, so it is not sent"},
			nil,
		)
	}
	err := w.within(ctx, func(ctx context.Context) error { return revert(ctx, system, change) })
	return w.move(ctx, t, rotation.AfterRevert(t.Record, answerAsAdmin(t, err)), nil)
}

// revert takes the candidate away again. Where it has replaced the base, the base is restored.
func revert(ctx context.Context, system target.Target, c target.Change) error {
	back := target.Change{ID: c.ID + "-r", Strategy: c.Strategy, New: c.Old, Old: c.New}
	if c.Strategy == target.Single {
		return system.Apply(ctx, back)
	}
	return system.Retire(ctx, back)
}
