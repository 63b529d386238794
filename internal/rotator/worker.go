package rotator

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	// maxTurns bounds what is done in one go; what is left is due again at once.
	maxTurns    = 64
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
			w.tell(t, r, rotation.Event{Kind: rotation.Overdue})
		}
		return err == nil, err
	}
	if !t.Record.InFlight() {
		return w.idle(ctx, t, now)
	}
	switch step := rotation.Plan(t.Record, now); step {
	case rotation.Prepare:
		return w.prepare(ctx, t)
	case rotation.Promote:
		return w.move(ctx, t, rotation.Event{Kind: rotation.Promoted}, nil)
	case rotation.Expire:
		return w.expire(ctx, t)
	case rotation.Send, rotation.Resolve, rotation.Verify, rotation.CheckBase, rotation.Retire, rotation.Revert, rotation.Clear:
		return w.effect(ctx, t, step)
	}
	return false, nil
}

// move stores an event and tells of it.
func (w *worker) move(ctx context.Context, t *api.Turn, e rotation.Event, c *api.Candidate) (bool, error) {
	e.Jitter = rand.Float64()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout) // what has happened is stored, also at the end
	defer cancel()
	w.at("before storing " + string(e.Kind))
	r, err := w.engine.Move(ctx, t, e, c)
	w.at("after storing " + string(e.Kind))
	if err != nil {
		return false, err
	}
	w.tell(t, r, e)
	began := r.State == rotation.Grace && (e.Kind == rotation.Promoted || e.Kind == rotation.LoggedIn)
	t.Record = r
	if began {
		return true, w.wholeGrace(ctx, t)
	}
	return true, nil
}

// wholeGrace lets a grace period begin when everybody could read the new version, not when that was asked for: a store that was slow
// to answer has given out the old one meanwhile.
func (w *worker) wholeGrace(ctx context.Context, t *api.Turn) error {
	until := w.engine.Now().Add(t.Record.GracePeriod)
	if until.Sub(t.Record.GraceUntil) < slowStore {
		return nil
	}
	r, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		return r.WholeGrace(until.Add(-r.GracePeriod))
	})
	if err == nil {
		t.Record = r
	}
	return err
}

// expire ends a grace period, or postpones its end while a consumer holds the previous credential. Where consumers are not waited
// for, nothing is asked.
func (w *worker) expire(ctx context.Context, t *api.Turn) (bool, error) {
	if !t.Record.WaitsForConsumers() {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Expired}, nil)
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	holders, until, err := w.engine.Holders(bounded, t)
	now := w.engine.Now()
	if err != nil && now.Before(t.Record.GraceLimit) {
		return false, err
	}
	return w.move(ctx, t, rotation.AfterGrace(t.Record, holders, until, now), nil)
}

// idle begins what is due, or checks whether the credential in use still works.
func (w *worker) idle(ctx context.Context, t *api.Turn, now time.Time) (bool, error) {
	switch step, q, at := rotation.PlanIdle(t.Record, t.AllPaused || t.Target.Paused, t.Earliest(), now); {
	case step == rotation.CheckHealth:
		return w.probe(ctx, t, now)
	case step == rotation.Postpone && at.IsZero():
		return false, w.postpone(ctx, t, now.Add(pausedFor+rand.N(pausedFor)))
	case step == rotation.Postpone:
		return false, w.postpone(ctx, t, at)
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
	w.tell(t, r, rotation.Event{Kind: rotation.Begun})
	return true, nil
}

// postpone moves the time of a rotation that may not begin. The date that was planned stays: it is overdue.
func (w *worker) postpone(ctx context.Context, t *api.Turn, until time.Time) error {
	_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		if r.InFlight() {
			r.NextAt = until
		} else {
			r.Due = until
		}
		return r
	})
	return err
}

// prepare makes a candidate and stores it. Nothing is sent.
func (w *worker) prepare(ctx context.Context, t *api.Turn) (bool, error) {
	if now := w.engine.Now(); t.Record.AwaitsResume(t.AllPaused || t.Target.Paused) {
		return false, w.postpone(ctx, t, now.Add(pausedFor+rand.N(pausedFor)))
	}
	if now := w.engine.Now(); t.Record.Trigger == rotation.Automatic && t.Record.State == rotation.Scheduled {
		if at := w.rotator.starts.begin(t.Secret.TargetName(), w.account+"/"+w.secret, now, rand.Float64()); at.After(now) {
			return false, w.postpone(ctx, t, at)
		}
	}
	if proven, more, err := w.proveBase(ctx, t); !proven {
		return more, err
	}
	effect, cancel := context.WithTimeout(ctx, w.rotator.config.EffectTimeout)
	defer cancel()
	event := rotation.Event{Kind: rotation.Stored, Version: t.VersionFor(), Target: t.Secret.TargetName()}
	candidate, err := w.candidate(effect, t)
	if err == nil {
		event.Strategy, event.Replaces = candidate.Strategy, candidate.Base
		var more bool
		if more, err = w.move(ctx, t, event, candidate); err == nil {
			return more, nil
		}
	}
	var soon *api.TooSoonError
	if errors.As(err, &soon) {
		return false, w.postpone(ctx, t, soon.Until)
	}
	if errors.Is(err, api.ErrMoved) || ctx.Err() != nil {
		return false, err
	}
	return w.move(ctx, t, notBegun(t, err), nil)
}

