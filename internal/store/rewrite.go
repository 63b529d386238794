package store

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/cmk"
)

// rewriteBatch is how many records one transaction of Rewrite changes.
const rewriteBatch = 32

// rewrap returns the record to store after a rotation of the keys; changed is false for a record
// that stays as it is.
type rewrap[T any] func(T) (after T, changed bool, err error)

// Rewriter says how records change when keys are rotated.
type Rewriter struct {
	Key       rewrap[cmk.Key]
	AccessKey rewrap[AccessKey]
	// Value returns the new sealed value of a version, and whether it changes; nil leaves all values.
	Value func(account, name, version string, box []byte) ([]byte, bool, error)
	// Damaged receives records that cannot be opened. They are left as they are.
	Damaged func(key string, err error)
}

// Rewritten counts what one call of Rewrite has changed, and what it has left to the next.
type Rewritten struct {
	Changed, Conflicts, Damaged int
}

// Clean reports whether there was nothing to do and nothing is left.
func (r Rewritten) Clean() bool { return r == Rewritten{} }

// Rewrite goes once through all records but the description of the store. It changes what w
// changes, and gives each record whose tag is of an earlier generation a new tag. A record that
// changes meanwhile is left to the next call. Records keep their leases.
func (db *DB) Rewrite(ctx context.Context, w Rewriter) (done Rewritten, err error) {
	for start := "\x00"; start != ""; {
		rev := db.metaRev.Load() // read before the keys are used
		resp, err := db.kv.Get(ctx, start, clientv3.WithFromKey(), clientv3.WithLimit(rewriteBatch))
		if err != nil {
			return done, unavailable(err)
		}
		start = ""
		if resp.More && len(resp.Kvs) > 0 {
			start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		}
		var batch []rewrite
		for _, kv := range resp.Kvs {
			key := string(kv.Key)
			data, err := db.rewritten(w, key, kv.Value)
			if err != nil {
				if ctx.Err() != nil {
					return done, ctx.Err()
				}
				done.Damaged++
				w.Damaged(key, err)
				continue
			}
			if data != nil {
				batch = append(batch, rewrite{key: key, rev: kv.ModRevision, data: data})
			}
		}
		if err := db.commitRewrites(ctx, rev, batch, &done); err != nil {
			return done, err
		}
	}
	return done, nil
}

type rewrite struct {
	key  string
	rev  int64
	data []byte
}

// commitRewrites writes a batch. If one record of it has changed meanwhile, it writes each alone.
func (db *DB) commitRewrites(ctx context.Context, metaRev int64, batch []rewrite, done *Rewritten) error {
	if len(batch) == 0 {
		return nil
	}
	if refusing := db.Refusing(); refusing != "" {
		return errors.New(refusing)
	}
	guards := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(metaKind.key("")), "=", metaRev)}
	var ops []clientv3.Op
	for _, r := range batch {
		guards = append(guards, clientv3.Compare(clientv3.ModRevision(r.key), "=", r.rev))
		ops = append(ops, clientv3.OpPut(r.key, string(r.data), clientv3.WithIgnoreLease()))
	}
	resp, err := db.kv.Txn(ctx).If(guards...).Then(ops...).Commit()
	if err != nil {
		return commitError(err)
	}
	switch {
	case resp.Succeeded:
		done.Changed += len(batch)
		if db.mirror != nil {
			db.mirror.committed(resp.Header.Revision)
		}
	case len(batch) == 1:
		done.Conflicts++
	default:
		for i := range batch {
			if err := db.commitRewrites(ctx, metaRev, batch[i:i+1], done); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewritten returns the new form of a record; nil if it stays as it is. The transactions that
// rotate the keys rewrite the description of the store themselves.
func (db *DB) rewritten(w Rewriter, key string, data []byte) ([]byte, error) {
	if key == metaKind.key("") {
		return nil, nil
	}
	if k, ok := kindByName[firstPart(key)]; ok {
		return k.rewritten(db, w, key, data)
	}
	return retagged(db, key, data)
}

// retagged gives a record a tag of the current generation; nil if it has one.
func retagged(db *DB, key string, data []byte) ([]byte, error) {
	content, err := db.open(key, data)
	if err != nil {
		return nil, err
	}
	r, err := split(key, data)
	if err != nil || r.generation == db.authenticator().Generation() {
		return nil, err
	}
	return db.seal(0, key, content)
}
