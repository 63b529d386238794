package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

func putHead(ctx context.Context, db *store.DB, seq uint64, more ...func(*store.Tx) error) error {
	return store.Do(ctx, db, func(tx *store.Tx) error {
		err := tx.PutTrailHead(store.TrailHead{Node: "n", Seq: seq, Hash: strings.Repeat("a", 64)})
		for _, put := range append(more, func(tx *store.Tx) error {
			return tx.PutTrailRun(store.TrailRun{Node: "n", Running: true, Sinks: map[string]uint64{"http": seq}})
		}) {
			if err == nil {
				err = put(tx)
			}
		}
		return err
	})
}

// TestHeadsAtQuota fills a store to its quota as fast as it can: changes are refused, and the heads
// of trails are taken.
func TestHeadsAtQuota(t *testing.T) {
	t.Parallel()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true, Quota: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	db.Authenticate(store.TestTags{})
	fill := func(i int) error {
		name := fmt.Sprint("s", i)
		return put(t.Context(), db, name, func(secret.Secret, bool) (secret.Secret, map[string][]byte, error) {
			return newSecret(t, name), map[string][]byte{"v1": make([]byte, 100<<10)}, nil
		})
	}
	i := 0
	for err = fill(i); err == nil && i < 10_000; err = fill(i) {
		i++
	}
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "quota") {
		t.Fatalf("after %d secrets of 100 KB in 16 MiB: %v", i, err)
	}
	for seq := range uint64(100) {
		if err := putHead(t.Context(), db, seq); err != nil {
			t.Fatalf("head %d: %v", seq, err)
		}
	}
	account := func(tx *store.Tx) error { return tx.PutAccount(store.Account{ID: account}) }
	if err := putHead(t.Context(), db, 200, account); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a change with a head is taken: %v", err)
	}
}

// TestHeadsBelowReserve verifies that a disk with less room than the reserve takes the heads of
// trails and no changes, and with next to no room neither.
func TestHeadsBelowReserve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	free, ok := store.FreeSpace(dir)
	if !ok {
		t.Skip("the free space is not known here")
	}
	for _, c := range []struct {
		reserve int64
		heads   bool
	}{
		{int64(2 * free), true}, {int64(100 * free), false},
	} {
		db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true, Reserve: c.reserve})
		if err != nil {
			t.Fatal(err)
		}
		db.Authenticate(store.TestTags{})
		account := func(tx *store.Tx) error { return tx.PutAccount(store.Account{ID: account}) }
		if err := putHead(t.Context(), db, 1, account); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("reserve %d: a change is taken: %v", c.reserve, err)
		}
		if err := putHead(t.Context(), db, 1); (err == nil) != c.heads {
			t.Errorf("reserve %d: %v", c.reserve, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