// proveBase has the target asked, before a rehearsal, whether it accepts the credential in use: a
// rehearsal goes back to that, and must not impose what the target never accepted.
func (w *worker) proveBase(ctx context.Context, t *api.Turn) (proven, more bool, err error) {
	current := t.Secret.Stages[secret.Current]
	if t.Record.Mode != rotation.Rehearse || t.Record.Accepted == current {
		return true, false, nil
	}
	p := w.alive(ctx, t, current)
	if p.Live == target.Live {
		now := w.engine.Now()
		r, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record { return r.Seen(current, now, r.Health.NextAt) })
		if err == nil {
			t.Record = r
		}
		return err == nil, false, err
	}
	more, err = w.move(ctx, t, rotation.NotProven(p), nil)
	return false, more, err
}

func (w *worker) candidate(ctx context.Context, t *api.Turn) (*api.Candidate, error) {
	system, err := t.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = system.Close() }() // nothing was asked of it that could be lost
	return t.NewCandidate(ctx, system)
}

// answerOf returns what a call to a target came to.
func answerOf(t *api.Turn, err error) rotation.Answer {
	if err == nil {
		return rotation.Answer{OK: true}
	}
	return rotation.Answer{Class: target.ClassOf(err), Text: textOf(t, err)}
}

// textOf returns what callers learn of a target's error; it holds no secret. An error that is not of a target says nothing.
func textOf(t *api.Turn, err error) string {
	var e *target.Error
	if t.Proven() && errors.As(err, &e) {
		return e.Error()
	}
	return target.TextForCaller(err)
}

// notBegun returns the event of a step that could not be begun: the target or its administrator is gone, the account is not
// allowed, or the store did not answer.
func notBegun(t *api.Turn, err error) rotation.Event {
	text, final := api.Impossible(err)
	switch {
	case final:
		return rotation.NotBegun(t.Record, rotation.Answer{Text: text}, true)
	case errors.As(err, new(*target.Error)):
		return rotation.NotBegun(t.Record, answerOf(t, err), false)
	}
	return rotation.NotBegun(t.Record, rotation.Answer{Text: "The store or the key of the secret did not answer."}, false)
}

// effect opens the target and takes a step there.
func (w *worker) effect(ctx context.Context, t *api.Turn, step rotation.Step) (bool, error) {
	if w.time() == 0 {
		return false, errLeadEnding
	}
	change, err := t.Change()
	if err != nil {
		return false, err
	}
	system, err := t.Open()
	if err != nil {
		return w.move(ctx, t, notBegun(t, err), nil)
	}
	defer func() { _ = system.Close() }() // what it has answered is stored
	switch step {
	case rotation.Send:
		return w.send(ctx, t, system, change)
	case rotation.Resolve:
		return w.resolve(ctx, t, system, change)
	case rotation.Verify:
		return w.login(ctx, t, system, change.New)
	case rotation.CheckBase:
		return w.login(ctx, t, system, change.Old)
	case rotation.Retire:
		return w.simple(ctx, t, rotation.Retired, func(ctx context.Context) error { return system.Retire(ctx, change) })
	case rotation.Clear:
		return w.simple(ctx, t, rotation.Cleared, func(ctx context.Context) error {
			if reverter, ok := system.(target.Reverter); ok {
				return reverter.Revert(ctx, change)
			}
			return nil
		})
	}
	return w.takeBack(ctx, t, system, change)
}

// time is how long an effect may take that begins now: it must end before the right to make it does. 0 means that there is not
// enough for another.
func (w *worker) time() time.Duration {
	whole := w.rotator.config.EffectTimeout
	left := min(whole, w.lead.Left()-margin)
	if left < min(whole, leastEffect) {
		return 0
	}
	return left
}

