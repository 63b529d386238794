package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	defaultLoginLimit = 10
	loginWindow       = time.Minute
	// rejectedFor is how long a version that was rejected is not offered again, unless it has
	// become the current one since.
	rejectedFor = 10 * time.Second
)

// With what a login worked, or why it did not.
const (
	// LoginCurrent is the current version, at the first attempt.
	LoginCurrent = "current"
	// LoginRefreshed is the current version, which only a read after a rejection has brought.
	LoginRefreshed = "refreshed"
	// LoginCandidate and LoginPrevious are the candidate of a rotation and the version before the
	// current one.
	LoginCandidate = "candidate"
	LoginPrevious  = "previous"
	// LoginRejected counts rejections, LoginLimited logins that were not tried because of
	// Config.LoginLimit, and LoginFailed those that failed for a reason that is not the credential.
	LoginRejected = "rejected"
	LoginLimited  = "limited"
	LoginFailed   = "failed"
)

// ErrLoginLimit says that the target has rejected as many logins within a minute as
// Config.LoginLimit allows, so that it was not asked again.
var ErrLoginLimit = errors.New("too many logins were rejected within a minute")

// offer is a version that was handed out to log in with, and what it was then.
type offer struct {
	secret *Secret
	as     string
}

// logins is what is known of the logins of one secret.
type logins struct {
	mu       sync.Mutex
	underWay int                  // guarded by mu, as all below
	freed    chan struct{}        // closed when one has ended
	rejected []time.Time          // in the last minute
	versions map[string]time.Time // when a version was last rejected
	offers   map[string]offer     // by version
	works    offer                // another version than the current one that has worked
	instead  string               // the current version at that time
}

// acquire takes one of the logins that a target may reject in a minute, and waits while others that
// are under way may still leave one. Half of them at most are under way at once: when a credential
// has just changed all those are rejected, and the others must be left for the new one. done gives
// it back, or not when the login was rejected.
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

// first is the version to begin with, and whether to look for another one before: the current one,
// unless that was rejected within the last minute and another worked, or it was rejected a moment
// ago.
func (l *logins) first(current *Secret) (o offer, another bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked(time.Now())
	at, rejected := l.versions[current.VersionID]
	if rejected && l.works.secret != nil && l.instead == current.VersionID {
		return l.works, false
	}
	return offer{current, LoginCurrent}, rejected && time.Since(at) < rejectedFor
}

