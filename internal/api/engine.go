package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

// Engine is the rotation engine's access to the store: it reads rotations and moves them on. Like
// every caller it is recorded, as a principal of the service itself.
type Engine struct {
	gate  *Gate
	token int64
}

// Engine returns the door for the engine that was elected with that token.
func (g *Gate) Engine(token int64) *Engine { return &Engine{gate: g, token: token} }

// ErrMoved means that the rotation is no longer as the engine read it: the engine reads it again
// and repeats the decision.
var ErrMoved = errors.New("the rotation has moved on")

// Due lists at most limit rotations whose time has come, and returns when the next one is due.
func (e *Engine) Due(ctx context.Context, limit int) ([]store.Due, time.Time, error) {
	return store.Snapshot(ctx, e.gate.env.DB).WakeBefore(e.Now(), limit)
}

// Now returns the time of the server's clock.
func (e *Engine) Now() time.Time { return e.gate.env.Now().UTC() }

// do changes the store in one transaction, unless another engine was elected since.
func (e *Engine) do(ctx context.Context, change func(*store.Tx) error) error {
	return store.Do(ctx, e.gate.env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		return change(tx)
	})
}

// step is one step of a rotation.
type step struct {
	event     rotation.Event
	candidate *Candidate // for the event Stored
	next      func(rotation.Record) (rotation.Record, error)
}

// Move stores what follows from an event: record, labels and schedule together. It returns
// [ErrMoved] when the rotation is no longer as it was read. candidate is for the event Stored.
func (e *Engine) Move(
	ctx context.Context, t *Turn, event rotation.Event, candidate *Candidate,
) (rotation.Record, error) {
	c := t.call(event.Kind.Operation())
	if event.Kind == rotation.Stored {
		c.concerns(event.Version, string(secret.Pending))
	} else {
		c.concerns(t.Record.Candidate, "")
	}
	phase, durable := audit.Call, event.Kind.Recording() == rotation.RecordedTwice
	if durable {
		phase = audit.Outcome
		if err := e.gate.record(ctx, c, audit.Intent, "", true); err != nil {
			return t.Record, err
		}
	}
	next := func(r rotation.Record) (rotation.Record, error) { return rotation.Next(r, event, c.At) }
	r, err := e.store(ctx, c, t, step{event: event, candidate: candidate, next: next})
	result := outcome(err)
	if errors.Is(err, ErrMoved) || errors.Is(err, store.ErrFenced) {
		result = "moved"
	}
	return r, cmp.Or(e.gate.record(ctx, c, phase, result, durable), err)
}

// Begin starts a rotation that is due, or one that waited for the end of another.
func (e *Engine) Begin(ctx context.Context, t *Turn, q rotation.Request) (rotation.Record, error) {
	q.Grace = t.env.graceOf(t.Secret)
	c := t.call(rotation.Begun.Operation())
	begin := func(r rotation.Record) (rotation.Record, error) { return r.Begin(q, c.At), nil }
	r, err := e.store(ctx, c, t, step{event: rotation.Event{Kind: rotation.Begun}, next: begin})
	return r, cmp.Or(e.gate.record(ctx, c, audit.Call, outcome(err), true), err)
}

// Note stores a change of the record that is not a step, such as a postponement or the result of a
// probe. kind is its event, empty for none. Notes are not in the audit trail.
func (e *Engine) Note(
	ctx context.Context, t *Turn, kind rotation.EventKind, change func(rotation.Record) rotation.Record,
) (rotation.Record, error) {
	next := func(r rotation.Record) (rotation.Record, error) { return change(r), nil }
	return e.store(ctx, t.call(kind.Operation()), t, step{event: rotation.Event{Kind: kind}, next: next})
}

