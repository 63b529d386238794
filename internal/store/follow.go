package store

import (
	"context"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hub notifies followers of changed secrets. One watch serves all of them, so a follower costs only
// memory.
type hub struct {
	mu sync.Mutex
	// followers has, by the key of a secret's record, each follower and the secret's index in its
	// list.
	followers map[string]map[*Follower]int // guarded by mu
	count     int                          // guarded by mu; of followers
}

// Follower is notified when one of several secrets changes. Call Close to end it.
type Follower struct {
	hub    *hub
	keys   []string
	signal chan struct{}

	changed map[int]struct{} // guarded by hub.mu
}

// Follow follows secrets of an account from now on. A caller that then reads them in a new snapshot
// misses no change.
func (db *DB) Follow(account string, names []string) *Follower {
	f := &Follower{hub: &db.hub, keys: make([]string, len(names)), signal: make(chan struct{}, 1)}
	for i, name := range names {
		f.keys[i] = secretKind.key(in(account, name))
	}
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	if f.hub.followers == nil {
		f.hub.followers = map[string]map[*Follower]int{}
	}
	f.hub.count++
	for i, key := range f.keys {
		if f.hub.followers[key] == nil {
			f.hub.followers[key] = map[*Follower]int{}
		}
		f.hub.followers[key][f] = i
	}
	return f
}

// Signal returns a channel that has an element when Changed has something to return.
func (f *Follower) Signal() <-chan struct{} { return f.signal }

// Changed returns the indexes, in the list given to Follow, of the secrets that may have changed
// since the last call.
func (f *Follower) Changed() []int {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	list := make([]int, 0, len(f.changed))
	for i := range f.changed {
		list = append(list, i)
	}
	f.changed = nil
	return list
}

// Close ends the notifications.
func (f *Follower) Close() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	f.hub.count--
	for _, key := range f.keys {
		delete(f.hub.followers[key], f)
		if len(f.hub.followers[key]) == 0 {
			delete(f.hub.followers, key)
		}
	}
}

// notifyLocked records that the secret at index i may have changed.
func (f *Follower) notifyLocked(i int) {
	if f.changed == nil {
		f.changed = map[int]struct{}{}
	}
	f.changed[i] = struct{}{}
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// take notifies the followers of the records with these keys. A snapshot that is made afterwards
// must see the change.
func (h *hub) take(keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		for f, i := range h.followers[key] {
			f.notifyLocked(i)
		}
	}
}

// lost notifies every follower of all its secrets, after a watch has begun: earlier changes are in
// none of its events.
func (h *hub) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, followers := range h.followers {
		for f, i := range followers {
			f.notifyLocked(i)
		}
	}
}

// Following returns the number of followers.
func (db *DB) Following() int {
	db.hub.mu.Lock()
	defer db.hub.mu.Unlock()
	return db.hub.count
}

// followCluster watches the secrets of a store that has no mirror, until ctx ends.
func (db *DB) followCluster(ctx context.Context) {
	for ctx.Err() == nil {
		events := db.client.Watch(clientv3.WithRequireLeader(ctx), db.prefix+secretKind.prefix,
			clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		for e := range events {
			if e.Err() != nil {
				break
			}
			if e.Created {
				db.hub.lost()
			}
			keys := make([]string, len(e.Events))
			for i, event := range e.Events {
				keys[i] = strings.TrimPrefix(string(event.Kv.Key), db.prefix)
			}
			db.hub.take(keys)
		}
		t := time.NewTimer(rewatch)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}
