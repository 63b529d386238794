package store

import "sync"

const (
	memoEntries = 4096
	memoBytes   = 16 << 20 // of content; what it decodes to takes a few times that
)

// memo remembers what a content decodes to, so that a record that is on the way of every call is decoded once. An equal
// content decodes to an equal value, so nothing here can be stale. When it is full it starts over. The zero memo is empty.
type memo[T any] struct {
	mu    sync.RWMutex
	known map[string]T // guarded by mu
	bytes int          // guarded by mu
}

func (m *memo[T]) get(content []byte) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.known[string(content)]
	return v, ok
}

func (m *memo[T]) getText(content string) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.known[content]
	return v, ok
}

func (m *memo[T]) put(content string, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= memoEntries || m.bytes+len(content) > memoBytes {
		m.known, m.bytes = map[string]T{}, 0
	}
	m.known[content] = v
	m.bytes += len(content)
}
