package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

// RotationConfig says how credentials are rotated whose secret has no settings of its own. Every
// field must be set: package server has the settings with their defaults.
type RotationConfig struct {
	// Grace is how long the previous credential works after a promotion.
	Grace rotation.Grace
	// ProbeEvery is how often the engine checks that a target accepts the credential in use.
	ProbeEvery time.Duration
	// LeastInterval is the shortest RotationInterval.
	LeastInterval time.Duration
	// RequestEvery is how often callers may request a rotation of one secret, or have a credential
	// tried that is to be adopted, after the first few times.
	RequestEvery time.Duration
	// Events reports whether a receiver of events is configured.
	Events bool
	// ReadWait is how long a read is blocked at most while the only credential of its secret
	// changes.
	ReadWait time.Duration
}

const (
	maxGrace = 365 * 24 * time.Hour
	maxGap   = 30 * 24 * time.Hour
)

// parseCron reads a cron expression; nil for none. The zone is the schedule's, so the prefixes TZ=
// and CRON_TZ= are refused.
func parseCron(s rotation.Schedule) (rotation.Cron, error) {
	if s.Cron == "" {
		return nil, nil
	}
	parsed, err := cron.ParseStandard(s.Cron)
	if err != nil || s.Cron[0] == 'T' || s.Cron[0] == 'C' {
		return nil, fault.Parameter("Cron", "use five fields, minute hour day month weekday, or @daily, @weekly, "+
			"@monthly; the zone goes into TimeZone.")
	}
	return parsed.Next, nil
}

// least returns the shortest time between two rotations of a secret that a schedule may ask for.
func (e *Env) least() time.Duration { return e.Rotation.LeastInterval }

// checkCron refuses a cron expression of a caller that cannot be read, or that names times which
// are closer than rotations may be.
func (e *Env) checkCron(s rotation.Schedule) error {
	every, err := parseCron(s)
	if err != nil || every == nil {
		return err
	}
	if strings.HasPrefix(s.Cron, "@every") {
		return fault.Parameter("Cron", "@every is an interval; use RotationInterval.")
	}
	gap, ok := rotation.LeastGap(every)
	switch {
	case !ok:
		return fault.Parameter("Cron", "it names no time.")
	case gap < e.least():
		return fault.Parameter("Cron", "it names times that are %s apart; rotations are at least %s apart.",
			formatDuration(gap), formatDuration(e.least()))
	}
	return nil
}

// graceOf returns the grace period of a secret: its own settings, or the server's. A minimum of
// zero retires the previous credential at once, and then the server's maximum does not count: only
// the secret itself may ask to wait.
func (e *Env) graceOf(s secret.Secret) rotation.Grace {
	own, grace := s.Settings(), e.Rotation.Grace
	if own.Grace != nil {
		grace.Min = *own.Grace
	}
	switch {
	case own.GraceLimit != nil:
		grace.Max = *own.GraceLimit
	case grace.Min == 0:
		grace.Max = 0
	}
	grace.Max = max(grace.Min, grace.Max)
	return grace
}

func formatDuration(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) + "s" }

// rotationOf reads the rotation record of a secret; it returns a new one for a secret without.
func (e *Env) rotationOf(tx *store.Tx, s secret.Secret) (rotation.Record, error) {
	r, ok, err := tx.Rotation(s.Account, s.Name)
	if err == nil && !ok {
		r = rotation.Record{Account: s.Account, Secret: s.Name, State: rotation.Idle}
	}
	return r, err
}

// rotated reads a secret that the service rotates, with its rotation record. Any other secret is
// refused.
func (c *Call) rotated(tx *store.Tx, name string) (s secret.Secret, r rotation.Record, err error) {
	if s, err = c.existing(tx, name); err != nil {
		return s, r, err
	}
	if err = s.CheckRotate(); err != nil {
		return s, r, err
	}
	r, err = c.rotationOf(tx, s)
	return s, r, err
}

// plan returns s with the time of its next rotation, and stores that time with the rotation record.
// No time is stored for a secret that the engine must not rotate, or not yet.
func (c *Call) plan(tx *store.Tx, s secret.Secret) (secret.Secret, error) {
	r, err := c.rotationOf(tx, s)
	if err != nil {
		return s, err
	}
	return c.planWith(tx, s, r)
}

func (c *Call) planWith(tx *store.Tx, s secret.Secret, r rotation.Record) (secret.Secret, error) {
	if !s.IsRotated() {
		return s, tx.DeleteRotation(s.Account, s.Name)
	}
	if !r.InFlight() && r.Target != s.TargetName() {
		r.Target, r.Accepted, r.Retired = s.TargetName(), "", ""
		r.Health = rotation.Health{} // it was about the previous target
	}
	if r.Check != nil && r.Check.Target != s.TargetName() {
		r.Check = nil
	}
	if s.TargetName() != secret.OwnUsers {
		if err := tx.ChangeAttached(s.Account, s.TargetName()); err != nil {
			return s, err
		}
	}
	if certificate := s.Settings().Login.CertificateSecret; certificate != "" {
		if err := tx.ChangeUse(s.Account, certificate); err != nil {
			return s, err
		}
	}
	every, err := parseCron(s.Settings().Schedule)
	if err != nil {
		return s, err
	}
	s.Rotation.Next = s.Planned(c.At, r.Earliest(s.Rotation.Last, c.least()), every)
	r.Due = dueOf(s)
	switch {
	case s.Deleting(), s.TargetName() == secret.OwnUsers:
		r.Health.NextAt = time.Time{}
	case r.Health.NextAt.IsZero():
		r.Health.NextAt = c.At // the first probe is the import: one login, and no change
	}
	return s, tx.PutRotation(&r)
}

// dueAgain plans the next rotation after one has ended. An abandoned rotation is tried again sooner
// than planned, with a growing pause.
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
	r.Due, r.Overdue = dueOf(*s), false
	return nil
}

// dueOf returns when the engine rotates s; never while s waits for its deletion.
func dueOf(s secret.Secret) time.Time {
	if s.Deleting() {
		return time.Time{}
	}
	return s.Rotation.Next
}
