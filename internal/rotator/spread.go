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
	// waiting has those that begin has sent away and that have not begun; count is how many of them
	// there are for each key. Both are guarded by mu.
	waiting map[waiter]wait
	count   map[waitingKey]int
	swept   time.Time // guarded by mu; when what no longer matters was last forgotten
}

// waiter is one that wants to use a name.
type waiter struct{ name, who string }

// wait is until when a waiter was sent away, and how many turns it must leave.
type wait struct {
	until time.Time
	left  int
}

// waitingKey stands for those that want the same name and must leave the same number of turns.
type waitingKey struct {
	name string
	left int
}

// forgetAfter is how long one that does not ask again counts as waiting.
const forgetAfter = time.Minute

func newSpread(rate float64, burst int) *spread {
	every := time.Duration(float64(time.Second) / rate)
	return &spread{
		every:   every,
		burst:   every * time.Duration(burst),
		next:    map[string]time.Time{},
		waiting: map[waiter]wait{},
		count:   map[waitingKey]int{},
	}
}

// begin takes the right to begin now, or says when to ask again: no time is kept for one that is
// sent away, so that those that come late do not come together. random is from [0, 1). left is how
// many turns must be left to others after this one; 0 is for those that must not wait for others.
func (s *spread) begin(name, who string, left int, now time.Time, random float64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked(now)
	w, key := waiter{name, who}, waitingKey{name, left}
	s.forgetLocked(w)
	t := s.afterLocked(name, now)
	if !t.Add(s.every * time.Duration(left)).After(now) {
		s.next[name] = t
		return now
	}
	s.count[key]++
	until := now.Add(s.every + time.Duration(random*float64(s.every)*float64(s.count[key])))
	s.waiting[w] = wait{until, left}
	return until
}

// slot is the first time from now on at which the name may be used.
func (s *spread) slot(name string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweepLocked(now)
	t := s.afterLocked(name, now)
	s.next[name] = t
	if t.Before(now) {
		return now
	}
	return t
}

// afterLocked is the time that follows what was handed out.
func (s *spread) afterLocked(name string, now time.Time) time.Time {
	t := s.next[name]
	if earliest := now.Add(-s.burst); t.Before(earliest) {
		t = earliest
	}
	return t.Add(s.every)
}

func (s *spread) forgetLocked(w waiter) {
	was, ok := s.waiting[w]
	if !ok {
		return
	}
	delete(s.waiting, w)
	key := waitingKey{w.name, was.left}
	if s.count[key]--; s.count[key] == 0 {
		delete(s.count, key)
	}
}

// sweepLocked forgets, at most once in forgetAfter, those that did not come back, such as a secret
// that was deleted, and names that were not used for so long that they have a full burst.
func (s *spread) sweepLocked(now time.Time) {
	if since := now.Sub(s.swept); since >= 0 && since < forgetAfter {
		return
	}
	s.swept = now
	for w, it := range s.waiting {
		if it.until.Add(forgetAfter).Before(now) {
			s.forgetLocked(w)
		}
	}
	for name, t := range s.next {
		if t.Before(now.Add(-s.burst)) {
			delete(s.next, name)
		}
	}
}
