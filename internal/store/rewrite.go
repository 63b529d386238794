package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/cmk"
)

// rewriteBatch is how many records one transaction of Rewrite changes.
const rewriteBatch = 32

// Rewriter says how records change when keys are rotated. Each function returns false for a record that stays.
type Rewriter struct {
	Key       func(cmk.Key) (cmk.Key, bool, error)
	AccessKey func(AccessKey) (AccessKey, bool, error)
	// Value is asked for the sealed value of a version; nil leaves all values.
	Value func(account, name, version string, box []byte) ([]byte, bool, error)
	// Damaged receives records that cannot be opened. They are left as they are.
	Damaged func(key string, err error)
}

// Rewritten counts what Rewrite has done, and what it has left to another time.
type Rewritten struct {
	Changed, Conflicts, Damaged int
}

// Clean reports whether nothing was left to do.
func (r Rewritten) Clean() bool { return r == Rewritten{} }

// Rewrite goes once through all records but the description of the store, changes what w changes, and gives each record whose
// tag is of an earlier generation a new one. A record that changes meanwhile is left to the next time. Leases stay.
func (db *DB) Rewrite(ctx context.Context, w Rewriter) (done Rewritten, err error) {
	for start := "\x00"; start != ""; {
		rev := db.metaRev.Load() // before the keys are used
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

// commitRewrites writes a batch, or, when one of it has changed meanwhile, each by itself.
func (db *DB) commitRewrites(ctx context.Context, metaRev int64, batch []rewrite, done *Rewritten) error {
	if len(batch) == 0 {
		return nil
	}
	if refusing := db.Refusing(); refusing != "" {
		return errors.New(refusing)
	}
	guards := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(metaKey), "=", metaRev)}
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

// rewritten returns the new form of a record; nil when it stays.
func (db *DB) rewritten(w Rewriter, key string, data []byte) ([]byte, error) {
	switch {
	case key == metaKey:
		return nil, nil
	case strings.HasPrefix(key, valuePrefix):
		return rewrittenValue(w, key, data)
	}
	content, err := db.open(key, data)
	if err != nil {
		return nil, err
	}
	changed := false
	switch {
	case strings.HasPrefix(key, "cmk/"):
		content, changed, err = rewrittenAs(db, key, data, w.Key)
	case strings.HasPrefix(key, accessKeyKey("")):
		content, changed, err = rewrittenAs(db, key, data, w.AccessKey)
	}
	if err != nil {
		return nil, err
	}
	r, err := split(key, data)
	if err != nil || !changed && r.generation == db.authenticator().Generation() {
		return nil, err
	}
	return db.seal(key, content)
}

func rewrittenAs[T any](db *DB, key string, data []byte, rule func(T) (T, bool, error)) (content []byte, changed bool, err error) {
	v, err := decode[T](db, key, data)
	if err != nil {
		return nil, false, err
	}
	if v, changed, err = rule(v); err != nil {
		return nil, false, err
	}
	content, err = json.Marshal(v)
	return content, changed, err
}

func rewrittenValue(w Rewriter, key string, data []byte) ([]byte, error) {
	if w.Value == nil {
		return nil, nil
	}
	account, rest, _ := strings.Cut(strings.TrimPrefix(key, valuePrefix), "/")
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return nil, fmt.Errorf("stored record %q is named like no value", key)
	}
	box, changed, err := w.Value(account, rest[:i], rest[i+1:], data)
	if err != nil || !changed {
		return nil, err
	}
	return box, nil
}
