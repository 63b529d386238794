package server

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/store"
)

// heads keeps the head of this node's trail in the store.
type heads struct {
	node   string
	mu     sync.Mutex     // held while the head is stored
	kept   audit.Head     // the one in the store; guarded by mu
	run    store.TrailRun // what is stored with the next head; guarded by mu
	keptAs store.TrailRun // the one in the store; guarded by mu
	failed bool
	// keptAt is when the store last had the newest head, with a monotonic reading; nil at first.
	keptAt atomic.Pointer[time.Time]
	// unfinished reports that the previous run did not store its head at its end.
	unfinished bool
}

// isKept notes that the store has the newest head.
func (h *heads) isKept() {
	now := time.Now()
	h.keptAt.Store(&now)
}

// age is how long ago the store had the newest head.
func (h *heads) age() time.Duration {
	if at := h.keptAt.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

var errHeadAge = errors.New(
	"the head of the audit trail could not be stored for too long: records of reads could be cut off unseen")

// recorder is the trail as the gate writes to it: no read is recorded, so none is answered, while
// the store does not take the head of the trail. Changes go on, since deletions make room.
type recorder struct {
	trail *audit.Log
	heads *heads
}

func (r recorder) Append(ctx context.Context, rec audit.Record, durable bool) error {
	if rec.Phase == audit.Call && rec.Decision == audit.Allow && r.heads.age() > maxHeadAge {
		return errHeadAge
	}
	return r.trail.Append(ctx, rec, durable)
}

// keepHead stores the head of the trail, if it has changed.
func (s *Server) keepHead(ctx context.Context) error {
	s.heads.mu.Lock() // the head is small, and every waiter waits for it to be stored
	defer s.heads.mu.Unlock()
	run := s.heads.run
	run.Sinks = s.positions() // before the head is read, so that none is behind it
	h := s.trail.Head()
	if h == s.heads.kept && run.Running == s.heads.keptAs.Running && maps.Equal(run.Sinks, s.heads.keptAs.Sinks) {
		s.heads.isKept()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	err := store.Do(ctx, s.db, func(tx *store.Tx) error {
		return errors.Join(tx.PutTrailHead(store.TrailHead(h)), tx.PutTrailRun(run))
	})
	if err == nil {
		s.heads.kept, s.heads.keptAs = h, run
		s.heads.isKept()
	}
	return err
}

// tryKeepHead is keepHead for those who cannot do anything about a failure: it is tried again.
func (s *Server) tryKeepHead(ctx context.Context) {
	err := s.keepHead(ctx)
	if err != nil && !s.heads.failed {
		s.config.Logger.Warn("the head of the audit trail could not be stored; it will be tried again", "err", err)
	}
	s.heads.failed = err != nil
}

// storeRunning records in the store that this run writes the trail, or that it has ended and its
// head is stored.
func (s *Server) storeRunning(ctx context.Context, now bool) {
	s.heads.mu.Lock()
	s.heads.run.Running = now
	s.heads.mu.Unlock()
	if err := s.keepHead(ctx); err != nil {
		s.heads.failed = true
		s.config.Logger.Error(
			"the head of the audit trail could not be stored: records that it does not cover can be cut off unseen",
			"running", now, "err", err)
	}
}

// headLoop stores the head from time to time and whenever a segment was finished, until ctx ends.
func (s *Server) headLoop(ctx context.Context) {
	t := time.NewTicker(headEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.trail.Rotated():
		case <-ctx.Done():
			return
		}
		s.tryKeepHead(ctx)
	}
}
