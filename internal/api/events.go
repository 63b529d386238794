package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// typePrefix stands in front of a notice in the type of its CloudEvent.
const typePrefix = "io.keyturn."

// announce stores an event for receivers with the change that it reports, if there are receivers.
func (c *Call) announce(tx *store.Tx, old, r rotation.Record, kind rotation.EventKind) error {
	notice := rotation.NoticeOf(old, r, kind)
	if notice == rotation.NoNotice || !c.Rotation.Events {
		return nil
	}
	return tx.PutEvent(store.Event{
		ID:       uuid.NewString(),
		Type:     typePrefix + string(notice),
		Time:     c.At,
		Account:  r.Account,
		Secret:   r.Secret,
		Target:   r.Target,
		Rotation: r.ID,
		Trigger:  string(r.Trigger),
		State:    string(r.State),
		Version:  r.Candidate,
		Reason:   r.Reason,
		NextAt:   c.At,
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
	c := &Call{Env: env, gate: e.gate, At: env.Now().UTC(), Request: protocol.Request{
		ID: uuid.NewString(), Action: "DeliverEvent", Version: kms.Version,
		Principal: policy.Principal{Kind: policy.KindSystem, Account: event.Account, Name: "rotation"},
	}}
	c.resource = resource{arn: secret.ARN(env.Region, event.Account, event.Secret), secret: event.Secret}
	c.details = audit.Details{{Name: "event", Value: event.ID}, {Name: "type", Value: event.Type}, {Name: "receiver", Value: receiver}}
	return e.gate.record(ctx, c, audit.Call, audit.Allow, "ok", false)
}
