package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const account = "1234567890123456"

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T, dir string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: dir, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(store.TestTags{})
	return db
}

func temporary(t *testing.T) *store.DB {
	t.Helper()
	db := open(t, t.TempDir())
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newSecret(t *testing.T, name string) secret.Secret {
	t.Helper()
	s, err := secret.New(account, secret.Spec{Name: name, Type: kms.TypeGeneric}, secret.Version{ID: "v1"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put writes a secret, made anew or changed by rule.
func put(
	ctx context.Context,
	db *store.DB,
	name string,
	rule func(s secret.Secret, found bool) (secret.Secret, map[string][]byte, error),
) error {
	return store.Do(ctx, db, func(tx *store.Tx) error {
		s, ok, err := tx.Secret(account, name, t0)
		if err != nil {
			return err
		}
		s, values, err := rule(s, ok)
		if err != nil {
			return err
		}
		return tx.PutSecret(s, values)
	})
}

func create(t *testing.T, db *store.DB, name string) {
	t.Helper()
	err := put(t.Context(), db, name, func(secret.Secret, bool) (secret.Secret, map[string][]byte, error) {
		return newSecret(t, name), map[string][]byte{"v1": []byte("box of " + name)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSurvivesRestart(t *testing.T) {
	t.Parallel()
	// The path of a Unix socket may have 108 bytes.
	dir := filepath.Join(t.TempDir(), "a directory with a long name "+strings.Repeat("x", 108))
	db := open(t, dir)
	create(t, db, "app/db")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, dir)
	defer db.Close()
	tx := store.Snapshot(t.Context(), db)
	s, ok, err := tx.Secret(account, "app/db", t0)
	if err != nil || !ok || s.Stages[secret.Current] != "v1" {
		t.Fatalf("Secret = %+v, %v, %v", s, ok, err)
	}
	if box, err := tx.Value(account, "app/db", "v1"); err != nil || string(box) != "box of app/db" {
		t.Errorf("Value = %q, %v", box, err)
	}
}

// TestNames holds that names and versions cannot be confused: both may contain "/".
func TestNames(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	for name, version := range map[string]string{"a": "b/c", "a/b": "c"} {
		err := put(t.Context(), db, name, func(secret.Secret, bool) (secret.Secret, map[string][]byte, error) {
			s, err := secret.New(account, secret.Spec{Name: name, Type: kms.TypeGeneric}, secret.Version{ID: version}, t0)
			return s, map[string][]byte{version: []byte(name)}, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, version := range map[string]string{"a": "b/c", "a/b": "c"} {
		if box, err := store.Snapshot(t.Context(), db).Value(account, name, version); err != nil || string(box) != name {
			t.Errorf("value of %s version %s = %q, %v", name, version, box, err)
		}
	}
}

// TestConflict has many writers add a version each to one secret: none is lost, and every conflict
// is decided again.
func TestConflict(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "s")
	var wg sync.WaitGroup
	const writers, each = 8, 10
	errs := make(chan error, writers*each)
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				errs <- put(t.Context(), db, "s", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
					s, err := s.Tag([]kms.Tag{{TagKey: fmt.Sprint("last-of-", w), TagValue: fmt.Sprint(i)}}, t0)
					s.LastOrder++
					return s, nil, err
				})
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := store.Snapshot(t.Context(), db).Secret(account, "s", t0)
	if err != nil || s.LastOrder != 1+writers*each {
		t.Errorf("%d changes arrived, want %d: %v", s.LastOrder-1, writers*each, err)
	}
}

func TestErrorWritesNothing(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "s")
	stop := errors.New("stop")
	err := put(t.Context(), db, "s", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
		s.Description = "changed"
		return s, nil, stop
	})
	if s, _, _ := store.Snapshot(t.Context(), db).Secret(account, "s", t0); !errors.Is(err, stop) || s.Description != "" {
		t.Errorf("err = %v, description = %q", err, s.Description)
	}
}

// TestEvicted holds that the value of a version goes with the version, in the same transaction.
func TestEvicted(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "s")
	for i := 2; i <= 12; i++ {
		id := fmt.Sprint("v", i)
		err := put(t.Context(), db, "s", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
			s, err := s.Put(secret.Version{ID: id}, nil, t0)
			return s, map[string][]byte{id: []byte(id)}, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= 12; i++ {
		_, err := store.Snapshot(t.Context(), db).Value(account, "s", fmt.Sprint("v", i))
		if (err == nil) != (i > 2) {
			t.Errorf("value of v%d: %v", i, err)
		}
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "s")
	create(t, db, "later")
	for name, window := range map[string]time.Duration{"s": 7 * 24 * time.Hour, "later": 8 * 24 * time.Hour} {
		err := put(t.Context(), db, name, func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
			s, err := s.Delete(false, window, t0)
			return s, nil, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	due := func(at time.Time) ([]store.Due, time.Time) {
		list, next, err := store.Snapshot(t.Context(), db).DueBefore(at, 10)
		if err != nil {
			t.Fatal(err)
		}
		return list, next
	}
	at := t0.Add(7 * 24 * time.Hour)
	if list, next := due(t0); len(list) != 0 || !next.IsZero() {
		t.Errorf("due now: %v, next %v; nothing is within a minute", list, next)
	}
	if list, next := due(at.Add(-30 * time.Second)); len(list) != 0 || !next.Equal(at) {
		t.Errorf("due half a minute before: %v, next %v", list, next)
	}
	if _, ok, err := store.Snapshot(t.Context(), db).Secret(account, "s", at); ok || err != nil {
		t.Errorf("a secret is gone at its planned time, also before it is purged: %v, %v", ok, err)
	}
	list, next := due(at)
	if !slices.Equal(list, []store.Due{{Account: account, Name: "s"}}) || !next.IsZero() {
		t.Fatalf("due: %v, next %v", list, next)
	}
	for range 2 { // twice is once
		err := store.Do(t.Context(), db, func(tx *store.Tx) error { return tx.PurgeSecret(account, "s", at) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if list, _ := due(at); len(list) != 0 {
		t.Errorf("still due: %v", list)
	}
	if _, err := store.Snapshot(t.Context(), db).Value(account, "s", "v1"); err == nil {
		t.Error("the value is still there")
	}
	// A restored secret is not purged.
	err := put(t.Context(), db, "later", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
		s, err := s.Restore(t0)
		return s, nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if list, next := due(t0.Add(1000 * time.Hour)); len(list) != 0 || !next.IsZero() {
		t.Errorf("due after the restore: %v, %v", list, next)
	}
}

// TestRecreate puts a new secret in the place of one that is gone and not purged yet, with the same
// version ID.
func TestRecreate(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "s")
	err := put(t.Context(), db, "s", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
		s, err := s.Put(secret.Version{ID: "v2"}, nil, t0)
		if err == nil {
			s, err = s.Delete(false, -time.Hour, t0)
		}
		return s, map[string][]byte{"v2": []byte("old")}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = put(t.Context(), db, "s", func(_ secret.Secret, found bool) (secret.Secret, map[string][]byte, error) {
		if found {
			t.Error("a secret that is gone was found")
		}
		s := newSecret(t, "s")
		s.CreatedAt = t0.Add(time.Hour)
		return s, map[string][]byte{"v1": []byte("new")}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tx := store.Snapshot(t.Context(), db)
	if box, err := tx.Value(account, "s", "v1"); err != nil || string(box) != "new" {
		t.Errorf("value of v1 = %q, %v", box, err)
	}
	if _, err := tx.Value(account, "s", "v2"); err == nil {
		t.Error("a value of the old secret is left")
	}
	if list, _, err := tx.DueBefore(t0.Add(1000*time.Hour), 10); err != nil || len(list) != 0 {
		t.Errorf("the old deletion is still due: %v, %v", list, err)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	for i := range 30 {
		create(t, db, fmt.Sprintf("app/%02d", i))
	}
	create(t, db, "app")
	create(t, db, "zoo")
	page := func(prefix string, skip, take int) (names []string, total int) {
		row := func(s secret.Secret) { names = append(names, s.Name) }
		total, err := store.Snapshot(t.Context(), db).SecretPage(account, prefix, nil, skip, take, t0, row)
		if err != nil {
			t.Fatal(err)
		}
		return names, total
	}
	for _, tt := range []struct {
		prefix     string
		skip, take int
		want       []string
		total      int
	}{
		{"", 0, 2, []string{"app", "app/00"}, 32}, {"", 30, 10, []string{"app/29", "zoo"}, 32}, {"", 32, 10, nil, 32},
		{"", 1000, 10, nil, 32},
		{"app/", 10, 2, []string{"app/10", "app/11"}, 30}, {"app/2", 9, 5, []string{"app/29"}, 10}, {"none", 0, 5, nil, 0},
	} {
		if names, total := page(tt.prefix, tt.skip, tt.take); !slices.Equal(names, tt.want) || total != tt.total {
			t.Errorf("page(%q, %d, %d) = %v of %d; want %v of %d", tt.prefix, tt.skip, tt.take, names, total, tt.want, tt.total)
		}
	}
	var from []string
	err := store.Snapshot(t.Context(), db).Secrets(account, "", "app/28", t0, func(s secret.Secret) bool {
		from = append(from, s.Name)
		return true
	})
	if want := []string{"app/28", "app/29", "zoo"}; err != nil || !slices.Equal(from, want) {
		t.Errorf("Secrets from app/28 = %v, %v; want %v", from, err, want)
	}
}

func TestClosedIsUnavailable(t *testing.T) {
	t.Parallel()
	db := open(t, t.TempDir())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, ok, err := store.Snapshot(ctx, db).Secret(account, "s", t0)
	if ok || fault.KindOf(err) != fault.Unavailable {
		t.Errorf("reading from a closed store: %v, %v; want Unavailable, never absent", ok, err)
	}
}

func putTarget(t *testing.T, db *store.DB, target store.Target) {
	t.Helper()
	target.Config = []byte("{}")
	if err := store.Do(t.Context(), db, func(tx *store.Tx) error { return tx.PutTarget(target) }); err != nil {
		t.Fatal(err)
	}
}

// TestAttachedToNoTarget verifies that secrets which name targets that are not registered leave
// nothing behind, and that a target leaves nothing once it is forgotten.
func TestAttachedToNoTarget(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	do := func(change func(tx *store.Tx) error) {
		t.Helper()
		if err := store.Do(t.Context(), db, change); err != nil {
			t.Fatal(err)
		}
	}
	count := func(when string, want int) {
		t.Helper()
		if n, err := store.CountAttached(store.Snapshot(t.Context(), db)); err != nil || n != want {
			t.Errorf("%s: %d records, %v; want %d", when, n, err, want)
		}
	}
	attach := func(tx *store.Tx) error { return tx.ChangeAttached("1", "t") }
	for i := range 10 {
		do(func(tx *store.Tx) error { return tx.ChangeAttached("1", fmt.Sprint("invented-", i)) })
	}
	do(attach)
	count("no such target", 0)
	putTarget(t, db, store.Target{Account: "1", Name: "t"})
	do(attach)
	do(attach)
	count("a target", 1)
	do(func(tx *store.Tx) error {
		tx.DeleteTarget("1", "t")
		return nil
	})
	count("a target that is forgotten", 0)
	do(attach)
	count("attached once more", 0)
}

// TestAttachedDuringRegistration verifies that a secret which is attached while its target is
// registered counts as attached to it: the change of a target that follows is guarded.
func TestAttachedDuringRegistration(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	decided := 0
	err := store.Do(t.Context(), db, func(tx *store.Tx) error {
		decided++
		if err := tx.ChangeAttached("1", "t"); err != nil {
			return err
		}
		if decided == 1 {
			putTarget(t, db, store.Target{Account: "1", Name: "t"})
		}
		if _, _, err := tx.Rotation("1", "a"); err != nil {
			return err
		}
		return tx.PutRotation(&rotation.Record{Account: "1", Secret: "a", State: rotation.Idle, Target: "t"})
	})
	if n, counted := store.CountAttached(store.Snapshot(t.Context(), db)); err != nil || counted != nil || decided != 2 ||
		n != 1 {
		t.Errorf("decided %d times, %d records, %v, %v; want 2 and 1", decided, n, err, counted)
	}
}

// TestWakeOfTwoWrites verifies that a record that is written twice in one transaction is due once,
// at the time of the second write.
func TestWakeOfTwoWrites(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	due := func() int {
		t.Helper()
		list, _, err := store.Snapshot(t.Context(), db).WakeBefore(at.Add(time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	write := func(times ...time.Time) {
		t.Helper()
		err := store.Do(t.Context(), db, func(tx *store.Tx) error {
			r, _, err := tx.Rotation("1", "a")
			for _, next := range times {
				r.Account, r.Secret, r.State, r.NextAt = "1", "a", rotation.Scheduled, next
				err = errors.Join(err, tx.PutRotation(&r))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(at, at.Add(time.Minute))
	if n := due(); n != 1 {
		t.Errorf("a record that is written twice is due %d times", n)
	}
	write(at, at.Add(2*time.Hour))
	if n := due(); n != 0 {
		t.Errorf("a record that is due later is due %d times now", n)
	}
	write(at, at)
	if n := due(); n != 1 {
		t.Errorf("a record that is written twice with one time is due %d times", n)
	}
}

// TestGuardUse verifies that a change which depends on whether a secret is used is decided again
// when something begins to use the secret before the commit, and that the note of a use outlives
// the secret: what uses it may be restored, and a secret created again with its name.
func TestGuardUse(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	use := func() {
		t.Helper()
		if err := store.Do(t.Context(), db, func(tx *store.Tx) error { return tx.ChangeUse(account, "s") }); err != nil {
			t.Fatal(err)
		}
	}
	count := func(when string, want int) {
		t.Helper()
		if n, err := store.CountAttached(store.Snapshot(t.Context(), db)); err != nil || n != want {
			t.Errorf("%s: %d records, %v; want %d", when, n, err, want)
		}
	}
	create(t, db, "s")
	decided := 0
	err := store.Do(t.Context(), db, func(tx *store.Tx) error {
		decided++
		noted, err := tx.GuardUse(account, "s")
		if err != nil || noted != (decided > 1) {
			t.Errorf("decided %d times: noted %t, %v", decided, noted, err)
		}
		if decided == 1 {
			use()
		}
		if _, _, err := tx.Secret(account, "s", t0); err != nil {
			return err
		}
		return tx.DeleteSecret(account, "s")
	})
	if err != nil || decided != 2 {
		t.Errorf("decided %d times, %v; want 2", decided, err)
	}
	count("after the deletion", 1)
	err = store.Do(t.Context(), db, func(tx *store.Tx) error {
		tx.ForgetUse(account, "s")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	count("when nothing uses it", 0)
}

// TestGuardAttached verifies that a change which depends on the secrets of a target is decided
// again when one is attached before the commit, and not when one is attached to another target or
// rotates.
func TestGuardAttached(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		meanwhile string
		change    func(tx *store.Tx) error
		want      int
	}{
		{"a secret is attached", func(tx *store.Tx) error { return tx.ChangeAttached("1", "t") }, 2},
		{"a secret is attached elsewhere", func(tx *store.Tx) error { return tx.ChangeAttached("1", "u") }, 1},
		{"another account attaches a secret", func(tx *store.Tx) error { return tx.ChangeAttached("2", "t") }, 1},
		{"a rotation goes on", func(tx *store.Tx) error {
			if _, _, err := tx.Rotation("1", "a"); err != nil {
				return err
			}
			return tx.PutRotation(&rotation.Record{Account: "1", Secret: "a", State: rotation.Idle})
		}, 1},
	} {
		t.Run(x.meanwhile, func(t *testing.T) {
			t.Parallel()
			db := temporary(t)
			for _, in := range []store.Target{{Account: "1", Name: "t"}, {Account: "1", Name: "u"}, {Account: "2", Name: "t"}} {
				putTarget(t, db, in)
			}
			decided := 0
			err := store.Do(t.Context(), db, func(tx *store.Tx) error {
				decided++
				if err := tx.GuardAttached("1", "t"); err != nil {
					return err
				}
				if decided == 1 {
					if err := store.Do(t.Context(), db, x.change); err != nil {
						return err
					}
				}
				return tx.PutTarget(store.Target{Account: "1", Name: "t", Config: []byte("{}")})
			})
			if err != nil || decided != x.want {
				t.Errorf("decided %d times, %v; want %d", decided, err, x.want)
			}
		})
	}
}
