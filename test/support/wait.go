package support

import (
	"testing"
	"time"
)

const (
	// Patience bounds every wait of a test. It is long because other tests may keep the machine busy:
	// a test that passes does not wait for it.
	Patience = 2 * time.Minute
	// pollEvery is the pause between two checks of something that cannot be waited for.
	pollEvery = 5 * time.Millisecond
)

// Eventually calls done until it returns true, and reports whether it did so within [Patience]. Any
// goroutine may call it.
func Eventually(done func() bool) bool {
	for deadline := time.Now().Add(Patience); !done(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// Until calls done until it returns true, and fails the test after [Patience]. what completes the
// sentence "waited in vain for ...".
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !Eventually(done) {
		t.Fatalf("waited in vain for %s", what)
	}
}

// Retry calls try until it returns nil, and fails the test with its last error after [Patience].
func Retry(t testing.TB, try func() error) {
	t.Helper()
	var err error
	if !Eventually(func() bool { err = try(); return err == nil }) {
		t.Fatalf("after %v: %v", Patience, err)
	}
}
