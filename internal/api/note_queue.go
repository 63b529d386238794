package api

// noteQueue holds at most a number of notes of consumers. Each access key has a share: when the
// queue is full, a note takes the place of one of the key with the most, so no key can lose the
// notes of another. It is not safe for concurrent use.
type noteQueue[V any] struct {
	most, count int
	by          map[string]map[consumerID]V // by access key
}

func newNoteQueue[V any](most int) noteQueue[V] {
	return noteQueue[V]{most: most, by: map[string]map[consumerID]V{}}
}

func (q *noteQueue[V]) get(id consumerID) (v V, ok bool) {
	v, ok = q.by[id.key][id]
	return v, ok
}

// put adds a note or replaces it, and returns how many notes found no room: its own, or one of
// another key.
func (q *noteQueue[V]) put(id consumerID, v V) (own, other int) {
	notes := q.by[id.key]
	if _, ok := notes[id]; !ok && q.count >= q.most {
		largest := ""
		for key := range q.by {
			if len(q.by[key]) > len(q.by[largest]) {
				largest = key
			}
		}
		if len(notes)+1 > len(q.by[largest]) {
			return 1, 0
		}
		for victim := range q.by[largest] {
			q.remove(victim)
			other = 1
			break
		}
	}
	if notes == nil {
		notes = map[consumerID]V{}
		q.by[id.key] = notes
	}
	if _, ok := notes[id]; !ok {
		q.count++
	}
	notes[id] = v
	return 0, other
}

func (q *noteQueue[V]) remove(id consumerID) {
	notes := q.by[id.key]
	if _, ok := notes[id]; !ok {
		return
	}
	delete(notes, id)
	q.count--
	if len(notes) == 0 {
		delete(q.by, id.key)
	}
}

// take removes at most n notes, as many of each key as it comes to. of chooses; nil means all.
func (q *noteQueue[V]) take(n int, of func(consumerID) bool) (batch []V) {
	for more := true; more && len(batch) < n; {
		more = false
		each := max(1, (n-len(batch))/max(1, len(q.by)))
		for _, notes := range q.by {
			taken := 0
			for id, v := range notes {
				if taken == each || len(batch) == n {
					break
				}
				if of == nil || of(id) {
					batch = append(batch, v)
					q.remove(id)
					taken++
				}
			}
			more = more || taken > 0
		}
	}
	return batch
}

// each calls f with every note; f may remove it.
func (q *noteQueue[V]) each(f func(consumerID, V)) {
	for _, notes := range q.by {
		for id, v := range notes {
			f(id, v)
		}
	}
}

// instanceCount is how many consumers of one secret were noted.
type instanceCount struct {
	all int
	by  map[string]int // by access key
}

// full reports whether one more consumer of a key finds no room among most. A key has always room
// for its share.
func (n *instanceCount) full(key string, most int) bool {
	if n == nil || n.all < most {
		return false
	}
	keys := len(n.by)
	if n.by[key] == 0 {
		keys++
	}
	return n.by[key] >= max(1, most/keys)
}
