package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// search looks for a version to try next.
type search struct {
	c     *Consumer
	e     *entry
	tried []offer // in this round of logins
}

// next returns the version to try after those that were tried: the current one if it is new, then
// the candidate of a rotation, then the previous one. It reads the secret again, unless it was read
// after since.
func (q search) next(ctx context.Context, since time.Time) (offer, error) {
	s := q.e.current.Load()
	if s != nil && q.allowed(offer{s, LoginRefreshed}) {
		return offer{s, LoginRefreshed}, nil // it arrived during the login
	}
	if s == nil || s.FetchedAt.Before(since) {
		if o, err := q.readAgain(ctx); err != nil || o.secret != nil {
			return o, err
		}
	}
	if o, err := q.tryLabel(ctx, kms.StagePending, LoginCandidate); err != nil || o.secret != nil {
		return o, err
	}
	if o, err := q.tryLabel(ctx, kms.StagePrevious, LoginPrevious); err != nil || o.secret != nil {
		return o, err
	}
	versions := make([]string, len(q.tried))
	for i, t := range q.tried {
		versions[i] = fmt.Sprintf("%s (%s)", t.secret.VersionID, t.as)
	}
	return offer{}, fmt.Errorf("consumer: secret %q: no other version to try after %s",
		q.e.name, strings.Join(versions, ", "))
}

// allowed reports whether to try a version: not if it was rejected moments ago, and once in a
// round. A candidate that has become current in the meantime may be tried again.
func (q search) allowed(o offer) bool {
	for _, t := range q.tried {
		promoted := o.as == LoginRefreshed && t.as != LoginCurrent && t.as != LoginRefreshed
		if t.secret.VersionID == o.secret.VersionID && !promoted {
			return false
		}
	}
	return q.e.logins.offer(o)
}

// readAgain reads the secret, and returns the current version if it may be tried.
func (q search) readAgain(ctx context.Context) (offer, error) {
	err := q.c.Refresh(ctx, q.e.name)
	if s := q.e.current.Load(); s != nil && q.allowed(offer{s, LoginRefreshed}) {
		return offer{s, LoginRefreshed}, nil
	}
	if err != nil {
		err = fmt.Errorf("consumer: secret %q: nothing else to try after a rejection: %w", q.e.name, err)
	}
	return offer{}, err
}

// tryLabel returns the version with a label if it may be tried. Each label is read once in a round,
// and none after the previous version, which is the last resort.
func (q search) tryLabel(ctx context.Context, stage, as string) (offer, error) {
	if slices.ContainsFunc(q.tried, func(t offer) bool { return t.as == as || t.as == LoginPrevious }) {
		return offer{}, nil
	}
	s, err := q.c.readStage(ctx, q.e, stage)
	switch current := q.e.current.Load(); {
	case err != nil || s == nil:
		return offer{}, err
	case q.allowed(offer{s, as}):
		return offer{s, as}, nil
	case as == LoginPrevious && current != nil && s.VersionID == current.VersionID:
		// The candidate was promoted between the reads: the version that this process has as the
		// current one is the previous one by now.
		return q.readAgain(ctx)
	}
	return offer{}, nil
}

// readStage reads the version with a label. It returns nil without an error if the server has no
// such version, or refuses it. The version is never written to disk.
func (c *Consumer) readStage(ctx context.Context, e *entry, stage string) (*Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.read(ctx, e, stage)
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
