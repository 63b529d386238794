package rotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestLoginTime verifies that a login while reads are blocked leaves a part of the time for a look
// at the target's own state.
func TestLoginTime(t *testing.T) {
	t.Parallel()
	const hold = 40 * time.Second
	r := record(rotation.Applied)
	r.Strategy, r.HeldAt, r.Hold = target.Single, noon, hold
	for since, want := range map[time.Duration]time.Duration{
		0:                30 * time.Second,
		20 * time.Second: 15 * time.Second,
		hold:             5 * time.Second,
	} {
		if got := r.LoginTime(noon.Add(since)); got != want {
			t.Errorf("%v after reads were blocked for %v a login may take %v, want %v", since, hold, got, want)
		}
	}
}

// TestRejectedBase verifies that a rotation whose target rejects the credential in use says so from
// the first rejection on, with the ways out, and that the target's own state ends it at once.
func TestRejectedBase(t *testing.T) {
	t.Parallel()
	waiting := record(rotation.Prepared)
	waiting.Strategy, waiting.Attempt = target.Single, 0
	waiting.Health = rotation.Health{ProbedAt: noon.Add(-time.Hour), Live: true}
	rejected, _ := rotation.Before(rotation.Answer{Class: target.Rejected, Text: "no such password"})
	r, err := rotation.Next(waiting, rejected, noon)
	if err != nil || r.State != rotation.Prepared {
		t.Fatalf("state %s, %v", r.State, err)
	}
	for _, part := range []string{
		"the target rejects the credential in use: no such password.",
		"probably changed outside of Keyturn",
		"After 3 rejected logins in all (so far: 1), not before 2026-11-24T12:02:07Z, the rotation is quarantined.",
	} {
		if !strings.Contains(r.Reason, part) {
			t.Errorf("no %q in the reason: %s", part, r.Reason)
		}
	}
	for _, command := range []string{
		"keyturn rotation cancel db", "keyturn rotation probe db", "keyturn rotation repair db",
	} {
		if !strings.Contains(r.Advice(), command) {
			t.Errorf("no %q in the advice: %s", command, r.Advice())
		}
	}
	if r.Health.State() != rotation.CredentialDead || !r.Health.ProbedAt.Equal(noon) {
		t.Errorf("the credential in use counts as %s since %v", r.Health.State(), r.Health.ProbedAt)
	}

	r, err = rotation.Next(waiting, rotation.BaseDead(), noon)
	if err != nil || r.State != rotation.Quarantined || !strings.Contains(r.Reason, "its own state says so") {
		t.Errorf("after the target's own state: %s (%s), %v", r.State, r.Reason, err)
	}
	hurried := waiting
	hurried.Then = &rotation.Request{Mode: rotation.Rotate, Trigger: rotation.Emergency}
	r, err = rotation.Next(hurried, rotation.BaseDead(), noon)
	if err != nil || r.State != rotation.Abandoned || strings.Contains(r.Reason, "no login") ||
		!strings.Contains(r.Reason, "The target's own state shows that it does not accept the credential in use.") {
		t.Errorf("with an emergency that waits: %s (%s), %v", r.State, r.Reason, err)
	}
	waiting.Attempt = 1
	r, err = rotation.Next(waiting, rotation.BaseDead(), noon)
	if err != nil || r.State != rotation.Unknown { // it may have the candidate
		t.Errorf("after an attempt and the target's own state: %s, %v", r.State, err)
	}
}

// TestRejectedBaseIsHealth verifies that a login by which a rotation learns that the credential
// in use is dead counts as an attempt to ask, and leaves nothing of an earlier probe without an
// answer.
func TestRejectedBaseIsHealth(t *testing.T) {
	t.Parallel()
	r := record(rotation.Prepared)
	r.Strategy, r.Attempt = target.Single, 0
	r.Health = rotation.Health{
		ProbedAt: noon.Add(-time.Hour),
		Live:     true,
		TriedAt:  noon.Add(-time.Minute),
		NextAt:   noon.Add(time.Hour),
		Silent:   2,
		Text:     "no answer",
	}
	r, err := rotation.Next(r, rotation.Event{
		Kind:        rotation.Unready,
		Base:        target.Dead,
		LoginFailed: true,
		Answered:    true,
	}, noon)
	want := rotation.Health{ProbedAt: noon, TriedAt: noon, NextAt: noon.Add(time.Hour)}
	if err != nil || r.Health != want {
		t.Errorf("%+v, %v; want %+v", r.Health, err, want)
	}
}

