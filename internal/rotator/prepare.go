package rotator

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
)

// prepare makes a candidate and stores it. Nothing is sent.
func (w *worker) prepare(ctx context.Context, t *api.Turn) (bool, error) {
	if now := w.engine.Now(); t.Record.AwaitsResume(t.Paused()) {
		return false, w.postpone(ctx, t, now.Add(pausedFor+rand.N(pausedFor)))
	}
	if now := w.engine.Now(); t.Record.Trigger == rotation.Automatic && t.Record.State == rotation.Scheduled {
		at := w.rotator.starts.begin(t.Secret.TargetName(), w.account+"/"+w.secret, 0, now, rand.Float64())
		if at.After(now) {
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
	if wait := (*api.AdminWaitError)(nil); errors.As(err, &wait) {
		return false, w.postponeFor(ctx, t, wait)
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
		r, err := w.engine.Note(
			ctx,
			t,
			"",
			func(r rotation.Record) rotation.Record { return r.Seen(current, now, r.Health.NextAt) },
		)
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