// store stores a step and all that follows from it in one transaction. It returns the stored
// record, or the record of t with an error.
func (e *Engine) store(ctx context.Context, c *Call, t *Turn, st step) (rotation.Record, error) {
	stored, another := t.Record, false
	err := e.do(ctx, func(tx *store.Tx) error {
		old, ok, err := tx.Rotation(t.Secret.Account, t.Secret.Name)
		if err != nil {
			return err
		}
		s, there, err := tx.Secret(t.Secret.Account, t.Secret.Name, c.At)
		switch {
		case err != nil:
			return err
		case !ok || !there || old.Seq != t.Record.Seq:
			return ErrMoved
		}
		if stale, err := t.isStale(tx, st.event.Kind, old, s); err != nil || stale {
			return cmp.Or(err, ErrMoved)
		}
		r, err := st.next(old)
		if err != nil {
			return err
		}
		r.Fence = e.token
		another, err = c.putStep(tx, s, old, &r, st)
		stored = r
		return err
	})
	if err != nil {
		return t.Record, err
	}
	if another {
		e.gate.currentChanged(ctx, t.Secret.Account, t.Secret.Name)
	}
	if stored.CanHurry() && t.isTargetChanged(ctx) {
		e.gate.targetChanged(t.Secret.Account, t.Target.Name)
	}
	return stored, nil
}

// withReads returns a secret that is read as the state of its rotation demands.
func withReads(s secret.Secret, r rotation.Record) secret.Secret {
	s.Rotation.Hold = r.BlocksReads()
	s.Rotation.Broken = r.State == rotation.Quarantined
	return s
}

// putStep stores the record after a step, the notice of it, and its consequences for the secret.
// another reports whether the secret has another current version now.
func (c *Call) putStep(
	tx *store.Tx, s secret.Secret, old rotation.Record, r *rotation.Record, st step,
) (another bool, err error) {
	if err := c.announce(tx, old, *r, st.event.Kind); err != nil {
		return false, err
	}
	former := s
	s, values, relabelled, err := c.relabel(tx, s, old, r, st)
	if err != nil {
		return false, err
	}
	s = withReads(s, *r)
	if rotation.PlansAgain(old, *r, st.event.Kind) {
		if err := c.dueAgain(&s, r); err != nil {
			return false, err
		}
	}
	if r.State == rotation.InGrace && old.State != rotation.InGrace {
		*r = r.Bounded(r.Due, c.At)
	}
	err = tx.PutRotation(r)
	if err != nil || !relabelled && s.Rotation == former.Rotation {
		return false, err
	}
	return hasNewCurrent(former, s), tx.PutSecret(s, values)
}

// relabel moves the labels of a secret as a step demands. values has the value of a new candidate.
func (c *Call) relabel(
	tx *store.Tx, s secret.Secret, old rotation.Record, r *rotation.Record, st step,
) (after secret.Secret, values map[string][]byte, relabelled bool, err error) {
	move := rotation.LabelsAfter(old, *r, st.event.Kind)
	switch move {
	case rotation.LabelCandidate:
		s, values, err = c.prepare(tx, s, r, st.event.Version, st.candidate)
	case rotation.PromoteCandidate:
		s, err = s.Promote(r.Candidate, c.At)
	case rotation.SwapLabels:
		s, err = s.Undo(c.At)
	case rotation.DropCandidate:
		s = s.Unprepare(c.At)
	}
	return s, values, move != rotation.KeepLabels, err
}

// Impossible reports whether a refusal stays when the attempt is repeated: a rule refused it with a
// kind that an operator can act on. Anything else may pass.
func Impossible(err error) (text string, ok bool) {
	kinds := []fault.Kind{
		fault.InUse, fault.Exists, fault.Invalid, fault.NotFound, fault.Deleting, fault.Unsupported, fault.KeyNotFound,
	}
	var e *fault.Error
	if errors.As(err, &e) && slices.Contains(kinds, e.Kind) {
		return e.Msg, true
	}
	return "", false
}

// Hold returns how long reads may be blocked.
func (e *Engine) Hold() time.Duration { return e.gate.env.Rotation.ReadWait }

// ProbeEvery returns how often a credential in use is probed.
func (e *Engine) ProbeEvery() time.Duration { return e.gate.env.Rotation.ProbeEvery }
