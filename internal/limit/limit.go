// Package limit bounds how many requests a second one access key, and all together, may make.
//
// Only a verified request counts against a key, so no caller can use up the share of another. Once
// a share is used up, further requests that claim the key are refused before their signature is
// verified, so that a client without back-off does not slow down the others.
package limit

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxKeys bounds how many keys are remembered; the key seen longest ago is forgotten first, and
// then begins with a full share.
const maxKeys = 10_000

// Config says how much is allowed; 0 means no limit. A second's worth may come at once.
type Config struct {
	// PerKey is requests a second of one access key.
	PerKey float64
	// Total is requests a second of all.
	Total float64
}

// Limiter counts requests. It is safe for concurrent use.
type Limiter struct {
	perKey rate.Limit
	total  *rate.Limiter

	mu     sync.Mutex
	keys   map[string]*list.Element // guarded by mu; of *share
	recent list.List                // guarded by mu; newest first
}

type share struct {
	key    string
	bucket *rate.Limiter
}

// New returns a limiter, or nil when nothing is limited. A nil limiter allows everything.
func New(c Config) *Limiter {
	if c.PerKey <= 0 && c.Total <= 0 {
		return nil
	}
	l := &Limiter{perKey: rate.Limit(c.PerKey), keys: map[string]*list.Element{}}
	if c.Total > 0 {
		l.total = bucket(rate.Limit(c.Total))
	}
	return l
}

func bucket(r rate.Limit) *rate.Limiter {
	return rate.NewLimiter(r, max(1, int(r)))
}

// Exhausted reports whether the share of a key is used up at that time, and when to come back. It
// takes nothing.
func (l *Limiter) Exhausted(key string, now time.Time) (retry time.Duration, yes bool) {
	if l == nil {
		return 0, false
	}
	if l.total != nil && l.total.TokensAt(now) < 1 {
		return wait(l.total, now), true
	}
	if l.perKey <= 0 {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	el, ok := l.keys[key]
	if !ok || el.Value.(*share).bucket.TokensAt(now) >= 1 {
		return 0, false
	}
	return wait(el.Value.(*share).bucket, now), true
}

// Take counts one verified request of a key. When it is over a limit, ok is false and nothing is
// counted.
func (l *Limiter) Take(key string, now time.Time) (retry time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	if l.perKey > 0 {
		l.mu.Lock()
		s := l.shareLocked(key)
		l.mu.Unlock()
		if !s.bucket.AllowN(now, 1) {
			return wait(s.bucket, now), false
		}
	}
	if l.total != nil && !l.total.AllowN(now, 1) {
		return wait(l.total, now), false
	}
	return 0, true
}

func (l *Limiter) shareLocked(key string) *share {
	if el, ok := l.keys[key]; ok {
		l.recent.MoveToFront(el)
		return el.Value.(*share)
	}
	s := &share{key: key, bucket: bucket(l.perKey)}
	l.keys[key] = l.recent.PushFront(s)
	if l.recent.Len() > maxKeys {
		delete(l.keys, l.recent.Remove(l.recent.Back()).(*share).key)
	}
	return s
}

// wait is how long until one request fits again, without taking anything.
func wait(b *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - b.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(b.Limit()) * float64(time.Second))
}
