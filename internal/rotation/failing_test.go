package rotation_test

import (
	"strings"
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

// TestAwaitAdmin verifies that a rotation that waits for a rejected administrator has the advice to
// try again, and is reported like one whose steps fail.
func TestAwaitAdmin(t *testing.T) {
	t.Parallel()
	r := record(rotation.Scheduled)
	r = r.AwaitAdmin(noon.Add(time.Minute), noon, "The administrator was rejected.")
	if !r.CanHurry() || !strings.Contains(r.Advice(), "keyturn rotation retry db") || r.Why() == "" {
		t.Errorf("can be tried again: %t, %q, %q", r.CanHurry(), r.Why(), r.Advice())
	}
	late := r.AwaitAdmin(noon.Add(time.Hour), noon.Add(rotation.FailingAfter), "again")
	if got := rotation.NoticeOf(r, late, ""); got != rotation.NoticeFailing {
		t.Errorf("after ten minutes: %q", got)
	}
	tried, err := rotation.Next(r, rotation.Event{Kind: rotation.Hurried}, noon.Add(time.Second))
	if err != nil || !tried.NextAt.Equal(noon.Add(time.Second)) {
		t.Errorf("hurried: next at %v, %v", tried.NextAt, err)
	}
	begun, err := rotation.Next(r, rotation.Event{Kind: rotation.Stored, Version: "v2", Replaces: "v1"}, noon)
	if err != nil || begun.AdminWait {
		t.Errorf("after a step it still waits for the administrator, %v", err)
	}
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
