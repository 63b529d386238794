package store

import (
	"bytes"
	"sync"
)

const (
	memoEntries = 4096
	memoBytes   = 16 << 20 // of content; the decoded values take a few times that
)

// memo caches decoded values by key and content, so that a record that every call reads is
// authenticated and decoded once. It cannot be stale: the same content under the same key decodes
// to an equal value. The key matters, because the same content under another key may be no genuine
// record. A full memo starts over. The zero memo is empty.
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
