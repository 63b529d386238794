package rotator

import (
	"sync"
	"time"
)

// spread hands out times, so that what falls due together does not happen together: for each name at most rate a second,
// after a burst. A time that was handed out counts as used.
type spread struct {
	every time.Duration
	burst time.Duration

	mu   sync.Mutex
	next map[string]time.Time // guarded by mu; the time after all that was handed out
}

func newSpread(rate float64, burst int) *spread {
	every := time.Duration(float64(time.Second) / rate)
	return &spread{every: every, burst: every * time.Duration(burst), next: map[string]time.Time{}}
}

// slot is the first time from now on at which the name may be used.
func (s *spread) slot(name string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) > 1024 { // names come and go; those whose time is past say nothing
		for n, t := range s.next {
			if t.Before(now) {
				delete(s.next, n)
			}
		}
	}
	t := s.next[name]
	if earliest := now.Add(-s.burst); t.Before(earliest) {
		t = earliest
	}
	t = t.Add(s.every)
	s.next[name] = t
	if t.Before(now) {
		return now
	}
	return t
}
