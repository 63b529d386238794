package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

const (
	// DefaultNonces is how many nonces are remembered unless the operator sets another number: about
	// 100 MB at most.
	DefaultNonces = 4 << 20
	// slot is how finely requests are kept apart by their time.
	slot = 10 * time.Second
	// recent is the age below which a key does not lose its own nonces: it is throttled instead.
	recent = time.Minute
	// sweep is how many forgotten nonces are removed with each new one, so that no request waits for a
	// large slot.
	sweep = 64
	// maxRestartRetry bounds how long a client is asked to wait after a restart.
	maxRestartRetry = 5 * time.Second
	// quiet keeps the warning about a full memory from filling the log.
	quiet = time.Minute
)

// Nonces remembers which nonces were used, in bounded memory. A nonce is kept until its request
// would be refused for its time anyway.
//
// Each access key has slots of its own. When the memory is full, the key that holds the most loses
// its oldest slot, and requests of that key with such times are refused from then on; when that
// slot is recent and the key is the one that asks, the request is refused instead. Both refusals
// are of kind Throttled, which clients retry with a new time and nonce. So a key that floods the
// memory harms itself alone, and no request is ever accepted twice.
type Nonces struct {
	limit   int
	log     *slog.Logger
	secret  [32]byte // keys the hashes
	history *History // may be nil
	since   int64    // times up to this second are refused

	mu        sync.Mutex
	used      map[uint64]struct{}   // guarded by mu
	keys      map[uint64]*keyNonces // guarded by mu; by the hash of the access key's ID
	held      int                   // guarded by mu; the sum of their counts
	forgotten [][]uint64            // guarded by mu; to be removed from used
	expired   int64                 // guarded by mu; the latest slot that has expired
	swept     int64                 // guarded by mu; when it was last looked for what has expired
	warned    time.Time             // guarded by mu
}

// keyNonces is what is remembered of one access key.
type keyNonces struct {
	slots map[int64][]uint64 // by time of request
	count int
	floor int64 // times up to this slot are refused, since their nonces were forgotten early
}

// NewNonces returns a memory for at most limit nonces; 0 means DefaultNonces. It goes on with the
// history, which may be nil: then nothing is known of the time before, and requests with times
// before the second of the start are refused.
func NewNonces(limit int, history *History, start time.Time, log *slog.Logger) *Nonces {
	if limit <= 0 {
		limit = DefaultNonces
	}
	n := &Nonces{limit: limit, log: log, history: history, used: map[uint64]struct{}{}, keys: map[uint64]*keyNonces{}}
	if history == nil {
		_, _ = rand.Read(n.secret[:]) // it never fails
		if !start.IsZero() {
			n.since = beforeStart(start)
		}
		return n
	}
	n.secret, n.since = history.key, history.since
	now := history.config.Now()
	for _, r := range history.loaded {
		switch {
		case r == ended:
		case slotOf(time.Unix(r.at, 0)) < slotOf(now.Add(-Window)):
			n.since = max(n.since, r.at) // it has expired, unless the clock is wrong
		default:
			_ = n.use(r, now) // one that does not fit has raised the floor of its key
		}
	}
	history.loaded = nil
	return n
}

// Len returns how many nonces are remembered.
func (n *Nonces) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held
}

// Use marks the nonce of a verified request with time at as used, or refuses it when it was used
// already. Nonces are kept as a keyed 64-bit hash: a stranger cannot aim at a collision, and a
// chance one refuses one request in 10^12.
func (n *Nonces) Use(accessKeyID, nonce string, at, now time.Time) error {
	if behind := n.since - at.Unix(); behind >= 0 {
		err := fault.New(fault.Throttled, "The server has started since the request was signed; sign it anew.")
		err.Retry = min(time.Duration(behind+1)*time.Second, maxRestartRetry)
		return err
	}
	r := record{key: n.hash(accessKeyID, ""), id: n.hash(accessKeyID, nonce), at: at.Unix()}
	if err := n.use(r, now); err != nil {
		return err
	}
	if n.history == nil {
		return nil
	}
	return n.history.add(r, now)
}

