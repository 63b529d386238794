package rotation_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// forever is a target whose answers never change: to the administrator, and to logins. Its own
// state shows nothing.
type forever struct {
	name         string
	admin, login rotation.Answer
}

// situations returns each answer to the administrator with each answer to logins.
func situations() (list []forever) {
	for _, admin := range answers() {
		for _, login := range answers() {
			list = append(list, forever{
				name:  fmt.Sprintf("administrator %s, logins %s", answerName(admin), answerName(login)),
				admin: admin,
				login: login,
			})
		}
	}
	return list
}

func answerName(a rotation.Answer) string {
	if a.OK {
		return "ok"
	}
	return a.Class.String()
}

// answers reports whether a system of the target's kind answers everything that it is asked.
func (f forever) answers() bool { return f.admin.Reached() && f.login.Reached() }

// turn plays one step of the engine against the target.
func (f forever) turn(t *testing.T, r rotation.Record, now time.Time) rotation.Record {
	t.Helper()
	next := func(e rotation.Event) {
		after, err := rotation.Next(r, e, now)
		if err != nil {
			t.Fatalf("%s, step %s: %v", f.name, rotation.Plan(r, now), err)
		}
		r = after
	}
	switch step := rotation.Plan(r, now); step {
	case rotation.Prepare:
		if f.admin.OK {
			next(following(rotation.Stored))
			break
		}
		next(rotation.NotBegun(r, f.admin, false))
	case rotation.Send:
		f.send(r, next)
	case rotation.Resolve:
		next(f.resolve(r, now))
	case rotation.Verify, rotation.CheckBase:
		next(rotation.AfterLogin(r, f.login))
	case rotation.Promote:
		next(rotation.Event{Kind: rotation.Promoted})
	case rotation.Expire:
		next(rotation.Event{Kind: rotation.Expired})
	case rotation.Retire:
		e, ready := rotation.Before(f.login)
		if !ready && r.NeedsCandidate() && !rotation.MayRetire(e, f.admin, target.NotKnown) {
			next(e)
			break
		}
		next(rotation.After(rotation.Retired, f.admin))
	case rotation.Revert:
		next(rotation.AfterRevert(r, f.admin))
	case rotation.Clear:
		next(rotation.After(rotation.Cleared, f.admin))
	default:
		t.Fatalf("%s: step %s", f.name, step)
	}
	return r
}

func (f forever) send(r rotation.Record, next func(rotation.Event)) {
	if !f.admin.OK && f.admin.Reached() { // it answers the check of the account in the same way
		next(rotation.NotBegun(r, f.admin, false))
		return
	}
	if e, ready := rotation.Before(f.login); !ready && r.NeedsBase() {
		next(e)
		return
	}
	next(rotation.Event{Kind: rotation.Sending, Hold: time.Second})
	next(rotation.AfterSend(f.admin))
}

func (f forever) resolve(r rotation.Record, now time.Time) rotation.Event {
	var q rotation.Resolution
	for {
		ask, event := q.Next(r, false, 0, now)
		switch ask {
		case rotation.AskNothing:
			return event
		case rotation.AskState:
			q = q.Answered(ask, f.admin)
		default:
			q = q.Answered(ask, f.login)
		}
	}
}

// run plays turns until the rotation has ended or needs an operator, and reports whether it has. An
// emergency that waits for the end is another rotation.
func (f forever) run(t *testing.T, r rotation.Record, now *time.Time) (rotation.Record, bool) {
	t.Helper()
	for range 100 {
		if !r.GoesOn() {
			return r, true
		}
		if r.NextAt.After(*now) {
			*now = r.NextAt
		}
		r = f.turn(t, r, *now)
	}
	return r, !r.GoesOn()
}

// commands are the commands that an advice names, with the event of each.
var (
	commands = map[string]rotation.EventKind{
		"cancel":    rotation.Cancel,
		"undo":      rotation.Undo,
		"end-grace": rotation.EndGrace,
		"repair":    rotation.Probed,
		"retry":     rotation.Probed,
	}
	isCommand = regexp.MustCompile(`keyturn rotation ([a-z-]+)`)
)

