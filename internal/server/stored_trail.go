package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
)

// StoredTrail reads what the embedded store of a server that is stopped knows of its audit trail.
// It changes no record.
func StoredTrail(ctx context.Context, dataDir string, key root.Provider) (audit.Verification, error) {
	none := audit.Verification{}
	dir := filepath.Join(dataDir, "store")
	if _, err := os.Stat(dir); err != nil {
		return none, fmt.Errorf("the data directory has no store: %w", err)
	}
	release, err := audit.Reserve(filepath.Join(dataDir, "audit"))
	if err != nil {
		return none, fmt.Errorf("%w; stop the server, or verify with --online", err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	db, err := store.Open(ctx, store.Config{Dir: dir})
	if err != nil {
		return none, fmt.Errorf("%w; a node of a cluster, and a server with an etcd cluster, are verified with --online", err)
	}
	v, err := storedTrail(ctx, db, key)
	return v, errors.Join(err, db.Close())
}

func storedTrail(ctx context.Context, db *store.DB, provider root.Provider) (v audit.Verification, err error) {
	sealed, found, err := db.RecordKey(ctx)
	if err == nil && !found {
		err = errors.New("the store is empty")
	}
	if err != nil {
		return v, err
	}
	rootKey, err := provider.Load(false)
	if err != nil {
		return v, err
	}
	keyring := envelope.New(rootKey)
	records, err := keyring.OpenRecords(sealed)
	if err != nil {
		return v, err
	}
	db.Authenticate(records)
	snapshot := store.Snapshot(ctx, db)
	meta, _, err := snapshot.Meta()
	if err != nil {
		return v, err
	}
	head, ok, err := snapshot.TrailHead(aloneNode)
	if err == nil && (!ok || len(meta.TrailKey) == 0) {
		err = errors.New("the store knows nothing of an audit trail: start this release once")
	}
	if err != nil {
		return v, err
	}
	secret, err := keyring.OpenTrailKey(meta.TrailKey, aloneNode)
	if err != nil {
		return v, err
	}
	known := audit.Head(head)
	return audit.Verification{Key: audit.NewKey(secret), Head: &known}, nil
}
