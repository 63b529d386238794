package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/target"
)

// former writes what a release before claims has stored: the description, and n claims at their
// former keys.
func former(t *testing.T, db *DB, n int) []Claim {
	t.Helper()
	key := metaKind.key("")
	write := func(key, content string) {
		t.Helper()
		data, err := db.seal(0, key, []byte(content))
		if err == nil {
			_, err = db.kv.Put(t.Context(), key, string(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(key, `{"account":"1","record_key":"eA==","created_at":"2026-01-02T03:04:05Z"}`)
	if _, _, err := db.RecordKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Authenticate(TestTags{})
	var claims []Claim
	for i := range n {
		c := Claim{Account: "1", Target: "db/one", User: fmt.Sprintf("cn=a:%d/b", i), Secret: fmt.Sprint("secret/", i)}
		write("holder/1/db/one:"+c.User, fmt.Sprintf(`{"secret":%q}`, c.Secret))
		claims = append(claims, c)
	}
	return claims
}

// upgraded verifies that each claim is at its new place and none at its former one.
func upgraded(t *testing.T, db *DB, claims []Claim) {
	t.Helper()
	var got []Claim
	err := claimKind.scan(Snapshot(t.Context(), db), "", "", func(c Claim) bool {
		got = append(got, c)
		return true
	})
	byUser := func(a, b Claim) int { return strings.Compare(a.User, b.User) }
	slices.SortFunc(got, byUser)
	slices.SortFunc(claims, byUser)
	if err != nil || !slices.Equal(got, claims) {
		t.Errorf("%d claims, %v; want %d\n%+v", len(got), err, len(claims), got)
	}
	left, err := db.kv.Get(t.Context(), "holder/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || left.Count != 0 {
		t.Errorf("%d claims are left at their former keys, %v", left.Count, err)
	}
	meta, err := db.kv.Get(t.Context(), metaKind.key(""))
	if err != nil || meta.Kvs[0].Value[0] != metaFormat {
		t.Errorf("the description has format %d, %v: an older release opens the store", meta.Kvs[0].Value[0], err)
	}
}

// cutOff loses the answers of some transactions, and does not send others.
type cutOff struct {
	clientv3.KV
	mu    sync.Mutex
	count int
}

var errCutOff = errors.New("the process was stopped")

func (c *cutOff) Txn(ctx context.Context) clientv3.Txn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	return &cutOffTxn{c.KV.Txn(ctx), c.count % 4}
}

type cutOffTxn struct {
	clientv3.Txn
	fate int
}

func (t *cutOffTxn) If(cs ...clientv3.Cmp) clientv3.Txn   { t.Txn = t.Txn.If(cs...); return t }
func (t *cutOffTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }
func (t *cutOffTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

func (t *cutOffTxn) Commit() (*clientv3.TxnResponse, error) {
	switch t.fate {
	case 1: // not sent
		return nil, errCutOff
	case 2: // done, and the process stops before it knows
		_, err := t.Txn.Commit()
		return nil, errors.Join(err, errCutOff)
	}
	return t.Txn.Commit()
}

// TestUpgradeAfterInterruptions interrupts the upgrade at every transaction, before it is sent and
// after it was made.
func TestUpgradeAfterInterruptions(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	claims := former(t, db, 5*claimBatch+1)
	whole := db.kv
	db.kv = &cutOff{KV: whole}
	log := slog.New(slog.DiscardHandler)
	interrupted := 0
	for {
		err := Upgrade(t.Context(), db, log)
		if err == nil {
			break
		}
		if interrupted++; !errors.Is(err, errCutOff) || interrupted > 100 {
			t.Fatalf("after %d interruptions: %v", interrupted, err)
		}
	}
	if interrupted < 5 {
		t.Errorf("only %d interruptions", interrupted)
	}
	db.kv = whole
	upgraded(t, db, claims)
}

// TestUpgradeOnAllNodes upgrades a store from three nodes at once.
func TestUpgradeOnAllNodes(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	claims := former(t, db, 3*claimBatch)
	var nodes sync.WaitGroup
	for range 3 {
		node := &DB{client: db.client, kv: db.kv, prefix: db.prefix, log: db.log}
		if _, _, err := node.RecordKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		node.Authenticate(TestTags{})
		nodes.Go(func() {
			if err := Upgrade(t.Context(), node, db.log); err != nil {
				t.Error(err)
			}
		})
	}
	nodes.Wait()
	upgraded(t, db, claims)
}

// TestUpgradeFencesOlderNodes verifies that a node of a release before claims, which cannot read
// the description any more, cannot commit a change once another node has upgraded the store.
func TestUpgradeFencesOlderNodes(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	claims := former(t, db, 1)
	older := &DB{client: db.client, kv: db.kv, prefix: db.prefix, log: db.log}
	if _, _, err := older.RecordKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	older.Authenticate(TestTags{})
	unknown := errors.New("unknown format")
	older.OnKeysRotated(func(context.Context) error { return unknown })
	put := func() error {
		return Do(t.Context(), older, func(tx *Tx) error {
			return tx.PutAccount(Account{ID: "2", CreatedAt: time.Unix(0, 0)})
		})
	}
	if err := put(); err != nil {
		t.Fatalf("before the upgrade: %v", err)
	}
	if err := Upgrade(t.Context(), db, db.log); err != nil {
		t.Fatal(err)
	}
	if err := put(); !errors.Is(err, unknown) {
		t.Errorf("after the upgrade an older node writes: %v", err)
	}
	upgraded(t, db, claims)
}

// TestUpgradeKeepsNewerClaims verifies that a claim at its new place wins, and that a damaged claim
// stops the upgrade: the account would be free for another secret.
func TestUpgradeKeepsNewerClaims(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	claims := former(t, db, 1)
	claims[0].Secret = "newer"
	if err := Do(t.Context(), db, func(tx *Tx) error { return tx.PutClaim(claims[0]) }); err != nil {
		t.Fatal(err)
	}
	if err := Upgrade(t.Context(), db, db.log); err != nil {
		t.Fatal(err)
	}
	upgraded(t, db, claims)
	if _, err := db.kv.Put(t.Context(), "holder/1/db/one:x", "damaged"); err != nil {
		t.Fatal(err)
	}
	if err := Upgrade(t.Context(), db, db.log); err == nil || !strings.Contains(err.Error(), `"holder/1/db/one:x"`) {
		t.Errorf("a damaged claim: %v; want an error that names it", err)
	}
}

// TestUnknownFormat verifies that a store of a newer release is refused with words that say what to
// do.
func TestUnknownFormat(t *testing.T) {
	t.Parallel()
	_, err := split("meta", []byte{metaFormat + 1})
	if err == nil || !strings.Contains(err.Error(), "run the release that wrote it, or a newer one") {
		t.Errorf("a newer format: %v", err)
	}
}

// TestUpgradeNotesUses verifies that the client certificates which the secrets of an earlier store
// use are noted, once, and after an interruption too: a deletion looks for the uses of no others.
func TestUpgradeNotesUses(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	former(t, db, 0)
	const certificates = 3 * useBatch
	put := func(name string, settings *secret.RotationSettings) {
		t.Helper()
		s := secret.Secret{
			Account:  "1",
			Name:     name,
			Type:     "Generic",
			Versions: map[string]secret.Version{"v1": {ID: "v1"}},
			Stages:   map[secret.Stage]string{secret.Current: "v1"},
		}
		s.Rotation.Settings = settings
		if err := Do(t.Context(), db, func(tx *Tx) error { return secretKind.save(tx, s) }); err != nil {
			t.Fatal(err)
		}
	}
	put("other", nil)
	for i := range certificates {
		put(fmt.Sprint("s", i), &secret.RotationSettings{
			Target: "db", Login: target.Login{CertificateSecret: fmt.Sprint("pem", i)},
		})
	}
	whole := db.kv
	db.kv = &cutOff{KV: whole}
	for interrupted := 0; ; interrupted++ {
		err := Upgrade(t.Context(), db, slog.New(slog.DiscardHandler))
		if err == nil {
			break
		}
		if !errors.Is(err, errCutOff) || interrupted > 100 {
			t.Fatalf("after %d interruptions: %v", interrupted, err)
		}
	}
	db.kv = whole
	tx := Snapshot(t.Context(), db)
	for i := range certificates {
		if noted, err := tx.GuardUse("1", fmt.Sprint("pem", i)); err != nil || !noted {
			t.Fatalf("pem%d is not noted, %v", i, err)
		}
	}
	if n, err := attachedKind.count(tx, ""); err != nil || n != certificates {
		t.Errorf("%d notes, %v; want %d", n, err, certificates)
	}
	err := Do(t.Context(), db, func(tx *Tx) error {
		tx.ForgetUse("1", "pem0")
		return nil
	})
	if err := errors.Join(err, Upgrade(t.Context(), db, db.log)); err != nil {
		t.Fatal(err)
	}
	if noted, err := Snapshot(t.Context(), db).GuardUse("1", "pem0"); err != nil || noted {
		t.Errorf("the second start has noted it again: %t, %v", noted, err)
	}
}
