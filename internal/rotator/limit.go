package rotator

import (
	"sync"
	"time"
)

// limit bounds how many calls are under way at once, in all and for each name.
type limit struct {
	all, each int

	mu    sync.Mutex
	total int                    // guarded by mu
	under map[string][]time.Time // guarded by mu; when the calls that are under way began, oldest first
}

func newLimit(all, each int) *limit {
	return &limit{all: max(1, all), each: max(1, each), under: map[string][]time.Time{}}
}

// enter begins a call, which ends with leave; ok is false when there are too many. Then oldest is
// when the oldest of the calls under that name began, or now where there is none.
func (l *limit) enter(name string, now time.Time) (oldest time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.under[name]
	if l.total < l.all && len(list) < l.each {
		l.total++
		l.under[name] = append(list, now)
		return now, true
	}
	if len(list) == 0 {
		return now, false
	}
	return list[0], false
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
