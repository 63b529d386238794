package api

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

// unblocked waits while the only credential of a secret is being changed, and returns the secret as
// it is afterwards. The value with the label ACSCurrent may have stopped working a moment ago, so
// it is not given out: past the bound the read is refused. A read that names another version or
// label does not wait.
func (c *Call) unblocked(ctx context.Context, s secret.Secret, in *kms.GetSecretValueRequest) (secret.Secret, error) {
	wait, cancel := context.WithTimeout(ctx, c.Rotation.ReadWait)
	defer cancel()
	for s.Rotation.Hold {
		v, err := s.Select(secret.Stage(in.VersionStage), in.VersionID)
		if err != nil || v.ID != s.Stages[secret.Current] {
			return s, err
		}
		if err := c.Snapshot.Changed(wait, s.Account, s.Name); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fault.New(fault.Unavailable,
					"The credential in secret %q is being changed at its target, and its state there is not known yet; "+
						"try again. If this lasts, keyturn rotation status %s shows what an operator can do.", s.Name, s.Name)
			}
			return s, err
		}
		c.Snapshot = store.Snapshot(ctx, c.DB)
		if s, err = c.existing(c.Snapshot, s.Name); err != nil {
			return s, err
		}
	}
	return s, s.Usable()
}
