package store

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/ram"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
)

// A stored record is one byte of format, the tag of what follows, and JSON. A newer format is refused, not guessed at.
const (
	recordFormat = 2
	tagSize      = 32
	headSize     = 1 + tagSize
)

// Authenticator makes the tag of a record, which only whoever has its key can make. An implementation binds all of key and
// content, so that a tag is good for nothing else, answers tagSize bytes, and may be called from many goroutines.
type Authenticator interface {
	Tag(key string, content []byte) []byte
}

var errLocked = errors.New("the records of the store cannot be authenticated yet")

// Authenticate sets what authenticates the records. It is called once, before the first transaction: without it, no record
// is read or written.
func (db *DB) Authenticate(a Authenticator) { db.auth = a }

// RecordKey reads, from a store whose records cannot be authenticated yet, the sealed key that they are authenticated with.
// found is false when the store is new. Whoever opens the key learns whether it is genuine; Meta then holds the rest of the
// record to it.
func (db *DB) RecordKey(ctx context.Context) (sealed []byte, found bool, err error) {
	resp, err := db.kv.Txn(ctx).Then(clientv3.OpGet(metaKey), clientv3.OpGet("", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))).Commit()
	if err != nil {
		return nil, false, unavailable(err)
	}
	meta, any := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	switch {
	case len(meta) == 0 && len(any) > 0:
		return nil, true, fmt.Errorf("the store has records, and not the record %q that describes it: put the store back from its copy", metaKey)
	case len(meta) == 0:
		return nil, false, nil
	}
	_, content, err := split(metaKey, meta[0].Value)
	if err != nil {
		return nil, true, err
	}
	var m Meta
	if json.Unmarshal(content, &m) != nil {
		return nil, true, damaged(metaKey)
	}
	return m.RecordKey, true, nil
}

func damaged(key string) error {
	return fmt.Errorf("stored record %q is damaged, or is another's", key)
}

// split takes a stored record apart without trusting it.
func split(key string, data []byte) (tag, content []byte, err error) {
	switch {
	case len(data) > 0 && data[0] != recordFormat:
		return nil, nil, fmt.Errorf("stored record %q has format %d; this release knows %d: run the release that wrote it, or a newer one", key, data[0], recordFormat)
	case len(data) < headSize:
		return nil, nil, damaged(key)
	}
	return data[1:headSize], data[headSize:], nil
}

// tag binds content to the whole key, the prefix that a cluster is shared by included, and to the format.
func (db *DB) tag(key string, content []byte) []byte {
	return db.auth.Tag(fmt.Sprintf("%d %s%s", recordFormat, db.prefix, key), content)
}

// encode makes the stored form of a record.
func encode[T any](db *DB, key string, v T) ([]byte, error) {
	if db.auth == nil {
		return nil, errLocked
	}
	content, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("record %q: %w", key, err)
	}
	data := append(make([]byte, 0, headSize+len(content)), recordFormat)
	return append(append(data, db.tag(key, content)...), content...), nil
}

// decode opens the stored form of a record. Nothing of it is looked at before its tag was found right.
func decode[T any](db *DB, key string, data []byte) (out T, err error) {
	if db.auth == nil {
		return out, errLocked
	}
	tag, content, err := split(key, data)
	if err != nil {
		return out, err
	}
	if !hmac.Equal(tag, db.tag(key, content)) {
		return out, damaged(key)
	}
	if json.Unmarshal(content, &out) != nil || !belongs(key, out) {
		return out, damaged(key)
	}
	return out, nil
}

// belongs reports whether a record that this store has written is the one of its key, and a secret what every secret is: a
// mistake of ours is found here, not in what is served.
func belongs(key string, v any) bool {
	switch v := v.(type) {
	case secret.Secret:
		return key == secretKey(v.Account, v.Name) && v.Sound()
	case AccessKey:
		return key == accessKeyKey(v.ID)
	case Account:
		return key == accountKey(v.ID)
	case cmk.Key:
		return key == cmkKey(v.Account, v.ID)
	case rotation.Record:
		return key == rotationKey(v.Account, v.Secret)
	case rotation.Consumer:
		return key == consumerKey(v)
	case Target:
		return key == targetKey(v.Account, v.Name)
	case TrailHead:
		return key == trailKey(v.Node)
	case Spacing:
		return key == spacingKey(v.Account, v.Group)
	case ram.User:
		return key == userKey(v.Account, v.Name)
	case ram.Group:
		return key == groupKey(v.Account, v.Name)
	case ram.GroupRights:
		return key == groupRightsKey(v.Account, v.ID)
	case ram.Policy:
		return key == policyKey(v.Account, v.Type, v.Name)
	}
	return true
}
