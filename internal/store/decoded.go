package store

import (
	"bytes"
	"sync"
)

const (
	memoEntries = 4096
	memoBytes   = 16 << 20 // of content; what it decodes to takes a few times that
)

// memo remembers what the content of a key decodes to, so that a record that is on the way of every call is authenticated and
// decoded once. The same content under the same key decodes to an equal value, so nothing here can be stale; under another
// key it is not known, for there it may be no record at all. When it is full it starts over. The zero memo is empty.
type memo[T any] struct {
	mu    sync.RWMutex
	known map[string]remembered[T] // guarded by mu
	bytes int                      // guarded by mu
}

type remembered[T any] struct {
	content []byte
	value   T
}

func (m *memo[T]) get(key string, content []byte) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.known[key]
	if !ok || !bytes.Equal(r.content, content) {
		var none T
		return none, false
	}
	return r.value, true
}

func (m *memo[T]) put(key string, content []byte, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.known[key]; ok {
		m.bytes -= len(key) + len(old.content)
		delete(m.known, key)
	}
	if m.known == nil || len(m.known) >= memoEntries || m.bytes+len(key)+len(content) > memoBytes {
		m.known, m.bytes = map[string]remembered[T]{}, 0
	}
	m.known[key] = remembered[T]{content, v}
	m.bytes += len(key) + len(content)
}
