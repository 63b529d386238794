package envelope

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
)

// Records authenticates the records of a store, under keys of the store's own. Each key is of one
// generation, counted from 0; the last one makes tags, all of them check. It is safe for concurrent
// use.
type Records struct {
	root    Root
	keys    map[uint32][]byte
	current uint32
}

// NewRecords makes the key of a new store, of generation 0. sealed is its form to be kept: only the
// root key opens it.
func (r *Keyring) NewRecords() (records *Records, sealed []byte, err error) {
	sealed, err = r.NewRecordKey(0)
	if err != nil {
		return nil, nil, err
	}
	records, err = r.OpenRecords(map[uint32][]byte{0: sealed})
	return records, sealed, err
}

func recordsAdditional(generation uint32) []byte {
	if generation == 0 {
		return additional("records")
	}
	return additional("records", strconv.FormatUint(uint64(generation), 10))
}

// NewRecordKey makes a key of that generation, in the form to be kept.
func (r *Keyring) NewRecordKey(generation uint32) (sealed []byte, err error) {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return r.root.Wrap(key, recordsAdditional(generation)), nil
}

// OpenRecords opens keys that [Keyring.NewRecords] and [Keyring.NewRecordKey] sealed. The root key
// must be the one with which the store is sealed.
func (r *Keyring) OpenRecords(sealed map[uint32][]byte) (*Records, error) {
	records := &Records{root: r.root, keys: map[uint32][]byte{}}
	for generation, box := range sealed {
		key, err := r.root.Unwrap(box, recordsAdditional(generation))
		if err != nil {
			return nil, fmt.Errorf("the store is sealed with another root key than the one from %s, "+
				"or the record of its key is damaged: "+
				"give the right root key, or restore the store from its copy: %w", r.root.Name(), err)
		}
		records.keys[generation] = key
		records.current = max(records.current, generation)
	}
	if len(records.keys) == 0 {
		return nil, errors.New(`the stored record "meta" holds no key of the records: restore the store from its copy`)
	}
	return records, nil
}

// Generation is the one that makes tags.
func (r *Records) Generation() uint32 { return r.current }

// IsCurrent reports whether the root key that wraps now has wrapped something.
func (r *Records) IsCurrent(wrapped []byte) bool {
	c, ok := r.root.(interface{ IsCurrent([]byte) bool })
	return !ok || c.IsCurrent(wrapped)
}

// Tag is an HMAC-SHA256 over the key and the content of a record, under the key of a generation;
// nil when that is not known.
func (r *Records) Tag(generation uint32, key string, content []byte) []byte {
	secret, ok := r.keys[generation]
	if !ok {
		return nil
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(additional("record", key))
	mac.Write(content)
	return mac.Sum(nil)
}
