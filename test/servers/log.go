package servers

import (
	"strings"
	"sync"
)

// Log keeps all that a server writes.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write is for the server.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is what it has written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
