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

// The states of a secret, [Status.State].
const (
	// StateFresh means that the server has confirmed the value recently.
	StateFresh = "fresh"
	// StateStale means that a confirmation is overdue. The value is still served.
	StateStale = "stale"
	// StateExpired means that the value is older than [Config.MaxStale], and not served.
	StateExpired = "expired"
	// StateAbsent means that the secret does not exist, by the answer of the server.
	StateAbsent = "absent"
	// StateDenied means that the caller may not read the secret, by the answer of the server.
	StateDenied = "denied"
	// StateUnknown means that there is no value yet, and no answer about the secret.
	StateUnknown = "unknown"
)

// Status describes one secret. It contains no value.
type Status struct {
	Name string `json:"name"`
	// State is [StateFresh], [StateStale], [StateExpired], [StateAbsent], [StateDenied] or
	// [StateUnknown].
	State string `json:"state"`
	// VersionID is the version that [Consumer.Get] returns; empty if there is none.
	VersionID string `json:"version,omitempty"`
	// OldestVersionID is the oldest version that is held ([Consumer.Hold]); empty if that is
	// VersionID.
	OldestVersionID string `json:"oldest_version,omitempty"`
	// Source is [SourceServer] or [SourceDisk].
	Source string `json:"source,omitempty"`
	// Push reports whether a working long poll watches the secret.
	Push bool `json:"push"`
	// Confirmed is when the server last confirmed that VersionID is the current version, and
	// AgeSeconds the time since then.
	Confirmed  time.Time `json:"confirmed,omitzero"`
	AgeSeconds float64   `json:"age_seconds,omitempty"`
	// FetchedAt is when the value was last read.
	FetchedAt time.Time `json:"fetched_at,omitzero"`
	// NextRefresh is when the next read is due, unless a push or a caller causes an earlier one;
	// zero if no read is planned.
	NextRefresh time.Time `json:"next_refresh,omitzero"`
	// NextRotation is when the next rotation of the secret is due.
	NextRotation time.Time `json:"next_rotation,omitzero"`
	// Failures counts the failed reads since the last success. LastError is the last error.
	Failures  int    `json:"failures,omitempty"`
	LastError string `json:"last_error,omitempty"`
}

// Status returns the status of each secret, sorted by name.
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
	s := Status{
		Name:            e.name,
		State:           StateUnknown,
		Push:            e.push,
		OldestVersionID: e.use.oldest(),
		Failures:        e.failures,
	}
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

// Ready returns nil once the server has sent or confirmed each of [Config.Secrets] to this process,
// and none of them is absent, denied or expired. A later outage does not change that. Otherwise the
// error names the secrets that are not ready. A secret that has only its value from disk is not.
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

// WaitReady waits until [Consumer.Ready] returns nil or ctx ends. The error of ctx then comes with
// the error of Ready.
func (c *Consumer) WaitReady(ctx context.Context) error {
	answered, stop := c.subscribe(nil, true)
	defer stop()
	for {
		err := c.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-c.ctx.Done():
			return fmt.Errorf("consumer: %w", ErrClosed)
		}
	}
}

// Counters count since [New].
type Counters struct {
	// Refreshes counts the reads of a current value that succeeded, Failures those that failed.
	Refreshes uint64 `json:"refreshes"`
	Failures  uint64 `json:"failures"`
	// StaleReads counts the stale values that [Consumer.Get] returned, ExpiredReads the calls that
	// failed with [ErrExpired].
	StaleReads   uint64 `json:"stale_reads"`
	ExpiredReads uint64 `json:"expired_reads"`
	// Pushes counts the changes that long polls delivered, Polls the long polls that were answered,
	// PollFailures those that failed.
	Pushes       uint64 `json:"pushes"`
	Polls        uint64 `json:"polls"`
	PollFailures uint64 `json:"poll_failures"`
	// DiskFailures counts failures to read or write a value of [Config.LastGood].
	DiskFailures uint64 `json:"disk_failures"`
	// Logins counts the logins of [Consumer.Login], [Consumer.Failed] and [Consumer.Worked] by
	// outcome, such as [LoginCurrent].
	Logins map[string]uint64 `json:"logins"`
}

// counters is [Counters] for concurrent use.
type counters struct {
	refreshes, failures         atomic.Uint64
	staleReads, expiredReads    atomic.Uint64
	pushes, polls, pollFailures atomic.Uint64
	diskFailures                atomic.Uint64

	logins [len(loginOutcomes)]atomic.Uint64 // in the order of loginOutcomes
}

var loginOutcomes = [...]string{
	LoginCurrent,
	LoginRefreshed,
	LoginCandidate,
	LoginPrevious,
	LoginRejected,
	LoginLimited,
	LoginFailed,
}

func (c *counters) login(outcome string) { c.logins[slices.Index(loginOutcomes[:], outcome)].Add(1) }

// Counters returns the counters.
func (c *Consumer) Counters() Counters {
	n := &c.counters
	out := Counters{
		Refreshes:    n.refreshes.Load(),
		Failures:     n.failures.Load(),
		StaleReads:   n.staleReads.Load(),
		ExpiredReads: n.expiredReads.Load(),
		Pushes:       n.pushes.Load(),
		Polls:        n.polls.Load(),
		PollFailures: n.pollFailures.Load(),
		DiskFailures: n.diskFailures.Load(),
		Logins:       map[string]uint64{},
	}
	for i, outcome := range loginOutcomes {
		out.Logins[outcome] = n.logins[i].Load()
	}
	return out
}
