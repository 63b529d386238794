package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// Engine is what the rotation engine does with the store: it looks at rotations and moves them on. Like every caller it is
// recorded, as a principal of the service itself.
type Engine struct {
	gate  *Gate
	token int64
}

// Engine returns the door of the engine that holds the right with that token.
func (g *Gate) Engine(token int64) *Engine { return &Engine{gate: g, token: token} }

// ErrMoved means that the rotation is not any more as the engine read it: it reads again and repeats the decision.
var ErrMoved = errors.New("the rotation has moved on")

// Due lists at most limit rotations whose time has come, and says when the next one's comes.
func (e *Engine) Due(ctx context.Context, limit int) ([]store.Due, time.Time, error) {
	env := e.gate.env
	return store.Snapshot(ctx, env.DB).WakeBefore(env.Now().UTC(), limit)
}

// Now is the time by the server's clock.
func (e *Engine) Now() time.Time { return e.gate.env.Now().UTC() }

// Move stores what follows from an event: record, labels and schedule together, if the engine is still the one and the
// rotation is still as it was read. candidate is for the event Stored.
func (e *Engine) Move(ctx context.Context, t *Turn, event rotation.Event, candidate *Candidate) (rotation.Record, error) {
	durable := event.Kind.Recording() == rotation.RecordedTwice
	c := e.call(t, event.Kind.Operation())
	if event.Kind == rotation.Stored {
		c.concerns(event.Version, string(secret.Pending))
	} else {
		c.concerns(t.Record.Candidate, "")
	}
	if durable {
		if err := e.gate.record(ctx, c, audit.Intent, audit.Allow, "", true); err != nil {
			return t.Record, err
		}
	}
	r, err := e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return rotation.Next(r, event, c.At) }, event, candidate)
	phase := audit.Outcome
	if !durable {
		phase = audit.Call
	}
	said := outcome(err)
	if errors.Is(err, ErrMoved) || errors.Is(err, store.ErrFenced) {
		said = "moved"
	}
	if rerr := e.gate.record(context.WithoutCancel(ctx), c, phase, audit.Allow, said, durable); rerr != nil {
		return r, rerr
	}
	return r, err
}

// Begin starts a rotation that is due, or one that waited for the end of another.
func (e *Engine) Begin(ctx context.Context, t *Turn, q rotation.Request) (rotation.Record, error) {
	q.Grace = t.env.graceOf(t.Secret)
	c := e.call(t, rotation.Begun.Operation())
	r, err := e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return r.Begin(q, c.At), nil }, rotation.Event{Kind: rotation.Begun}, nil)
	if rerr := e.gate.record(context.WithoutCancel(ctx), c, audit.Call, audit.Allow, outcome(err), true); rerr != nil {
		return r, rerr
	}
	return r, err
}

// Note stores a change of the record that is no step: a postponement, or what a probe found. kind is the event, empty for none.
// The audit trail does not have it.
func (e *Engine) Note(ctx context.Context, t *Turn, kind rotation.EventKind, change func(rotation.Record) rotation.Record) (rotation.Record, error) {
	c := e.call(t, kind.Operation())
	return e.store(ctx, c, t, func(r rotation.Record) (rotation.Record, error) { return change(r), nil }, rotation.Event{Kind: kind}, nil)
}

func (e *Engine) call(t *Turn, operation string) *Call {
	env := e.gate.env
	c := &Call{Env: env, gate: e.gate, At: env.Now().UTC(), Request: protocol.Request{
		ID: uuid.NewString(), Action: operation, Version: kms.Version,
		Principal: policy.Principal{Kind: policy.KindSystem, Account: t.Secret.Account, Name: "rotation"},
	}}
	c.resource = resource{arn: secret.ARN(env.Region, t.Secret.Account, t.Secret.Name), secret: t.Secret.Name}
	return c
}

// store makes one transaction of all that follows.
func (e *Engine) store(ctx context.Context, c *Call, t *Turn, next func(rotation.Record) (rotation.Record, error), event rotation.Event, candidate *Candidate) (rotation.Record, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (rotation.Record, error) {
		if err := tx.Fence(e.token); err != nil {
			return t.Record, err
		}
		old, ok, err := tx.Rotation(t.Secret.Account, t.Secret.Name)
		if err != nil {
			return t.Record, err
		}
		s, there, err := tx.Secret(t.Secret.Account, t.Secret.Name, c.At)
		switch {
		case err != nil:
			return t.Record, err
		case !ok || !there || old.Seq != t.Record.Seq:
			return t.Record, ErrMoved
		}
		r, err := next(old)
		if err != nil {
			return t.Record, err
		}
		r.Fence = e.token
		if err := c.announce(tx, old, r, event.Kind); err != nil {
			return t.Record, err
		}
		changed, values, err := c.follow(tx, s, old, &r, event, candidate)
		if err != nil {
			return t.Record, err
		}
		if err := tx.PutRotation(&r); err != nil {
			return t.Record, err
		}
		if changed == nil {
			return r, nil
		}
		return r, tx.PutSecret(*changed, values)
	})
}

// follow is what a step of the rotation means for the secret: labels, hold, schedule. It returns nil when nothing changes.
func (c *Call) follow(tx *store.Tx, s secret.Secret, old rotation.Record, r *rotation.Record, event rotation.Event, candidate *Candidate) (*secret.Secret, map[string][]byte, error) {
	before := s.Rotation
	var values map[string][]byte
	var err error
	move := rotation.LabelsAfter(old, *r, event.Kind)
	switch move {
	case rotation.LabelCandidate:
		s, values, err = c.prepare(tx, s, r, event.Version, candidate)
	case rotation.PromoteCandidate:
		s, err = s.Promote(r.Candidate, c.At)
	case rotation.SwapLabels:
		s, err = s.Undo(c.At)
	case rotation.DropCandidate:
		s = s.Unprepare(c.At)
	}
	if err != nil {
		return nil, nil, err
	}
	s.Rotation.Hold = r.BlocksReads()
	s.Rotation.Broken = r.State == rotation.Quarantined
	if rotation.PlansAgain(old, *r, event.Kind) {
		if err := c.dueAgain(&s, r); err != nil {
			return nil, nil, err
		}
	}
	if r.State == rotation.InGrace && old.State != rotation.InGrace {
		*r = r.Bounded(r.Due, c.At)
	}
	if move == rotation.KeepLabels && s.Rotation == before {
		return nil, nil, nil
	}
	return &s, values, nil
}

// Impossible tells a refusal that trying again does not change from one that may pass: what a rule says with a kind that a
// person can act on, against everything else.
func Impossible(err error) (text string, ok bool) {
	kinds := []fault.Kind{fault.InUse, fault.Exists, fault.Invalid, fault.NotFound, fault.Deleting, fault.Unsupported, fault.KeyNotFound}
	var e *fault.Error
	if errors.As(err, &e) && slices.Contains(kinds, e.Kind) {
		return e.Msg, true
	}
	return "", false
}

// ProbeEvery is how often a credential in use is probed.
func (e *Engine) ProbeEvery() time.Duration {
	return e.gate.env.Rotation.ProbeEvery
}
