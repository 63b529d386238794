package rotation_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestFailing verifies since when a rotation fails, and that this is reported once, by a step that
// fails ten minutes later. A retirement that fails is reported by its own time.
func TestFailing(t *testing.T) {
	t.Parallel()
	now := noon
	r := record(rotation.Prepared)
	r.Strategy = target.Single
	step := func(after time.Duration, e rotation.Event, notice rotation.Notice, since time.Time) {
		t.Helper()
		now = now.Add(after)
		next, err := rotation.Next(r, e, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := rotation.NoticeOf(r, next, e.Kind); got != notice || !next.FailingSince.Equal(since) {
			t.Errorf("%s in %s at %v: %q, failing since %v; want %q, %v",
				e.Kind, r.State, now, got, next.FailingSince, notice, since)
		}
		r = next
	}
	none := time.Time{}
	unreached := rotation.Event{Kind: rotation.Unreached}
	began := noon.Add(time.Minute)
	step(time.Minute, unreached, rotation.NoNotice, began)
	step(9*time.Minute, rotation.Event{Kind: rotation.Sending}, rotation.NoNotice, began)
	step(0, rotation.Event{Kind: rotation.Denied}, rotation.NoNotice, began)
	step(time.Minute, rotation.Event{Kind: rotation.Probed}, rotation.NoNotice, began)
	step(time.Second, unreached, rotation.NoticeFailing, began)
	step(5*time.Minute, unreached, rotation.NoNotice, began)
	step(time.Minute, rotation.Event{Kind: rotation.Sending}, rotation.NoNotice, began)
	step(0, rotation.Event{Kind: rotation.Accepted}, rotation.NoNotice, began)
	step(0, rotation.Event{Kind: rotation.LoggedIn}, rotation.NoNotice, began)
	step(0, rotation.Event{Kind: rotation.Promoted}, rotation.NoticeSucceeded, none)

	r = record(rotation.InGrace)
	step(time.Hour, rotation.Event{Kind: rotation.Expired}, rotation.NoNotice, none)
	failed := rotation.Event{Kind: rotation.Failed}
	began = now
	step(0, failed, rotation.NoNotice, began)
	step(rotation.FailingAfter, failed, rotation.NoticeFailing, began)
	step(0, rotation.Event{Kind: rotation.Retired}, rotation.NoNotice, none)
}

// TestFailingAhead verifies that a clock that was set back does not put the report off.
func TestFailingAhead(t *testing.T) {
	t.Parallel()
	r := record(rotation.Retiring)
	r.FailingSince, r.Failures = noon.Add(24*time.Hour), 1
	r, err := rotation.Next(r, rotation.Event{Kind: rotation.Failed}, noon)
	if err != nil || !r.FailingSince.Equal(noon) {
		t.Errorf("failing since %v, %v; want %v", r.FailingSince, err, noon)
	}
}
