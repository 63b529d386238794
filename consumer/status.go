package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// The states of a secret.
const (
	// StateFresh says that the server has confirmed the value lately.
	StateFresh = "fresh"
	// StateStale says that a confirmation is overdue; the value is served.
	StateStale = "stale"
	// StateExpired says that the value is older than Config.MaxStale, and not served.
	StateExpired = "expired"
	// StateAbsent and StateDenied say that the server has answered so.
	StateAbsent = "absent"
	StateDenied = "denied"
	// StateUnknown says that there is no value yet, and no answer about the secret.
	StateUnknown = "unknown"
)

// Status is what is known of one secret. It holds no value.
type Status struct {
	Name string `json:"name"`
	// State is StateFresh and so on.
	State string `json:"state"`
	// VersionID is the version that Get hands out; empty for none.
	VersionID string `json:"version,omitempty"`
	// OldestVersionID is the oldest version that is held (Hold); empty when it is VersionID.
	OldestVersionID string `json:"oldest_version,omitempty"`
	// Source is SourceServer or SourceDisk.
	Source string `json:"source,omitempty"`
	// Push says that a working long poll watches the secret.
	Push bool `json:"push"`
	// Confirmed is when the server last said that this is the current version, AgeSeconds how long
	// ago that was.
	Confirmed  time.Time `json:"confirmed,omitzero"`
	AgeSeconds float64   `json:"age_seconds,omitempty"`
	// FetchedAt is when the value was last read.
	FetchedAt time.Time `json:"fetched_at,omitzero"`
	// NextRefresh is when it will be read next, unless a push or a call comes first; zero when
	// nothing is planned.
	NextRefresh time.Time `json:"next_refresh,omitzero"`
	// NextRotation is when the secret is to be rotated.
	NextRotation time.Time `json:"next_rotation,omitzero"`
	// Failures counts the reads that have failed since the last success, and LastError is why.
	Failures  int    `json:"failures,omitempty"`
	LastError string `json:"last_error,omitempty"`
}

// Status returns the status of each secret, by name.
func (c *Consumer) Status() []Status {
	now := time.Now()
	entries := *c.entries.Load()
	list := make([]Status, 0, len(entries))
	for _, e := range entries {
		list = append(list, c.statusOf(e, now))
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (c *Consumer) statusOf(e *entry, now time.Time) Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Status{Name: e.name, State: StateUnknown, Push: e.push, OldestVersionID: e.use.oldest(), Failures: e.failures}
	if e.err != nil {
		s.LastError = e.err.Error()
	}
	switch {
	case e.waiting != nil:
		s.NextRefresh = e.waiting.begin
	case e.gone == nil && (e.pinned || e.hadValue):
		s.NextRefresh = e.dueLocked()
	}
	v := e.current.Load()
	switch {
	case v == nil && e.missing == absent:
		s.State = StateAbsent
	case v == nil && e.missing == denied:
		s.State = StateDenied
	case v != nil:
		s.Confirmed = *e.confirmed.Load()
		s.State, s.AgeSeconds = c.stateOf(e, now, s.Confirmed), now.Sub(s.Confirmed).Seconds()
		s.VersionID, s.Source, s.FetchedAt, s.NextRotation = v.VersionID, v.Source, v.FetchedAt, v.NextRotation
	}
	return s
}

// Ready is nil once the server has given, or confirmed, each of Config.Secrets to this process, and
// none of them is absent, denied or expired. It stays nil while the server is away after that. The
// error names those that are missing. A value of the disk can be got, but does not make ready.
func (c *Consumer) Ready() error {
	var missing []error
	entries := *c.entries.Load()
	for _, name := range c.config.Secrets {
		e := entries[name]
		state := c.statusOf(e, time.Now())
		e.mu.Lock()
		confirmed := e.verified
		e.mu.Unlock()
		switch {
		case state.State == StateAbsent, state.State == StateDenied, state.State == StateExpired:
			missing = append(missing, fmt.Errorf("secret %q is %s", name, state.State))
		case !confirmed && state.LastError != "":
			missing = append(missing, fmt.Errorf("secret %q was not confirmed by the server: %s", name, state.LastError))
		case !confirmed:
			missing = append(missing, fmt.Errorf("secret %q was not confirmed by the server yet", name))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("consumer: not ready: %w", errors.Join(missing...))
}

// WaitReady waits until Ready is nil or ctx ends; then it returns what Ready says.
func (c *Consumer) WaitReady(ctx context.Context) error {
	told, stop := c.subscribe(nil, true)
	defer stop()
	for {
		err := c.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-told:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-c.ctx.Done():
			return fmt.Errorf("consumer: %w", ErrClosed)
		}
	}
}

// Counters are counted since New.
type Counters struct {
	// Refreshes are reads of a current value that have succeeded, Failures those that have failed.
	Refreshes uint64 `json:"refreshes"`
	Failures  uint64 `json:"failures"`
	// StaleReads are values that Get handed out though they were stale, ExpiredReads those that it
	// refused to.
	StaleReads   uint64 `json:"stale_reads"`
	ExpiredReads uint64 `json:"expired_reads"`
	// Pushes are changes that a long poll has brought, Polls long polls that were answered,
	// PollFailures those that were not.
	Pushes       uint64 `json:"pushes"`
	Polls        uint64 `json:"polls"`
	PollFailures uint64 `json:"poll_failures"`
	// DiskFailures are values that could not be written to or read from Config.LastGood.
	DiskFailures uint64 `json:"disk_failures"`
	// Logins are the logins of Login, Failed and Worked by outcome: LoginCurrent and so on.
	Logins map[string]uint64 `json:"logins"`
}

type counters struct {
	refreshes, failures, staleReads, expiredReads, pushes, polls, pollFailures, diskFailures atomic.Uint64

	logins [7]atomic.Uint64
}

var loginOutcomes = [...]string{LoginCurrent, LoginRefreshed, LoginCandidate, LoginPrevious, LoginRejected, LoginLimited, LoginFailed}

func (c *counters) login(outcome string) { c.logins[slices.Index(loginOutcomes[:], outcome)].Add(1) }

// Counters returns what was counted.
func (c *Consumer) Counters() Counters {
	n := &c.counters
	out := Counters{
		Refreshes: n.refreshes.Load(), Failures: n.failures.Load(), StaleReads: n.staleReads.Load(), ExpiredReads: n.expiredReads.Load(),
		Pushes: n.pushes.Load(), Polls: n.polls.Load(), PollFailures: n.pollFailures.Load(), DiskFailures: n.diskFailures.Load(),
		Logins: map[string]uint64{},
	}
	for i, outcome := range loginOutcomes {
		out.Logins[outcome] = n.logins[i].Load()
	}
	return out
}
