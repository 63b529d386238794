package support

import (
	"bytes"
	"sync"
)

// Log keeps what is written to it, from several goroutines. The zero value is empty and ready.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns what was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Take returns what was written since the last call, and forgets it.
func (l *Log) Take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.text.String()
	l.text.Reset()
	return s
}

// tail is how much of a log fits a failure report.
const tail = 4000 // bytes

// Tail returns the end of what was written.
func (l *Log) Tail() string {
	s := l.String()
	return s[max(0, len(s)-tail):]
}
