package consumer

import (
	"slices"
	"sync"
)

// Hold registers that something that stays open, such as a connection, was opened with a version of
// a secret. The consumer reports its current version and the oldest held one to the server, which
// does not retire a credential that is still held, up to the maximum of the grace period. release
// ends the hold; it may be called more than once.
func (c *Consumer) Hold(name, versionID string) (release func()) {
	e := (*c.entries.Load())[name]
	if e == nil || versionID == "" {
		return func() {} // this Consumer has never read the secret, so it reports nothing about it
	}
	e.mu.Lock()
	e.use.add(versionID)
	e.mu.Unlock()
	c.updatePoll(e)
	return sync.OnceFunc(func() {
		e.mu.Lock()
		e.use.remove(versionID)
		e.mu.Unlock()
		c.updatePoll(e)
	})
}

// usage lists the versions of one secret that are in use.
type usage struct {
	current   string         // opens whatever is opened next; empty for none
	candidate string         // of a rotation, so newer than current
	held      map[string]int // number of holds by version
	order     []string       // the versions that are held or current, oldest first
}

// setCurrent changes the version in use. It then counts as the newest, even if it was in use
// before, as after a rollback.
func (u *usage) setCurrent(version string) {
	if u.current == version {
		return
	}
	u.current = version
	u.order = slices.DeleteFunc(u.order, func(v string) bool { return v == version || u.held[v] == 0 })
	if version != "" {
		u.order = append(u.order, version)
	}
}

// add counts one more hold. A version that was never in use counts as the oldest, because another
// one replaced it while the connection was being opened.
func (u *usage) add(version string) {
	if u.held == nil {
		u.held = map[string]int{}
	}
	u.held[version]++
	switch {
	case slices.Contains(u.order, version):
	case version == u.candidate:
		u.order = append(u.order, version)
	default:
		u.order = slices.Insert(u.order, 0, version)
	}
}

func (u *usage) remove(version string) {
	if u.held[version]--; u.held[version] <= 0 {
		delete(u.held, version)
		if version != u.current {
			u.order = slices.DeleteFunc(u.order, func(v string) bool { return v == version })
		}
	}
}

// oldest returns the oldest version that is held; empty if no held version is older than the
// current one.
func (u *usage) oldest() string {
	for _, v := range u.order {
		if v == u.current {
			return ""
		}
		if u.held[v] > 0 {
			return v
		}
	}
	return ""
}

// subscriber is one call of [Consumer.Changes].
type subscriber struct {
	names  map[string]bool // empty means all
	reads  bool            // also signalled when the server first confirms a value
	signal chan struct{}
}

// Changes returns a channel that receives when the version of a secret changes that [Consumer.Get]
// returns, or when the secret is taken away. Without names it covers all secrets. The channel
// merges changes, so call Get for each secret. stop ends the subscription; the channel is never
// closed.
func (c *Consumer) Changes(names ...string) (signal <-chan struct{}, stop func()) {
	return c.subscribe(names, false)
}

func (c *Consumer) subscribe(names []string, reads bool) (signal <-chan struct{}, stop func()) {
	s := &subscriber{names: map[string]bool{}, reads: reads, signal: make(chan struct{}, 1)}
	for _, name := range names {
		s.names[name] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribers[s] = true
	return s.signal, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subscribers, s)
	}
}

// notify signals to subscribers that the version of a secret has changed or, if version is false,
// that the server has confirmed the first value.
func (c *Consumer) notify(e *entry, version bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subscribers {
		if (version || s.reads) && (len(s.names) == 0 || s.names[e.name]) {
			select {
			case s.signal <- struct{}{}:
			default:
			}
		}
	}
}

// versionChanged notifies the application and the server that another version of a secret is in
// use.
func (c *Consumer) versionChanged(e *entry) {
	c.notify(e, true)
	c.updatePoll(e)
}
