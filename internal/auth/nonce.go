package auth

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

const (
	// DefaultNonces is how many used nonces are remembered unless the operator says otherwise: about 100 MB at most.
	DefaultNonces = 4 << 20
	// slot is how finely requests are kept apart by their time.
	slot = 10 * time.Second
	// quiet keeps the warning about a shrunk window from filling the log.
	quiet = time.Minute
)

// Nonces remembers which nonces were used, in bounded memory. A nonce is kept until its request would be refused for
// its time anyway. Under more requests than fit, it is the window of accepted times that shrinks, never the promise
// that no request is accepted twice.
type Nonces struct {
	limit int
	log   *slog.Logger
	seed  maphash.Seed

	mu     sync.Mutex
	used   map[uint64]struct{} // guarded by mu
	slots  map[int64][]uint64  // guarded by mu; what to forget, by time of request
	floor  int64               // guarded by mu; slots up to here are no longer accepted
	swept  int64               // guarded by mu; when it was last looked for what has expired
	warned time.Time           // guarded by mu
}

// NewNonces returns an empty memory for at most limit nonces; 0 means DefaultNonces.
func NewNonces(limit int, log *slog.Logger) *Nonces {
	if limit <= 0 {
		limit = DefaultNonces
	}
	return &Nonces{limit: limit, log: log, seed: maphash.MakeSeed(), used: map[uint64]struct{}{}, slots: map[int64][]uint64{}}
}

// Len is how many nonces are remembered.
func (n *Nonces) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.used)
}

// Use marks the nonce of a verified request with time at as used, or refuses it when it was used already. Nonces are
// kept as a keyed 64-bit hash: a stranger cannot aim at a collision, and a chance one refuses one request in 10^12.
func (n *Nonces) Use(accessKeyID, nonce string, at, now time.Time) error {
	var h maphash.Hash
	h.SetSeed(n.seed)
	h.WriteString(accessKeyID)
	h.WriteByte(0)
	h.WriteString(nonce)
	id, when := h.Sum64(), at.Unix()/int64(slot/time.Second)

	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked(now)
	if when <= n.floor {
		return fault.New(fault.Expired, "Specified time stamp or date value is expired. The server is so busy that it accepts only recent ones.")
	}
	if _, ok := n.used[id]; ok {
		return fault.New(fault.Replayed, "Specified signature nonce was used already.")
	}
	if len(n.used) >= n.limit {
		n.shrinkLocked(now)
	}
	n.used[id] = struct{}{}
	n.slots[when] = append(n.slots[when], id)
	return nil
}

// expireLocked forgets what would be refused for its time anyway. It looks once for each slot of the clock.
func (n *Nonces) expireLocked(now time.Time) {
	oldest := now.Add(-Window).Unix()/int64(slot/time.Second) - 1
	if oldest == n.swept {
		return
	}
	n.swept = oldest
	for when := range n.slots {
		if when <= oldest {
			n.dropLocked(when)
		}
	}
}

// shrinkLocked forgets the oldest slot, and refuses its times from now on.
func (n *Nonces) shrinkLocked(now time.Time) {
	oldest := int64(0)
	for when := range n.slots {
		if oldest == 0 || when < oldest {
			oldest = when
		}
	}
	n.dropLocked(oldest)
	if n.log != nil && now.Sub(n.warned) > quiet {
		n.warned = now
		n.log.Warn("nonce memory is full: older requests are refused", "limit", n.limit)
	}
}

// dropLocked forgets a slot and refuses its times from now on. The floor follows what is forgotten and not the clock: when
// a clock that has run ahead comes back, requests of the present are accepted, and those that were forgotten are not.
func (n *Nonces) dropLocked(when int64) {
	n.floor = max(n.floor, when)
	for _, id := range n.slots[when] {
		delete(n.used, id)
	}
	delete(n.slots, when)
}
