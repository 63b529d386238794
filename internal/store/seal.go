package store

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A stored record is one byte of format, the tag of what follows, and JSON. From the first rotation of the key of the tags on, the
// generation of that key stands before the tag. A newer format is refused, not guessed at.
const (
	recordFormat     = 2
	generationFormat = 3
	tagSize          = 32
	headSize         = 1 + tagSize
	generationSize   = 4
)

// Authenticator makes the tag of a record, which only whoever has its key can make. An implementation binds all of key and
// content, so that a tag is good for nothing else, answers tagSize bytes, and may be called from many goroutines.
type Authenticator interface {
	// Tag makes a tag under the key of a generation; nil when there is no such key.
	Tag(generation uint32, key string, content []byte) []byte
	// Generation is the one that new tags are of.
	Generation() uint32
	// IsCurrent reports whether the root key that wraps now has wrapped something.
	IsCurrent(wrapped []byte) bool
}

var errLocked = errors.New("the records of the store cannot be authenticated yet")

// Authenticate sets what authenticates the records. It is called before the first transaction: without it, no record is read or
// written. Later it replaces what was set before, after the keys were rotated.
func (db *DB) Authenticate(a Authenticator) {
	db.auth.Store(&a)
	db.metaRev.Store(db.metaSeen.Load())
}

// authenticator returns what Authenticate has set.
func (db *DB) authenticator() Authenticator {
	if a := db.auth.Load(); a != nil {
		return *a
	}
	return nil
}

// OnKeysRotated sets what is called when another node has rotated the keys, or one that this process does not know is needed. It
// reads RecordKey and calls Authenticate.
func (db *DB) OnKeysRotated(refresh func(context.Context) error) { db.refresh = refresh }

// refreshTimeout bounds reading the keys anew.
const refreshTimeout = 5 * time.Second

// renew reads the keys anew, if they have not been read since rev. Concurrent callers wait for it.
func (db *DB) renew(ctx context.Context, rev int64) error {
	db.renewing.Lock()
	defer db.renewing.Unlock()
	if db.metaRev.Load() != rev {
		return nil // another one has done it
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if db.refresh != nil {
		return db.refresh(ctx)
	}
	if _, _, err := db.RecordKey(ctx); err != nil {
		return err
	}
	db.metaRev.Store(db.metaSeen.Load())
	return nil
}

func damaged(key string) error {
	return fmt.Errorf("stored record %q is damaged, or is another's", key)
}

// sealedRecord is a record taken apart.
type sealedRecord struct {
	generation uint32
	tag        []byte
	content    []byte
}

// split takes a stored record apart without trusting it.
func split(key string, data []byte) (sealedRecord, error) {
	switch {
	case len(data) > 0 && data[0] != recordFormat && data[0] != generationFormat:
		return sealedRecord{}, fmt.Errorf("stored record %q has format %d; this release knows %d and %d: run the release that wrote it, or a newer one", key, data[0], recordFormat, generationFormat)
	case len(data) >= headSize && data[0] == recordFormat:
		return sealedRecord{tag: data[1:headSize], content: data[headSize:]}, nil
	case len(data) >= headSize+generationSize && data[0] == generationFormat:
		head := headSize + generationSize
		return sealedRecord{generation: binary.BigEndian.Uint32(data[1:]), tag: data[1+generationSize : head], content: data[head:]}, nil
	}
	return sealedRecord{}, damaged(key)
}

// tag binds content to the whole key, the prefix that a cluster is shared by included, and to the format with its generation.
func (db *DB) tag(a Authenticator, generation uint32, key string, content []byte) []byte {
	if generation == 0 {
		return a.Tag(0, fmt.Sprintf("%d %s%s", recordFormat, db.prefix, key), content)
	}
	return a.Tag(generation, fmt.Sprintf("%d %d %s%s", generationFormat, generation, db.prefix, key), content)
}

// seal puts the head before the content of a record.
func (db *DB) seal(key string, content []byte) ([]byte, error) {
	a := db.authenticator()
	if a == nil {
		return nil, errLocked
	}
	generation := a.Generation()
	data := make([]byte, 0, headSize+generationSize+len(content))
	if generation == 0 {
		data = append(data, recordFormat)
	} else {
		data = binary.BigEndian.AppendUint32(append(data, generationFormat), generation)
	}
	return append(append(data, db.tag(a, generation, key, content)...), content...), nil
}

// open returns the content of a record. Nothing of it is looked at before its tag was found right.
func (db *DB) open(key string, data []byte) ([]byte, error) {
	r, err := split(key, data)
	if err != nil {
		return nil, err
	}
	for attempt := range 2 {
		rev, a := db.metaRev.Load(), db.authenticator()
		if a == nil {
			return nil, errLocked
		}
		tag := db.tag(a, r.generation, key, r.content)
		if tag != nil && hmac.Equal(tag, r.tag) {
			return r.content, nil
		}
		if tag != nil || attempt > 0 || r.generation < a.Generation() {
			break
		}
		if err := db.renew(context.Background(), rev); err != nil { // another node has a key that this one does not know yet
			return nil, err
		}
	}
	return nil, damaged(key)
}