// records returns a rotation in a state, of every strategy and for every purpose.
func records(s rotation.State) (list []rotation.Record) {
	for _, strategy := range []target.Strategy{target.Single, target.Overlap, target.Double} {
		for _, mode := range []rotation.Mode{rotation.Rotate, rotation.Rehearse, rotation.Reapply} {
			for _, attempt := range []int{0, 1} {
				for _, doubtful := range []bool{false, true} {
					r := record(s)
					r.Strategy, r.Mode, r.Attempt, r.Doubtful = strategy, mode, attempt, doubtful
					list = append(list, r)
				}
			}
		}
	}
	return list
}

// TestEveryStateHasAnEnd verifies the third general rule, at targets whose answers never change. A
// rotation lasts only at a target that does not answer, or with a previous credential that the
// target does not retire: nothing is broken then. The advice names a command for each rotation that
// lasts. The target takes each of them, and cancel ends the rotation.
func TestEveryStateHasAnEnd(t *testing.T) {
	t.Parallel()
	for _, s := range rotation.States() {
		for _, f := range situations() {
			for _, begun := range records(s) {
				now := noon
				r, ended := f.run(t, begun, &now)
				if ended {
					continue
				}
				if f.answers() && r.State != rotation.Retiring {
					t.Errorf("%s %s in %s, %s: still in %s", begun.Strategy, begun.Mode, s, f.name, r.State)
				}
				wayOut(t, f, r, now)
			}
		}
	}
}

// wayOut verifies the commands that the advice for a rotation names.
func wayOut(t *testing.T, f forever, r rotation.Record, now time.Time) {
	t.Helper()
	named := isCommand.FindAllStringSubmatch(r.Advice(), -1)
	if !strings.Contains(r.Advice(), "keyturn rotation cancel") {
		t.Errorf("%s, %s: the advice names no cancel: %s", r.State, f.name, r.Advice())
	}
	for _, match := range named {
		if _, err := rotation.Next(r, rotation.Event{Kind: commands[match[1]]}, now); err != nil {
			t.Errorf("%s, %s: the advice names %s: %v", r.State, f.name, match[1], err)
		}
	}
	for range 2 { // the second one no longer waits for the target
		next, err := rotation.Next(r, rotation.Event{Kind: rotation.Cancel}, now)
		if err != nil {
			t.Fatalf("%s, %s: %v", r.State, f.name, err)
		}
		ended := false
		if r, ended = f.run(t, next, &now); ended {
			return
		}
	}
	if r.State == rotation.InGrace || r.State == rotation.Retiring { // cancelled in another state
		return
	}
	t.Errorf("%s, %s: two commands do not end it", r.State, f.name)
}

// TestDenied verifies how a change ends that the target answers it does not allow: without a change
// and with the target's answer as the reason, except where the target may have the candidate.
func TestDenied(t *testing.T) {
	t.Parallel()
	single := func(r *rotation.Record) { r.Strategy = target.Single }
	doubtful := func(r *rotation.Record) { r.Doubtful = true }
	for _, tt := range []struct {
		name string
		in   rotation.State
		with []func(*rotation.Record)
		want rotation.State
	}{
		{"before it is sent", rotation.Prepared, nil, rotation.Abandoned},
		{"when it is sent", rotation.Applying, nil, rotation.Abandoned},
		{"before a candidate is made", rotation.Scheduled, nil, rotation.Abandoned},
		{"after an attempt without an answer", rotation.Prepared, []func(*rotation.Record){doubtful}, rotation.Reverting},
		{"the same with one credential", rotation.Prepared, []func(*rotation.Record){doubtful, single}, rotation.Abandoned},
		{
			"a repair", rotation.Prepared,
			[]func(*rotation.Record){func(r *rotation.Record) { r.Mode = rotation.Reapply }}, rotation.Quarantined,
		},
		{
			"a candidate that is sent again out of a quarantine", rotation.Prepared,
			[]func(*rotation.Record){func(r *rotation.Record) { r.Imposed = true }}, rotation.Quarantined,
		},
		{"a candidate is taken back", rotation.Reverting, nil, rotation.Quarantined},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := record(tt.in)
			for _, change := range tt.with {
				change(&r)
			}
			now, e := noon, rotation.Event{Kind: rotation.Denied, Text: "permission denied (42501)", Answered: true}
			if tt.in != rotation.Prepared && tt.in != rotation.Applying {
				e.Kind = rotation.Failed
			}
			for n := 1; n <= rotation.MaxUndecided; n++ {
				next, err := rotation.Next(r, e, now)
				if err != nil {
					t.Fatal(err)
				}
				if r, now = next, next.NextAt; n < rotation.MaxUndecided && !r.GoesOn() {
					t.Fatalf("%s after %d answers", r.State, n)
				}
			}
			if r.State != tt.want || !strings.Contains(r.Reason, e.Text) {
				t.Errorf("%s, %q; want %s, and what the target said", r.State, r.Reason, tt.want)
			}
		})
	}
}

