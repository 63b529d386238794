package store

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A stored record is one byte of format, the tag of the content, and the content, which is JSON. In
// all formats but recordFormat, the generation of the tag's key stands before the tag. A record of
// an unknown format is refused.
const (
	recordFormat     = 2 // generation 0
	generationFormat = 3 // later generations
	// metaFormat is the format of the description of a store whose records an older release would
	// misread. Such a release refuses the description, and with it the store.
	metaFormat = 4

	tagSize        = 32
	headSize       = 1 + tagSize
	generationSize = 4
)

// Authenticator makes the tags of records, which cannot be made without its key. A tag must bind
// the whole key and content of its record. The methods may be called from many goroutines.
type Authenticator interface {
	// Tag returns a tag of tagSize bytes under the key of a generation; nil if there is no such key.
	Tag(generation uint32, key string, content []byte) []byte
	// Generation returns the generation of new tags.
	Generation() uint32
	// IsCurrent reports whether the current root key has wrapped these bytes.
	IsCurrent(wrapped []byte) bool
}

var errLocked = errors.New("the records of the store cannot be authenticated yet")

// Authenticate sets the Authenticator. It must be called before the first transaction: without it,
// no record is read or written. After a rotation of the keys, another call replaces the former one.
func (db *DB) Authenticate(a Authenticator) {
	db.auth.Store(&a)
	db.metaRev.Store(db.metaSeen.Load())
}

// authenticator returns the Authenticator; nil before Authenticate.
func (db *DB) authenticator() Authenticator {
	if a := db.auth.Load(); a != nil {
		return *a
	}
	return nil
}

// OnKeysRotated sets the function that reads the keys of the tags again. It is called after another
// node has rotated them, and for a record that needs a key which this process does not know. It
// must read [DB.RecordKey] and call [DB.Authenticate].
func (db *DB) OnKeysRotated(refresh func(context.Context) error) { db.refresh = refresh }

// refreshTimeout bounds one read of the keys.
const refreshTimeout = 5 * time.Second

// renew reads the keys again, unless they have been read since rev was current. Concurrent callers
// wait for one read.
func (db *DB) renew(ctx context.Context, rev int64) error {
	db.renewing.Lock()
	defer db.renewing.Unlock()
	if db.metaRev.Load() != rev {
		return nil // another caller has read them
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

// sealedRecord is a stored record, taken apart.
type sealedRecord struct {
	format     byte
	generation uint32
	tag        []byte
	content    []byte
}

// split takes a stored record apart. It does not verify the tag.
func split(key string, data []byte) (sealedRecord, error) {
	if len(data) == 0 {
		return sealedRecord{}, damaged(key)
	}
	r, head := sealedRecord{format: data[0]}, data[1:]
	switch r.format {
	case recordFormat:
	case generationFormat, metaFormat:
		if len(head) < generationSize {
			return sealedRecord{}, damaged(key)
		}
		r.generation, head = binary.BigEndian.Uint32(head), head[generationSize:]
	default:
		return sealedRecord{}, fmt.Errorf("stored record %q has format %d; this release knows %d to %d: "+
			"run the release that wrote it, or a newer one", key, r.format, recordFormat, metaFormat)
	}
	if len(head) < tagSize {
		return sealedRecord{}, damaged(key)
	}
	r.tag, r.content = head[:tagSize], head[tagSize:]
	return r, nil
}

// tag returns the tag of content. It binds the whole key, including the prefix that separates this
// store from other users of a cluster, and the format with the generation.
func (db *DB) tag(a Authenticator, format byte, generation uint32, key string, content []byte) []byte {
	if format == recordFormat {
		return a.Tag(0, fmt.Sprintf("%d %s%s", recordFormat, db.prefix, key), content)
	}
	return a.Tag(generation, fmt.Sprintf("%d %d %s%s", format, generation, db.prefix, key), content)
}

// seal puts format, generation and tag before the content of a record. Format 0 stands for the
// oldest format that has the generation.
func (db *DB) seal(format byte, key string, content []byte) ([]byte, error) {
	a := db.authenticator()
	if a == nil {
		return nil, errLocked
	}
	generation := a.Generation()
	switch {
	case format != 0:
	case generation == 0:
		format = recordFormat
	default:
		format = generationFormat
	}
	data := append(make([]byte, 0, headSize+generationSize+len(content)), format)
	if format != recordFormat {
		data = binary.BigEndian.AppendUint32(data, generation)
	}
	return append(append(data, db.tag(a, format, generation, key, content)...), content...), nil
}

// open returns the content of a record after its tag was verified.
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
		tag := db.tag(a, r.format, r.generation, key, r.content)
		if tag != nil && hmac.Equal(tag, r.tag) {
			return r.content, nil
		}
		if tag != nil || attempt > 0 || r.generation < a.Generation() {
			break
		}
		// Another node has made a key that this process does not know yet.
		if err := db.renew(context.Background(), rev); err != nil {
			return nil, err
		}
	}
	return nil, damaged(key)
}
