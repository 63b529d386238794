package api

import (
	"context"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
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

// Delivered stores the result of a delivery. after is nil for an event that every receiver has, or
// that is given up.
func (e *Engine) Delivered(ctx context.Context, event store.Event, after *store.Event) error {
	return e.do(ctx, func(tx *store.Tx) error {
		if after != nil {
			return tx.MoveEvent(event, *after)
		}
		tx.DeleteEvent(event)
		return nil
	})
}

// Delivering records that an event is sent to a receiver. An event that cannot be recorded must not
// be sent.
func (e *Engine) Delivering(ctx context.Context, event store.Event, receiver string) error {
	c := e.gate.systemCall(engineName, "DeliverEvent", event.Account, event.Secret)
	c.details = pairs("event", event.ID, "type", event.Type, "receiver", receiver)
	return e.gate.record(ctx, c, audit.Call, "ok", false)
}
