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
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	// maxTurns bounds what is done in one go; what is left is due again at once.
	maxTurns    = 64
	pausedFor   = time.Minute
	deniedPause = time.Minute            // an administrator that is refused is not tried again at once: it may be locked out
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

// expire ends a grace period, or puts its end off while somebody holds the former credential. Where nobody is to be waited for, nobody is asked
// about.
func (w *worker) expire(ctx context.Context, t *api.Turn) (bool, error) {
	event := rotation.Event{Kind: rotation.Expired}
	if !t.Record.GraceLimit.After(t.Record.GraceUntil) {
		return w.move(ctx, t, event, nil)
	}
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	holders, until, err := w.engine.Holders(bounded, t)
	switch early := w.engine.Now().Before(t.Record.GraceLimit); {
	case err != nil && early:
		return false, err
	case holders == 0:
	case early:
		event = rotation.Event{Kind: rotation.Awaiting, Consumers: holders, Until: until}
	default:
		event = rotation.Event{Kind: rotation.Overran, Consumers: holders, Text: fmt.Sprintf("%d consumers were seen lately with another version", holders)}
	}
	return w.move(ctx, t, event, nil)
}

// idle begins what is due, or looks whether the credential in use still works.
func (w *worker) idle(ctx context.Context, t *api.Turn, now time.Time) (bool, error) {
	r := t.Record
	switch {
	case r.Then != nil && !r.Then.At.After(now):
		return w.begin(ctx, t, *r.Then)
	case !r.Due.IsZero() && !r.Due.After(now) && !r.Paused:
		if t.AllPaused || t.Target.Paused {
			return false, w.postpone(ctx, t, now.Add(pausedFor+rand.N(pausedFor)))
		}
		if at := t.Earliest(); at.After(now) { // it was planned by an older release, or the setting has grown since
			return false, w.postpone(ctx, t, at)
		}
		return w.begin(ctx, t, rotation.Request{
			ID: uuid.NewString(), Mode: rotation.Rotate, Trigger: rotation.Automatic, At: w.rotator.spread.slot(t.Secret.TargetName(), now),
		})
	}
	return w.probe(ctx, t, now)
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
	if now := w.engine.Now(); (t.AllPaused || t.Target.Paused || t.Record.Paused) && t.Record.Trigger != rotation.Emergency {
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
	return w.move(ctx, t, failed(t, err), nil)
}

// proveBase has the target asked, before a rehearsal, whether it accepts the credential in use: a
// rehearsal goes back to that, and must not impose what the target never accepted.
func (w *worker) proveBase(ctx context.Context, t *api.Turn) (proven, more bool, err error) {
	current := t.Secret.Stages[secret.Current]
	if t.Record.Mode != rotation.Rehearse || t.Record.Accepted == current {
		return true, false, nil
	}
	live, _, text, failed := w.alive(ctx, t, current)
	switch live {
	case target.Live:
		now := w.engine.Now()
		r, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record { return r.Seen(current, now, r.Health.NextAt) })
		if err == nil {
			t.Record = r
		}
		return err == nil, false, err
	case target.Dead:
		more, err = w.move(ctx, t, rotation.Event{
			Kind: rotation.Impossible, LoginFailed: failed, Text: "The target does not accept the credential in use, so a rehearsal could not go back to it: " + text,
		}, nil)
		return false, more, err
	}
	more, err = w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: text}, nil)
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

// failed is the event of a step that could not be taken, before anything was sent.
func failed(t *api.Turn, err error) rotation.Event {
	if text, final := api.Impossible(err); final {
		return rotation.Event{Kind: rotation.Impossible, Text: text}
	}
	if errors.As(err, new(*target.Error)) {
		return rotation.Event{Kind: rotation.Failed, Text: said(t, err), After: pause(err)}
	}
	return rotation.Event{Kind: rotation.Failed, Text: "The store or the key of the secret did not answer."}
}

