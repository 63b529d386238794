package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	defaultLoginLimit = 10
	loginWindow       = time.Minute
	// rejectedFor is how long a rejected version is not offered again, unless it has become the
	// current one since.
	rejectedFor = 10 * time.Second
	// maxOffers bounds the versions of one secret that were offered and have no outcome yet.
	maxOffers = 16
)

// ErrLoginLimit says that the target has rejected as many logins within a minute as
// [Config.LoginLimit] allows, so that no further login was tried.
var ErrLoginLimit = errors.New("too many logins were rejected within a minute")

// offer is a version to log in with, and its role at that time: LoginCurrent, LoginRefreshed,
// LoginCandidate or LoginPrevious.
type offer struct {
	secret *Secret
	as     string
}

// logins is what the consumer knows about the logins with one secret.
type logins struct {
	mu        sync.Mutex
	underWay  int                  // guarded by mu, as all below
	freed     chan struct{}        // closed when a login has ended
	rejected  []time.Time          // rejections in the last minute
	versions  map[string]time.Time // when a version was last rejected
	offers    map[string]offer     // by version; an entry lasts until the version works
	working   offer                // a version that worked although it was not the current one
	insteadOf string               // the current version at that time
}

// acquire reserves one of the logins that a target may reject in a minute. It waits while logins
// under way may still leave one. At most half of the limit are under way: if the credential has
// just changed, all of them are rejected, and the other half must remain for the new credential.
// The caller must call done, which frees the reservation unless the login was rejected.
func (l *logins) acquire(ctx context.Context, limit int) (done func(rejected bool), err error) {
	for {
		l.mu.Lock()
		l.forgetLocked(time.Now())
		if l.underWay+len(l.rejected) < limit && l.underWay < (limit+1)/2 {
			l.underWay++
			l.mu.Unlock()
			return l.done, nil
		}
		if l.underWay == 0 {
			wait := time.Until(l.rejected[0].Add(loginWindow))
			l.mu.Unlock()
			return nil, fmt.Errorf("%w; the next is possible in %s", ErrLoginLimit, wait.Round(time.Second))
		}
		if l.freed == nil {
			l.freed = make(chan struct{})
		}
		freed := l.freed
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for other logins: %w", context.Cause(ctx))
		}
	}
}

func (l *logins) done(rejected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underWay--
	if rejected {
		l.rejected = append(l.rejected, time.Now())
	}
	if l.freed != nil {
		close(l.freed)
		l.freed = nil
	}
}

// forgetLocked drops rejections that are older than loginWindow.
func (l *logins) forgetLocked(now time.Time) {
	for len(l.rejected) > 0 && now.Sub(l.rejected[0]) >= loginWindow {
		l.rejected = l.rejected[1:]
	}
	for version, at := range l.versions {
		if now.Sub(at) >= loginWindow {
			delete(l.versions, version)
		}
	}
}

// start returns the version to try first: the current one, unless it was rejected within the last
// minute and another version worked. searchFirst reports that the current version was rejected only
// moments ago, so the caller should search for another version before it tries this one.
func (l *logins) start(current *Secret) (o offer, searchFirst bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked(time.Now())
	at, rejected := l.versions[current.VersionID]
	if rejected && l.working.secret != nil && l.insteadOf == current.VersionID {
		return l.working, false
	}
	return offer{current, LoginCurrent}, rejected && time.Since(at) < rejectedFor
}

// offer registers o, and reports whether to try it: not if it was rejected within rejectedFor. The
// exception is a version that has become current since then, because the rotation has verified it.
func (l *logins) offer(o offer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	version := o.secret.VersionID
	at, rejected := l.versions[version]
	before := l.offers[version].as
	promoted := o.as == LoginRefreshed && before != "" && before != LoginRefreshed
	if rejected && time.Since(at) < rejectedFor && !promoted {
		return false
	}
	if l.offers == nil || len(l.offers) > maxOffers {
		l.offers = map[string]offer{}
	}
	l.offers[version] = o
	return true
}

func (l *logins) reject(version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.versions == nil {
		l.versions = map[string]time.Time{}
	}
	l.versions[version] = time.Now()
}

// fail registers a rejection that acquire has not reserved. It returns the role in which the
// version was offered, and reports whether the limit is reached.
func (l *logins) fail(version string, limit int) (as string, full bool) {
	l.reject(version)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.forgetLocked(now)
	l.rejected = append(l.rejected, now)
	return cmp.Or(l.offers[version].as, LoginCurrent), len(l.rejected) >= limit
}

// offered returns the offer of a version that has no outcome yet, or the working one.
func (l *logins) offered(version string) (offer, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok := l.offers[version]
	if !ok && l.working.secret != nil && l.working.secret.VersionID == version {
		return l.working, true
	}
	return o, ok
}

// accept registers that o worked while current was the current version. It returns the version that
// worked before instead of the current one, if any.
func (l *logins) accept(o offer, current *Secret) (before *Secret) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.versions, o.secret.VersionID)
	delete(l.offers, o.secret.VersionID)
	before = l.working.secret
	if current == nil || o.secret.VersionID == current.VersionID {
		l.working = offer{}
	} else {
		l.working, l.insteadOf = o, current.VersionID
	}
	return before
}
