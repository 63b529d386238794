package store

import (
	"context"
	"log/slog"
	"sync"

	"go.uber.org/zap/zapcore"
)

// bridge passes the log of etcd to slog, from level Warn on. While a member starts, etcd warns of
// things that are normal here, such as an empty store. Those lines are held back, and written only
// if the start fails.
type bridge struct {
	log    *slog.Logger
	start  *startLog
	fields []zapcore.Field
}

// startLog holds lines back until the start has succeeded or failed.
type startLog struct {
	mu    sync.Mutex
	over  bool     // guarded by mu
	lines []func() // guarded by mu
}

func (s *startLog) add(line func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		line()
		return
	}
	s.lines = append(s.lines, line)
}

// end writes or drops the lines held back. Later lines are written as they come.
func (s *startLog) end(show bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if show {
			line()
		}
	}
	s.over, s.lines = true, nil
}

func (b bridge) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	b.fields = append(b.fields[:len(b.fields):len(b.fields)], fields...)
	return b
}

func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

// harmless are lines about a new store: etcd logs them once, and the first write fixes their cause.
var harmless = map[string]bool{"Failed to detect schema version": true, "failed to update storage version": true}

// Write logs the message and the error. It drops the other fields, which may have keys and sizes of
// requests.
func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if harmless[e.Message] {
		return nil
	}
	attrs := []any{"event", e.Message}
	for _, f := range append(b.fields[:len(b.fields):len(b.fields)], fields...) {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			attrs = append(attrs, "err", err.Error())
		}
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	b.start.add(func() { b.log.Log(context.Background(), level, "store", attrs...) })
	return nil
}

func (b bridge) Sync() error { return nil }
