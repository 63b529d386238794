package api

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const (
	// noteInterval is how often notes are written down.
	noteInterval = time.Second
	// seenInterval is how old the written time of a consumer may be that has nothing new to say.
	seenInterval = 5 * time.Minute
	// termLength is how long the store keeps a consumer at least after it was last seen; a new term
	// begins each day.
	termLength   = 3 * 24 * time.Hour
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

// Consumers knows who uses which version of a secret. A call only notes it in memory; Run writes it
// down beside the calls, at most once a second and consumer, and only what is new. So another node
// learns of it within a second, and a crash forgets at most the last one.
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
	// known and before are two generations of what was noted, so that the memory is bounded;
	// guarded by mu.
	known, before map[consumerID]noted
	// counts are how many consumers of a secret were noted; guarded by mu.
	counts map[store.Due]*instanceCount
	// soon and later are what is to be written; guarded by mu.
	soon, later noteQueue[rotation.Sighting]
	// left are instances that have left lately, and when; guarded by mu.
	left    noteQueue[time.Time]
	refused int // guarded by mu; notes that found no room, of those that a grace period may wait for
}

// consumerID tells consumers apart: an instance by its name, another by its address.
type consumerID struct {
	account, secret, key, instance string
	source                         netip.Addr
}

func (id consumerID) of() store.Due { return store.Due{Account: id.account, Name: id.secret} }

// noted is what was noted last of a consumer.
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

// consumption is what a call shows of the use of a secret.
type consumption struct {
	secret, instance, version, oldest string
	// rotated says that the secret is rotated by the service: whom its grace period waits for must
	// be known soon.
	rotated bool
}

// noteRead notes that a call has read a version. What an instance says itself of its versions
// counts for more.
func (c *Call) noteRead(u consumption) { c.Consumers.note(c, u, true) }

// noteUse notes what an instance says.
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
	queue := &k.later
	if u.rotated || u.instance != "" {
		queue = &k.soon
	}
	own, other := queue.put(id, rotation.Sighting{
		Account:     id.account,
		Secret:      id.secret,
		Instance:    id.instance,
		AccessKeyID: id.key,
		Principal:   c.Principal.ARN(),
		Source:      c.source(),
		Version:     u.version,
		Oldest:      u.oldest,
		Seen:        c.At,
	})
	if queue == &k.soon {
		k.refused += own + other
	}
	if own > 0 {
		return // it is noted with a later read
	}
	if !ok {
		k.countLocked(id, 1)
	}
	k.rememberLocked(id, noted{u.version, u.oldest, c.At})
}

// overtakenLocked reports whether an instance has left since it made a call. When it ends, it hangs
// up on what is under way and then says that it leaves; so the call of one that has hung up says
// nothing any more, nor does one that began before.
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

// countLocked adds to the consumers of a secret.
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

// noteLeave notes that an instance has ended: it holds nothing any more. The caller may read the
// secret.
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
	own, other := k.soon.put(id, rotation.Sighting{
		Account:     id.account,
		Secret:      id.secret,
		Instance:    id.instance,
		AccessKeyID: id.key,
		Seen:        c.At,
	})
	k.refused += own + other // it counts as gone when it was not seen for a while
}

// Run writes notes down each second, and once more when ctx ends.
func (k *Consumers) Run(ctx context.Context) {
	t := time.NewTicker(noteInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			// A stop does not cut it off: each transaction has a bound, and the first failure ends it.
			k.flush(context.WithoutCancel(ctx))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), useTimeout)
			defer cancel()
			k.flush(last)
			return
		}
	}
}

// flush writes what waits, as much as a second may take.
func (k *Consumers) flush(ctx context.Context) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	batch := append(k.soon.take(soonBatch, nil), k.later.take(laterBatch, nil)...)
	refused := k.refused
	k.refused = 0
	k.left.each(func(id consumerID, at time.Time) {
		if k.now().Sub(at) > rememberLeft {
			k.left.remove(id)
		}
	})
	k.mu.Unlock()
	if refused > 0 {
		k.log.Warn("more consumers than can be noted; grace periods do not wait for those left out", "notes", refused)
	}
	if err := k.writeLocked(ctx, batch); err != nil {
		k.log.Warn("consumers not written; they will be tried again", "err", err)
	}
}

// Sync writes what waits of one secret, so that whoever reads the store sees it.
func (k *Consumers) Sync(ctx context.Context, account, name string) error {
	if k == nil {
		return nil
	}
	of := func(id consumerID) bool { return id.account == account && id.secret == name }
	k.writing.Lock() // what was taken to be written a moment ago is written then
	defer k.writing.Unlock()
	k.mu.Lock()
	batch := append(k.soon.take(maxSoon, of), k.later.take(maxLater, of)...)
	k.mu.Unlock()
	return k.writeLocked(ctx, batch)
}

