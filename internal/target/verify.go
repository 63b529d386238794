package target

import (
	"context"
	"errors"
)

// Answer returns the error of a login at e. A pooler answers from users or a cache of its own, so
// its rejection is no verdict of a server.
func (e Endpoint) Answer(err error) error {
	var of *Error
	if e.Role != Pooler || !errors.As(err, &of) || of.Class != Rejected {
		return err
	}
	out := *of
	out.Class, out.Text = Unclear, out.Text+"; a pooler answers from users or a cache of its own"
	return &out
}

// VerifyEach logs in at every endpoint in turn and returns the result that [Target.Verify] must
// return: a rejection as soon as there is one, otherwise the first failure, otherwise nil. An
// endpoint that does not answer must not hide that another one rejects the credential, and one that
// has accepted the credential must not hide that another one does not answer. Without an endpoint
// nothing is proven: a target may no longer name the endpoints of an application's login.
func VerifyEach[E any](ctx context.Context, endpoints []E, login func(context.Context, E) error) error {
	if len(endpoints) == 0 {
		return Denied.Errorf("there is no endpoint to log in at: name one in verify, " +
			"or configure the secret without --login-endpoint")
	}
	var failed error
	for _, e := range endpoints {
		err := login(ctx, e)
		if ClassOf(err) == Rejected {
			return err
		}
		if failed == nil || err != nil && IsAuthenticated(failed) {
			failed = err
		}
	}
	return failed
}
