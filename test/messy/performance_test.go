package messy

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// performance is one run through a scene.
type performance struct {
	player
	*scene
	t      *testing.T
	secret string
	before outcome
	// gone are values that a rotation has replaced and retired.
	gone []string
	n    int // versions
	// safe is set when the check has said that a rotation is safe.
	safe bool
	// said is what the last check has said.
	said *kms.CheckRotationResponse
	// agreed are the consents that the operator has given.
	agreed []string
}

func (p player) perform(t *testing.T, s *scene, r *rand.Rand) {
	f := &performance{player: p, scene: s, t: t, n: 1}
	f.before = f.worked("before", s.first)
	if f.before[login] != loggedIn {
		t.Fatalf("the scene is broken: the application does not log in before a rotation: %v", f.before)
	}
	secret, err := s.attach()
	f.same("after the secret was bound", s.first)
	if t.Failed() {
		return
	}
	if err != nil {
		f.refused(err.Error())
		return
	}
	f.secret = secret
	f.check()
	if f.said.Verdict == kms.VerdictSafeWithConsent && !f.consent() {
		return
	}
	f.play(r)
	if *full {
		f.others()
	}
	if t.Failed() && f.safe {
		f.count("check_said_safe_and_was_not", 1)
	}
}

// play goes through all that an operator can ask for, in a random order.
func (f *performance) play(r *rand.Rand) {
	acts := []func(*performance) bool{
		(*performance).rotate,
		(*performance).rehearse,
		(*performance).undo,
		(*performance).emergency,
	}
	r.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		if !act(f) || f.t.Failed() {
			break
		}
	}
}

// worked has the application do its work with a value.
func (f *performance) worked(when, value string) outcome {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	out, err := f.app.Work(ctx, value)
	if err == nil && out[login] == loggedIn && f.also != nil {
		err = f.also(ctx, value, out)
	}
	if err != nil {
		f.t.Fatalf("the application cannot be run %s: %v", when, err)
	}
	return out
}

// same compares what the application can do with what it could do before. It reports whether there
// is no difference.
func (f *performance) same(when, value string) bool {
	f.t.Helper()
	out := f.worked(when, value)
	if out[login] != loggedIn && f.misled {
		// The pooler does not ask the server, although the operator agreed that it does.
		f.count("misled_out_of_work", 1)
		return false
	}
	if out[login] != loggedIn {
		f.fails(f.t, "put_out_of_work", "%s: %s", when, out[login])
		return false
	}
	names := maps.Clone(f.before)
	maps.Copy(names, out)
	var different []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if out[name] != f.before[name] && f.mayDiffer(name) {
			f.count("known", 1)
		} else if out[name] != f.before[name] {
			different = append(different, fmt.Sprintf("%s: %q was %q", name, out[name], f.before[name]))
		}
	}
	if n := len(different); n > 0 {
		f.fails(f.t, "rights_changed", "%s: %d pieces of work: %s", when, n, strings.Join(different[:min(n, 4)], "; "))
		return false
	}
	return true
}

// mayDiffer reports whether the documents, or a consent, let a rotation change a piece of work.
func (f *performance) mayDiffer(name string) bool {
	for _, consent := range f.agreed {
		if slices.Contains(f.changes[consent], name) {
			return true
		}
	}
	return slices.Contains(f.stated, name)
}

// current reads the value that applications get.
func (f *performance) current() string {
	f.t.Helper()
	out, err := f.GetSecretValue(f.t.Context(), &kms.GetSecretValueRequest{SecretName: f.secret})
	good(f.t, err)
	return out.SecretData.Reveal()
}

func (f *performance) version() string { f.n++; return "v" + strconv.Itoa(f.n) }

// act begins something, and waits for its end while a reader watches. It reports whether the target
// was changed as it was asked to.
func (f *performance) act(what string, begin func() error, until ...string) bool {
	f.t.Helper()
	stop := f.watch(what)
	if f.occupy != nil {
		release, watched := f.occupy(f.current()), stop
		stop = func() { watched(); release() }
	}
	err := begin()
	if err != nil {
		stop()
		f.refused(err.Error())
		return false
	}
	f.count("rotations", 1)
	r, ended := f.wait(until...)
	if !ended {
		r, ended = f.follow(what, r)
	}
	stop()
	switch {
	case !ended:
		return false
	case r.State == "abandoned":
		f.same("after "+what+" was abandoned", f.current())
		f.refused(r.Reason)
		return false
	case r.State == "quarantined" && what == emergency && f.misled:
		// No login passes where the operator agreed that one does, and an emergency gives back nothing
		// that was not proven.
		f.refused(r.Reason)
		return false
	case r.State == "quarantined":
		f.fails(f.t, "without_end", "%s: quarantined: %s; steps %s", what, r.Reason, tail(r))
		return false
	}
	return f.same("after "+what, f.current()) && !f.t.Failed()
}

// These acts end what a value that was read before is good for.
const (
	graceEnds = "the end of the grace period"
	emergency = "emergency rotation"
)

// rotate rotates and lets the grace period pass.
func (f *performance) rotate() bool {
	old := f.current()
	if !f.act("rotation", f.begin, "grace") || !f.finish() {
		return false
	}
	f.gone = append(f.gone, old)
	f.dead()
	return true
}

func (f *performance) begin() error {
	return second(f.RotateSecret(f.t.Context(), &kms.RotateSecretRequest{SecretName: f.secret, VersionID: f.version()}))
}

// finish retires what a rotation replaced.
func (f *performance) finish() bool {
	f.t.Helper()
	r, _ := f.wait("grace")
	if r.State != "grace" {
		return true
	}
	return f.act(graceEnds, func() error {
		return second(f.EndRotationGrace(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret}))
	})
}

// rehearse changes nothing in the end.
func (f *performance) rehearse() bool {
	old := f.current()
	if !f.act("rehearsal", func() error {
		return second(f.RehearseRotation(f.t.Context(), &kms.VersionedRequest{SecretName: f.secret, VersionID: f.version()}))
	}) {
		return false
	}
	if f.current() != old {
		f.fails(f.t, "rights_changed", "a rehearsal has changed the current value")
	}
	return true
}

// undo rotates and goes back during the grace period.
func (f *performance) undo() bool {
	if f.strategy == target.Single {
		return true // there is no grace period
	}
	old := f.current()
	if !f.act("rotation", f.begin, "grace") {
		return false
	}
	f.same("during the grace period, with what was read before", old)
	candidate := f.current()
	if !f.act("undo", func() error {
		return second(f.UndoRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret}))
	}, "grace") || !f.finish() {
		return false
	}
	if f.current() != old {
		f.fails(f.t, "rights_changed", "undo has not brought the previous value back")
	}
	f.gone = append(f.gone, candidate)
	f.dead()
	return true
}

func (f *performance) emergency() bool {
	old := f.current()
	if !f.act(emergency, func() error {
		return second(f.EmergencyRotation(f.t.Context(), &kms.EmergencyRotationRequest{
			SecretName: f.secret,
			VersionID:  f.version(),
		}))
	}) {
		return false
	}
	f.gone = append(f.gone, old)
	f.dead()
	return true
}

// dead shows that nothing that was replaced still logs in.
func (f *performance) dead() {
	f.t.Helper()
	if value := f.gone[len(f.gone)-1]; f.worked("with what was retired", value)[login] == loggedIn {
		f.fails(f.t, "rights_changed", "a credential that was retired still logs in")
	}
}
