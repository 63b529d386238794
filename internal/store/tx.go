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

// Tx reads and writes records. Writes are kept until the commit. It belongs to one goroutine.
type Tx struct {
	ctx    context.Context
	db     *DB
	pinned bool  // every read is of one revision
	rev    int64 // that revision, once there was a read
	passed bool  // rev came from the mirror's barrier: the mirror has taken in every change up to it
	reads  map[string]read
	writes map[string][]byte // nil deletes
	ranges []string          // prefixes of keys that are deleted
	lease  clientv3.LeaseID  // what is written ends with it; 0 for none
	loaded map[string]secret.Secret
	// metaRev is of the keys that the records of this transaction are made with.
	metaRev int64
}

type read struct {
	data []byte
	rev  int64  // 0 when absent
	kept *entry // in the mirror, if it is
}

func newTx(ctx context.Context, db *DB) *Tx {
	return &Tx{ctx: ctx, db: db, metaRev: db.metaRev.Load()}
}

func (tx *Tx) dirty() bool { return len(tx.writes) > 0 }

// options pin a read to the revision of the first one. The read stays linearizable: etcd tells its watchers of a revision
// a moment before it can be read by number, and a linearizable read waits for that.
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
		return r, err // not noted: the mirror has it for the next time too, and a snapshot guards no change
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

// write keeps a write until the commit; nil deletes.
func (tx *Tx) write(key string, data []byte) {
	if tx.writes == nil {
		tx.writes = map[string][]byte{}
	}
	tx.writes[key] = data
}

// mirrored finds a record in the mirror, for a snapshot.
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
	if !tx.passed { // rev came from the store, which may be ahead of the mirror
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

// fetch reads a record from the store. What a snapshot has read goes into the mirror.
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

// found is a record that is there. One without a byte is damaged, and not absent: etcd gives it as nil.
func found(kv *mvccpb.KeyValue) read {
	r := read{data: kv.Value, rev: kv.ModRevision}
	if r.data == nil {
		r.data = []byte{}
	}
	return r
}

// ahead reads several keys in one round trip each hundred; get then finds them. What the mirror keeps is nearer than that.
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

// recall reads one record that many calls read and few change: its decoded form is remembered by its key and content.
func recall[T any](tx *Tx, m *memo[T], key string, decode func(key string, data []byte) (T, error)) (out T, ok bool, err error) {
	r, err := tx.get(key)
	if err != nil || r.data == nil {
		return out, false, err
	}
	if out, ok = m.get(key, r.data); ok {
		return out, true, nil
	}
	if out, err = decode(key, r.data); err != nil {
		return out, false, err
	}
	m.put(key, r.data, out)
	return out, true, nil
}

// load reads one record. ok is false when it is absent.
func load[T any](tx *Tx, key string) (out T, ok bool, err error) {
	r, err := tx.get(key)
	if err != nil || r.data == nil {
		return out, false, err
	}
	if r.kept == nil {
		out, err = decode[T](tx.db, key, r.data)
		return out, err == nil, err
	}
	if d := r.kept.decoded.Load(); d != nil {
		return (*d).(T), true, nil
	}
	if out, err = decode[T](tx.db, key, r.data); err != nil {
		return out, false, err
	}
	var d any = out
	r.kept.decoded.Store(&d)
	return out, true, nil
}

// save writes one record.
func save[T any](tx *Tx, key string, v T) error {
	data, err := encode(tx.db, key, v)
	if err != nil {
		return err
	}
	tx.write(key, data)
	return nil
}

// commit writes everything if nothing that was read has changed since. done is false after a conflict.
func (tx *Tx) commit() (done bool, err error) {
	var guards []clientv3.Cmp
	for _, key := range slices.Sorted(maps.Keys(tx.reads)) {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", tx.reads[key].rev))
	}
	if tx.metaRev > 0 {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(metaKey), "=", tx.metaRev))
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
	resp, err := tx.db.kv.Txn(tx.ctx).If(guards...).Then(ops...).Else(clientv3.OpGet(metaKey, clientv3.WithKeysOnly())).Commit()
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace) && tx.untouched():
		return false, fault.Wrap(fault.Unavailable, err, "The store has reached its quota, and nothing was changed: delete secrets for good, or raise the quota.")
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

// conflict reads the keys anew when it was them that have changed.
func (tx *Tx) conflict(resp *clientv3.TxnResponse) error {
	meta := resp.Responses[0].GetResponseRange().Kvs
	if tx.metaRev == 0 || len(meta) == 0 || meta[0].ModRevision == tx.metaRev {
		return nil
	}
	return tx.db.renew(tx.ctx, tx.metaRev)
}
