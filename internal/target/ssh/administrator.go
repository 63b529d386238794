package ssh

import (
	"context"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// administrator returns a session of the administrator: the one that an earlier call has left, if
// the host still answers on it. A rotation reads, checks and changes in one login, because a login
// can take seconds and reads may be blocked meanwhile.
func (h *host) administrator(ctx context.Context, secrets ...sensitive.Value) (*session, error) {
	secrets = append(secrets, h.admin.Secret)
	if s := h.idle.Swap(nil); s != nil {
		if s.answers(ctx) {
			s.secrets = secrets
			return s, nil
		}
		_ = s.client.Close() // it is useless
	}
	s, err := h.dialAs(ctx, h.Address, h.admin, secrets...)
	if err != nil {
		return nil, target.AsAdmin(err)
	}
	s.idle = &h.idle
	return s, nil
}

// answers reports whether the host still answers on a connection.
func (s *session) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer s.bound(ctx)()
	_, _, err := s.client.SendRequest("keepalive@openssh.com", true, nil)
	return err == nil && ctx.Err() == nil
}

// bound closes the connection when ctx ends, and returns what lifts that.
func (s *session) bound(ctx context.Context) (lift func()) {
	stop := context.AfterFunc(ctx, func() { _ = s.client.Close() })
	return func() { s.lost = !stop() || s.lost }
}

// Close ends the session of the administrator. Nothing is under way.
func (h *host) Close() error {
	if s := h.idle.Swap(nil); s != nil {
		_ = s.client.Close() // all that was asked has been answered
	}
	return nil
}
