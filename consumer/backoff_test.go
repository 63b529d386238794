package consumer

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	const limit = 5 * time.Minute
	for _, tt := range []struct {
		failures int
		draw     float64
		want     time.Duration
	}{
		{1, 0, 0}, {1, 0.5, 500 * time.Millisecond}, {1, 1, time.Second}, {2, 1, 2 * time.Second}, {3, 1, 4 * time.Second},
		{4, 0.25, 2 * time.Second}, {5, 1, 16 * time.Second}, {8, 1, 128 * time.Second},
		{9, 1, 256 * time.Second}, {10, 1, limit},
		{11, 0.5, limit / 2}, {40, 1, limit}, {1 << 40, 1, limit}, {0, 1, time.Second},
	} {
		if got := backoff(tt.failures, limit, tt.draw); got != tt.want {
			t.Errorf("backoff(%d, %v, %v) = %v, want %v", tt.failures, limit, tt.draw, got, tt.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header, value string
		want          time.Duration
	}{
		{"X-Acs-Retry-After", "1500", 1500 * time.Millisecond},
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "99999999999", time.Hour},
		{"Retry-After", "-1", 0},
		{"Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", 0},
		{"Other", "1", 0},
	} {
		err := fmt.Errorf("wrapped: %w", &kms.Error{
			HTTPStatus: 429,
			Code:       kms.CodeThrottling,
			Header:     http.Header{tt.header: {tt.value}},
		})
		if got := retryAfter(err); got != tt.want {
			t.Errorf("retryAfter with %s: %s = %v, want %v", tt.header, tt.value, got, tt.want)
		}
		if got := pause(3, time.Minute, err, 0.5); got != tt.want+2*time.Second {
			t.Errorf("pause with %s: %s = %v, want 2s more than %v", tt.header, tt.value, got, tt.want)
		}
	}
	if got := retryAfter(errAway); got != 0 {
		t.Errorf("retryAfter of an error of the network = %v", got)
	}
}

// TestJudge goes over every code that package kms names: what it does to a value that is there, and
// to long polls.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code    string
		status  int
		want    finding
		noWatch bool
	}{
		{kms.CodeMissingParameter, 400, unavailable, true},
		{kms.CodeInvalidParameter, 400, unavailable, true},
		{kms.CodeSignatureDoesNotMatch, 400, unavailable, false},
		{kms.CodeIncompleteSignature, 400, unavailable, false},
		{kms.CodeSignatureNonceUsed, 400, unavailable, false},
		{kms.CodeTimestampExpired, 400, unavailable, false},
		{kms.CodeAccessKeyNotFound, 404, unavailable, false},
		{kms.CodeAccessKeyDisabled, 403, unavailable, false},
		{kms.CodeNoPermission, 403, denied, true},
		{kms.CodeResourceNotFound, 404, absent, true},
		{kms.CodeKeyNotFound, 404, unavailable, true},
		{kms.CodeResourceExist, 409, unavailable, true},
		{kms.CodeResourceInDeleteWindow, 409, absent, true},
		{kms.CodeResourceInUse, 409, unavailable, true},
		{kms.CodeLimitExceeded, 400, unavailable, true},
		{kms.CodeThrottling, 429, unavailable, false},
		{kms.CodeUnsupportedOperation, 400, unavailable, true},
		{kms.CodeActionNotFound, 404, unavailable, true},
		{kms.CodeDryRunOperation, 400, unavailable, true},
		{kms.CodeInternalFailure, 500, unavailable, false},
		{kms.CodeUnavailable, 503, unavailable, false},
		// Answers of a proxy.
		{"HTTP400", 400, unavailable, true}, {"HTTP401", 401, unavailable, false}, {"HTTP403", 403, unavailable, true},
		{"HTTP404", 404, unavailable, true}, {"HTTP405", 405, unavailable, true}, {"HTTP408", 408, unavailable, false},
		{"HTTP429", 429, unavailable, false}, {"HTTP501", 501, unavailable, true}, {"HTTP502", 502, unavailable, false},
		{"HTTP504", 504, unavailable, false},
	} {
		err := fmt.Errorf("wrapped: %w", problem(tt.status, tt.code))
		if got := classify(err); got != tt.want {
			t.Errorf("classify(%s) = %d, want %d", tt.code, got, tt.want)
		}
		if got := lacksWatch(err); got != tt.noWatch {
			t.Errorf("lacksWatch(%s) = %t, want %t", tt.code, got, tt.noWatch)
		}
	}
	if classify(errAway) != unavailable || lacksWatch(errAway) {
		t.Error("an error of the network says something about the secret or the endpoint")
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return time.Unix(1000, 0).Add(d) }
	const interval = 5 * time.Minute
	for _, tt := range []struct {
		name            string
		read, confirmed time.Duration
		rotation        time.Duration // 0: none
		push            bool
		draw            float64
		interval        time.Duration
		want            time.Duration
	}{
		{"the whole interval", 0, 0, 0, false, 1, interval, interval},
		{"half of it", 0, 0, 0, false, 0.5, interval, interval / 2},
		{"push has confirmed since", 0, time.Minute, 0, false, 1, interval, interval + time.Minute},
		{"push", 0, time.Minute, 0, true, 1, interval, time.Hour},
		{"push, longer interval", 0, 0, 0, true, 0.5, 4 * time.Hour, 2 * time.Hour},
		{"push, rotation", 0, 0, time.Minute, true, 1, interval, time.Hour},
		{"rotation comes first", 0, 0, time.Minute, false, 1, interval, 90 * time.Second},
		{"rotation comes first, jitter", 0, 0, time.Minute, false, 0.5, interval, 75 * time.Second},
		{"rotation comes later", 0, 0, time.Hour, false, 1, interval, interval},
		{"rotation is under way", 2 * time.Minute, 0, time.Minute, false, 1, interval, 150 * time.Second},
		{"rotation is long overdue", 30 * time.Minute, 0, time.Minute, false, 1, interval, 35 * time.Minute},
		{"rotation, short interval", 0, 0, 3 * time.Second, false, 1, 5 * time.Second, 4 * time.Second},
	} {
		in := times{
			read:       at(tt.read),
			confirmed:  at(tt.confirmed),
			interval:   tt.interval,
			precaution: time.Hour,
			push:       tt.push,
			draw:       tt.draw,
		}
		if tt.rotation != 0 {
			in.rotation = at(tt.rotation)
		}
		if got := in.due(); !got.Equal(at(tt.want)) {
			t.Errorf("%s: due after %v, want %v", tt.name, got.Sub(at(0)), tt.want)
		}
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	b := bucket{burst: 3, interval: time.Second}
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{0, 0, 0, time.Second, 2 * time.Second} {
		if got := b.reserve(now); got != want {
			t.Errorf("take %d = %v, want %v", i, got, want)
		}
	}
	if got := b.reserve(now.Add(time.Minute)); got != 0 {
		t.Errorf("take after a minute = %v, want 0", got)
	}
}
