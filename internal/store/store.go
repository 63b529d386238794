// Package store keeps Keyturn's records in etcd: a member inside this process by default, or a
// cluster.
//
// A change is one transaction guarded by the revisions that it read. [Update] reads, decides and
// commits, and decides again after a conflict. Reads are linearizable: once a change is
// acknowledged, every later read on every node sees it. An absent record is a result; a store that
// does not answer is a fault of kind Unavailable. They never share a path.
//
// Each type of record is declared once, in kinds.go. The store authenticates records, but knows no
// rules about them: packages secret, rotation and users have those. It seals no values: package
// envelope does.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
)

const (
	maxAttempts  = 64
	firstDelay   = 500 * time.Microsecond
	maxDelay     = 50 * time.Millisecond
	chunk        = 256 // records of one read of a longer list
	fetchBatch   = 100 // keys of one read of several; etcd takes 128
	closeTimeout = 10 * time.Second
)

// DB is a store of typed records.
type DB struct {
	client *clientv3.Client
	kv     clientv3.KV
	prefix string // of every key
	log    *slog.Logger
	close  func() error
	// mirror is nil for an etcd cluster that other programs use too: not all its revisions are changes
	// of this store.
	mirror *mirror
	// hub notifies the followers of secrets.
	hub hub
	// space is nil for a store that is not embedded.
	space *space
	stop  context.CancelFunc
	fed   chan struct{} // closed when mirror and space have stopped

	// auth makes the tags of records; nil until Authenticate.
	auth atomic.Pointer[Authenticator]
	// metaRev is the revision of the record meta that auth is made from; 0 before it was read. It
	// guards every change: what was prepared with keys that have been rotated meanwhile is not
	// written. metaSeen is the revision of the last SealedMeta.
	metaRev, metaSeen atomic.Int64
	refresh           func(context.Context) error
	renewing          sync.Mutex

	// documents are recently parsed policies, and defaults the default policies of secrets, by
	// account.
	documents, defaults memo[policy.Document]
}

// Open starts the embedded member, or connects to the endpoints, and waits until the store answers.
func Open(ctx context.Context, c Config) (*DB, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	open := openEmbedded
	if len(c.Endpoints) > 0 {
		open = connect
	}
	client, space, stop, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	db := &DB{
		client: client,
		kv:     namespace.NewKV(client.KV, c.prefix()),
		prefix: c.prefix(),
		log:    c.Logger,
		space:  space,
		close:  stop,
		fed:    make(chan struct{}),
	}
	if err := db.Ready(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	feed, cancel := context.WithCancel(context.Background())
	db.stop = cancel
	if len(c.Endpoints) > 0 {
		go func() {
			defer close(db.fed)
			db.followCluster(feed)
		}()
		return db, nil
	}
	db.mirror = newMirror(client, c.prefix(), c.Cluster == nil, c.MirrorBytes, c.Logger)
	db.mirror.hub = &db.hub
	db.space.check(ctx)
	go db.followMember(feed)
	return db, nil
}

// followMember keeps the mirror and the quota of the embedded member until ctx ends.
func (db *DB) followMember(ctx context.Context) {
	defer close(db.fed)
	var parts sync.WaitGroup
	parts.Go(func() { db.mirror.run(ctx) })
	parts.Go(func() { db.space.run(ctx) })
	parts.Wait()
}

// Close stops the member, or closes the connection. Acknowledged changes are on disk already.
func (db *DB) Close() error {
	db.stop()
	<-db.fed
	return db.close()
}

// Ready returns nil if a linearizable read succeeds: this node has a leader and is up to date.
func (db *DB) Ready(ctx context.Context) error {
	if _, err := db.kv.Get(ctx, metaKind.key(""), clientv3.WithKeysOnly()); err != nil {
		return unavailable(err)
	}
	return nil
}

// Position identifies a store, and counts its changes.
type Position struct {
	Cluster  uint64
	Revision int64
}

// Position returns a position that is at least as new as every change acknowledged before.
func (db *DB) Position(ctx context.Context) (Position, error) {
	resp, err := db.kv.Get(ctx, metaKind.key(""), clientv3.WithKeysOnly())
	if err != nil {
		return Position{}, unavailable(err)
	}
	return Position{resp.Header.ClusterId, resp.Header.Revision}, nil
}

// unavailable returns the fault of a store that did not answer. The cause is for the log.
func unavailable(err error) error {
	return fault.Wrap(fault.Unavailable, err, "The store did not answer; try again.")
}

// ErrUnknown marks a change that was sent and not answered: its outcome is not known.
var ErrUnknown = errors.New("the outcome of the change is not known")

type readerKey struct{}

// ReadOnly returns a context in which [Update] and [Do] refuse to commit a change, with an error
// that names the reader.
func ReadOnly(ctx context.Context, reader string) context.Context {
	return context.WithValue(ctx, readerKey{}, reader)
}

// Writable returns a context without the restriction of [ReadOnly], for what a server notes about
// its readers.
func Writable(ctx context.Context) context.Context { return ReadOnly(ctx, "") }

// Do is [Update] for a change without a result.
func Do(ctx context.Context, db *DB, decide func(*Tx) error) error {
	_, err := Update(ctx, db, func(tx *Tx) (struct{}, error) { return struct{}{}, decide(tx) })
	return err
}

// Update runs decide on a new transaction and commits everything that decide wrote, or nothing.
// After a conflict with another change it runs decide again, so decide must only read, decide and
// write through tx. Update returns an error of decide unchanged, and then writes nothing.
func Update[T any](ctx context.Context, db *DB, decide func(*Tx) (T, error)) (T, error) {
	var zero T
	for attempt := range maxAttempts {
		tx := newTx(ctx, db)
		out, err := decide(tx)
		if err != nil || !tx.dirty() {
			return out, err
		}
		if name, _ := ctx.Value(readerKey{}).(string); name != "" {
			return zero, fmt.Errorf("%s only reads, but tried to change the store", name)
		}
		if err := tx.room(); err != nil {
			return zero, err
		}
		done, err := tx.commit()
		if err != nil {
			return zero, err
		}
		if done {
			return out, nil
		}
		if err := pause(ctx, attempt); err != nil {
			return zero, unavailable(err)
		}
	}
	return zero, fault.New(fault.Unavailable, "Too many changes to the same record at once; try again.")
}

func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(rand.N(min(firstDelay<<min(attempt, 10), maxDelay)) + time.Microsecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// View runs read on a consistent snapshot that is at least as new as every change acknowledged
// before.
func View[T any](ctx context.Context, db *DB, read func(*Tx) (T, error)) (T, error) {
	return read(Snapshot(ctx, db))
}

// commitError distinguishes a change that was certainly refused from one whose outcome is not
// known.
func commitError(err error) error {
	for _, refused := range []error{rpctypes.ErrTooManyRequests, rpctypes.ErrRequestTooLarge, rpctypes.ErrNoLeader} {
		if errors.Is(err, refused) {
			return fault.Wrap(fault.Unavailable, err, "The store refused the change; nothing was changed.")
		}
	}
	return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %w", ErrUnknown, err),
		"The store did not confirm the change; read before trying again.")
}

// Snapshot returns a transaction that reads one consistent revision, as [View] does, for callers
// that read in several places. It must not write.
func Snapshot(ctx context.Context, db *DB) *Tx {
	tx := newTx(ctx, db)
	tx.pinned = true
	return tx
}
