package rotator

import (
	"sync"
	"time"
)

// spread hands out times, so that what falls due together does not happen together: for each name
// at most rate a second, after a burst. A time that was handed out counts as used.
type spread struct {
	every time.Duration
	burst time.Duration

	mu   sync.Mutex
	next map[string]time.Time // guarded by mu; the time after all that was handed out
	// waiting are those that begin has sent away, by name; guarded by mu. One that never comes back
	// does no more than spread the others of its name.
	waiting map[waitingList]map[string]bool
}

// waitingList is who waits for a name and leaves as many turns to others.
type waitingList struct {
	name string
	left int
}

func newSpread(rate float64, burst int) *spread {
	every := time.Duration(float64(time.Second) / rate)
	return &spread{
		every:   every,
		burst:   every * time.Duration(burst),
		next:    map[string]time.Time{},
		waiting: map[waitingList]map[string]bool{},
	}
}

// begin takes the right to begin now, or says when to ask again: nothing is kept for who is sent
// away, so that those who come late do not come together. random is from [0, 1). left is how many
// turns must be left to others after this one; 0 is for those who must not wait for others.
func (s *spread) begin(name, who string, left int, now time.Time, random float64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.after(name, now)
	list := waitingList{name, left}
	if t.Add(s.every * time.Duration(left)).After(now) {
		if s.waiting[list] == nil {
			s.waiting[list] = map[string]bool{}
		}
		s.waiting[list][who] = true
		return now.Add(s.every + time.Duration(random*float64(s.every)*float64(len(s.waiting[list]))))
	}
	s.next[name] = t
	delete(s.waiting[list], who)
	return now
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
	t := s.after(name, now)
	s.next[name] = t
	if t.Before(now) {
		return now
	}
	return t
}

// after is the time that follows what was handed out. The lock is held.
func (s *spread) after(name string, now time.Time) time.Time {
	t := s.next[name]
	if earliest := now.Add(-s.burst); t.Before(earliest) {
		t = earliest
	}
	return t.Add(s.every)
}
