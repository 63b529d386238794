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
	kept map[string]time.Time // guarded by mu; times handed out by turn that have not come yet
}

func newSpread(rate float64, burst int) *spread {
	every := time.Duration(float64(time.Second) / rate)
	return &spread{every: every, burst: every * time.Duration(burst), next: map[string]time.Time{}, kept: map[string]time.Time{}}
}

// turn is slot for one who asks again when the time has come, and is not to be sent away again then.
func (s *spread) turn(name, who string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.kept[who]
	if !ok {
		at = s.slotLocked(name, now)
	}
	if at.After(now) {
		s.kept[who] = at
	} else {
		delete(s.kept, who)
	}
	return at
}

// slot is the first time from now on at which the name may be used.
func (s *spread) slot(name string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slotLocked(name, now)
}

func (s *spread) slotLocked(name string, now time.Time) time.Time {
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