// within calls a target for at most the time of one effect.
func (w *worker) within(ctx context.Context, call func(context.Context) error) error {
	time := w.time()
	if time == 0 {
		return target.NotSent("not begun", errLeadEnding)
	}
	ctx, cancel := context.WithTimeout(ctx, time)
	defer cancel()
	w.at("before a call")
	defer w.at("after a call")
	err := call(ctx)
	if target.Withholds(err) {
		w.rotator.config.Logger.Info("a target did not answer as it should", "err", err, "detail", target.DetailOf(err))
	}
	return err
}

// at tells a test where the engine is.
func (w *worker) at(point string) {
	if w.rotator.config.At != nil {
		w.rotator.config.At(w.secret, point)
	}
}

// send stores the intent, and then gives the candidate to the target. Where there is only one credential, reads are held from
// the first, and whoever read a moment before has time to log in before the second.
func (w *worker) send(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	admit := func(ctx context.Context) error {
		if err := t.Admit(ctx, system, change.New.Account); err != nil {
			return err
		}
		return reached(ctx, t, system, change.Old)
	}
	if err := w.within(ctx, admit); err != nil {
		return w.move(ctx, t, notBegun(t, err), nil)
	}
	if _, err := w.move(ctx, t, rotation.Event{Kind: rotation.Sending}, nil); err != nil {
		return false, err
	}
	if t.Record.BlocksReads() {
		sleep(ctx, w.rotator.config.Lead)
	}
	if w.time() == 0 || ctx.Err() != nil {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Unreached, Text: errLeadEnding.Error()}, nil)
	}
	err := w.within(ctx, func(ctx context.Context) error { return system.Apply(ctx, change) })
	return w.end(ctx, t, system, change, rotation.AfterSend(answerOf(t, err)))
}

// reached returns an error unless a system of the target's kind answers, where that is not known
// yet and the kind can tell without a login of the account. Nothing has been sent then: a system
// of another kind is told from one that is not there by nothing but the log.
func reached(ctx context.Context, t *api.Turn, system target.Target, base target.Credential) error {
	if t.Proven() || t.Record.Attempt > 0 {
		return nil
	}
	err := inspect(ctx, system, []target.Credential{base}, make([]target.Liveness, 1))
	if !answerOf(t, err).Reached() {
		return err
	}
	return nil
}

// end stores the outcome of an attempt. Before a change is given up, the target takes back what an attempt may have left.
func (w *worker) end(ctx context.Context, t *api.Turn, system target.Target, change target.Change, e rotation.Event) (bool, error) {
	after, err := rotation.Next(t.Record, e, w.engine.Now())
	if reverter, ok := system.(target.Reverter); ok && err == nil && after.State == rotation.Abandoned {
		if err := w.within(ctx, func(ctx context.Context) error { return reverter.Revert(ctx, change) }); err != nil {
			return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: textOf(t, err)}, nil)
		}
	}
	return w.move(ctx, t, e, nil)
}

// resolve finds out which credential is live.
func (w *worker) resolve(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	_, reverts := system.(target.Reverter)
	var q rotation.Resolution
	for {
		now := w.engine.Now()
		ask, event := q.Next(t.Record, reverts, w.quiet(t.Record, now), now)
		if ask == rotation.AskNothing {
			return w.end(ctx, t, system, change, event)
		}
		known := make([]target.Liveness, 2)
		q = q.Told(ask, w.question(ctx, t, system, change, ask, known), known...)
	}
}

// question asks the target one thing that a resolution must know. known gets what the target's own state tells.
func (w *worker) question(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change, ask rotation.Ask, known []target.Liveness,
) rotation.Answer {
	both := []target.Credential{change.New, change.Old}
	switch ask {
	case rotation.AskCandidate:
		return w.verify(ctx, t, system, change.New)
	case rotation.AskBase:
		return w.verify(ctx, t, system, change.Old)
	case rotation.AskRevert:
		return answerOf(t, w.within(ctx, func(ctx context.Context) error { return system.(target.Reverter).Revert(ctx, change) }))
	}
	if t.Record.Mode == rotation.Reapply { // both are the same
		both = both[:1]
	}
	return answerOf(t, w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, both, known) }))
}

// inspect asks the target's own state; what it does not tell stays NotKnown.
func inspect(ctx context.Context, system target.Target, list []target.Credential, into []target.Liveness) error {
	i, ok := system.(target.Inspector)
	if !ok {
		return nil
	}
	seen, err := i.Inspect(ctx, list)
	if err != nil {
		return err
	}
	copy(into, seen)
	return nil
}

// loginFailed remembers a login that the engine has made fail. What is not stored after it would otherwise be tried again at once,
// for as long as the store takes nothing.
func (w *worker) loginFailed() {
	w.failed.Store(store.Due{Account: w.account, Name: w.secret}, w.engine.Now())
}

