package rotator

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
)

// probe checks whether the credential in use is still accepted, before an application notices that
// it is not.
func (w *worker) probe(ctx context.Context, t *api.Turn) (bool, error) {
	now := w.engine.Now()
	putOff := func(at time.Time) (bool, error) {
		_, err := w.engine.Note(ctx, t, "", func(r rotation.Record) rotation.Record {
			return r.PutOffProbe(at, now)
		})
		return false, err
	}
	who := w.account + "/" + w.secret
	done, wait := w.rotator.enterProbe(t, who, now)
	if done == nil {
		return putOff(now.Add(wait))
	}
	defer done()
	if at := w.rotator.mayProbe(t, who, now); at.After(now) {
		return putOff(at)
	}
	p := w.alive(ctx, t, t.Secret.Stages[secret.Current])
	checked := w.check(ctx, t, p)
	next := now.Add(w.engine.ProbeEvery()/2 + rand.N(w.engine.ProbeEvery()/2))
	_, kind := t.Record.AfterProbe(p, now, next)
	r, err := w.engine.Note(ctx, t, kind, func(r rotation.Record) rotation.Record {
		r, _ = r.AfterProbe(p, now, next)
		return checked(r)
	})
	if err == nil && kind != "" {
		w.report(t, r, rotation.Event{Kind: kind, Text: p.Text})
	}
	return false, err
}

// mayProbe takes the right to make a probe now, or says when to ask again. A probe that is due may
// take every turn. One that only a caller has asked for leaves half of a burst to those, so calls
// delay a probe that is due by no more than the other half. One that makes no call of a target
// takes nothing.
func (r *Rotator) mayProbe(t *api.Turn, who string, now time.Time) time.Time {
	if !t.Registered {
		return now
	}
	left := 0
	if h := t.Record.Health; h.Wanted && !h.IsDue(now) {
		left = probeBurst(r.config.ProbeRate) / 2
	}
	return r.probes.begin("", who, left, now, rand.Float64())
}

// enterProbe begins a probe, which ends with done. Where too many are under way, done is nil, and
// wait is the time until the next try, see [limit.enter]. One that makes no call of a target never
// waits.
func (r *Rotator) enterProbe(t *api.Turn, who string, now time.Time) (done func(), wait time.Duration) {
	if !t.Registered {
		return func() {}, 0
	}
	name := t.Target.Account + "/" + t.Target.Name
	wait, ok := r.probing.enter(name, who, now, r.config.EffectTimeout, rand.Float64())
	if !ok {
		return nil, wait
	}
	return func() { r.probing.leave(name, now) }, 0
}

// probeBurst is how many probes are made at once after a pause: at least two, so that half of them
// can be left.
func probeBurst(rate float64) int { return max(2, int(rate)+1) }

// check checks whether a rotation of a credential that is live would be safe, and logs in as its
// application does unless the probe has done so. The result goes into the record. In a grace period
// that can wait: no rotation begins before its end.
func (w *worker) check(
	ctx context.Context, t *api.Turn, p rotation.Probe,
) (into func(rotation.Record) rotation.Record) {
	if into, taken := t.Taken(); taken {
		return into
	}
	unchanged := func(r rotation.Record) rotation.Record { return r }
	if p.Live != target.Live || t.Record.InFlight() {
		return unchanged
	}
	system, err := t.Open()
	if err != nil {
		return unchanged
	}
	defer func() { _ = system.Close() }() // its answers are stored
	err = w.within(ctx, func(ctx context.Context) error {
		into = t.Check(ctx, system, p.Text == "")
		return nil
	})
	if err != nil || into == nil {
		return unchanged
	}
	return into
}

// alive asks the target about the credential in use: by its state, else by one login, which a
// credential that was found dead is not given again.
func (w *worker) alive(ctx context.Context, t *api.Turn, version string) rotation.Probe {
	p := rotation.Probe{Version: version, Target: t.Secret.TargetName()}
	system, err := t.Open()
	if err != nil {
		p.Text = notOpened(t, err)
		if wait := (*api.AdminWaitError)(nil); errors.As(err, &wait) && wait.Soon {
			p.Wait = wait.From.Sub(w.engine.Now()) + rand.N(adminSpread)
		}
		return p
	}
	defer func() { _ = system.Close() }() // nothing was asked of it that could be lost
	p.Strategy = t.Reapply(system)
	c, err := t.Credential(version)
	if err != nil {
		return p
	}
	known := make([]target.Liveness, 1)
	err = w.within(ctx, func(ctx context.Context) error {
		return inspect(ctx, system, []target.Credential{c}, known)
	})
	if err != nil {
		answer := answerOf(t, err)
		p.Text, p.Answered = answer.Text, answer.Reached()
		return p
	}
	if known[0] != target.NotKnown {
		t.AdminAccepted() // the state was read as the administrator
		p.Live, p.Text = known[0], "its own state says so"
		p.Late = w.lateCopies(ctx, t, system, c, p.Live)
		return p
	}
	if wait := w.quiet(t.Record, w.engine.Now()); wait > 0 {
		p.Text, p.Wait = rotation.TooSoon(wait).Text, wait
		return p
	}
	answer := w.verify(ctx, t, system, c)
	p.Live, p.Text = answer.Liveness(), answer.Text
	p.LoginFailed, p.Answered = answer.LoginFailed(), answer.Reached()
	p.Late = w.lateCopies(ctx, t, system, c, p.Live)
	return p
}
