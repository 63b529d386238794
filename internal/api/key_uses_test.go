package api

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
)

// TestKeyUses verifies that uses are written together, that an older one never replaces a newer
// one, and that nothing is written of a deleted key.
func TestKeyUses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := store.Open(ctx, store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	key, err := root.New(make([]byte, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	records, _, err := envelope.New(key).NewRecords()
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(records)
	if err := store.Do(ctx, db, func(tx *store.Tx) error {
		return tx.PutAccessKey(store.AccessKey{ID: "k"})
	}); err != nil {
		t.Fatal(err)
	}
	stored := func(id string) time.Time {
		t.Helper()
		at, err := store.Snapshot(ctx, db).KeyUse(id)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0).UTC() }
	log := slog.New(slog.DiscardHandler)
	here, there := NewKeyUses(db, log), NewKeyUses(db, log)
	for i := range 1000 {
		here.Note("k", at(i))
	}
	here.Note("gone", at(5))
	here.Note("", at(5))
	here.Note("k", at(3)) // an older call that ended later
	if got := stored("k"); !got.IsZero() {
		t.Errorf("a use was written beside a call: %s", got)
	}
	if got, err := here.Last(store.Snapshot(ctx, db), "k"); err != nil || !got.Equal(at(999)) {
		t.Errorf("Last before the write = %s, %v", got, err)
	}
	here.flush(ctx)
	if got := stored("k"); !got.Equal(at(999)) || !stored("gone").IsZero() || len(here.pending) != 0 {
		t.Errorf("written: %s, of a deleted key %s, %d pending", got, stored("gone"), len(here.pending))
	}
	there.Note("k", at(10)) // another node, whose last use is older
	there.flush(ctx)
	if got := stored("k"); !got.Equal(at(999)) {
		t.Errorf("an older use of another node replaced a newer one: %s", got)
	}
	// Uses that cannot be written are kept, and written when the server stops.
	there.Note("k", at(2000))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	there.flush(cancelled)
	if got := stored("k"); !got.Equal(at(999)) || len(there.pending) != 1 {
		t.Errorf("after a write that failed: %s, %d pending", got, len(there.pending))
	}
	there.Run(cancelled)
	if got := stored("k"); !got.Equal(at(2000)) {
		t.Errorf("after the stop: %s", got)
	}
}
