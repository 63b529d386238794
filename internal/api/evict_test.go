package api_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// evictor is a target in memory whose accounts may change their own password.
type evictor struct {
	*memory
	kind target.ForeignKind // returned to the engine as the kind of the other password
	// after is called when a password was removed that another has set; its error is the answer.
	after func() error
}

func (e *evictor) RetireOrEvict(ctx context.Context, c target.Change, evict target.Evict) error {
	e.mu.Lock()
	has, ok := e.passwords[c.Old.Account]
	e.mu.Unlock()
	switch {
	case !ok:
		return nil
	case has.Equal(c.Old.Secret):
		return e.Retire(ctx, c)
	}
	remove, err := evict(ctx, target.Foreign{Kind: e.kind, Text: "There is another password."})
	if err != nil || !remove {
		return err
	}
	e.mu.Lock()
	delete(e.passwords, c.Old.Account)
	e.mu.Unlock()
	if e.after == nil {
		return nil
	}
	return e.after()
}

// stopped is the panic of an engine whose process ends.
type stopped struct{}

// TestEvidenceOfATakeover verifies that an emergency says that the account of the leaked credential
// had another password, wherever the engine stops and whatever answer is lost after the removal.
func TestEvidenceOfATakeover(t *testing.T) {
	t.Parallel()
	const removed = "had another password, which was removed"
	for _, tt := range []struct {
		name    string
		stopAt  string // where the process ends once
		fenced  bool   // another engine takes over there instead
		kind    target.ForeignKind
		trigger string
		fails   int // so many removals have no answer
		resets  int // so often the holder sets a password again
		want    string
		left    bool // the password of the holder is left
	}{
		{name: "removed", want: removed},
		{name: "the process ends before the removal", stopAt: "after storing evicting", want: removed},
		{name: "another engine takes over before that", stopAt: "before storing evicting", fenced: true, want: removed},
		{name: "the process ends after the removal", stopAt: "before storing retired", want: removed},
		{name: "no answer", fails: 1, want: removed},
		{name: "set again", resets: 2, want: removed},
		{name: "set again and again", resets: 100, want: "each time Keyturn removed one", left: true},
		{name: "not known", kind: target.ForeignUnknown, want: "There is another password.", left: true},
		{name: "another application's", kind: target.ForeignShared, want: "There is another password.", left: true},
		{name: "no emergency", trigger: "RotateSecret", want: "There is another password.", left: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, m := rotating(t)
			m.set("one", "x")
			m.set("two", "y")
			e := &evictor{memory: m, kind: max(tt.kind, target.ForeignFound)}
			e.after = func() error {
				if tt.resets > 0 {
					tt.resets--
					m.set("one", "mine")
				}
				if tt.fails > 0 {
					tt.fails--
					return target.Unknown.Errorf("the connection ended")
				}
				return nil
			}
			kind := w.env.Kinds["memory"]
			kind.Open = func(target.Settings) (target.Target, error) { return e, nil }
			w.env.Kinds["memory"] = kind
			w.must(t, "ConfigureRotation", "SecretName", "double", "GracePeriod", "0s", "GraceLimit", "0s")
			if tt.trigger == "" {
				tt.trigger = "EmergencyRotation"
			}
			w.must(t, tt.trigger, "SecretName", "double", "VersionId", "v2")
			m.set("one", "mine")
			lead := func() *store.Lead {
				lead, err := w.env.DB.Lead(t.Context(), "test", w.env.Now)
				if err != nil {
					t.Fatal(err)
				}
				return lead
			}
			at := func(_, point string) {
				if point != tt.stopAt {
					return
				}
				if tt.stopAt = ""; tt.fenced {
					lead()
					return
				}
				panic(stopped{})
			}
			step := func(steps *rotator.Steps) (on bool) {
				defer func() {
					if p := recover(); p != nil && p != (stopped{}) {
						panic(p)
					}
				}()
				_, err := steps.Step(t.Context(), store.Due{Account: account, Name: "double"})
				if err != nil && !errors.Is(err, store.ErrFenced) {
					t.Fatal(err)
				}
				return err == nil
			}
			start := func() *rotator.Steps {
				return rotator.New(w.env.DB, w.gate, w.env.Now, rotator.Config{At: at}).Steps(lead())
			}
			steps := start()
			for range 60 {
				if !step(steps) {
					steps = start()
				}
				r := w.record(t, "double")
				if !r.InFlight() {
					break
				}
				w.now = w.now.Add(10 * time.Second)
			}
			out := w.must(t, "DescribeRotation", "SecretName", "double").(*kms.DescribeRotationResponse)
			endless := tt.resets > 0
			m.mu.Lock()
			checked := m.asked.Current.Account
			m.mu.Unlock()
			if tt.trigger == "EmergencyRotation" && checked != "one" {
				t.Errorf("what outlasts the emergency was read of %q", checked)
			}
			if (out.State == kms.RotationDone) == endless || !strings.Contains(out.Reason, tt.want) ||
				strings.Contains(out.Reason, removed) != (tt.want == removed) {
				t.Errorf("%s: %q, want %q", out.State, out.Reason, tt.want)
			}
			m.mu.Lock()
			left, ok := m.passwords["one"]
			m.mu.Unlock()
			if ok != tt.left || ok && !left.Equal(sensitive.New("mine")) {
				t.Errorf("the password of the holder is left: %t, want %t", ok, tt.left)
			}
			intents := 0
			for _, s := range out.Steps {
				if s.Event == string(rotation.Evicting) {
					intents++
				}
				if strings.Contains(s.Text, "can be reached") {
					t.Errorf("an error of the store is an answer of the target: %+v", s)
				}
			}
			if (intents > 0) != (tt.want == removed || endless) {
				t.Errorf("%d steps say that a password is about to be removed", intents)
			}
			if endless {
				return
			}
			w.put(t, "double", func(_ *secret.Secret, r *rotation.Record) { r.Health.Text = "no route to the host" })
			out = w.must(t, "DescribeRotation", "SecretName", "double").(*kms.DescribeRotationResponse)
			if !strings.Contains(out.Reason, "no route to the host") || !strings.Contains(out.Reason, tt.want) {
				t.Errorf("after a check of the new credential without an answer: %q", out.Reason)
			}
		})
	}
}
