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
	// refused has those that enter has sent away and that have not begun, and until when.
	refused map[string]time.Time
	swept   time.Time // when those that did not come back were last forgotten
}

// newLimit returns a limit of at least one call, in all and for each name.
func newLimit(all, each int) *limit {
	return &limit{
		all:     max(1, all),
		each:    max(1, each),
		under:   map[string][]time.Time{},
		refused: map[string]time.Time{},
	}
}

// leastWait is the least time that one waits which enter has sent away.
const leastWait = time.Second

// enter begins a call, which ends with leave; ok is false when there are too many. Then wait is the
// time until the next try: the longer, the longer the oldest of the calls in the way has had no
// answer, but for that no longer than most; and long enough that those that wait come back, all
// together, no more often than l.all times in leastWait. random is from [0, 1).
func (l *limit) enter(
	name, who string, now time.Time, most time.Duration, random float64,
) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked(now)
	list := l.under[name]
	if l.total < l.all && len(list) < l.each {
		l.total++
		l.under[name] = append(list, now)
		delete(l.refused, who)
		return 0, true
	}
	oldest := now
	for other, list := range l.under {
		if (other == name || l.total >= l.all) && list[0].Before(oldest) {
			oldest = list[0]
		}
	}
	l.refused[who] = now
	wait = min(max(now.Sub(oldest), leastWait), most)
	wait = max(wait, leastWait*time.Duration(len(l.refused))/time.Duration(l.all))
	wait += time.Duration(random * float64(wait))
	l.refused[who] = now.Add(wait)
	return wait, false
}

// sweepLocked forgets, at most once in forgetAfter, those that did not come back.
func (l *limit) sweepLocked(now time.Time) {
	if since := now.Sub(l.swept); since >= 0 && since < forgetAfter {
		return
	}
	l.swept = now
	for who, until := range l.refused {
		if until.Add(forgetAfter).Before(now) {
			delete(l.refused, who)
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