// pause is the least time until the next try: an administrator who is refused again and again may be locked out.
func pause(err error) time.Duration {
	if target.ClassOf(err) == target.Denied {
		return deniedPause
	}
	return 0
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
		return w.move(ctx, t, cannotOpen(t, err), nil)
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

// cannotOpen is the event of a target that is not there any more, or whose administrator is not.
func cannotOpen(t *api.Turn, err error) rotation.Event {
	r := t.Record
	e := failed(t, err)
	if r.State == rotation.Prepared && (e.Kind == rotation.Failed || r.Attempt > 0) {
		e.Kind = rotation.Unreached // after an attempt nothing is given up without asking the target
	}
	if r.State != rotation.Prepared {
		e.Kind = rotation.Failed // something may have been sent before: it is tried again until a person has mended it
	}
	return e
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
		return w.move(ctx, t, cannotOpen(t, err), nil)
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
	e := rotation.Event{Kind: rotation.Accepted}
	if err != nil {
		e = rotation.Event{Kind: rotation.NoAnswer, Text: said(t, err), After: pause(err)}
		switch target.ClassOf(err) {
		case target.Unreachable, target.Denied:
			e.Kind = rotation.Unreached
		case target.Refused:
			e.Kind = rotation.Declined
		}
	}
	return w.end(ctx, t, system, change, e)
}

// reached returns an error unless a system of the target's kind answers, where that is not known
// yet and the kind can tell without a login of the account. Nothing has been sent then: a system
// of another kind is told from one that is not there by nothing but the log.
func reached(ctx context.Context, t *api.Turn, system target.Target, base target.Credential) error {
	if t.Proven() || t.Record.Attempt > 0 {
		return nil
	}
	err := inspect(ctx, system, []target.Credential{base}, make([]target.Liveness, 1))
	if class := target.ClassOf(err); err != nil && (class == target.Unknown || class == target.Unreachable) {
		return err
	}
	return nil // a system that says no has answered
}

// end stores the outcome of an attempt. Before a change is given up, the target takes back what an attempt may have left.
func (w *worker) end(ctx context.Context, t *api.Turn, system target.Target, change target.Change, e rotation.Event) (bool, error) {
	after, err := rotation.Next(t.Record, e, w.engine.Now())
	if reverter, ok := system.(target.Reverter); ok && err == nil && after.State == rotation.Abandoned {
		if err := w.within(ctx, func(ctx context.Context) error { return reverter.Revert(ctx, change) }); err != nil {
			return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: said(t, err)}, nil)
		}
	}
	return w.move(ctx, t, e, nil)
}

// said is what callers learn of a target's error; it holds no secret. An error that is not of a
// target says nothing.
func said(t *api.Turn, err error) string {
	var e *target.Error
	if t.Proven() && errors.As(err, &e) {
		return e.Error()
	}
	return target.TextForCaller(err)
}

// resolve finds out which credential is live: by the target's own state where that tells, else by one login with the candidate
// and, when that is rejected, one with the base.
func (w *worker) resolve(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	event := rotation.Event{Kind: rotation.Resolved}
	list := []target.Credential{change.New, change.Old}
	if t.Record.Mode == rotation.Reapply {
		list = list[:1]
	}
	known := make([]target.Liveness, 2)
	err := w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, list, known) })
	if reverter, ok := system.(target.Reverter); ok && err == nil && known[0] == target.Dead && t.Record.SettledAt(w.engine.Now()).After(w.engine.Now()) {
		// What was sent may still be under way. The target takes that back, so there is no need to wait for its end.
		if err = w.within(ctx, func(ctx context.Context) error { return reverter.Revert(ctx, change) }); err == nil {
			event.Settled = true
			err = w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, list, known) })
		}
	}
	if err != nil {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: said(t, err), After: pause(err)}, nil)
	}
	if len(list) == 2 { // both were rejected a window ago: one is tried now, the base first
		if known[0] == target.NotKnown && t.Record.Rejections == 1 {
			known[0] = target.Dead
		}
		if known[1] == target.NotKnown && t.Record.Rejections > 1 {
			known[1] = target.Dead
		}
	}
	for i, c := range list {
		if known[i] != target.NotKnown || i == 1 && known[0] == target.Live {
			continue
		}
		now := w.engine.Now()
		if wait := max(w.quiet(t.Record, now), t.Record.SettledAt(now).Sub(now)); wait > 0 && !event.LoginFailed {
			return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: "waiting before another login", After: wait}, nil)
		}
		err := w.within(ctx, func(ctx context.Context) error { return system.Verify(ctx, c) })
		switch {
		case err == nil:
			known[i] = target.Live
		case target.ClassOf(err) == target.Rejected:
			known[i] = target.Dead
			event.LoginFailed = true
			w.loginFailed()
		default:
			unanswered := rotation.Event{Kind: rotation.Failed, Text: said(t, err), LoginFailed: event.LoginFailed}
			return w.move(ctx, t, unanswered, nil)
		}
	}
	event.Candidate, event.Base = known[0], known[1]
	event.Text = fmt.Sprintf("candidate %s, base %s", word(known[0]), word(known[1]))
	return w.end(ctx, t, system, change, event)
}

func word(l target.Liveness) string {
	return [...]string{"not known", "live", "dead"}[l]
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

// quiet is how long no login may be tried that can fail: one did a moment ago, whether or not that could be stored.
func (w *worker) quiet(r rotation.Record, now time.Time) time.Duration {
	at, key := r.LoginAt(now), store.Due{Account: w.account, Name: w.secret}
	if v, ok := w.failed.Load(key); ok {
		switch seen := v.(time.Time); {
		case !seen.After(r.LoginFailedAt), now.Sub(seen) >= rotation.LoginWindow:
			w.failed.Delete(key)
		case seen.Add(rotation.LoginWindow).After(at):
			at = seen.Add(rotation.LoginWindow)
		}
	}
	return at.Sub(now)
}

// login tries a credential by one login.
func (w *worker) login(ctx context.Context, t *api.Turn, system target.Target, c target.Credential) (bool, error) {
	if wait := w.quiet(t.Record, w.engine.Now()); wait > 0 {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: "waiting before another login", After: wait}, nil)
	}
	err := w.within(ctx, func(ctx context.Context) error { return system.Verify(ctx, c) })
	switch {
	case err == nil:
		return w.move(ctx, t, rotation.Event{Kind: rotation.LoggedIn}, nil)
	case target.ClassOf(err) == target.Rejected:
		w.loginFailed()
		return w.move(ctx, t, rotation.Event{Kind: rotation.NoLogin, Text: said(t, err), LoginFailed: true}, nil)
	}
	return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: said(t, err), After: pause(err)}, nil)
}