// hash is keyed with a secret: a stranger cannot aim at a collision.
func (n *Nonces) hash(accessKeyID, nonce string) uint64 {
	var scratch [512]byte
	b := append(scratch[:0], n.secret[:]...)
	b = append(b, accessKeyID...)
	b = append(b, 0)
	b = append(b, nonce...)
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// use marks a nonce as used in memory.
func (n *Nonces) use(r record, now time.Time) error {
	id, when := r.id, slotOf(time.Unix(r.at, 0))

	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireLocked(now)
	n.sweepLocked()
	if when <= n.expired {
		return fault.New(fault.Expired, "Specified time stamp or date value is expired.")
	}
	if _, ok := n.used[id]; ok {
		return fault.New(fault.Replayed, "Specified signature nonce was used already.")
	}
	k := n.keys[r.key]
	if k == nil {
		k = &keyNonces{slots: map[int64][]uint64{}}
	}
	if n.held >= n.limit && !n.makeRoomLocked(k, now) {
		return full("The access key made more requests in the last minute than can be remembered.")
	}
	if when <= k.floor {
		return full("The access key makes so many requests that only recent ones are accepted; sign the request anew.")
	}
	n.keys[r.key] = k
	n.used[id] = struct{}{}
	k.slots[when] = append(k.slots[when], id)
	k.count++
	n.held++
	return nil
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(slot/time.Second) }

// full refuses a request for lack of memory.
func full(text string) error {
	err := fault.New(fault.Throttled, "%s", text)
	err.Retry = slot
	return err
}

// oldest returns the oldest slot; there must be one.
func (k *keyNonces) oldest() int64 {
	first, oldest := true, int64(0)
	for when := range k.slots {
		if first || when < oldest {
			first, oldest = false, when
		}
	}
	return oldest
}

// expireLocked forgets what would be refused for its time anyway. It looks once for each slot of
// the clock. What has expired is refused whatever the clock says: it may have run ahead and come
// back.
func (n *Nonces) expireLocked(now time.Time) {
	oldest := slotOf(now.Add(-Window)) - 1
	if oldest == n.swept {
		return
	}
	n.swept = oldest
	for id, k := range n.keys {
		for when := range k.slots {
			if when <= oldest {
				n.expired = max(n.expired, when)
				n.forgetLocked(k, when)
			}
		}
		if k.count == 0 && k.floor <= oldest {
			n.expired = max(n.expired, k.floor)
			delete(n.keys, id)
		}
	}
}

// makeRoomLocked forgets the oldest slot of the key that holds the most. When that is the key that
// asks, and the slot is recent, nothing is forgotten and false returned.
func (n *Nonces) makeRoomLocked(asks *keyNonces, now time.Time) bool {
	most := asks
	for _, k := range n.keys {
		if k.count > most.count {
			most = k
		}
	}
	if n.log != nil && now.Sub(n.warned) > quiet {
		n.warned = now
		n.log.Warn("nonce memory is full: the access key with the most requests is limited to recent ones", "limit", n.limit)
	}
	oldest := most.oldest()
	if most == asks && oldest > slotOf(now.Add(-recent)) {
		return false
	}
	most.floor = max(most.floor, oldest)
	n.forgetLocked(most, oldest)
	return true
}

// forgetLocked gives up a slot of a key. Its nonces are removed little by little, and count as used
// until then.
func (n *Nonces) forgetLocked(k *keyNonces, when int64) {
	ids := k.slots[when]
	delete(k.slots, when)
	k.count -= len(ids)
	n.held -= len(ids)
	n.forgotten = append(n.forgotten, ids)
}

// sweepLocked removes some of what was forgotten.
func (n *Nonces) sweepLocked() {
	for left := sweep; left > 0 && len(n.forgotten) > 0; {
		last := len(n.forgotten) - 1
		ids := n.forgotten[last]
		some := min(left, len(ids))
		for _, id := range ids[len(ids)-some:] {
			delete(n.used, id)
		}
		left -= some
		if n.forgotten[last] = ids[:len(ids)-some]; len(ids) == some {
			n.forgotten[last] = nil
			n.forgotten = n.forgotten[:last]
		}
	}
}
