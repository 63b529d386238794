package rotator

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/store"
)

// Steps is an engine that takes a step when it is called. It makes the same decisions as Run and
// waits for nothing, so a caller that keeps its own clock decides what happens between two steps.
// It is not safe for concurrent use.
type Steps struct{ dispatcher *dispatcher }

// Steps returns an engine that uses the right to rotate in lead.
func (r *Rotator) Steps(lead *store.Lead) *Steps {
	return &Steps{dispatcher: &dispatcher{rotator: r, stop: func() {}, engine: r.gate.Engine(lead.Token), lead: lead}}
}

// Due lists at most limit rotations whose time has come.
func (s *Steps) Due(ctx context.Context, limit int) ([]store.Due, error) {
	list, _, err := s.dispatcher.engine.Due(ctx, limit)
	return list, err
}

// Step takes one step of one rotation. more says that another can follow at the same time.
func (s *Steps) Step(ctx context.Context, due store.Due) (more bool, err error) {
	w := &worker{dispatcher: s.dispatcher, account: due.Account, secret: due.Name}
	if more, err = w.turn(ctx); errors.Is(err, api.ErrMoved) {
		return true, nil
	}
	return more, err
}
