package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/store"
)

const (
	// useInterval is how often uses are written down: at most one write a minute and key.
	useInterval = time.Minute
	useTimeout  = 2 * time.Second
	// maxUses bounds how many keys are remembered between two writes; what is used beyond that is
	// not noted.
	maxUses = 100_000
)

// KeyUses knows when access keys were last used. A call only notes it in memory; Run writes it down
// beside the calls. So another node learns of a use within a minute, and a crash forgets at most
// the last one.
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

// Last tells when a key was last used, at this node or, as far as it was written down, at another;
// zero for never.
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

// Run writes uses down each minute, and once more when ctx ends.
func (k *KeyUses) Run(ctx context.Context) {
	t := time.NewTicker(useInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			k.flush(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), useTimeout)
			defer cancel()
			k.flush(last)
			return
		}
	}
}

// flush writes what is pending. A use that cannot be written is noted again.
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