// offer hands a version out, and reports whether it may be: not when it was rejected a moment ago.
// One that has become current since then was verified by who made it current.
func (l *logins) offer(o offer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	version := o.secret.VersionID
	at, rejected := l.versions[version]
	promoted := o.as == LoginRefreshed && l.offers[version].as != "" && l.offers[version].as != LoginRefreshed
	if rejected && time.Since(at) < rejectedFor && !promoted {
		return false
	}
	if l.offers == nil || len(l.offers) > 16 {
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

// Login opens something with a secret: it calls try with the current version and, when the target
// rejects that, reads the secret again and calls try with what is then current, if that is new,
// with the candidate of a rotation that is under way, and with the previous version, until one
// works. It returns the version that did. rejected says whether an error of try means that the
// credential was not accepted; other errors are returned as they are.
//
// Config.LoginLimit bounds how many logins of a secret are rejected in a minute, over all callers;
// half as many are under way at once. Past it Login answers ErrLoginLimit, with the last rejection,
// and does not call try. A version that has worked instead of the current one is tried first for a
// minute, and one that was rejected within the last ten seconds last.
func (c *Consumer) Login(ctx context.Context, name string, rejected func(error) bool, try func(context.Context, *Secret) error) (*Secret, error) {
	if _, err := c.Get(ctx, name); err != nil {
		return nil, err
	}
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	r := round{began: time.Now()}
	for {
		o, refused, err := c.attempt(ctx, e, &r, rejected, try)
		switch {
		case err == nil:
			c.worked(e, o)
			return o.secret, nil
		case !refused && r.last != nil:
			return nil, fmt.Errorf("%w: %w", err, r.last)
		case !refused:
			return nil, err
		}
		if r.last == nil {
			r.began = time.Now() // what is read from now on may know better
		}
		r.last, r.tried = err, append(r.tried, o)
		if r.next, err = c.next(ctx, e, r.tried, r.began); err != nil {
			return nil, fmt.Errorf("%w: %w", err, r.last)
		}
	}
}

// round is one call of Login.
type round struct {
	began time.Time // what was read since is new enough
	next  offer     // to try; none at the beginning
	tried []offer
	last  error // the last rejection
}

// begin chooses what a round tries first.
func (c *Consumer) begin(ctx context.Context, e *entry, r *round) (offer, error) {
	current, err := c.Get(ctx, e.name)
	if err != nil {
		return offer{}, err
	}
	o, another := e.logins.first(current)
	if another {
		if better, err := c.next(ctx, e, nil, r.began); err == nil {
			return better, nil
		}
	}
	return o, nil
}

// attempt is one login, and whether the target has rejected it. What a round begins with is chosen
// when its turn has come: others may have found out meanwhile what works.
func (c *Consumer) attempt(ctx context.Context, e *entry, r *round, rejected func(error) bool, try func(context.Context, *Secret) error) (o offer, refused bool, err error) {
	done, err := e.logins.acquire(ctx, c.config.LoginLimit)
	if err != nil {
		c.counters.login(LoginLimited)
		return o, false, fmt.Errorf("consumer: secret %q: %w", e.name, err)
	}
	defer func() { done(refused) }()
	if o = r.next; o.secret == nil {
		if o, err = c.begin(ctx, e, r); err != nil {
			return o, false, err
		}
	}
	if err = try(ctx, o.secret); err == nil {
		return o, false, nil
	}
	if refused = rejected(err); !refused {
		c.counters.login(LoginFailed)
		return o, false, err
	}
	c.counters.login(LoginRejected)
	e.logins.reject(o.secret.VersionID)
	return o, true, err
}

// Failed is Login for callers that cannot be called back: it says that the target has rejected a
// version, with cause, and returns the one to try next, in the order of Login. When there is none,
// or Config.LoginLimit is reached (ErrLoginLimit), the error has cause in its chain. Say with
// Worked which version was accepted in the end.
func (c *Consumer) Failed(ctx context.Context, name, versionID string, cause error) (*Secret, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	c.counters.login(LoginRejected)
	e.logins.reject(versionID)
	e.logins.mu.Lock()
	e.logins.forgetLocked(time.Now())
	e.logins.rejected = append(e.logins.rejected, time.Now())
	full := len(e.logins.rejected) >= c.config.LoginLimit
	as := cmp.Or(e.logins.offers[versionID].as, LoginCurrent)
	e.logins.mu.Unlock()
	if full {
		c.counters.login(LoginLimited)
		return nil, fmt.Errorf("consumer: secret %q: %w: %w", name, ErrLoginLimit, cause)
	}
	since := time.Now()
	if as == LoginCandidate || as == LoginPrevious {
		since = since.Add(-rejectedFor) // the secret was read when the one before was rejected
	}
	o, err := c.next(ctx, e, []offer{{&Secret{VersionID: versionID}, as}}, since)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, cause)
	}
	return o.secret, nil
}

// next is what to try after what was tried. The secret is read again unless that was done since.
func (c *Consumer) next(ctx context.Context, e *entry, tried []offer, since time.Time) (offer, error) {
	h := search{c, e, tried}
	s := e.current.Load()
	if s != nil && h.allowed(offer{s, LoginRefreshed}) {
		return offer{s, LoginRefreshed}, nil // it came while the login was under way
	}
	if s == nil || s.FetchedAt.Before(since) {
		if o, err := h.readAgain(ctx); err != nil || o.secret != nil {
			return o, err
		}
	}
	if o, err := h.tryLabel(ctx, kms.StagePending, LoginCandidate); err != nil || o.secret != nil {
		return o, err
	}
	if o, err := h.tryLabel(ctx, kms.StagePrevious, LoginPrevious); err != nil || o.secret != nil {
		return o, err
	}
	versions := ""
	for _, t := range tried {
		versions += fmt.Sprintf(", %s (%s)", t.secret.VersionID, t.as)
	}
	return offer{}, fmt.Errorf("consumer: secret %q: no other version to try after %s", e.name, strings.TrimPrefix(versions, ", "))
}