// TestHurry verifies that an operator who has fixed the target need not wait for the next attempt,
// and that the target is not asked more than once a minute for that.
func TestHurry(t *testing.T) {
	t.Parallel()
	hurry := rotation.Event{Kind: rotation.Probed}
	r := record(rotation.Retiring)
	if _, err := rotation.Next(r, hurry, noon); err == nil {
		t.Error("a step that has not failed is hurried")
	}
	r.Failures = 8
	failed, err := rotation.Next(r, rotation.Event{Kind: rotation.Failed, Text: "no answer"}, noon)
	if err != nil || !failed.NextAt.After(noon.Add(time.Minute)) {
		t.Fatalf("next at %v, %v", failed.NextAt, err)
	}
	soon, err := rotation.Next(failed, hurry, noon.Add(time.Second))
	if want := noon.Add(time.Minute); err != nil || !soon.NextAt.Equal(want) {
		t.Errorf("a second after an attempt: next at %v, %v; want %v", soon.NextAt, err, want)
	}
	again, err := rotation.Next(soon, hurry, noon.Add(30*time.Second))
	if err != nil || !again.NextAt.Equal(soon.NextAt) {
		t.Errorf("repeated: next at %v, %v; want %v", again.NextAt, err, soon.NextAt)
	}
	late, err := rotation.Next(failed, hurry, noon.Add(2*time.Minute))
	if err != nil || !late.NextAt.Equal(noon.Add(2*time.Minute)) {
		t.Errorf("two minutes after an attempt: next at %v, %v; want now", late.NextAt, err)
	}
	grace := record(rotation.InGrace)
	grace.Failures = 1
	if _, err := rotation.Next(grace, hurry, noon); err == nil {
		t.Error("a grace period is hurried")
	}
}

// TestFirstFailureHasAdvice verifies that an operator learns what to do from the first answer that
// stops a rotation: a refusal is tried again after a minute, and ends it after ten.
func TestFirstFailureHasAdvice(t *testing.T) {
	t.Parallel()
	for _, class := range []target.Class{target.Denied, target.Unreachable, target.Rejected} {
		r := record(rotation.Prepared)
		r.Attempt = 0
		e, _ := rotation.Before(rotation.Answer{Class: class, Text: "no"})
		r, err := rotation.Next(r, e, noon)
		for _, command := range []string{"rotation cancel", "rotation retry", "target test " + r.Target} {
			if err != nil || !strings.Contains(r.Advice(), "keyturn "+command) {
				t.Errorf("%s: the advice names no %s: %q, %v", class, command, r.Advice(), err)
			}
		}
		r.Target, r.Secret = rotation.OwnUsers, "acs/ram/user/app"
		if !strings.Contains(r.Advice(), "keyturn rotation check acs/ram/user/app ") ||
			strings.Contains(r.Advice(), "keyturn target") {
			t.Errorf("%s: the advice on an access key: %s", class, r.Advice())
		}
	}
}
