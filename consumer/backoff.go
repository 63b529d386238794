package consumer

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	// firstBackoff is the most that the first retry waits.
	firstBackoff = time.Second
	// maxRetryAfter bounds what a server may ask for.
	maxRetryAfter = time.Hour
)

// backoff is the time until the next attempt after so many failures in a row: full jitter below a bound that doubles from
// firstBackoff up to limit. draw is in [0, 1).
func backoff(failures int, limit time.Duration, draw float64) time.Duration {
	bound := limit
	if shift := failures - 1; shift < 30 {
		bound = min(limit, firstBackoff<<max(shift, 0))
	}
	return time.Duration(draw * float64(bound))
}

// retryAfter is how long the service asks to wait, 0 when it does not say.
func retryAfter(err error) time.Duration {
	var e *kms.Error
	if !errors.As(err, &e) {
		return 0
	}
	if d := e.RetryAfter(); d > 0 {
		return d
	}
	seconds, err := strconv.Atoi(e.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(time.Duration(min(seconds, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
}

// pause is the time until the next attempt after a failure: never sooner than the service asks, and then still spread.
func pause(failures int, limit time.Duration, err error, draw float64) time.Duration {
	return retryAfter(err) + backoff(failures, limit, draw)
}

// verdict is what an attempt to read says about a secret.
type verdict int

const (
	// unavailable says nothing about the secret.
	unavailable verdict = iota
	present
	absent
	denied
)

// judge tells the three results of a failed read apart. Only an answer about the secret itself says that it is absent or
// denied; an unknown access key, a wrong signature or a wrong clock say something about this caller or the way to the
// server, and must not cost an application its values.
func judge(err error) verdict {
	switch kms.CodeOf(err) {
	case kms.CodeResourceNotFound, kms.CodeResourceInDeleteWindow:
		return absent
	case kms.CodeNoPermission:
		return denied
	}
	return unavailable
}

// lacksWatch reports whether err says that the endpoint has no WatchSecrets, or lets nobody through to it, so that asking
// again soon is of no use. Other errors are those of any call.
func lacksWatch(err error) bool {
	var e *kms.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case kms.CodeActionNotFound, kms.CodeUnsupportedOperation:
		return true
	case kms.CodeAccessKeyNotFound, kms.CodeAccessKeyDisabled, kms.CodeSignatureDoesNotMatch, kms.CodeIncompleteSignature,
		kms.CodeSignatureNonceUsed, kms.CodeTimestampExpired, kms.CodeThrottling:
		return false
	}
	switch e.HTTPStatus {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusUnauthorized:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return e.HTTPStatus >= 400 && e.HTTPStatus < 500
}

// times are what the next read of a value that is there depends on.
type times struct {
	read, confirmed time.Time // when the last read began, and when push last said that nothing has changed
	rotation        time.Time // when the next rotation is due; zero when it is not known
	interval        time.Duration
	precaution      time.Duration // the interval while push works, unless the other one is longer
	push            bool
	draw            float64 // in [1/2, 1]
}

// due is when to read next. Without push reads come closer together around a rotation that is due, until it is seen to be
// over or twice the interval has passed. With push they are a precaution.
func (t times) due() time.Time {
	if t.push {
		return t.read.Add(scale(max(t.precaution, t.interval), t.draw))
	}
	last := t.read
	if t.confirmed.After(last) {
		last = t.confirmed
	}
	next := last.Add(scale(t.interval, t.draw))
	tight := scale(max(min(t.interval/10, 30*time.Second), time.Second), t.draw)
	switch {
	case t.rotation.IsZero():
		return next
	case last.Before(t.rotation):
		return earlier(next, t.rotation.Add(tight))
	case last.Before(t.rotation.Add(2 * t.interval)):
		return earlier(next, last.Add(tight))
	}
	return next
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(by * float64(d)) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// bucket lets through burst things at once and one more in each interval after that. It is not safe for concurrent use.
type bucket struct {
	burst    int
	interval time.Duration
	full     time.Time // when the bucket is full again
}

// take is how long to wait until the next thing may be done; the place is taken.
func (b *bucket) take(now time.Time) time.Duration {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.interval)
	return max(0, b.full.Sub(now)-time.Duration(b.burst)*b.interval)
}
