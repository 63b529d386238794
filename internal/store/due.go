package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// stampLayout is the time in a key of an index by time: keys sort by it.
const stampLayout = "20060102T150405.000000000Z"

func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// horizon is how far ahead a read of an index by time finds the next time. The store counts the
// records of a range that it reads, so an open range would cost more the more is planned.
const horizon = time.Minute

// Due names a secret for which something must happen at a time.
type Due struct {
	Account string `json:"account"`
	Name    string `json:"name"`
}

// duePath is where an index by time has a secret.
func duePath(at time.Time, account, name string) string { return stamp(at) + "/" + in(account, name) }

// DueBefore returns at most limit secrets whose planned deletion time has come, and when the next
// one comes; zero if none comes within a minute.
func (tx *Tx) DueBefore(now time.Time, limit int) (due []Due, next time.Time, err error) {
	return dueKind.before(tx, now, limit)
}

// WakeBefore returns at most limit secrets whose rotation the engine must check, and when the next
// one is due; zero if none is within a minute. It reads nothing of those that are due later.
func (tx *Tx) WakeBefore(now time.Time, limit int) (due []Due, next time.Time, err error) {
	return wakeKind.before(tx, now, limit)
}

// before reads the records of an index by time that are due.
func (k kind[T]) before(tx *Tx, now time.Time, limit int) (due []T, next time.Time, err error) {
	end := k.key(stamp(now.Add(horizon)))
	resp, err := tx.db.kv.Get(tx.ctx, k.prefix, tx.options(clientv3.WithRange(end), clientv3.WithLimit(int64(limit)+1))...)
	if err != nil {
		return nil, next, unavailable(err)
	}
	for _, kv := range resp.Kvs {
		key := string(kv.Key)
		at, err := parseStamp(k.prefix, key)
		if err != nil {
			return nil, next, err
		}
		if at.After(now) || len(due) == limit {
			return due, at, nil
		}
		d, err := k.decode(tx.db, key, kv.Value)
		if err != nil {
			return nil, next, err
		}
		due = append(due, d)
	}
	return due, next, nil
}

// parseStamp returns the time in a key of an index by time.
func parseStamp(prefix, key string) (time.Time, error) {
	text, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	at, err := time.Parse(stampLayout, text)
	if err != nil {
		return at, fmt.Errorf("stored record %q is damaged", key)
	}
	return at, nil
}

// Wakes returns a channel that signals, until ctx ends, that some rotation has got a time at which
// the engine must check it. The channel holds at most one signal. It is closed when the watch
// breaks; the caller must then read, and call Wakes again.
func (db *DB) Wakes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	ctx = clientv3.WithRequireLeader(ctx)
	events := db.client.Watch(ctx, db.prefix+wakeKind.prefix, clientv3.WithPrefix(), clientv3.WithFilterDelete())
	go func() {
		defer close(out)
		for e := range events {
			if e.Err() != nil {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}
