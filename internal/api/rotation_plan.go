package api

import (
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

// record reads the rotation record of a secret; a new one when it has none.
func (e *Env) record(tx *store.Tx, s secret.Secret) (rotation.Record, error) {
	r, ok, err := tx.Rotation(s.Account, s.Name)
	if err == nil && !ok {
		r = rotation.Record{Account: s.Account, Secret: s.Name, State: rotation.Idle}
	}
	return r, err
}

// plan works out anew when the next rotation is due, and stores it with the record. What the engine must not touch any more,
// or not yet, is due never.
func (e *Env) plan(tx *store.Tx, s *secret.Secret, now time.Time) error {
	r, err := e.record(tx, *s)
	if err != nil {
		return err
	}
	return e.planWith(tx, s, r, now)
}

func (e *Env) planWith(tx *store.Tx, s *secret.Secret, r rotation.Record, now time.Time) error {
	if !s.IsRotated() {
		return tx.DeleteRotation(s.Account, s.Name)
	}
	every, err := parseCron(s.Settings().Schedule)
	if err != nil {
		return err
	}
	if !r.InFlight() && r.Target != s.TargetName() {
		r.Target, r.Accepted = s.TargetName(), ""
		r.Health = rotation.Health{} // it was about the former target
	}
	s.Rotation.Next = s.Planned(now, r.Earliest(s.Rotation.Last, e.least()), every)
	r.Due = s.Rotation.Next
	if s.Deleting() {
		r.Due = time.Time{}
	}
	switch {
	case s.Deleting(), s.TargetName() == secret.OwnUsers:
		r.Health.NextAt = time.Time{}
	case r.Health.NextAt.IsZero():
		r.Health.NextAt = now // the first look is the import: one login, and no change
	}
	return tx.PutRotation(&r)
}

// dueAgain plans the next rotation after one has ended. After one that was abandoned it is tried again sooner than planned,
// with a growing pause.
func (c *Call) dueAgain(s *secret.Secret, r *rotation.Record) error {
	every, err := parseCron(s.Settings().Schedule)
	if err != nil {
		return err
	}
	s.Rotation.Next = s.Planned(c.At, r.Earliest(s.Rotation.Last, c.least()), every)
	if r.State == rotation.Abandoned && !s.Rotation.Next.IsZero() {
		if retry := s.Schedule().Open(c.At.Add(rotation.Retry(r.Abandons))); s.Rotation.Next.Before(retry) {
			s.Rotation.Next = retry
		}
	}
	r.Due = s.Rotation.Next
	if s.Deleting() {
		r.Due = time.Time{}
	}
	r.Overdue = false
	return nil
}
