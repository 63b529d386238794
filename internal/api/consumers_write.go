package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/store"
)

// Run writes notes each second, and once more when ctx ends.
func (k *Consumers) Run(ctx context.Context) {
	// A stop does not cut a flush off: each transaction has a bound, and the first failure ends it.
	every(ctx, noteInterval, func() { k.flush(context.WithoutCancel(ctx)) }, k.flush)
}

// flush writes as many waiting notes as a second may take.
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

// Sync writes the waiting notes of one secret, so that readers of the store see them.
func (k *Consumers) Sync(ctx context.Context, account, name string) error {
	if k == nil {
		return nil
	}
	of := func(id consumerID) bool { return id.account == account && id.secret == name }
	k.writing.Lock() // a batch that was taken a moment ago is written then
	defer k.writing.Unlock()
	k.mu.Lock()
	batch := append(k.soon.take(maxSoon, of), k.later.take(maxLater, of)...)
	k.mu.Unlock()
	return k.writeLocked(store.Writable(ctx), batch) // a read needs the notes of the reads before it
}

// writeLocked writes a batch. Notes that cannot be written wait again, unless newer ones wait.
func (k *Consumers) writeLocked(ctx context.Context, batch []rotation.Sighting) error {
	for len(batch) > 0 {
		n := min(noteBatch, len(batch))
		if err := k.writeOnceLocked(ctx, batch[:n]); err != nil {
			k.requeue(batch)
			return err
		}
		batch = batch[n:]
	}
	return nil
}

func (k *Consumers) requeue(batch []rotation.Sighting) {
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
		return putConsumers(tx, batch)
	})
	if err != nil {
		k.termEnd = time.Time{} // the store may not know the term any longer
		return err
	}
	// Each in its own transaction: if consumers of two nodes move at the same time, the second
	// transaction reads the records of both nodes.
	for due := range moved {
		if err := releaseGrace(ctx, k.db, due.Account, due.Name, k.now().UTC()); err != nil {
			k.log.Warn("the end of a grace period was not brought forward; it comes when its consumers count as gone",
				"secret", due.Name, "err", err)
		}
	}
	return nil
}

// putConsumers writes consumers, and returns the secrets of which one has moved to another version.
func putConsumers(tx *store.Tx, batch []rotation.Sighting) (moved map[store.Due]bool, err error) {
	if err := tx.AheadConsumers(batch); err != nil {
		return nil, err
	}
	moved = map[store.Due]bool{}
	for _, c := range batch {
		old, ok, err := tx.Consumer(c)
		if fault.KindOf(err) == fault.Unavailable {
			return nil, err
		}
		// An equal record was written by an attempt whose answer was lost.
		if ok && (old.Version != c.Version || old.Oldest != c.Oldest || old.Seen.Equal(c.Seen)) {
			moved[store.Due{Account: c.Account, Name: c.Secret}] = true
		}
		// A damaged record counts for nothing, and is replaced.
		if err := putConsumer(tx, old, ok && err == nil, c); err != nil {
			return nil, err
		}
	}
	return moved, nil
}

// putConsumer writes one consumer; a consumer without a version has left.
func putConsumer(tx *store.Tx, old rotation.Sighting, ok bool, c rotation.Sighting) error {
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
