package api

import (
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// RotationConfig says how credentials are rotated where a secret does not say so itself. Every field
// must be set: package server has the settings with their defaults.
type RotationConfig struct {
	// Grace is how long the previous credential works after a promotion.
	Grace rotation.Grace
	// ProbeEvery is how often the engine checks that a target accepts the credential in use.
	ProbeEvery time.Duration
	// LeastInterval is the shortest RotationInterval.
	LeastInterval time.Duration
	// RequestEvery is how often a rotation of one secret may be requested, and a credential be tried
	// that is to be adopted, after the first few times.
	RequestEvery time.Duration
	// Events says whether a receiver of events is configured.
	Events bool
	// Hold is how long a read waits while the only credential of its secret is changed.
	Hold time.Duration
}

const (
	maxGrace = 365 * 24 * time.Hour
	maxGap   = 30 * 24 * time.Hour
)

// parseCron reads a cron expression; nil for none. The zone is the schedule's.
func parseCron(s rotation.Schedule) (rotation.Cron, error) {
	if s.Cron == "" {
		return nil, nil
	}
	parsed, err := cron.ParseStandard(s.Cron)
	if err != nil || len(s.Cron) > 0 && (s.Cron[0] == 'T' || s.Cron[0] == 'C') { // TZ= and CRON_TZ= have a parameter of their own
		return nil, fault.Parameter("Cron", "use five fields, minute hour day month weekday, or @daily, @weekly, @monthly; the zone goes into TimeZone.")
	}
	return parsed.Next, nil
}

// least is the shortest time between two rotations of a secret that a schedule may ask for.
func (e *Env) least() time.Duration { return e.Rotation.LeastInterval }

// checkCron reads a cron expression that a caller gives. It must not name times that are closer than rotations may be.
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
		return fault.Parameter("Cron", "it names times that are %s apart; rotations are at least %s apart.", formatDuration(gap), formatDuration(e.least()))
	}
	return nil
}

// graceOf returns the grace period of a secret: its own settings, or the server's. A minimum of zero
// retires the previous credential at once, and then the server's maximum does not count: only the
// secret itself may ask to wait.
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
