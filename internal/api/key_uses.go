package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/store"
)

const (
	// useInterval is how often uses are written: at most once a minute for each key.
	useInterval = time.Minute
	useTimeout  = 2 * time.Second
	// maxUses bounds how many keys are remembered between two writes; uses of other keys are not
	// noted.
	maxUses = 100_000
)

// KeyUses knows when access keys were last used. A call only notes that in memory; Run writes the
// notes in the background. So another node learns of a use within a minute, and a crash loses at
// most the last minute.
type KeyUses struct {
	db  *store.DB
	log *slog.Logger

	mu      sync.Mutex
	pending map[string]time.Time // guarded by mu; used since the last write
	recent  map[string]time.Time // guarded by mu; being written
}

// NewKeyUses returns a memory of uses that Run keeps in db.
func NewKeyUses(db *store.DB, log *slog.Logger) *KeyUses {
	return &KeyUses{db: db, log: log, pending: map[string]time.Time{}}
}

// Note notes that a key has signed a request. A nil KeyUses notes nothing.
func (k *KeyUses) Note(id string, at time.Time) {
	if k == nil || id == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if last, ok := k.pending[id]; at.After(last) && (ok || len(k.pending) < maxUses) {
		k.pending[id] = at
	}
}

// Last returns when a key was last used at this node or, as far as that was written, at another;
// zero means never.
func (k *KeyUses) Last(tx *store.Tx, id string) (time.Time, error) {
	last, err := tx.KeyUse(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, at := range []time.Time{k.pending[id], k.recent[id]} {
		if at.After(last) {
			last = at
		}
	}
	return last, err
}

// Run writes uses each minute, and once more when ctx ends.
func (k *KeyUses) Run(ctx context.Context) {
	every(ctx, useInterval, func() { k.flush(ctx) }, k.flush)
}

// every calls flush at each interval until ctx ends, and then last with a context that ends after
// useTimeout.
func every(ctx context.Context, interval time.Duration, flush func(), last func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			flush()
		case <-ctx.Done():
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), useTimeout)
			defer cancel()
			last(bounded)
			return
		}
	}
}

// flush writes the pending uses. A use that cannot be written is noted again.
func (k *KeyUses) flush(ctx context.Context) {
	k.mu.Lock()
	batch := k.pending
	k.recent, k.pending = batch, map[string]time.Time{}
	k.mu.Unlock()
	var failure error
	for id, at := range batch {
		if failure == nil {
			failure = k.write(ctx, id, at)
		}
		if failure != nil {
			k.Note(id, at)
		}
	}
	k.mu.Lock()
	k.recent = nil
	k.mu.Unlock()
	if failure != nil {
		k.log.Warn("last uses of access keys not written; they will be tried again", "err", failure)
	}
}

// write keeps the later of two uses, and nothing of a key that was deleted meanwhile.
func (k *KeyUses) write(ctx context.Context, id string, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	return store.Do(ctx, k.db, func(tx *store.Tx) error {
		_, ok, err := tx.AccessKey(id)
		if err != nil || !ok {
			return err
		}
		last, err := tx.KeyUse(id)
		if err != nil || !at.After(last) {
			return err
		}
		return tx.PutKeyUse(id, at)
	})
}