// search looks for a version to try after what was tried.
type search struct {
	c     *Consumer
	e     *entry
	tried []offer
}

// allowed reports whether to try a version: not twice in a round, but for a candidate that has
// become current, and not when it was rejected a moment ago.
func (h search) allowed(o offer) bool {
	return !slices.ContainsFunc(h.tried, func(t offer) bool {
		return t.secret.VersionID == o.secret.VersionID && (o.as != LoginRefreshed || t.as == LoginCurrent || t.as == LoginRefreshed)
	}) && h.e.logins.offer(o)
}

// readAgain looks at what is current now.
func (h search) readAgain(ctx context.Context) (offer, error) {
	err := h.c.Refresh(ctx, h.e.name)
	if s := h.e.current.Load(); s != nil && h.allowed(offer{s, LoginRefreshed}) {
		return offer{s, LoginRefreshed}, nil
	}
	if err != nil {
		err = fmt.Errorf("consumer: secret %q: nothing else to try after a rejection: %w", h.e.name, err)
	}
	return offer{}, err
}

// tryLabel looks at the version with a label. The candidate comes before the previous one, and each
// once.
func (h search) tryLabel(ctx context.Context, stage, as string) (offer, error) {
	if slices.ContainsFunc(h.tried, func(t offer) bool { return t.as == as || t.as == LoginPrevious }) {
		return offer{}, nil
	}
	s, err := h.c.readStage(ctx, h.e, stage)
	switch current := h.e.current.Load(); {
	case err != nil || s == nil:
		return offer{}, err
	case h.allowed(offer{s, as}):
		return offer{s, as}, nil
	case as == LoginPrevious && current != nil && s.VersionID == current.VersionID:
		// The candidate was promoted between the reads: what is current here is the previous one by
		// now.
		return h.readAgain(ctx)
	}
	return offer{}, nil
}

// readStage reads the version with another label than the current one. It is kept in memory alone,
// and there only while logins need it. There is none, and no error, when the server says so.
func (c *Consumer) readStage(ctx context.Context, e *entry, stage string) (*Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.api.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: e.name, VersionStage: stage, FetchExtendedConfig: true, Consumer: c.config.Instance})
	var refused *kms.Error
	switch {
	case err == nil && answer != nil && answer.VersionID != "":
		if stage == kms.StagePending {
			e.mu.Lock()
			e.use.candidate = answer.VersionID
			e.mu.Unlock()
		}
		return newSecret(e.name, answer, begun, SourceServer), nil
	case err == nil || errors.As(err, &refused) && !refused.Temporary():
		return nil, nil
	}
	return nil, fmt.Errorf("consumer: secret %q: read %s: %w", e.name, stage, err)
}

// Worked says that the target has accepted a version that Get or Failed gave. Login does it by
// itself.
func (c *Consumer) Worked(name, versionID string) {
	e := (*c.entries.Load())[name]
	if e == nil {
		return
	}
	e.logins.mu.Lock()
	o, ok := e.logins.offers[versionID]
	if !ok && e.logins.works.secret != nil && e.logins.works.secret.VersionID == versionID {
		o, ok = e.logins.works, true
	}
	e.logins.mu.Unlock()
	if !ok {
		o = offer{e.current.Load(), LoginCurrent}
	}
	if o.secret != nil && o.secret.VersionID == versionID {
		c.worked(e, o)
	}
}

func (c *Consumer) worked(e *entry, o offer) {
	c.counters.login(o.as)
	current := e.current.Load()
	l := &e.logins
	l.mu.Lock()
	delete(l.versions, o.secret.VersionID)
	delete(l.offers, o.secret.VersionID)
	was := l.works.secret
	if current == nil || o.secret.VersionID == current.VersionID {
		l.works = offer{}
	} else {
		l.works, l.instead = o, current.VersionID
	}
	l.mu.Unlock()
	if o.as != LoginCurrent && (was == nil || was.VersionID != o.secret.VersionID) {
		c.log.Warn("a login worked only with another version than the one at hand", "secret", e.name, "version", o.secret.VersionID, "as", o.as)
	}
}
