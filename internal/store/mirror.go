package store

import (
	"container/list"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	DefaultMirror = 320 << 20 // bytes of records kept in memory
	entryOverhead = 256
	rewatch       = 100 * time.Millisecond // before a watch that broke is begun again
)

// mirror keeps records that were read lately in memory, fed by a watch, so that a read need not go through the store. It
// is for stores that are all ours, where every revision is an event of the watch.
//
// Its promise: applied is a revision up to which every event has been taken in. A record in the mirror is the newest one
// as of applied. So a reader that has waited until applied is at least the revision of every change that was acknowledged
// before it began may answer from the mirror, and what it reads is linearizable.
type mirror struct {
	client *clientv3.Client
	prefix string // of every key of ours; records are kept here by what follows it
	log    *slog.Logger
	limit  int
	// alone says that this process is the store's only writer: then the revisions of its own commits are all that a
	// reader must wait for. Otherwise a reader asks the store, together with all who ask at the same time.
	alone bool
	acked atomic.Int64
	asks  chan ask
	// hub receives every change once a reader can see it.
	hub *hub

	mu      sync.Mutex
	entries map[string]*list.Element // guarded by mu; of *entry
	recent  list.List                // guarded by mu; newest first
	absent  list.List                // guarded by mu; keys without a record, newest first
	size    int                      // guarded by mu
	applied int64                    // guarded by mu; 0 while there is no watch
	waiters []waiter                 // guarded by mu
}

// entry is one record. What it decodes to is kept too; nobody changes a decoded record.
type entry struct {
	key     string
	data    []byte
	rev     int64 // at which it was written, or was seen to be absent
	decoded atomic.Pointer[any]
}

// cost is about what an entry takes. A record is kept decoded too, which takes about twice its text; a sealed value is not.
func (e *entry) cost() int {
	n := len(e.data) + len(e.key) + entryOverhead
	if !strings.HasPrefix(e.key, valueKind.prefix) {
		n += 2 * len(e.data)
	}
	return n
}

type waiter struct {
	rev  int64
	done chan struct{}
}

type ask struct{ answer chan result }

type result struct {
	rev int64
	err error
}

func newMirror(client *clientv3.Client, prefix string, alone bool, limit int, log *slog.Logger) *mirror {
	if limit <= 0 {
		limit = DefaultMirror
	}
	return &mirror{client: client, prefix: prefix, alone: alone, limit: limit, log: log, entries: map[string]*list.Element{}, asks: make(chan ask)}
}

// run feeds the mirror until ctx ends. A watch that breaks empties the mirror; reads then go to the store.
func (m *mirror) run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { m.askLoop(ctx) })
	for ctx.Err() == nil {
		if err := m.watch(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("the watch of the store broke; reads go to the store until it is back", "err", err)
		}
		m.reset()
		t := time.NewTimer(rewatch)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	parts.Wait()
}

// watch takes in events from the present revision on. It returns when the watch ends.
func (m *mirror) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	now, err := m.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	events := m.client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(now.Header.Revision+1), clientv3.WithCreatedNotify())
	for e := range events {
		if err := e.Err(); err != nil {
			return err
		}
		m.take(e, now.Header.Revision)
	}
	return ctx.Err()
}

// take applies the events of one answer of the watch. The first, which says that the watch is there, makes the mirror
// usable from the revision on at which it began. An answer holds all events of its revisions.
func (m *mirror) take(e clientv3.WatchResponse, began int64) {
	m.hub.take(m.apply(e, began))
	if e.Created {
		m.hub.lost()
	}
}

// apply returns the keys of secrets that the events are of.
func (m *mirror) apply(e clientv3.WatchResponse, began int64) (secrets []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, event := range e.Events {
		key := strings.TrimPrefix(string(event.Kv.Key), m.prefix)
		if strings.HasPrefix(key, secretKind.prefix) {
			secrets = append(secrets, key)
		}
		if el, ok := m.entries[key]; ok && el.Value.(*entry).rev < event.Kv.ModRevision {
			m.dropLocked(el)
		}
		m.applied = max(m.applied, event.Kv.ModRevision)
	}
	m.applied = max(m.applied, began)
	rest := m.waiters[:0]
	for _, w := range m.waiters {
		if w.rev <= m.applied {
			close(w.done)
		} else {
			rest = append(rest, w)
		}
	}
	m.waiters = rest
	return secrets
}

func (m *mirror) dropLocked(el *list.Element) {
	e := el.Value.(*entry)
	m.listOfLocked(e).Remove(el)
	delete(m.entries, e.key)
	m.size -= e.cost()
}