// writeLocked writes a batch. What cannot be written waits again, unless something newer does.
func (k *Consumers) writeLocked(ctx context.Context, batch []rotation.Sighting) error {
	for len(batch) > 0 {
		n := min(noteBatch, len(batch))
		if err := k.writeOnceLocked(ctx, batch[:n]); err != nil {
			k.again(batch)
			return err
		}
		batch = batch[n:]
	}
	return nil
}

func (k *Consumers) again(batch []rotation.Sighting) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range batch {
		id := consumerID{account: c.Account, secret: c.Secret, key: c.AccessKeyID, instance: c.Instance}
		if c.Instance == "" {
			id.source, _ = netip.ParseAddr(c.Source)
		}
		if _, ok := k.soon.get(id); !ok {
			k.soon.put(id, c)
		}
	}
}

// writeOnceLocked writes consumers in one transaction, unless another node has seen them later.
func (k *Consumers) writeOnceLocked(ctx context.Context, batch []rotation.Sighting) error {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	if now := k.now(); now.After(k.termEnd) {
		term, err := k.db.NewTerm(ctx, termLength)
		if err != nil {
			return err
		}
		k.term, k.termEnd = term, now.Add(termInterval)
	}
	moved, err := store.Update(ctx, k.db, func(tx *store.Tx) (map[store.Due]bool, error) {
		tx.WithTerm(k.term)
		moved := map[store.Due]bool{}
		if err := tx.AheadConsumers(batch); err != nil {
			return nil, err
		}
		for _, c := range batch {
			old, ok, err := tx.Consumer(c)
			if fault.KindOf(err) == fault.Unavailable {
				return nil, err
			}
			// One that is there already was written by an attempt whose answer was lost.
			if ok && (old.Version != c.Version || old.Oldest != c.Oldest || old.Seen.Equal(c.Seen)) {
				moved[store.Due{Account: c.Account, Name: c.Secret}] = true
			}
			// A record that is damaged says nothing, and is written anew.
			if err := put(tx, old, ok && err == nil, c); err != nil {
				return nil, err
			}
		}
		return moved, nil
	})
	if err != nil {
		k.termEnd = time.Time{} // the term may be what the store does not know any more
		return err
	}
	// In transactions of their own: of two nodes whose consumers move at once, the later one sees
	// what both have written.
	for due := range moved {
		if err := releaseGrace(ctx, k.db, due.Account, due.Name, k.now().UTC()); err != nil {
			k.log.Warn("the end of a grace period was not brought forward; it comes when its consumers count as gone",
				"secret", due.Name, "err", err)
		}
	}
	return nil
}

// put writes one consumer; one without a version has left.
func put(tx *store.Tx, old rotation.Sighting, ok bool, c rotation.Sighting) error {
	switch {
	case ok && old.Seen.After(c.Seen):
		return nil
	case c.Version != "":
		return tx.PutConsumer(c)
	case ok:
		tx.DeleteConsumer(c)
	}
	return nil
}

// listSecretConsumers lists who was seen to use a secret.
func listSecretConsumers(
	ctx context.Context, c *Call, in *kms.ListSecretConsumersRequest,
) (*kms.ListSecretConsumersResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	after, err := afterToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	if err := c.Consumers.Sync(ctx, s.Account, s.Name); err != nil {
		return nil, err
	}
	current := s.Stages[secret.Current]
	p := page[kms.SecretConsumer]{rows: []kms.SecretConsumer{}, most: in.MaxResults}
	err = store.Snapshot(ctx, c.DB).Consumers(s.Account, s.Name, after, func(key string, u rotation.Sighting) bool {
		if in.Behind && !u.Behind(current) {
			return true
		}
		return p.add(key, shownConsumer(u, current))
	})
	return &kms.ListSecretConsumersResponse{
		SecretName: s.Name,
		VersionID:  current,
		Consumers:  p.rows,
		NextToken:  p.marker(),
	}, err
}

func shownConsumer(u rotation.Sighting, current string) kms.SecretConsumer {
	out := kms.SecretConsumer{
		Consumer: u.Instance, Principal: u.Principal, Source: u.Source, VersionID: u.Version, OldestVersionID: u.Oldest,
		Evidence: kms.EvidenceInferred, LastSeen: u.Seen, Behind: u.Behind(current),
	}
	if out.OldestVersionID == "" {
		out.OldestVersionID = u.Version
	}
	if u.Acknowledged() {
		out.Evidence = kms.EvidenceAcknowledged
	}
	return out
}
