package api

import (
	"cmp"
	"context"
	"maps"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
)

const (
	hurryTick = time.Second
	// hurryPause is the least time between two retries of what waits at a target: a caller who
	// changes the target without end causes no more of them.
	hurryPause = 15 * time.Second
	hurryLimit = 30 * time.Second // of one pass, for each account
	hurryTries = 10               // of one change, while the store does not answer
)

// place names a target, or, with its secret, an administrator: all its targets are meant then.
type place struct{ account, target, admin string }

// hurries are the targets at which what has failed may be fixed now. The rotations that wait there
// before they try again are tried again, after the call that has changed something: a call does not
// wait for them, and their number does not make it slow. A crash forgets them: they go on at their
// own time.
type hurries struct {
	mu      sync.Mutex
	changed map[place]int       // how often each is tried at most; guarded by mu
	last    map[place]time.Time // guarded by mu; entries older than hurryPause are dropped
}

func newHurries() *hurries { return &hurries{changed: map[place]int{}, last: map[place]time.Time{}} }

func (h *hurries) add(p place) { h.addFor(p, hurryTries) }

// addFor adds a place that is tried at most so often.
func (h *hurries) addFor(p place, tries int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if tries > h.changed[p] {
		h.changed[p] = tries
	}
}

// take returns the places whose turn it is, with how often each is tried at most.
func (h *hurries) take(now time.Time) map[place]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.last, func(_ place, at time.Time) bool { return now.Sub(at).Abs() >= hurryPause })
	taken := map[place]int{}
	for p, tries := range h.changed {
		if _, recent := h.last[p]; !recent {
			taken[p], h.last[p] = tries, now
			delete(h.changed, p)
		}
	}
	return taken
}

// RunHurries has rotations tried again where something was fixed, until ctx ends.
func (g *Gate) RunHurries(ctx context.Context) {
	every(ctx, hurryTick, func() { g.hurry(ctx) }, g.hurry)
}

// hurry makes the engine retry now what has failed at the targets that have changed. Each rotation
// is retried at most once a minute, see [rotation.Record.CanHurry]. The places of an account for
// which that fails are tried again after [hurryPause].
func (g *Gate) hurry(ctx context.Context) {
	byAccount := map[string][]place{}
	taken := g.hurries.take(g.env.Now())
	for p := range taken {
		byAccount[p.account] = append(byAccount[p.account], p)
	}
	for account, places := range byAccount {
		err := g.hurryAccount(ctx, account, places)
		if err == nil {
			continue
		}
		for _, p := range places {
			g.hurries.addFor(p, taken[p]-1)
		}
		if g.env.Log != nil {
			g.env.Log.Info("rotations that wait for another try were not all tried sooner", "account", account, "err", err)
		}
	}
}

// hurryAccount retries what waits at some places of an account.
func (g *Gate) hurryAccount(ctx context.Context, account string, places []place) error {
	ctx, cancel := context.WithTimeout(ctx, hurryLimit)
	defer cancel()
	tx := store.Snapshot(ctx, g.env.DB)
	changed, admins := map[string]bool{}, map[string]bool{}
	for _, p := range places {
		if p.admin != "" {
			admins[p.admin] = true
		} else {
			changed[p.target] = true
		}
	}
	if len(admins) > 0 {
		err := tx.Targets(account, "", func(t store.Target) bool {
			if admins[t.AdminSecret] {
				changed[t.Name] = true
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if len(changed) == 0 {
		return nil
	}
	var waiting []string
	err := tx.Rotations(account, "", "", func(r rotation.Record) bool {
		if changed[r.Target] && r.CanHurry() {
			waiting = append(waiting, r.Secret)
		}
		return true
	})
	return cmp.Or(err, eachRecord(waiting, func(name string) error { return g.hurryOne(ctx, account, name) }))
}

func (g *Gate) hurryOne(ctx context.Context, account, name string) error {
	c := g.systemCall(engineName, rotation.Hurried.Operation(), account, name)
	sooner := false
	err := store.Do(ctx, g.env.DB, func(tx *store.Tx) error {
		r, ok, err := tx.Rotation(account, name)
		if err != nil || !ok || !r.CanHurry() {
			return err
		}
		next, err := rotation.Next(r, rotation.Event{Kind: rotation.Hurried}, c.At)
		if sooner = err == nil && next.NextAt.Before(r.NextAt); !sooner {
			return err
		}
		return tx.PutRotation(&next)
	})
	if !sooner {
		return err
	}
	return cmp.Or(g.record(ctx, c, audit.Call, outcome(err), false), err)
}

// targetChanged has what failed at a target tried again, because it may be fixed.
func (g *Gate) targetChanged(account, name string) {
	g.hurries.add(place{account: account, target: name})
}

// currentChanged is targetChanged for the targets whose administrator is in a secret that has
// another current version now.
func (g *Gate) currentChanged(ctx context.Context, account, secretName string) {
	used, err := store.Snapshot(ctx, g.env.DB).GuardUse(account, secretName)
	if used || err != nil { // most secrets are of no target
		g.hurries.add(place{account: account, admin: secretName})
	}
}

// hasNewCurrent reports whether a secret has another current version than before.
func hasNewCurrent(before, after secret.Secret) bool {
	return before.Stages[secret.Current] != after.Stages[secret.Current]
}
