package consumer

import "sync/atomic"

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

type counters struct {
	refreshes, failures, staleReads, expiredReads atomic.Uint64
}