// TestAskedProbeIsNotDue verifies that a probe that a caller has asked for is due no sooner than
// without that, whatever comes between: limits of the engine, or the end of a rotation.
func TestAskedProbeIsNotDue(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]time.Time{"never due": {}, "due later": noon.Add(time.Hour)} {
		r := record(rotation.Done)
		r.Health.NextAt = next
		for step, change := range []func(rotation.Record) rotation.Record{
			func(r rotation.Record) rotation.Record { return r.AskedProbe(noon) },
			func(r rotation.Record) rotation.Record { return r.AskedProbe(noon) },
			func(r rotation.Record) rotation.Record { return r.PutOffProbe(noon.Add(time.Minute), noon) },
			func(r rotation.Record) rotation.Record { return r.NotFailed(time.Time{}, noon) },
			func(r rotation.Record) rotation.Record {
				r.State, r.Strategy = rotation.Undoing, target.Overlap
				r, err := rotation.Next(r, rotation.Event{Kind: rotation.LoggedIn}, noon)
				if err != nil {
					t.Fatal(err)
				}
				return r
			},
		} {
			r = change(r)
			if h := r.Health; !h.Wanted || h.IsDue(noon) {
				t.Errorf("%s, step %d: %+v", name, step, h)
			}
			if got := r.Health.IsDue(noon.Add(2 * time.Hour)); got == next.IsZero() {
				t.Errorf("%s, step %d: due then: %t", name, step, got)
			}
		}
	}
	r := record(rotation.Done)
	r.Health.NextAt = noon
	if r = r.AskedProbe(noon); !r.Health.IsDue(noon) {
		t.Errorf("one that is due lost its turn: %+v", r.Health)
	}
}

// TestProofIsHealth verifies that a login by which a rotation proves a credential counts as the
// target's last answer about it, once it is in use.
func TestProofIsHealth(t *testing.T) {
	t.Parallel()
	before := rotation.Health{
		ProbedAt: noon.Add(-time.Hour),
		NextAt:   noon.Add(time.Hour),
		Text:     "of the one before",
	}
	r := record(rotation.Applied)
	r.Strategy, r.Health = target.Single, before
	for i, kind := range []rotation.EventKind{rotation.LoggedIn, rotation.Promoted} {
		var err error
		if r, err = rotation.Next(r, rotation.Event{Kind: kind}, noon.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if kind == rotation.LoggedIn && r.Health != before {
			t.Errorf("before the promotion, of the credential in use: %+v", r.Health)
		}
	}
	want := rotation.Health{ProbedAt: noon, Live: true, TriedAt: noon, NextAt: noon.Add(time.Hour)}
	if r.Health != want {
		t.Errorf("of the new credential: %+v, want %+v", r.Health, want)
	}
	undo := record(rotation.Undoing)
	undo.Health = before
	if undo, err := rotation.Next(undo, rotation.Event{Kind: rotation.LoggedIn}, noon); err != nil || undo.Health != want {
		t.Errorf("after an undo: %+v, %v", undo.Health, err)
	}
}

// TestWaitsBeforeTheFirstAttempt verifies that a rotation that has tried nothing says what it waits
// for.
func TestWaitsBeforeTheFirstAttempt(t *testing.T) {
	t.Parallel()
	for want, since := range map[string][2]time.Duration{ // since the last request, and the last failed login
		"the end of what was sent to the target before, at 2026-11-24T12:00:04Z": {time.Second, time.Hour},
		"the end of the minute after a failed login, at 2026-11-24T12:00:50Z":    {time.Hour, 10 * time.Second},
	} {
		r := record(rotation.Scheduled)
		r.SentAt, r.LoginFailedAt = noon.Add(-since[0]), noon.Add(-since[1])
		r, err := rotation.Next(r, following(rotation.Stored), noon)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.WaitsFor(0, noon); got != want {
			t.Errorf("it waits for %q, want %q", got, want)
		}
	}
}

// TestCheckOfAnotherCredential verifies that what a check said of one credential is not shown of
// the next, and that a time at which a login may be made is not shown when it is over.
func TestCheckOfAnotherCredential(t *testing.T) {
	t.Parallel()
	c := rotation.Check{
		Version: "v2",
		Findings: []target.Finding{
			{Code: rotation.CodeLoginRejected, Account: "app"},
			{Code: "limit", Account: "app"},
			{Code: target.CodeNotOurs, Account: "app_clone"}, // which may be in use next
		},
		Unchecked: "no login was made",
		LoginAt:   noon.Add(time.Minute),
	}
	if got := c.For("v2", noon); len(got.Findings) != 3 || !strings.HasSuffix(got.Unchecked, "at 2026-11-24T12:01:00Z") {
		t.Errorf("of the same credential: %+v", got)
	}
	if got := c.For("v2", noon.Add(time.Hour)); strings.Contains(got.Unchecked, "T12:") {
		t.Errorf("after the time of the next login: %s", got.Unchecked)
	}
	if got := c.For("v1", noon); len(got.Findings) != 1 || got.Findings[0].Code != "limit" || got.Unchecked != "" {
		t.Errorf("of another credential: %+v", got)
	}
}
