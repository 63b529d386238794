package api

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
)

// TestReadsCannotWrite replaces the handler of every operation by one that changes the store, and
// verifies that the change is refused where the operation is declared without Mutates, whatever its
// name is.
func TestReadsCannotWrite(t *testing.T) {
	t.Parallel()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	material, err := root.New(make([]byte, 32), "test")
	if err != nil {
		t.Fatal(err)
	}
	records, _, err := envelope.New(material).NewRecords()
	if err != nil {
		t.Fatal(err)
	}
	db.Authenticate(records)
	gate := NewGate(&Env{DB: db, Region: "local", Now: time.Now, Log: slog.New(slog.DiscardHandler)}, &lastRecord{})
	gate.endpoints = maps.Clone(gate.endpoints)
	reads := 0
	for _, o := range protocol.Operations() {
		e := *gate.endpoints[o]
		e.resources = func(*Call, any) ([]resource, error) { return []resource{{arn: "*"}}, nil }
		e.run = func(ctx context.Context, c *Call, _ any) (any, error) {
			return nil, store.Do(ctx, c.DB, func(tx *store.Tx) error {
				return tx.PutAccount(store.Account{ID: c.op.Name})
			})
		}
		gate.endpoints[o] = &e
		c := &Call{
			Env:     gate.env,
			gate:    gate,
			Request: protocol.Request{Principal: policy.Principal{Kind: policy.KindAccount, Account: "1234567890123456"}},
			At:      time.Now(),
			op:      &e,
		}
		_, err := gate.judged(t.Context(), c, nil)
		_, stored, lookErr := store.Snapshot(t.Context(), db).Account(o.Name)
		if lookErr != nil {
			t.Fatal(lookErr)
		}
		if stored != o.Mutates {
			t.Errorf("%s, Mutates: %t, has written: %t, %v", o.Name, o.Mutates, stored, err)
		}
		if o.Mutates {
			continue
		}
		reads++
		if fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), o.Name) {
			t.Errorf("%s tries to write: %v", o.Name, err)
		}
	}
	if reads == 0 {
		t.Error("no operation reads")
	}
}
