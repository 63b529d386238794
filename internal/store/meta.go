package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Meta describes the store. A first run writes it last, so a store without it is new.
type Meta struct {
	Account string `json:"account"`
	// RecordKey is the sealed key of generation 0 from which the Authenticator is made: opening it
	// proves the root key. It is empty after that generation was replaced.
	RecordKey []byte `json:"record_key,omitempty"`
	// RecordKeys are the keys of later generations.
	RecordKeys []RecordKey `json:"record_keys,omitempty"`
	// RootKey is the ID of the root key that wraps; empty in a store whose root key was never rotated.
	RootKey string `json:"root_key,omitempty"`
	// FormerRootKeys are the IDs of the last root keys that have nothing left to open here.
	FormerRootKeys []string `json:"former_root_keys,omitempty"`
	// Rotation is the rotation of the keys that is in progress; nil for none.
	Rotation *KeyRotation `json:"rotation,omitempty"`
	// RotatedAt is when the last rotation of the keys began. It is zero if there was none, or only one
	// by a release that does not record it.
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	// TrailKey is the sealed key of the MACs of the audit trails. It is empty in a store that no
	// release with keyed trails has opened yet.
	TrailKey  []byte    `json:"trail_key,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// RecordKey is a sealed key for the tags of records.
type RecordKey struct {
	Generation uint32 `json:"generation"`
	Key        []byte `json:"key"`
}

// KeyRotation says what is still to be done after the root key was replaced.
type KeyRotation struct {
	StartedAt time.Time `json:"started_at"`
	// Former is the ID of the root key before.
	Former string `json:"former"`
	// Values says that every value is sealed again under the new version of its master key.
	Values bool `json:"values,omitempty"`
}

// SealedRecordKeys returns the sealed keys for the tags of records, by generation.
func (m Meta) SealedRecordKeys() map[uint32][]byte {
	keys := map[uint32][]byte{}
	if len(m.RecordKey) > 0 {
		keys[0] = m.RecordKey
	}
	for _, k := range m.RecordKeys {
		keys[k.Generation] = k.Key
	}
	return keys
}

// Meta reads the description of the store; ok is false if the store is new.
func (tx *Tx) Meta() (Meta, bool, error) { return metaKind.load(tx, "") }

// HasMeta reports whether the store has a description, including one by a node whose records this
// node cannot authenticate yet.
func (tx *Tx) HasMeta() (bool, error) {
	r, err := tx.get(metaKind.key(""))
	return r.data != nil, err
}

// PutMeta writes the description, which marks the store as set up.
func (tx *Tx) PutMeta(m Meta) error { return metaKind.save(tx, m) }

// RecordKey returns the sealed keys for the tags of records, by generation, from a store whose
// records cannot be authenticated yet. found is false if the store is new. Opening a key proves
// that it is genuine; [Tx.Meta] then verifies the rest of the record with it.
func (db *DB) RecordKey(ctx context.Context) (sealed map[uint32][]byte, found bool, err error) {
	m, found, err := db.SealedMeta(ctx)
	return m.SealedRecordKeys(), found, err
}

// SealedMeta reads the description of the store before records can be authenticated. The caller may
// use only wrapped keys of it, and what selects among keys.
func (db *DB) SealedMeta(ctx context.Context) (m Meta, found bool, err error) {
	key := metaKind.key("")
	anyRecord := clientv3.OpGet("", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	resp, err := db.kv.Txn(ctx).Then(clientv3.OpGet(key), anyRecord).Commit()
	if err != nil {
		return m, false, unavailable(err)
	}
	meta, others := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	switch {
	case len(meta) == 0 && len(others) > 0:
		return m, true, fmt.Errorf("the store has records but not the record %q that describes it: "+
			"restore the store from its backup", key)
	case len(meta) == 0:
		return m, false, nil
	}
	r, err := split(key, meta[0].Value)
	if err != nil {
		return m, true, err
	}
	if json.Unmarshal(r.content, &m) != nil {
		return Meta{}, true, damaged(key)
	}
	db.metaSeen.Store(meta[0].ModRevision)
	return m, true, nil
}
