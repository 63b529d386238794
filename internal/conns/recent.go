package conns

import (
	"container/list"
	"net/netip"
)

// recent maps sources to values and holds at most a number of them: the one that was not asked for
// longest is forgotten first.
type recent[V any] struct {
	most  int
	by    map[netip.Addr]*list.Element
	order *list.List // newest first; of entry[V]
}

type entry[V any] struct {
	source netip.Addr
	value  V
}

func newRecent[V any](most int) recent[V] {
	return recent[V]{most: most, by: map[netip.Addr]*list.Element{}, order: list.New()}
}

func (r *recent[V]) get(source netip.Addr) (value V, ok bool) {
	e, ok := r.by[source]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(entry[V]).value, true
}

// put adds a source that is not there.
func (r *recent[V]) put(source netip.Addr, value V) {
	r.by[source] = r.order.PushFront(entry[V]{source, value})
	if r.order.Len() > r.most {
		delete(r.by, r.order.Remove(r.order.Back()).(entry[V]).source)
	}
}
