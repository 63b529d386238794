package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/kms"
)

func openMirrored(t *testing.T, bytes int) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{Dir: t.TempDir(), NoSync: true, MirrorBytes: bytes})
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(TestTags{})
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// count changes one record and returns what it says afterwards.
func count(ctx context.Context, db *DB, name string) (uint64, error) {
	return Update(ctx, db, func(tx *Tx) (uint64, error) {
		s, ok, err := tx.Secret("a", name, time.Time{})
		if err != nil {
			return 0, err
		}
		if !ok {
			s, err = secret.New("a", secret.Spec{Name: name, Type: kms.TypeGeneric}, secret.Version{ID: "v"}, time.Unix(1, 0))
		}
		s.LastOrder++
		return s.LastOrder, errors.Join(err, tx.PutSecret(s, nil))
	})
}

func seen(ctx context.Context, db *DB, name string) (uint64, error) {
	s, _, err := Snapshot(ctx, db).Secret("a", name, time.Time{})
	return s.LastOrder, err
}

// TestReadYourWrites verifies that a caller with an acknowledgement reads at least that, from
// memory too: with a mirror that keeps everything, with one so small that it evicts all the time,
// and with one whose watch breaks again and again.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	for name, bytes := range map[string]int{"large": 0, "small": 4096, "broken": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openMirrored(t, bytes)
			ctx, done := context.WithCancel(t.Context())
			var wg, breaker sync.WaitGroup
			if name == "broken" {
				breaker.Go(func() {
					for ctx.Err() == nil {
						db.mirror.reset()
					}
				})
			}
			for w := range 8 {
				wg.Go(func() {
					for i := range 60 {
						key := fmt.Sprint("s", (w+i)%5)
						acknowledged, err := count(t.Context(), db, key)
						if err != nil {
							t.Error(err)
							return
						}
						for range 3 {
							if got, err := seen(t.Context(), db, key); err != nil || got < acknowledged {
								t.Errorf("%s: read %d after %d was acknowledged, %v", key, got, acknowledged, err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			done()
			breaker.Wait()
		})
	}
}

// TestSnapshotIsOneRevision verifies that two records which change together are read together.
func TestSnapshotIsOneRevision(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	both := func() error {
		return Do(t.Context(), db, func(tx *Tx) error {
			a, _, err := tx.Account("1")
			b, _, err2 := tx.Account("2")
			a.ID, b.ID = "1", "2"
			a.DefaultKeyID += "x"
			b.DefaultKeyID = a.DefaultKeyID
			return errors.Join(err, err2, tx.PutAccount(a), tx.PutAccount(b))
		})
	}
	if err := both(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, done := context.WithCancel(t.Context())
	wg.Go(func() {
		defer done()
		for range 200 {
			if err := both(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				tx := Snapshot(t.Context(), db)
				a, _, err := tx.Account("1")
				b, _, err2 := tx.Account("2")
				if err := errors.Join(err, err2); err != nil || a.DefaultKeyID != b.DefaultKeyID {
					t.Errorf("read %d and %d changes of records that change together, %v",
						len(a.DefaultKeyID), len(b.DefaultKeyID), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMirrorIsUsed verifies that a second read of an unchanged record does not go to the store, and
// that memory is bounded.
func TestMirrorIsUsed(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 64<<10)
	if _, err := count(t.Context(), db, "s"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := seen(t.Context(), db, "s"); err != nil {
			t.Fatal(err)
		}
		if e := db.mirror.find(secretKind.key("a/s"), 1<<60); e != nil && e.decoded.Load() != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a record that is read again and again is not kept")
		}
	}
	for i := range 500 {
		name := fmt.Sprint("t", i)
		if _, err := count(t.Context(), db, name); err != nil {
			t.Fatal(err)
		}
		if _, err := seen(t.Context(), db, name); err != nil {
			t.Fatal(err)
		}
	}
	db.mirror.mu.Lock()
	defer db.mirror.mu.Unlock()
	if db.mirror.size > 64<<10 || len(db.mirror.entries) == 0 || db.mirror.recent.Len() != len(db.mirror.entries) {
		t.Errorf("%d bytes in %d entries, %d in the list", db.mirror.size, len(db.mirror.entries), db.mirror.recent.Len())
	}
}

// TestRecordsBelong holds that a record under another's key is refused, also when its content was
// read before where it belongs: what a policy grants to one user must not be another's.
func TestRecordsBelong(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	for _, name := range []string{"alice", "bob"} {
		err := Do(t.Context(), db, func(tx *Tx) error {
			if _, _, err := tx.User("a", name); err != nil {
				return err
			}
			return tx.PutUser(users.User{Account: "a", Name: name})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if u, ok, err := Snapshot(t.Context(), db).User("a", "alice"); err != nil || !ok || u.Name != "alice" {
		t.Fatalf("alice = %+v, %v, %v", u, ok, err)
	}
	moved, err := db.kv.Get(t.Context(), userKind.key("a/alice"))
	if err != nil {
		t.Fatal(err)
	}
	put, err := db.kv.Put(t.Context(), userKind.key("a/bob"), string(moved.Kvs[0].Value))
	if err != nil {
		t.Fatal(err)
	}
	db.mirror.committed(put.Header.Revision)
	if u, _, err := Snapshot(t.Context(), db).User("a", "bob"); err == nil {
		t.Errorf("bob is %+v, the record of alice", u)
	}
}

// TestSnapshotBeforeTheWatch verifies that a snapshot which began while there was no watch, and so
// has its revision from the store, takes nothing from a mirror that is behind that revision.
func TestSnapshotBeforeTheWatch(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	both := func(value string) {
		t.Helper()
		err := Do(t.Context(), db, func(tx *Tx) error {
			return errors.Join(
				tx.PutAccount(Account{ID: "1", DefaultKeyID: value}),
				tx.PutAccount(Account{ID: "2", DefaultKeyID: value}),
			)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	both("old")
	former, err := newTx(t.Context(), db).get(accountKind.key("2"))
	if err != nil {
		t.Fatal(err)
	}
	both("new")
	m := db.mirror
	m.mu.Lock()
	m.applied = 0 // as before the watch is there
	m.mu.Unlock()
	tx := Snapshot(t.Context(), db)
	a, _, err := tx.Account("1")
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.applied = former.rev // the watch is there, and has not taken in the second change
	m.mu.Unlock()
	m.keep(accountKind.key("2"), former.data, former.rev, former.rev)
	b, _, err := tx.Account("2")
	if err != nil || a.DefaultKeyID != b.DefaultKeyID {
		t.Errorf("read %q and %q of records that change together, %v", a.DefaultKeyID, b.DefaultKeyID, err)
	}
}
