package limit

import (
	"container/list"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxDelay is how long an answer waits at most.
	maxDelay = time.Second
	// maxDelayed bounds how many answers wait at the same time.
	maxDelayed = 4096
	// paceBurst is how many seconds' worth of answers come without delay.
	paceBurst = 5
)

// Pacer delays answers to clients that cause too many of a kind, such as refusals. A client that
// waits for an answer before it sends more is slowed down to the rate, whatever it sends; other
// clients are not. A nil pacer delays nothing.
type Pacer struct {
	rate rate.Limit

	mu      sync.Mutex
	paces   map[string]*list.Element // guarded by mu; of *pace
	recent  list.List                // guarded by mu; newest first
	delayed int                      // guarded by mu
}

type pace struct {
	id     string
	bucket *rate.Limiter
}

// NewPacer returns a pacer that lets so many answers a second through for each client; 0 means a
// nil pacer.
func NewPacer(perSecond float64) *Pacer {
	if perSecond <= 0 {
		return nil
	}
	return &Pacer{rate: rate.Limit(perSecond), paces: map[string]*list.Element{}}
}

// Wait waits as long as the next answer to a client is to wait, at most a second. It returns false
// when too many answers wait already: the connection is to be closed then.
func (p *Pacer) Wait(ctx context.Context, id string) bool {
	if p == nil {
		return true
	}
	delay := p.delay(id)
	if delay == 0 {
		return true
	}
	p.mu.Lock()
	full := p.delayed >= maxDelayed
	if !full {
		p.delayed++
	}
	p.mu.Unlock()
	if full {
		return false
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.delayed--
	p.mu.Unlock()
	return true
}

func (p *Pacer) delay(id string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	el, ok := p.paces[id]
	if ok {
		p.recent.MoveToFront(el)
	} else {
		el = p.recent.PushFront(&pace{id, rate.NewLimiter(p.rate, max(1, int(paceBurst*p.rate)))})
		p.paces[id] = el
		if p.recent.Len() > maxKeys {
			delete(p.paces, p.recent.Remove(p.recent.Back()).(*pace).id)
		}
	}
	r := el.Value.(*pace).bucket.Reserve()
	delay := r.Delay()
	if delay > maxDelay {
		r.Cancel() // otherwise the answers after a flood would be delayed for as long as it lasted
		return maxDelay
	}
	return delay
}
