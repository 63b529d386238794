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
	rewatch       = 100 * time.Millisecond // pause before a broken watch is started again
)

// mirror keeps recently read records in memory, so that most reads need not go to the store. A
// watch drops the records that change. It is for stores that only Keyturn uses, where every
// revision is an event of the watch.
//
// It guarantees that every event up to the revision applied has been processed: a record in the
// mirror is the newest one as of applied. A reader first waits until applied is at least the
// revision of every change that was acknowledged before the read began. What it then reads from the
// mirror is linearizable.
type mirror struct {
	client *clientv3.Client
	prefix string // of every key in etcd; keys in the mirror are without it
	log    *slog.Logger
	limit  int
	// alone says that this process is the store's only writer: a reader then waits only for the
	// revisions of its own commits. Otherwise readers ask the store; those who wait at the same time
	// share one answer.
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

// entry is one record with its decoded form, which callers share and must not change.
type entry struct {
	key     string
	data    []byte
	rev     int64 // at which it was written, or was found to be absent
	decoded atomic.Pointer[any]
}

// cost returns about how many bytes an entry takes. The decoded form takes about twice the size of
// its JSON; a sealed value has none.
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
	return &mirror{
		client:  client,
		prefix:  prefix,
		alone:   alone,
		limit:   limit,
		log:     log,
		entries: map[string]*list.Element{},
		asks:    make(chan ask),
	}
}

// run watches the store until ctx ends. When the watch breaks, it empties the mirror; reads go to
// the store until the watch is back.
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

// watch processes events from the current revision on. It returns when the watch ends.
func (m *mirror) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	now, err := m.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	events := m.client.Watch(ctx, "\x00", clientv3.WithFromKey(),
		clientv3.WithRev(now.Header.Revision+1), clientv3.WithCreatedNotify())
	for e := range events {
		if err := e.Err(); err != nil {
			return err
		}
		m.take(e, now.Header.Revision)
	}
	return ctx.Err()
}

// take processes one answer of the watch, which has all events of its revisions. The first answer
// reports that the watch exists; the mirror can be used from the revision on at which it began.
func (m *mirror) take(e clientv3.WatchResponse, began int64) {
	m.hub.take(m.apply(e, began))
	if e.Created {
		m.hub.lost()
	}
}

// apply drops the records that have changed, and returns the keys of the secrets among them.
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

// listOfLocked returns the list that an entry is in.
func (m *mirror) listOfLocked(e *entry) *list.List {
	if e.data == nil {
		return &m.absent
	}
	return &m.recent
}

// reset empties the mirror and sends all waiting readers to the store.
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

// committed records the revision of a change before the change is acknowledged.
func (m *mirror) committed(rev int64) {
	for {
		old := m.acked.Load()
		if old >= rev || m.acked.CompareAndSwap(old, rev) {
			return
		}
	}
}

// barrier waits until the mirror has every change that was acknowledged before the call, and
// returns a revision at which it may then be read. ok is false if the store must be read instead.
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

// ask returns the current revision of the store, from a linearizable read that waiting callers
// share.
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

// askLoop answers all waiting callers with one read. A caller that arrives during a read waits for
// the next one: the answer must not be older than the call.
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

// askTimeout bounds a shared read. A caller's own deadline may be shorter.
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

// find returns a record of the mirror that was the same at that revision; nil if there is none.
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

// maxAbsent is how many keys without a record are kept. The limit is separate, so that requests for
// absent names displace no records.
const maxAbsent = 8192

// keep adds a record that was read from the store at the revision asOf; data is nil if there was
// none. An absent record is kept too, so that reading an absent name takes no longer than reading
// one that exists. If the watch is ahead of asOf, the record is not kept: an event that changed it
// may have passed already.
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
