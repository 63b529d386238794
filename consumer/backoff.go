package consumer

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// firstBackoff is the upper bound of the first retry.
const firstBackoff = time.Second

// backoff returns the time until the next attempt after a number of failures in a row: full jitter
// below a bound that doubles from firstBackoff to limit. draw is in [0, 1).
func backoff(failures int, limit time.Duration, draw float64) time.Duration {
	bound := limit
	if shift := failures - 1; shift < 30 {
		bound = min(limit, firstBackoff<<max(shift, 0))
	}
	return time.Duration(draw * float64(bound))
}

// retryAfter returns how long the service, or a proxy before it, asks to wait, up to
// [kms.MaxRetryAfter]; 0 if neither asks.
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
	return time.Duration(min(seconds, int(kms.MaxRetryAfter/time.Second))) * time.Second
}

// pause returns the time until the next attempt after a failure: the time that the service asks
// for, and a random part.
func pause(failures int, limit time.Duration, err error, draw float64) time.Duration {
	return retryAfter(err) + backoff(failures, limit, draw)
}

// finding is what a failed read shows about a secret.
type finding int

const (
	// unavailable is every error that is not about the secret itself.
	unavailable finding = iota
	absent
	denied
)

// classify returns the finding of a failed read. Only an answer about the secret itself shows that
// it is absent or denied. An unknown access key, a wrong signature or a wrong clock concerns this
// caller or the path to the server, and must not take an application's values away.
func classify(err error) finding {
	switch kms.CodeOf(err) {
	case kms.CodeResourceNotFound, kms.CodeResourceInDeleteWindow:
		return absent
	case kms.CodeNoPermission:
		return denied
	}
	return unavailable
}

// lacksWatch reports whether err means that the endpoint has no WatchSecrets, or that a proxy
// blocks it, so that an early retry cannot help.
func lacksWatch(err error) bool {
	var e *kms.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case kms.CodeActionNotFound, kms.CodeUnsupportedOperation:
		return true
	case kms.CodeAccessKeyNotFound,
		kms.CodeAccessKeyDisabled,
		kms.CodeSignatureDoesNotMatch,
		kms.CodeIncompleteSignature,
		kms.CodeSignatureNonceUsed,
		kms.CodeTimestampExpired,
		kms.CodeThrottling:
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

// times determines the next read of a value.
type times struct {
	read, confirmed time.Time // start of the last read, and when push last confirmed the value
	rotation        time.Time // when the next rotation is due; zero if unknown
	interval        time.Duration
	precaution      time.Duration // the interval while push works, unless interval is longer
	push            bool
	draw            float64 // in [1/2, 1]
}

// due returns when to read next. Without push, reads are more frequent around a rotation that is
// due, until the new version is there or twice the interval has passed. With push, reads are a
// precaution.
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

// bucket is a token bucket: burst tokens at once, and one more in each interval. It is not safe for
// concurrent use.
type bucket struct {
	burst    int
	interval time.Duration
	full     time.Time // when the bucket will be full again
}

// reserve takes a token, and returns how long to wait before using it.
func (b *bucket) reserve(now time.Time) time.Duration {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.interval)
	return max(0, b.full.Sub(now)-time.Duration(b.burst)*b.interval)
}