// listOfLocked is the list that an entry is in.
func (m *mirror) listOfLocked(e *entry) *list.List {
	if e.data == nil {
		return &m.absent
	}
	return &m.recent
}

// reset empties the mirror and lets everyone who waits go to the store.
func (m *mirror) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.entries)
	m.recent.Init()
	m.absent.Init()
	m.size, m.applied = 0, 0
	for _, w := range m.waiters {
		close(w.done)
	}
	m.waiters = nil
}

// committed notes the revision of a change before it is acknowledged.
func (m *mirror) committed(rev int64) {
	for {
		old := m.acked.Load()
		if old >= rev || m.acked.CompareAndSwap(old, rev) {
			return
		}
	}
}

// barrier returns a revision at which the mirror may be read: every change that was acknowledged before the call is in
// it. ok is false when the mirror cannot be used and the store must be read.
func (m *mirror) barrier(ctx context.Context) (rev int64, ok bool, err error) {
	want := m.acked.Load()
	if !m.alone {
		if want, err = m.ask(ctx); err != nil {
			return 0, false, err
		}
	}
	for {
		m.mu.Lock()
		rev = m.applied
		if rev == 0 || rev >= want {
			m.mu.Unlock()
			return rev, rev > 0, nil
		}
		w := waiter{want, make(chan struct{})}
		m.waiters = append(m.waiters, w)
		m.mu.Unlock()
		select {
		case <-w.done:
		case <-ctx.Done():
			return 0, false, unavailable(ctx.Err())
		}
	}
}

// ask learns the store's present revision by a linearizable read that is shared by all who ask at the same time.
func (m *mirror) ask(ctx context.Context) (int64, error) {
	a := ask{make(chan result, 1)}
	select {
	case m.asks <- a:
	case <-ctx.Done():
		return 0, unavailable(ctx.Err())
	}
	select {
	case r := <-a.answer:
		return r.rev, r.err
	case <-ctx.Done():
		return 0, unavailable(ctx.Err())
	}
}

// askLoop answers all callers that wait with one read. A caller that arrives while a read is under
// way waits for the next one, which begins after the call.
func (m *mirror) askLoop(ctx context.Context) {
	var waiting []ask
	answers := make(chan result, 1)
	busy := false
	begin := func() {
		batch := waiting
		waiting, busy = nil, true
		go func() {
			r := m.revision(ctx)
			for _, a := range batch {
				a.answer <- r
			}
			answers <- r
		}()
	}
	for {
		select {
		case a := <-m.asks:
			waiting = append(waiting, a)
			if !busy {
				begin()
			}
		case <-answers:
			busy = false
			if len(waiting) > 0 {
				begin()
			}
		case <-ctx.Done():
			if busy {
				<-answers
			}
			return
		}
	}
}

// askTimeout bounds a shared read; a caller's own deadline may be shorter.
const askTimeout = 5 * time.Second

func (m *mirror) revision(ctx context.Context) result {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := m.client.Get(ctx, "\x00", clientv3.WithKeysOnly())
	if err != nil {
		return result{err: unavailable(err)}
	}
	return result{rev: resp.Header.Revision}
}

// find returns a record that is in the mirror and was so at that revision.
func (m *mirror) find(key string, rev int64) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	el, ok := m.entries[key]
	if !ok || el.Value.(*entry).rev > rev {
		return nil
	}
	e := el.Value.(*entry)
	m.listOfLocked(e).MoveToFront(el)
	return e
}

// maxAbsent is how many keys without a record are kept. They have a bound of their own, so that
// requests for absent names displace no records.
const maxAbsent = 8192

// keep takes in a record that was read from the store, as it was at the revision asOf; data is nil when there was none. An absent
// record is kept too, so that reading it takes no longer than reading one that is there. It is not kept when the watch is
// ahead of asOf: an event that changed it may have passed already.
func (m *mirror) keep(key string, data []byte, rev, asOf int64) *entry {
	e := &entry{key: key, data: data, rev: rev}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied == 0 || m.applied > asOf || e.cost() > m.limit/4 {
		return e
	}
	if el, ok := m.entries[key]; ok {
		m.dropLocked(el)
	}
	m.entries[key] = m.listOfLocked(e).PushFront(e)
	m.size += e.cost()
	if m.absent.Len() > maxAbsent {
		m.dropLocked(m.absent.Back())
	}
	for m.size > m.limit {
		oldest := m.recent.Back()
		if oldest == nil {
			oldest = m.absent.Back()
		}
		m.dropLocked(oldest)
	}
	return e
}
