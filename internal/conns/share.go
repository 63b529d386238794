package conns

import (
	"container/list"
	"time"
)

// share is what connections of one class may use, and who uses it.
type share struct {
	limit, count int
	owners       map[string]*owner
	largest      owners
}

// owner is who connections count for: a source, or an access key.
type owner struct {
	name string
	// idle and busy hold *conn, the one whose state has not changed for longest in front.
	idle, busy list.List
	place      int // in the heap
}

func (o *owner) size() int { return o.idle.Len() + o.busy.Len() }

// first returns the connection to give up first: of an access key an idle one before all others,
// else the one whose state has not changed for longest.
func (o *owner) first(of class) *conn {
	idle, busy := o.idle.Front(), o.busy.Front()
	switch {
	case idle == nil && busy == nil:
		return nil
	case busy == nil, idle != nil && (of == verified || !busy.Value.(*conn).since.Before(idle.Value.(*conn).since)):
		return idle.Value.(*conn)
	}
	return busy.Value.(*conn)
}

// owners is a heap with the largest owner on top.
type owners []*owner

func (h owners) Len() int           { return len(h) }
func (h owners) Less(i, j int) bool { return h[i].size() > h[j].size() }
func (h owners) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].place, h[j].place = i, j }
func (h *owners) Push(x any)        { o := x.(*owner); o.place = len(*h); *h = append(*h, o) }
func (h *owners) Pop() any {
	last := len(*h) - 1
	o := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return o
}

// giveUpLocked returns the connection that gives way to a new one of own, which may be nil for an
// owner without any: a connection of the owner with the most, unless own is that owner.
func (s *share) giveUpLocked(own *owner, of class) *conn {
	if len(s.largest) == 0 {
		return nil
	}
	top, mine := s.largest[0], 0
	if own != nil {
		mine = own.size()
	}
	if top == own || mine+1 > top.size() {
		return nil
	}
	return top.first(of)
}

// stale returns a connection of o whose state has not changed for some time, or nil.
func (o *owner) stale(now time.Time) *conn {
	if c := o.first(stranger); c != nil && now.Sub(c.since) >= patience {
		return c
	}
	return nil
}
