package rotator

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

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
		q = q.Answered(ask, w.question(ctx, t, system, change, ask, known), known...)
	}
}

// question asks the target one thing that a resolution must know. known gets what the target's own
// state tells.
func (w *worker) question(
	ctx context.Context,
	t *api.Turn,
	system target.Target,
	change target.Change,
	ask rotation.Ask,
	known []target.Liveness,
) rotation.Answer {
	both := []target.Credential{change.New, change.Old}
	switch ask {
	case rotation.AskCandidate:
		return w.verify(ctx, t, system, change.New)
	case rotation.AskBase:
		return w.verify(ctx, t, system, change.Old)
	case rotation.AskRevert:
		return answerAsAdmin(
			t,
			w.within(ctx, func(ctx context.Context) error { return system.(target.Reverter).Revert(ctx, change) }),
		)
	}
	if t.Record.Mode == rotation.Reapply { // both are the same
		both = both[:1]
	}
	return answerOf(t, w.within(ctx, func(ctx context.Context) error { return inspect(ctx, system, both, known) }))
}

// inspect reads the target's own state; a credential that it does not show stays NotKnown.
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

// loginFailed remembers a login that the engine has made fail. What is not stored after it would
// otherwise be tried again at once, for as long as the store takes nothing.
func (w *worker) loginFailed() {
	w.failed.Store(store.Due{Account: w.account, Name: w.secret}, w.engine.Now())
}

// quiet returns how long no login may be tried that can fail. It forgets a failed login that does
// not count any more.
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

// login tries c, a credential of a change, by one login. The target's own state may decide after
// it, see [rotation.Record.AsksState]. Replicas are waited for only where reads are not blocked.
func (w *worker) login(
	ctx context.Context, t *api.Turn, system target.Target, change target.Change, c target.Credential,
) (more bool, err error) {
	e := rotation.TooSoon(w.quiet(t.Record, w.engine.Now()))
	if e.After <= 0 {
		bounded, cancel := w.whileBlocked(ctx, t, system)
		e = rotation.AfterLogin(t.Record, w.verify(bounded, t, system, c))
		cancel()
	}
	if t.Record.AsksState(e) {
		// The base is asked about too: it shows whether an attempt has reached all of the account.
		known := make([]target.Liveness, 2)
		answer := w.question(ctx, t, system, change, rotation.AskState, known)
		e = rotation.AfterState(t.Record, e, answer, known[0], known[1])
	}
	if e.ReplacesEarlier, err = t.ReplacesEarlier(); err != nil {
		return false, err
	}
	if copied, ok := system.(target.Copied); ok {
		e = w.withCopies(ctx, t, copied, c, e)
	}
	return w.move(ctx, t, e, nil)
}

// whileBlocked bounds a login by the time that reads may be blocked, where the target's own state
// can decide after it.
func (w *worker) whileBlocked(
	ctx context.Context, t *api.Turn, system target.Target,
) (context.Context, context.CancelFunc) {
	most := t.Record.LoginTime(w.engine.Now())
	if _, ok := system.(target.Inspector); !ok || most == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, most)
}

// logsIn tries, by one login, a credential that must work before another is destroyed.
func (w *worker) logsIn(
	ctx context.Context, t *api.Turn, system target.Target, c target.Credential,
) (e rotation.Event, ready bool) {
	if wait := w.quiet(t.Record, w.engine.Now()); wait > 0 {
		e = rotation.TooSoon(wait)
		e.Kind = rotation.Unready
		return e, false
	}
	return rotation.Before(w.verify(ctx, t, system, c))
}

// verify makes one login, and remembers one that fails or may have failed.
func (w *worker) verify(ctx context.Context, t *api.Turn, system target.Target, c target.Credential) rotation.Answer {
	err := w.within(ctx, func(ctx context.Context) error { return system.Verify(ctx, c) })
	answer := answerOf(t, err)
	if t.Record.Trigger == rotation.Emergency && target.IsAuthenticated(err) {
		answer.Class = target.Admitted // the holder of the leaked credential may make fail what comes after the login
	}
	if answer.LoginFailed() {
		w.loginFailed()
	}
	return answer
}
