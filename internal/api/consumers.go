package api

import (
	"cmp"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const (
	// noteInterval is how often notes are written down.
	noteInterval = time.Second
	// seenInterval is how old the written time of a consumer may be that has nothing new to say.
	seenInterval = 5 * time.Minute
	// termLength is how long the store keeps the consumers of a term after its beginning; a new term
	// begins each day.
	termLength   = kms.ConsumerDays*24*time.Hour + termInterval
	termInterval = 24 * time.Hour
	// maxSoon and maxLater bound what waits to be written: of secrets that are rotated or whose
	// consumers acknowledge, and of all others, of which laterBatch are written a second.
	maxSoon    = 100_000
	maxLater   = 20_000
	soonBatch  = 2_000
	laterBatch = 50
	noteBatch  = 50 // consumers of one transaction
	// maxKnown bounds how many consumers are remembered, so that what is known already need not be
	// written again.
	maxKnown = 200_000
	// rememberLeft is how long to remember that an instance has left: longer than any call takes.
	rememberLeft = 100 * time.Second
	// defaultInstances bounds how many consumers of one secret a node notes.
	defaultInstances = 10_000
)

// Consumers knows which consumer uses which version of a secret. A call only notes that in memory;
// Run writes the notes in the background, at most once a second for each consumer, and only what is
// new. So another node learns of a use within a second, and a crash loses at most the last second.
type Consumers struct {
	// Most bounds how many consumers of one secret are noted; 0 means 10,000.
	Most int

	db  *store.DB
	now func() time.Time
	log *slog.Logger

	writing sync.Mutex // held from when notes are taken until they are written
	term    store.Term // guarded by writing
	termEnd time.Time  // guarded by writing; when another begins, zero for none yet

	mu sync.Mutex
	// known and before are two generations of notes, so that the memory is bounded; guarded by mu.
	known, before map[consumerID]noted
	// counts has the number of noted consumers of each secret; guarded by mu.
	counts map[store.Due]*instanceCount
	// soon and later are the notes to write; guarded by mu.
	soon, later noteQueue[rotation.Sighting]
	// left has the instances that have left lately, and when; guarded by mu.
	left    noteQueue[time.Time]
	refused int // guarded by mu; notes without room, of consumers that may delay a grace period
}

// consumerID identifies a consumer: an instance by its name, any other consumer by its address.
type consumerID struct {
	account, secret, key, instance string
	source                         netip.Addr
}

func (id consumerID) of() store.Due { return store.Due{Account: id.account, Name: id.secret} }

// seen returns a record of the consumer without a version.
func (id consumerID) seen(at time.Time) rotation.Sighting {
	return rotation.Sighting{
		Account:     id.account,
		Secret:      id.secret,
		Instance:    id.instance,
		AccessKeyID: id.key,
		Seen:        at,
	}
}

// noted is the last note of a consumer.
type noted struct {
	version, oldest string
	seen            time.Time
}

// NewConsumers returns a memory of consumers that Run keeps in db.
func NewConsumers(db *store.DB, now func() time.Time, log *slog.Logger) *Consumers {
	return &Consumers{
		db:     db,
		now:    now,
		log:    log,
		known:  map[consumerID]noted{},
		counts: map[store.Due]*instanceCount{},
		soon:   newNoteQueue[rotation.Sighting](maxSoon),
		later:  newNoteQueue[rotation.Sighting](maxLater),
		left:   newNoteQueue[time.Time](maxSoon),
	}
}

// consumption is a use of a secret that a call shows.
type consumption struct {
	secret, instance, version, oldest string
	// rotated reports that the service rotates the secret: the consumers that delay its grace period
	// must be known soon.
	rotated bool
}

// noteRead notes that a call has read a version. A report of the instance itself takes precedence.
func (c *Call) noteRead(u consumption) { c.Consumers.note(c, u, true) }

// noteUse notes the versions that an instance reports.
func (c *Call) noteUse(u consumption) { c.Consumers.note(c, u, false) }

func (k *Consumers) note(c *Call, u consumption, read bool) {
	if k == nil || c.Principal.AccessKeyID == "" {
		return
	}
	id := consumerID{account: c.Account(), secret: u.secret, key: c.Principal.AccessKeyID, instance: u.instance}
	if u.instance == "" {
		id.source = c.Source
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.overtakenLocked(c, id) {
		return
	}
	last, ok := k.recallLocked(id)
	fresh := ok && c.At.Sub(last.seen) < seenInterval
	if fresh && (read && u.instance != "" || last.version == u.version && last.oldest == u.oldest) {
		return
	}
	if !ok && k.counts[id.of()].full(id.key, cmp.Or(k.Most, defaultInstances)) {
		k.refused++
		return
	}
	if !k.queueLocked(c, id, u) {
		return // a later read notes it
	}
	if !ok {
		k.countLocked(id, 1)
	}
	k.rememberLocked(id, noted{u.version, u.oldest, c.At})
}

// queueLocked puts a use into the queue that fits it, and reports whether there was room.
func (k *Consumers) queueLocked(c *Call, id consumerID, u consumption) bool {
	queue := &k.later
	if u.rotated || u.instance != "" {
		queue = &k.soon
	}
	record := id.seen(c.At)
	record.Principal, record.Source = c.Principal.ARN(), c.source()
	record.Version, record.Oldest = u.version, u.oldest
	own, other := queue.put(id, record)
	if queue == &k.soon {
		k.refused += own + other
	}
	return own == 0
}

// overtakenLocked reports whether an instance has left since it made a call. When an instance ends,
// it cancels its calls and then reports that it leaves; so a call that was cancelled, or that began
// before the report, no longer counts.
func (k *Consumers) overtakenLocked(c *Call, id consumerID) bool {
	if id.instance == "" {
		return false
	}
	select {
	case <-c.gone:
		return true
	default:
	}
	at, left := k.left.get(id)
	return left && !c.began.After(at)
}

func (k *Consumers) recallLocked(id consumerID) (noted, bool) {
	if n, ok := k.known[id]; ok {
		return n, true
	}
	n, ok := k.before[id]
	return n, ok
}

func (k *Consumers) rememberLocked(id consumerID, n noted) {
	if len(k.known) >= maxKnown/2 {
		k.before, k.known = k.known, map[consumerID]noted{}
		clear(k.counts)
		for id := range k.before {
			k.countLocked(id, 1)
		}
	}
	k.known[id] = n
}

// countLocked adds n to the number of consumers of a secret.
func (k *Consumers) countLocked(id consumerID, n int) {
	of := k.counts[id.of()]
	if of == nil {
		of = &instanceCount{by: map[string]int{}}
		k.counts[id.of()] = of
	}
	of.all += n
	if of.by[id.key] += n; of.by[id.key] <= 0 {
		delete(of.by, id.key)
	}
	if of.all <= 0 {
		delete(k.counts, id.of())
	}
}

// noteLeave notes that an instance has ended: it no longer holds a version. The caller must have
// the right to read the secret.
func (c *Call) noteLeave(secretName, instance string) {
	k := c.Consumers
	if k == nil {
		return
	}
	id := consumerID{account: c.Account(), secret: secretName, key: c.Principal.AccessKeyID, instance: instance}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.recallLocked(id); ok {
		k.countLocked(id, -1)
	}
	delete(k.known, id)
	delete(k.before, id)
	k.left.put(id, c.At)
	own, other := k.soon.put(id, id.seen(c.At))
	k.refused += own + other // without room, it counts as gone when it was not seen for a while
}
