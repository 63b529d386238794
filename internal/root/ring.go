package root

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// reloadEvery bounds how often a ring reads its provider again for a key that it does not have.
const reloadEvery = time.Second

// Ring holds the root keys that open, and the one that wraps. It is safe for concurrent use.
type Ring struct {
	read func() ([]*Key, error) // nil when there is nothing to read again

	mu       sync.Mutex
	keys     []*Key // guarded by mu; in the order of the provider
	current  *Key   // guarded by mu
	named    bool   // guarded by mu; what is wrapped names its key
	reloaded time.Time
}

// NewRing returns a ring of keys, the first of which wraps.
func NewRing(keys ...*Key) *Ring { return newRing(keys, nil) }

func newRing(keys []*Key, read func() ([]*Key, error)) *Ring {
	return &Ring{keys: keys, current: keys[0], read: read}
}

// Name says for people where the keys come from.
func (r *Ring) Name() string { return r.Current().name }

// Current is the key that wraps.
func (r *Ring) Current() *Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Keys are all keys that open.
func (r *Ring) Keys() []*Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keys)
}

// Use selects the key that wraps; everything that it wraps names the key. An empty id changes
// nothing: the root key of that store was never replaced. If the ring lacks the key, Use asks its
// provider.
func (r *Ring) Use(id string) error {
	if id == "" {
		return nil
	}
	k, err := r.find(id)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current, r.named = k, true
	return nil
}

// Reload reads the keys again. The one that wraps stays the one, if it is still there.
func (r *Ring) Reload() error {
	if r.read == nil {
		return nil
	}
	keys, err := r.read()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys, r.reloaded = keys, time.Now()
	if i := slices.IndexFunc(keys, func(k *Key) bool { return k.id == r.current.id }); i >= 0 {
		r.current = keys[i]
	}
	return nil
}

// find returns the key with that ID.
func (r *Ring) find(id string) (*Key, error) {
	for range 2 {
		keys := r.Keys()
		if i := slices.IndexFunc(keys, func(k *Key) bool { return k.id == id }); i >= 0 {
			return keys[i], nil
		}
		r.mu.Lock()
		again := r.read != nil && time.Since(r.reloaded) > reloadEvery
		r.mu.Unlock()
		if !again {
			break
		}
		if err := r.Reload(); err != nil {
			return nil, err
		}
	}
	var have []string
	for _, k := range r.Keys() {
		have = append(have, k.id)
	}
	return nil, fmt.Errorf("the root key with ID %s is needed, and %s has only %s: add it there",
		id, r.Name(), strings.Join(have, ", "))
}

// Wrap seals plain under the current key.
func (r *Ring) Wrap(plain, additional []byte) []byte {
	r.mu.Lock()
	k, named := r.current, r.named
	r.mu.Unlock()
	if named {
		return k.wrapID(plain, additional)
	}
	return k.Wrap(plain, additional)
}

// Unwrap opens what any key of the ring has wrapped.
func (r *Ring) Unwrap(wrapped, additional []byte) ([]byte, error) {
	id, _, err := split(wrapped)
	if err != nil {
		return nil, err
	}
	if id != "" {
		k, err := r.find(id)
		if err != nil {
			return nil, err
		}
		return k.Unwrap(wrapped, additional)
	}
	var failure error
	for _, k := range r.Keys() {
		plain, err := k.Unwrap(wrapped, additional)
		if err == nil {
			return plain, nil
		}
		failure = err
	}
	return nil, failure
}

// IsCurrent reports whether something was wrapped as Wrap would now.
func (r *Ring) IsCurrent(wrapped []byte) bool {
	id, _, err := split(wrapped)
	r.mu.Lock()
	defer r.mu.Unlock()
	return err == nil && (!r.named || id == r.current.id)
}
