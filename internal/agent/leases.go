package agent

import (
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

const (
	// leaseTime is how long a version stays held after the end of a call that said it is in use:
	// longer than the pause of a consumer between two calls while they fail.
	leaseTime = 90 * time.Second
	// maxLeases bounds the versions of one secret that are held, and is at least 2: one of them is
	// not the current version then, which is enough to keep a grace period from ending.
	maxLeases = 8
	maxID     = 64 // characters of a version's ID
)

// leases hold the versions that programs at the wire API report as in use. The agent reports them
// to the server as its own, so a program can delay the end of a grace period and cannot bring it
// forward: the report of one program releases no version of another.
type leases struct {
	// heldName returns the name under which the agent holds a secret, and "" for one that it does
	// not hold, so that what is held here has the same bound.
	heldName func(name string) string
	hold     func(name, version string) (release func())

	mu   sync.Mutex
	held map[string]map[string]*lease // guarded by mu; by secret and version
}

// lease is one version that is held.
type lease struct {
	until   time.Time
	release func()
	timer   *time.Timer
}

func newLeases(heldName func(name string) string, hold func(name, version string) (release func())) *leases {
	return &leases{heldName: heldName, hold: hold, held: map[string]map[string]*lease{}}
}

// note holds what a consumer says it uses.
func (l *leases) note(in *kms.WatchSecretsRequest) {
	if in.Consumer == "" {
		return
	}
	for _, w := range in.Secrets {
		name := l.heldName(w.SecretName)
		for _, version := range []string{w.VersionID, w.OldestVersionID} {
			if name != "" && len(version) <= maxID && wire.IsName(version) {
				l.take(name, version, time.Duration(in.WaitSeconds)*time.Second+leaseTime)
			}
		}
	}
}

// take holds a version for a time, or for longer when it is held already.
func (l *leases) take(name, version string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.held[name]
	if of == nil {
		of = map[string]*lease{}
		l.held[name] = of
	}
	until := time.Now().Add(d)
	held := of[version]
	switch {
	case held != nil:
		before := held.release
		held.release = l.hold(name, version) // the consumer may be another one than before
		before()
	case len(of) >= maxLeases:
		for _, other := range of { // these stand for it
			other.extend(until)
		}
		return
	default:
		held = &lease{release: l.hold(name, version)}
		held.timer = time.AfterFunc(d, func() { l.expire(name, version) })
		of[version] = held
	}
	held.extend(until)
}

// extend lets a lease last until a time at least.
func (h *lease) extend(until time.Time) {
	if until.After(h.until) {
		h.until = until
	}
}

// expire releases a version, unless it was taken again meanwhile.
func (l *leases) expire(name, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.held[name][version]
	if held == nil {
		return
	}
	if left := time.Until(held.until); left > 0 {
		held.timer.Reset(left)
		return
	}
	l.dropLocked(name, version)
}

func (l *leases) dropLocked(name, version string) {
	held := l.held[name][version]
	held.timer.Stop()
	held.release()
	delete(l.held[name], version)
	if len(l.held[name]) == 0 {
		delete(l.held, name)
	}
}

// close releases everything.
func (l *leases) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, of := range l.held {
		for version := range of {
			l.dropLocked(name, version)
		}
	}
}