// simple takes a step that is tried again until it succeeds.
func (w *worker) simple(ctx context.Context, t *api.Turn, done rotation.EventKind, call func(context.Context) error) (bool, error) {
	if err := w.within(ctx, call); err != nil {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: said(t, err), After: pause(err)}, nil)
	}
	return w.move(ctx, t, rotation.Event{Kind: done}, nil)
}

// takeBack ends a rehearsal, or a candidate that cannot log in. Where the base must be put back, the target's rules may forbid
// it: that is no failure which another try would mend.
func (w *worker) takeBack(ctx context.Context, t *api.Turn, system target.Target, change target.Change) (bool, error) {
	if change.Strategy == target.Single && !t.Restorable() {
		return w.move(ctx, t, rotation.Event{Kind: rotation.Declined, Text: "it has never accepted that one, so it is not sent"}, nil)
	}
	err := w.within(ctx, func(ctx context.Context) error { return revert(ctx, system, change) })
	switch {
	case err == nil:
		return w.move(ctx, t, rotation.Event{Kind: rotation.Reverted}, nil)
	case target.ClassOf(err) == target.Refused && change.Strategy == target.Single:
		return w.move(ctx, t, rotation.Event{Kind: rotation.Declined, Text: said(t, err)}, nil)
	}
	return w.move(ctx, t, rotation.Event{Kind: rotation.Failed, Text: said(t, err), After: pause(err)}, nil)
}

// revert takes the candidate away again. Where it has replaced the base, the base is put back.
func revert(ctx context.Context, system target.Target, c target.Change) error {
	back := target.Change{ID: c.ID + "-r", Strategy: c.Strategy, New: c.Old, Old: c.New}
	if c.Strategy == target.Single {
		return system.Apply(ctx, back)
	}
	return system.Retire(ctx, back)
}

// probe looks whether the credential in use is still accepted, so that it is found out before an application finds it.
func (w *worker) probe(ctx context.Context, t *api.Turn, now time.Time) (bool, error) {
	if at := w.rotator.probes.slot("", now); at.After(now.Add(time.Second)) {
		return false, w.noteHealth(ctx, t, func(h rotation.Health) rotation.Health { h.NextAt = at; return h })
	}
	current := t.Secret.Stages[secret.Current]
	live, strategy, text, failed := w.alive(ctx, t, current)
	next := now.Add(w.engine.ProbeEvery()/2 + rand.N(w.engine.ProbeEvery()/2))
	switch live {
	case target.Live:
		_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record { return r.Seen(current, now, next) })
		return false, err
	case target.NotKnown:
		return false, w.noteHealth(ctx, t, func(h rotation.Health) rotation.Health {
			h.Silent++
			h.NextAt = next
			return h
		})
	}
	r, err := w.engine.Note(ctx, t, rotation.Drift, func(r rotation.Record) rotation.Record {
		if failed {
			r.LoginFailedAt = now
		}
		return r.Drifted(current, t.Secret.TargetName(), strategy, text, now)
	})
	if err == nil {
		w.tell(t, r, rotation.Event{Kind: rotation.Drift, Text: text})
	}
	return false, err
}

func (w *worker) noteHealth(ctx context.Context, t *api.Turn, change func(rotation.Health) rotation.Health) error {
	_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
		r.Health = change(r.Health)
		return r
	})
	return err
}

// alive asks the target about the credential in use: by its state, else by one login, which a credential that was found dead
// is not given again. strategy is how the target would be given the credential again; failed says that a login was tried and
// rejected.
func (w *worker) alive(ctx context.Context, t *api.Turn, version string) (l target.Liveness, strategy target.Strategy, text string, failed bool) {
	system, err := t.Open()
	if err != nil {
		return target.NotKnown, "", said(t, err), false
	}
	defer func() { _ = system.Close() }() // nothing was asked of it that could be lost
	strategy = t.Reapply(system)
	c, err := t.Credential(version)
	if err != nil {
		return target.NotKnown, strategy, "", false
	}
	known := make([]target.Liveness, 1)
	if err := w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, []target.Credential{c}, known) }); err != nil {
		return target.NotKnown, strategy, said(t, err), false
	}
	if known[0] != target.NotKnown {
		return known[0], strategy, "its own state says so", false
	}
	if w.quiet(t.Record, w.engine.Now()) > 0 {
		return target.NotKnown, strategy, "waiting before another login", false
	}
	err = w.within(ctx, func(ctx context.Context) error { return system.Verify(ctx, c) })
	switch {
	case err == nil:
		return target.Live, strategy, "", false
	case target.ClassOf(err) == target.Rejected:
		w.loginFailed()
		return target.Dead, strategy, said(t, err), true
	}
	return target.NotKnown, strategy, said(t, err), false
}
