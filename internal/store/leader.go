package store

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseTTL is how long the right to rotate outlives the last renewal by its node.
const leaseTTL = 20 * time.Second

// Engine is the node that rotates.
type Engine struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// Engine reads which node rotates; the zero value if none ever has.
func (tx *Tx) Engine() (Engine, error) {
	e, _, err := engineKind.load(tx, "")
	return e, err
}

// ErrFenced means that another engine has taken over: the caller must stop, and has changed
// nothing.
var ErrFenced = errors.New("another node's engine has taken over")

// Fence makes the commit of this transaction depend on the engine with that token still being the
// one. The token is the revision of the engine's record: the record of a later engine has a greater
// one.
func (tx *Tx) Fence(token int64) error {
	r, err := tx.get(engineKind.key(""))
	if err != nil {
		return err
	}
	if r.rev != token {
		return ErrFenced
	}
	return nil
}

// Lead is the right to rotate. One node at a time has it.
type Lead struct {
	// Token is stored with everything that this engine writes, and checked in each of its
	// transactions.
	Token int64
	db    *DB
	lease clientv3.LeaseID
	lost  <-chan struct{}
	until func() time.Time
}

// Lost is closed when the right has ended, or the node can no longer show that it has it. It is nil
// for a node that is alone.
func (l *Lead) Lost() <-chan struct{} { return l.lost }

// Left returns how long the right lasts at least, whatever other nodes do: a year for a node that
// is alone.
func (l *Lead) Left() time.Duration {
	if l.until == nil {
		return 365 * 24 * time.Hour
	}
	return time.Until(l.until())
}

// Resign gives up the right, so that another node need not wait for its end.
func (l *Lead) Resign(ctx context.Context) error {
	if l.lease == 0 {
		return nil
	}
	if _, err := l.db.client.Revoke(ctx, l.lease); err != nil {
		return unavailable(err)
	}
	return nil
}

// Lead waits until this node may rotate. A node that is alone may at once, because no other process
// can open its store. In a cluster the right is bound to a lease of 20 seconds, which a node that
// has stopped or lost its connection cannot renew.
func (db *DB) Lead(ctx context.Context, node string, now func() time.Time) (*Lead, error) {
	if db.mirror != nil && db.mirror.alone {
		token, err := db.becomeEngine(ctx, Engine{Node: node, Since: now()}, 0)
		return &Lead{Token: token, db: db}, err
	}
	lead, err := db.lease(ctx)
	if err != nil {
		return nil, err
	}
	for {
		token, err := db.becomeEngine(ctx, Engine{Node: node, Since: now()}, lead.lease)
		if err != nil {
			return nil, errors.Join(err, lead.Resign(context.WithoutCancel(ctx)))
		}
		if token != 0 {
			lead.Token = token
			return lead, nil
		}
		if err := db.engineGone(ctx, lead.lost); err != nil {
			return nil, errors.Join(err, lead.Resign(context.WithoutCancel(ctx)))
		}
	}
}

// becomeEngine writes the engine's record and returns its revision, or 0 if another node is the
// engine. Without a lease, a record that exists is of an earlier run of this node, and is replaced.
func (db *DB) becomeEngine(ctx context.Context, e Engine, lease clientv3.LeaseID) (int64, error) {
	taken, err := Update(ctx, db, func(tx *Tx) (bool, error) {
		_, ok, err := engineKind.load(tx, "")
		if err != nil || ok && lease != 0 {
			return ok, err
		}
		tx.lease = lease
		return false, engineKind.save(tx, e)
	})
	if err != nil || taken {
		return 0, err
	}
	r, err := newTx(ctx, db).get(engineKind.key(""))
	return r.rev, err
}

// engineGone waits until there is no engine.
func (db *DB) engineGone(ctx context.Context, lost <-chan struct{}) error {
	tx := newTx(ctx, db)
	r, err := tx.get(engineKind.key(""))
	if err != nil || r.data == nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := db.prefix + engineKind.key("")
	events := db.client.Watch(ctx, key, clientv3.WithRev(tx.rev+1), clientv3.WithFilterPut())
	select {
	case <-events:
		return ctx.Err()
	case <-lost:
		return unavailable(errors.New("the lease of this node has ended"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lease starts a lease that is renewed until it is revoked, ctx ends, or the store cannot be
// reached for too long.
func (db *DB) lease(ctx context.Context) (*Lead, error) {
	asked := time.Now()
	id, err := db.grant(ctx, leaseTTL)
	if err != nil {
		return nil, err
	}
	renewals, err := db.client.KeepAlive(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	lost := make(chan struct{})
	until := newDeadline(asked.Add(leaseTTL))
	go func() {
		defer close(lost)
		for range renewals {
			// The renewal was sent at most a third of the TTL before its answer, so that third is not
			// counted.
			until.set(time.Now().Add(leaseTTL * 2 / 3))
		}
	}()
	return &Lead{db: db, lease: id, lost: lost, until: until.get}, nil
}

// deadline is a time that one goroutine moves and others read. It keeps the monotonic clock,
// because a change of the wall clock does not change when a lease ends.
type deadline struct{ at atomic.Pointer[time.Time] }

func newDeadline(t time.Time) *deadline {
	d := &deadline{}
	d.set(t)
	return d
}

func (d *deadline) set(t time.Time) { d.at.Store(&t) }
func (d *deadline) get() time.Time  { return *d.at.Load() }
