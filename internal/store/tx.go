package store

import (
	"context"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
)

// Tx reads and writes records. It keeps writes until the commit. It belongs to one goroutine.
type Tx struct {
	ctx    context.Context
	db     *DB
	pinned bool              // every read is of one revision
	rev    int64             // that revision; 0 before the first read
	passed bool              // rev is from the mirror's barrier: the mirror has every change up to it
	reads  map[string]read   // by key; a commit is guarded by their revisions
	writes map[string][]byte // by key; nil deletes
	ranges []string          // prefixes of keys to delete
	lease  clientv3.LeaseID  // with which the written records end; 0 for none
	// loaded are the secrets as they were read, by account and name.
	loaded map[string]secret.Secret
	// metaRev is the revision of the keys that tag the records of this transaction.
	metaRev int64
}

type read struct {
	data []byte
	rev  int64  // 0 if there is no record
	kept *entry // in the mirror; nil if the record was not kept
}

func newTx(ctx context.Context, db *DB) *Tx {
	return &Tx{ctx: ctx, db: db, metaRev: db.metaRev.Load()}
}

func (tx *Tx) dirty() bool { return len(tx.writes) > 0 }

// options pin a read to the revision of the first one. The read stays linearizable, because etcd
// notifies watchers of a revision a moment before it can be read by number; a linearizable read
// waits for that.
func (tx *Tx) options(opts ...clientv3.OpOption) []clientv3.OpOption {
	if tx.pinned && tx.rev > 0 {
		opts = append(opts, clientv3.WithRev(tx.rev))
	}
	return opts
}

func (tx *Tx) get(key string) (read, error) {
	if data, ok := tx.writes[key]; ok {
		return read{data: data}, nil
	}
	if r, ok := tx.reads[key]; ok {
		return r, nil
	}
	if r, ok, err := tx.mirrored(key); ok || err != nil {
		return r, err // not kept in reads: the mirror has it, and a snapshot guards no change
	}
	r, err := tx.fetch(key)
	if err != nil {
		return read{}, err
	}
	if tx.reads == nil {
		tx.reads = map[string]read{}
	}
	tx.reads[key] = r
	return r, nil
}

// write keeps a write until the commit. Nil data deletes the record.
func (tx *Tx) write(key string, data []byte) {
	if tx.writes == nil {
		tx.writes = map[string][]byte{}
	}
	tx.writes[key] = data
}

// mirrored finds a record in the mirror, for a snapshot. ok is false if the store must be read.
func (tx *Tx) mirrored(key string) (r read, ok bool, err error) {
	m := tx.db.mirror
	if !tx.pinned || m == nil {
		return read{}, false, nil
	}
	if tx.rev == 0 {
		rev, ok, err := m.barrier(tx.ctx)
		if err != nil || !ok {
			return read{}, false, err
		}
		tx.rev, tx.passed = rev, true
	}
	if !tx.passed { // rev is from the store, which may be ahead of the mirror
		return read{}, false, nil
	}
	e := m.find(key, tx.rev)
	if e == nil {
		return read{}, false, nil
	}
	if e.data == nil {
		return read{}, true, nil
	}
	return read{data: e.data, rev: e.rev, kept: e}, true, nil
}

// fetch reads a record from the store. The mirror keeps what a snapshot has read.
func (tx *Tx) fetch(key string) (read, error) {
	mirrored := tx.pinned && tx.db.mirror != nil && tx.rev > 0
	r, err := tx.fetchStored(key)
	switch {
	case err != nil || !mirrored:
	case r.data == nil:
		tx.db.mirror.keep(key, nil, tx.rev, tx.rev)
	default:
		r.kept = tx.db.mirror.keep(key, r.data, r.rev, tx.rev)
	}
	return r, err
}

func (tx *Tx) fetchStored(key string) (read, error) {
	resp, err := tx.db.kv.Get(tx.ctx, key, tx.options()...)
	if err != nil {
		return read{}, unavailable(err)
	}
	tx.seen(resp)
	if len(resp.Kvs) == 0 {
		return read{}, nil
	}
	return found(resp.Kvs[0]), nil
}

// found returns a record that exists. An empty record is damaged, not absent: etcd returns it as
// nil.
func found(kv *mvccpb.KeyValue) read {
	r := read{data: kv.Value, rev: kv.ModRevision}
	if r.data == nil {
		r.data = []byte{}
	}
	return r
}

// ahead reads several keys with one round trip per hundred; get then finds them. With a mirror it
// reads nothing: the mirror is faster.
func (tx *Tx) ahead(keys ...string) error {
	if tx.pinned && tx.db.mirror != nil {
		return nil
	}
	if tx.reads == nil {
		tx.reads = map[string]read{}
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { _, ok := tx.reads[key]; return ok })
	for batch := range slices.Chunk(keys, fetchBatch) {
		ops := make([]clientv3.Op, len(batch))
		for i, key := range batch {
			ops[i] = clientv3.OpGet(key, tx.options()...)
		}
		resp, err := tx.db.kv.Txn(tx.ctx).Then(ops...).Commit()
		if err != nil {
			return unavailable(err)
		}
		if tx.rev == 0 {
			tx.rev = resp.Header.Revision
		}
		for i, key := range batch {
			var r read
			if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
				r = found(kvs[0])
			}
			tx.reads[key] = r
		}
	}
	return nil
}

func (tx *Tx) seen(resp *clientv3.GetResponse) {
	if tx.rev == 0 {
		tx.rev = resp.Header.Revision
	}
}

// commit writes everything if no record that was read has changed since. done is false after a
// conflict.
func (tx *Tx) commit() (done bool, err error) {
	var guards []clientv3.Cmp
	for _, key := range slices.Sorted(maps.Keys(tx.reads)) {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", tx.reads[key].rev))
	}
	if tx.metaRev > 0 {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(metaKind.key("")), "=", tx.metaRev))
	}
	var ops []clientv3.Op
	for _, key := range slices.Sorted(maps.Keys(tx.writes)) {
		if data := tx.writes[key]; data != nil {
			ops = append(ops, clientv3.OpPut(key, string(data), clientv3.WithLease(tx.lease)))
		} else {
			ops = append(ops, clientv3.OpDelete(key))
		}
	}
	for _, prefix := range tx.ranges {
		ops = append(ops, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
	}
	meta := clientv3.OpGet(metaKind.key(""), clientv3.WithKeysOnly())
	resp, err := tx.db.kv.Txn(tx.ctx).If(guards...).Then(ops...).Else(meta).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace) && tx.untouched():
		return false, fault.Wrap(fault.Unavailable, err, "The store has reached its quota, and nothing was changed: "+
			"delete secrets permanently, or raise the quota.")
	case err != nil:
		return false, commitError(err)
	}
	if !resp.Succeeded {
		return false, tx.conflict(resp)
	}
	if tx.db.mirror != nil {
		tx.db.mirror.committed(resp.Header.Revision)
	}
	if tx.db.space != nil {
		tx.db.space.grew(tx)
	}
	return true, nil
}

// conflict reads the keys of the tags again if they caused the conflict.
func (tx *Tx) conflict(resp *clientv3.TxnResponse) error {
	meta := resp.Responses[0].GetResponseRange().Kvs
	if tx.metaRev == 0 || len(meta) == 0 || meta[0].ModRevision == tx.metaRev {
		return nil
	}
	return tx.db.renew(tx.ctx, tx.metaRev)
}
