package store

import (
	"context"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hub tells those who follow secrets which of them have changed. One watch serves all of them, so that a follower costs memory
// and nothing else.
type hub struct {
	mu        sync.Mutex
	followers map[string]map[*Follower]int // guarded by mu; by the key of a secret's record: its place in the follower's list
	count     int                          // guarded by mu; of followers
}

// Follower is told when one of several secrets changes. Close ends it.
type Follower struct {
	hub    *hub
	keys   []string
	signal chan struct{}

	changed map[int]struct{} // guarded by hub.mu
}

// Follow follows secrets of an account from now on: whoever looks at them afterwards, in a new snapshot, misses no change.
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

// Signal holds a signal when there is something for Changed.
func (f *Follower) Signal() <-chan struct{} { return f.signal }

// Changed returns the places, in the list that Follow took, of the secrets that may have changed since the last call.
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

// Close ends the following.
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

// tellLocked notes that the secret at place i may have changed.
func (f *Follower) tellLocked(i int) {
	if f.changed == nil {
		f.changed = map[int]struct{}{}
	}
	f.changed[i] = struct{}{}
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// take tells the followers of the records with these keys. A snapshot that is made afterwards must see the change.
func (h *hub) take(keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		for f, i := range h.followers[key] {
			f.tellLocked(i)
		}
	}
}

// lost tells everyone that changes may have been missed: a watch has begun, and what happened before it is in none of its events.
func (h *hub) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, followers := range h.followers {
		for f, i := range followers {
			f.tellLocked(i)
		}
	}
}

// Following is how many follow secrets at present.
func (db *DB) Following() int {
	db.hub.mu.Lock()
	defer db.hub.mu.Unlock()
	return db.hub.count
}

// followCluster feeds the hub of a store that has no mirror, until ctx ends.
func (db *DB) followCluster(ctx context.Context) {
	for ctx.Err() == nil {
		events := db.client.Watch(clientv3.WithRequireLeader(ctx), db.prefix+secretKind.prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
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
