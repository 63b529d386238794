package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// The types of events, as CloudEvents have them.
const (
	EventStarted     = "io.keyturn.rotation.started"
	EventSucceeded   = "io.keyturn.rotation.succeeded"
	EventFailed      = "io.keyturn.rotation.failed"
	EventOverdue     = "io.keyturn.rotation.overdue"
	EventQuarantined = "io.keyturn.rotation.quarantined"
	EventRehearsed   = "io.keyturn.rotation.rehearsed"
	EventRepaired    = "io.keyturn.rotation.repaired"
	EventUndone      = "io.keyturn.rotation.undone"
	EventOverran     = "io.keyturn.rotation.grace-limit"
	EventDrift       = "io.keyturn.credential.drift"
)

// eventOf is the event that reports a change of a record; empty for most.
func eventOf(old, r rotation.Record) string {
	switch {
	case r.ID != old.ID && r.State == rotation.Scheduled:
		return EventStarted
	case r.State == rotation.Quarantined && old.State != rotation.Quarantined:
		if !old.InFlight() {
			return EventDrift
		}
		return EventQuarantined
	case r.State == rotation.Abandoned && old.State != rotation.Abandoned:
		return EventFailed
	case r.Swapped != old.Swapped && r.ID == old.ID:
		return EventUndone
	case old.PromotedAt.IsZero() && !r.PromotedAt.IsZero():
		return EventSucceeded
	case r.State == rotation.Done && old.State != rotation.Done && r.Mode == rotation.Rehearse:
		return EventRehearsed
	case r.State == rotation.Done && (r.Mode == rotation.Reapply && old.State != rotation.Done || old.State == rotation.Quarantined):
		return EventRepaired
	case old.State == rotation.Grace && r.State == rotation.Retiring && r.Waiting > 0:
		return EventOverran
	case r.Overdue && !old.Overdue:
		return EventOverdue
	}
	return ""
}

// announce stores an event with the change that it tells of, where anybody receives events.
func (c *Call) announce(tx *store.Tx, old, r rotation.Record) error {
	kind := eventOf(old, r)
	if kind == "" || !c.Rotation.Events {
		return nil
	}
	return tx.PutEvent(store.Event{
		ID: uuid.NewString(), Type: kind, Time: c.At, Account: r.Account, Secret: r.Secret, Target: r.Target, Rotation: r.ID,
		Trigger: string(r.Trigger), State: string(r.State), Version: r.Candidate, Reason: r.Reason, NextAt: c.At,
	})
}

// Events lists at most limit events that are to be delivered now.
func (e *Engine) Events(ctx context.Context, limit int) ([]store.Event, error) {
	events, _, err := store.Snapshot(ctx, e.gate.env.DB).EventsBefore(e.Now(), limit)
	return events, err
}

// Delivered stores what came of a delivery: after is nil for an event that all have, or that is given up.
func (e *Engine) Delivered(ctx context.Context, event store.Event, after *store.Event) error {
	return store.Do(ctx, e.gate.env.DB, func(tx *store.Tx) error {
		if err := tx.Fence(e.token); err != nil {
			return err
		}
		if after == nil {
			tx.DeleteEvent(event)
			return nil
		}
		return tx.MoveEvent(event, *after)
	})
}

// Delivering records that an event is sent to a receiver. What cannot be recorded is not sent.
func (e *Engine) Delivering(ctx context.Context, event store.Event, receiver string) error {
	env := e.gate.env
	c := &Call{Env: env, gate: e.gate, At: env.Now().UTC(), Request: Request{
		ID: uuid.NewString(), Action: "DeliverEvent", Version: kms.Version,
		Principal: policy.Principal{Kind: policy.KindSystem, Account: event.Account, Name: "rotation"},
	}}
	c.resource = resource{arn: secret.ARN(env.Region, event.Account, event.Secret), secret: event.Secret}
	c.details = audit.Details{{Name: "event", Value: event.ID}, {Name: "type", Value: event.Type}, {Name: "receiver", Value: receiver}}
	return e.gate.record(ctx, c, audit.Call, audit.Allow, "ok", false)
}
