package consumer

import (
	"context"
	"fmt"
	"time"
)

// The outcomes of logins, which [Counters.Logins] counts.
const (
	// LoginCurrent counts logins that worked with the current version, at the first attempt.
	LoginCurrent = "current"
	// LoginRefreshed counts logins that worked with the current version after it was read again
	// because of a rejection.
	LoginRefreshed = "refreshed"
	// LoginCandidate counts logins that worked with the candidate of a rotation.
	LoginCandidate = "candidate"
	// LoginPrevious counts logins that worked with the version before the current one.
	LoginPrevious = "previous"
	// LoginRejected counts rejections by the target.
	LoginRejected = "rejected"
	// LoginLimited counts logins that were not tried because of [Config.LoginLimit].
	LoginLimited = "limited"
	// LoginFailed counts logins that failed for a reason other than the credential.
	LoginFailed = "failed"
)

// Login calls try with the current version of a secret, to log in at a target. If the target
// rejects the credential, Login reads the secret again and calls try with other versions until one
// works: the version that is current then, if it is new, the candidate of a rotation under way, and
// the previous version. It returns the version that worked. rejected reports whether an error of
// try means that the target did not accept the credential. Login returns any other error of try as
// it is.
//
// [Config.LoginLimit] bounds how many logins of a secret are rejected in a minute, over all
// callers. At most half as many are under way at the same time. At the limit Login returns
// [ErrLoginLimit], with the last rejection in its chain, and does not call try. For a minute, Login
// tries a version that worked instead of the current one first. It tries a version that was
// rejected within the last ten seconds last.
func (c *Consumer) Login(
	ctx context.Context, name string, rejected func(error) bool, try func(context.Context, *Secret) error,
) (*Secret, error) {
	if _, err := c.Get(ctx, name); err != nil {
		return nil, err
	}
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	r := round{rejected: rejected, try: try, began: time.Now()}
	for {
		o, refused, err := c.attempt(ctx, e, &r)
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
			r.began = time.Now() // a value read before the first rejection may be out of date
		}
		r.last, r.tried = err, append(r.tried, o)
		if r.next, err = (search{c, e, r.tried}).next(ctx, r.began); err != nil {
			return nil, fmt.Errorf("%w: %w", err, r.last)
		}
	}
}

// round is one call of [Consumer.Login].
type round struct {
	rejected func(error) bool
	try      func(context.Context, *Secret) error

	began time.Time // a value that was read after it is new enough
	next  offer     // the version to try; none at the beginning
	tried []offer
	last  error // the last rejection
}

// attempt logs in once, and reports whether the target has rejected the version. It chooses the
// first version of a round only when the limit lets the login start, because other callers may have
// learned by then which version works.
func (c *Consumer) attempt(ctx context.Context, e *entry, r *round) (o offer, refused bool, err error) {
	done, err := e.logins.acquire(ctx, c.config.LoginLimit)
	if err != nil {
		c.counters.login(LoginLimited)
		return o, false, fmt.Errorf("consumer: secret %q: %w", e.name, err)
	}
	defer func() { done(refused) }()
	if o = r.next; o.secret == nil {
		if o, err = c.firstOffer(ctx, e, r.began); err != nil {
			return o, false, err
		}
	}
	if err = r.try(ctx, o.secret); err == nil {
		return o, false, nil
	}
	if refused = r.rejected(err); !refused {
		c.counters.login(LoginFailed)
		return o, false, err
	}
	c.counters.login(LoginRejected)
	e.logins.reject(o.secret.VersionID)
	return o, true, err
}

// firstOffer returns the version that a round tries first.
func (c *Consumer) firstOffer(ctx context.Context, e *entry, began time.Time) (offer, error) {
	current, err := c.Get(ctx, e.name)
	if err != nil {
		return offer{}, err
	}
	o, searchFirst := e.logins.start(current)
	if searchFirst {
		if better, err := (search{c, e, nil}).next(ctx, began); err == nil {
			return better, nil
		}
	}
	return o, nil
}

// Failed is [Consumer.Login] for clients that cannot be called back. It registers that the target
// has rejected a version, with cause, and returns the version to try next, in the order of Login.
// If there is none, or [Config.LoginLimit] is reached ([ErrLoginLimit]), the error has cause in its
// chain. Report the version that the target accepts in the end with [Consumer.Worked].
func (c *Consumer) Failed(ctx context.Context, name, versionID string, cause error) (*Secret, error) {
	e, err := c.entry(name)
	if err != nil {
		return nil, err
	}
	c.counters.login(LoginRejected)
	as, full := e.logins.fail(versionID, c.config.LoginLimit)
	if full {
		c.counters.login(LoginLimited)
		return nil, fmt.Errorf("consumer: secret %q: %w: %w", name, ErrLoginLimit, cause)
	}
	since := time.Now()
	if as == LoginCandidate || as == LoginPrevious {
		since = since.Add(-rejectedFor) // the secret was read after the rejection before this one
	}
	tried := []offer{{&Secret{VersionID: versionID}, as}}
	o, err := (search{c, e, tried}).next(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, cause)
	}
	return o.secret, nil
}

// Worked registers that the target has accepted a version that [Consumer.Get] or [Consumer.Failed]
// returned. Login does so automatically.
func (c *Consumer) Worked(name, versionID string) {
	e := (*c.entries.Load())[name]
	if e == nil {
		return
	}
	o, ok := e.logins.offered(versionID)
	if !ok {
		o = offer{e.current.Load(), LoginCurrent}
	}
	if o.secret != nil && o.secret.VersionID == versionID {
		c.worked(e, o)
	}
}

func (c *Consumer) worked(e *entry, o offer) {
	c.counters.login(o.as)
	before := e.logins.accept(o, e.current.Load())
	if o.as != LoginCurrent && (before == nil || before.VersionID != o.secret.VersionID) {
		c.log.Warn("a login worked only with another version than the one at hand",
			"secret", e.name, "version", o.secret.VersionID, "as", o.as)
	}
}
