package consumer

import (
	"slices"
	"sync"
)

// Hold says that something that stays open, such as a connection, was opened with a version of a secret, until release is
// called. The server is told which version is in use and the oldest that is held, and waits for it before it retires an old
// one. release may be called more than once.
func (c *Consumer) Hold(name, versionID string) (release func()) {
	e := (*c.entries.Load())[name]
	if e == nil || versionID == "" {
		return func() {} // never read by this Consumer, so the server would not wait for it either
	}
	e.mu.Lock()
	e.use.add(versionID)
	e.mu.Unlock()
	c.tell(e)
	return sync.OnceFunc(func() {
		e.mu.Lock()
		e.use.remove(versionID)
		e.mu.Unlock()
		c.tell(e)
	})
}

// usage is which versions of one secret are in use.
type usage struct {
	current   string         // what is opened next is opened with it; empty for none
	candidate string         // seen as the candidate of a rotation, so newer than current
	held      map[string]int // how many open things were opened with a version
	order     []string       // versions that are held or current, from old to new
}

// take makes a version the one in use. One that was in use before is then newer than all others, as after a roll-back.
func (u *usage) take(version string) {
	if u.current == version {
		return
	}
	u.current = version
	u.order = slices.DeleteFunc(u.order, func(v string) bool { return v == version || u.held[v] == 0 })
	if version != "" {
		u.order = append(u.order, version)
	}
}

// add counts one more open thing. A version that was never in use counts as the oldest: it was replaced while the thing was
// being opened.
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

// oldest is the oldest version that is held, empty when it is the current one or newer.
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

// subscriber is who wants to know of changes.
type subscriber struct {
	names map[string]bool // empty stands for all
	reads bool            // of each first answer of the server too
	told  chan struct{}
}

// Changes returns a channel that gets something whenever another version of one of the secrets is handed out than before, or
// none any more; without names it is about all secrets. Several changes may become one, so look at all of them by Get. stop
// ends it; the channel is never closed.
func (c *Consumer) Changes(names ...string) (told <-chan struct{}, stop func()) {
	return c.subscribe(names, false)
}

func (c *Consumer) subscribe(names []string, reads bool) (told <-chan struct{}, stop func()) {
	s := &subscriber{names: map[string]bool{}, reads: reads, told: make(chan struct{}, 1)}
	for _, name := range names {
		s.names[name] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribers[s] = true
	return s.told, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subscribers, s)
	}
}

// announce tells the application that another version of a secret is handed out, or only that the server has answered.
func (c *Consumer) announce(e *entry, version bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subscribers {
		if (version || s.reads) && (len(s.names) == 0 || s.names[e.name]) {
			select {
			case s.told <- struct{}{}:
			default:
			}
		}
	}
}

// changed tells the application and the server that another version of a secret is in use.
func (c *Consumer) changed(e *entry) {
	c.announce(e, true)
	c.tell(e)
}
