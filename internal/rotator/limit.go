package rotator

import (
	"sync"
	"time"
)

// limit bounds how many calls are under way at once, in all and for each name.
type limit struct {
	all, each int

	mu    sync.Mutex
	total int
	under map[string][]time.Time // when the calls that are under way began, oldest first
	// refused maps each caller that was refused and has not begun since to its next try.
	refused map[string]refusal
	waiting map[string]int // how many of refused wait for each name; "" for those that wait for any call to end
	swept   time.Time      // when those that did not come back were last forgotten
}

// refusal is why a caller was refused, and until when.
type refusal struct {
	name  string // that has as many calls as it may have; empty where all names together have
	until time.Time
}

// newLimit returns a limit of at least one call, in all and for each name.
func newLimit(all, each int) *limit {
	return &limit{
		all:     max(1, all),
		each:    max(1, each),
		under:   map[string][]time.Time{},
		refused: map[string]refusal{},
		waiting: map[string]int{},
	}
}

// leastWait is the least time that one waits which enter has sent away.
const leastWait = time.Second

// enter begins a call, which ends with leave. If there are too many calls, ok is false, and wait is
// the time until the next try. It grows with the age of the calls in the way, up to most. It also
// spreads the callers: those that wait for full names retry, in all, at most l.all times per
// leastWait, and so do those that wait for the limit of all names. So callers that wait for one
// name do not delay calls for another. name is not empty, and random is from [0, 1).
func (l *limit) enter(
	name, who string, now time.Time, most time.Duration, random float64,
) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked(now)
	l.forgetLocked(who)
	list := l.under[name]
	if l.total < l.all && len(list) < l.each {
		l.total++
		l.under[name] = append(list, now)
		return 0, true
	}
	r, age, share := refusal{}, most, 1
	if len(list) >= l.each {
		r.name, age, share = name, now.Sub(list[0]), l.fullLocked()
	} else {
		for _, list := range l.under { // any of them may end first
			age = min(age, now.Sub(list[0]))
		}
	}
	l.waiting[r.name]++
	wait = min(max(age, leastWait), most)
	wait = max(wait, leastWait*time.Duration(l.waiting[r.name]*share)/time.Duration(l.all))
	wait += time.Duration(random * float64(wait))
	r.until = now.Add(wait)
	l.refused[who] = r
	return wait, false
}

// fullLocked returns how many names have as many calls as they may have.
func (l *limit) fullLocked() (n int) {
	for _, list := range l.under {
		if len(list) >= l.each {
			n++
		}
	}
	return n
}

// forgetLocked forgets that a caller was refused.
func (l *limit) forgetLocked(who string) {
	r, ok := l.refused[who]
	if !ok {
		return
	}
	delete(l.refused, who)
	if l.waiting[r.name]--; l.waiting[r.name] == 0 {
		delete(l.waiting, r.name)
	}
}

// sweepLocked forgets, at most once in forgetAfter, those that did not come back.
func (l *limit) sweepLocked(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < forgetAfter {
		return
	}
	l.swept = now
	for who, r := range l.refused {
		if r.until.Add(forgetAfter).Before(now) {
			l.forgetLocked(who)
		}
	}
}

// leave ends the call that enter began at that time.
func (l *limit) leave(name string, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.under[name]
	for i, at := range list {
		if at.Equal(began) {
			list = append(list[:i:i], list[i+1:]...)
			l.total--
			break
		}
	}
	if l.under[name] = list; len(list) == 0 {
		delete(l.under, name)
	}
}
