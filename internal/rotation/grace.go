package rotation

import (
	"fmt"
	"time"
)

// Grace is how long the previous credential works after a promotion: at least Min, and at most Max
// while a consumer still holds it. With a Max that is not longer than Min, the engine waits for no
// consumer.
type Grace struct {
	Min time.Duration `json:"grace_period,omitempty"`
	Max time.Duration `json:"grace_wait,omitempty"`
}

// Sighting is what is known of one consumer of a secret.
type Sighting struct {
	Account string `json:"account"`
	Secret  string `json:"secret"`
	// Instance is the name that it has given itself; empty for one that only reads, of which Version
	// is the last that it read.
	Instance    string `json:"instance,omitempty"`
	AccessKeyID string `json:"access_key_id"`
	Principal   string `json:"principal"` // its ARN
	Source      string `json:"source,omitempty"`
	// Version is what it uses for what is new, Oldest the oldest that something open was opened with;
	// empty means Version.
	Version string    `json:"version"`
	Oldest  string    `json:"oldest,omitempty"`
	Seen    time.Time `json:"seen"`
}

// Acknowledged reports whether the consumer itself has said what it uses.
func (c Sighting) Acknowledged() bool { return c.Instance != "" }

// Behind reports whether it uses, or holds, a version other than the current one.
func (c Sighting) Behind(current string) bool {
	return c.Version != "" && c.Version != current || c.Oldest != "" && c.Oldest != current
}

// leastSeen is the least time that a consumer counts after it was last seen: a consumer that polls,
// or reports what it uses, is seen more often.
const leastSeen = 15 * time.Minute

// Awaits reports whether the end of a grace period waits for a consumer: it holds another version
// than the current one, and was seen recently. until is when it no longer counts, unless it is seen
// again.
func (r Record) Awaits(c Sighting, now time.Time) (until time.Time, yes bool) {
	if r.State != InGrace || !c.Behind(r.Candidate) {
		return time.Time{}, false
	}
	until = c.GoneAt(r.Grace.Min)
	return until, until.After(now)
}

// GoneAt returns when a consumer no longer delays a grace period of that length, unless it is seen
// again.
func (c Sighting) GoneAt(grace time.Duration) time.Time { return c.Seen.Add(max(grace, leastSeen)) }

// AwaitsText returns the reason of a grace period whose end waits for n consumers.
func (r Record) AwaitsText(n int) string {
	who := "consumers that hold"
	if n == 1 {
		who = "consumer that holds"
	}
	deadline := r.GraceDeadline.UTC().Format(time.RFC3339)
	return fmt.Sprintf("Waits for %d %s another version, until %s at the latest.", n, who, deadline)
}

// Released returns the record once no consumer delays the end of the grace period: the engine reads
// it at once. changed is false when the grace period did not wait for a consumer.
func (r Record) Released(now time.Time) (next Record, changed bool) {
	if r.State != InGrace || r.Waiting == 0 || !r.NextAt.After(now) || r.GraceUntil.After(now) {
		return r, false
	}
	r.NextAt = now
	return r, true
}

// Bounded keeps the wait for consumers from taking more than half of the time until the next
// rotation is due.
func (r Record) Bounded(due, now time.Time) Record {
	if r.State != InGrace || due.IsZero() {
		return r
	}
	if half := now.Add(due.Sub(now) / 2); half.Before(r.GraceDeadline) {
		r.GraceDeadline = latest(half, r.GraceUntil)
	}
	return r
}

// WholeGrace returns the record with a grace period that began later than planned.
func (r Record) WholeGrace(began time.Time) Record {
	r.GraceUntil = began.Add(r.Grace.Min)
	r.NextAt = r.GraceUntil
	r.GraceDeadline = latest(r.GraceDeadline, r.GraceUntil)
	return r
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// WaitsForConsumers reports whether the grace period may last longer than its minimum, for
// consumers that hold the previous credential.
func (r Record) WaitsForConsumers() bool { return r.GraceDeadline.After(r.GraceUntil) }

// AfterGrace returns the event at the end of a grace period, when so many consumers hold the
// previous credential, and all of them count as gone at until.
func AfterGrace(r Record, holders int, until, now time.Time) Event {
	switch {
	case holders == 0 || !r.WaitsForConsumers():
		return Event{Kind: Expired}
	case now.Before(r.GraceDeadline):
		return Event{Kind: Awaiting, Consumers: holders, Until: until}
	}
	return Event{
		Kind:      Overran,
		Consumers: holders,
		Text:      fmt.Sprintf("%d consumers were seen lately with another version", holders),
	}
}