// quiet returns how long no login may be tried that can fail. It forgets a failed login that does not count any more.
func (w *worker) quiet(r rotation.Record, now time.Time) time.Duration {
	key := store.Due{Account: w.account, Name: w.secret}
	var unstored time.Time
	if v, ok := w.failed.Load(key); ok {
		unstored = v.(time.Time)
	}
	if !unstored.After(r.LoginFailedAt) || now.Sub(unstored) >= rotation.LoginWindow {
		w.failed.Delete(key)
		unstored = time.Time{}
	}
	return r.Quiet(unstored, now)
}

// login tries a credential by one login.
func (w *worker) login(ctx context.Context, t *api.Turn, system target.Target, c target.Credential) (bool, error) {
	if wait := w.quiet(t.Record, w.engine.Now()); wait > 0 {
		return w.move(ctx, t, rotation.TooSoon(wait), nil)
	}
	return w.move(ctx, t, rotation.AfterLogin(w.verify(ctx, t, system, c)), nil)
}

// verify makes one login, and remembers one that fails.
func (w *worker) verify(ctx context.Context, t *api.Turn, system target.Target, c target.Credential) rotation.Answer {
	answer := answerOf(t, w.within(ctx, func(ctx context.Context) error { return system.Verify(ctx, c) }))
	if answer.Liveness() == target.Dead {
		w.loginFailed()
	}
	return answer
}

// simple takes a step that is tried again until it succeeds.
func (w *worker) simple(ctx context.Context, t *api.Turn, done rotation.EventKind, call func(context.Context) error) (bool, error) {
	return w.move(ctx, t, rotation.After(done, answerOf(t, w.within(ctx, call))), nil)
}

// takeBack ends a rehearsal, or a candidate that cannot log in.
func (w *worker) takeBack(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	if change.Strategy == target.Single && !t.Restorable() {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Declined, Text: "it has never accepted that one, so it is not sent"}, nil)
	}
	err := w.within(ctx, func(ctx context.Context) error { return revert(ctx, system, change) })
	return w.move(ctx, t, rotation.AfterRevert(t.Record, answerOf(t, err)), nil)
}

// revert takes the candidate away again. Where it has replaced the base, the base is restored.
func revert(ctx context.Context, system target.Target, c target.Change) error {
	back := target.Change{ID: c.ID + "-r", Strategy: c.Strategy, New: c.Old, Old: c.New}
	if c.Strategy == target.Single {
		return system.Apply(ctx, back)
	}
	return system.Retire(ctx, back)
}

// probe checks whether the credential in use is still accepted, before an application notices that it is not.
func (w *worker) probe(ctx context.Context, t *api.Turn, now time.Time) (bool, error) {
	if at := w.rotator.probes.slot("", now); at.After(now.Add(time.Second)) {
		_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
			r.Health.NextAt = at
			return r
		})
		return false, err
	}
	p := w.alive(ctx, t, t.Secret.Stages[secret.Current])
	next := now.Add(w.engine.ProbeEvery()/2 + rand.N(w.engine.ProbeEvery()/2))
	_, kind := t.Record.AfterProbe(p, now, next)
	r, err := w.engine.Note(ctx, t, kind, func(r rotation.Record) rotation.Record {
		r, _ = r.AfterProbe(p, now, next)
		return r
	})
	if err == nil && kind != "" {
		w.tell(t, r, rotation.Event{Kind: kind, Text: p.Text})
	}
	return false, err
}

// alive asks the target about the credential in use: by its state, else by one login, which a credential that was found dead is
// not given again.
func (w *worker) alive(ctx context.Context, t *api.Turn, version string) rotation.Probe {
	p := rotation.Probe{Version: version, Target: t.Secret.TargetName()}
	system, err := t.Open()
	if err != nil {
		p.Text = textOf(t, err)
		return p
	}
	defer func() { _ = system.Close() }() // nothing was asked of it that could be lost
	p.Strategy = t.Reapply(system)
	c, err := t.Credential(version)
	if err != nil {
		return p
	}
	known := make([]target.Liveness, 1)
	if err := w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, []target.Credential{c}, known) }); err != nil {
		p.Text = textOf(t, err)
		return p
	}
	if known[0] != target.NotKnown {
		p.Live, p.Text = known[0], "its own state says so"
		return p
	}
	if wait := w.quiet(t.Record, w.engine.Now()); wait > 0 {
		p.Text = rotation.TooSoon(wait).Text
		return p
	}
	answer := w.verify(ctx, t, system, c)
	p.Live, p.Text = answer.Liveness(), answer.Text
	p.LoginFailed = p.Live == target.Dead
	return p
}
