package messy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/support"
)

type outcome = applications.Outcome

const (
	login    = applications.Login
	loggedIn = applications.In
)

// scene is a state of a server that a seed has made, and an application that lives with it.
type scene struct {
	// name is of the target and of the secret; digits and letters.
	name string
	// traits say what is unusual, for the reader of a failure.
	traits   []string
	strategy target.Strategy
	// attach has the product rotate the application's credential. The error is its refusal.
	attach func() (secret string, err error)
	// app is the application.
	app *applications.Application
	// also adds to the outcome of the application's work what another witness sees, such as the
	// server's administrator; nil for nothing.
	also func(ctx context.Context, value string, out outcome) error
	// occupy opens the sessions that the application keeps during a rotation, with a value, and
	// returns what ends them; nil when it keeps none.
	occupy func(value string) (release func())
	// stated are pieces of work that the documents say differ with the strategy.
	stated []string
	// misled is set when the operator has agreed to something that is not so: no check can know.
	misled bool
	// first is the value of the application before the product knows of it.
	first string
}

// trait notes one with a probability of one in n, and reports whether it is there.
func (s *scene) trait(r *rand.Rand, n int, name string) bool {
	if r.IntN(n) != 0 {
		return false
	}
	s.traits = append(s.traits, name)
	return true
}

// one picks and notes one of several.
func (s *scene) one(r *rand.Rand, what string, of ...string) string {
	picked := of[r.IntN(len(of))]
	s.traits = append(s.traits, what+" "+picked)
	return picked
}

// player plays scenes of one kind.
type player struct {
	*product
	label string // of the figures
	build func(t *testing.T, s *scene, r *rand.Rand)
	// open are traits of cases that are not solved: their scenes are counted, and not played.
	open []string
}

// play makes a scene for each seed and goes through it.
func (p player) play(t *testing.T) {
	for _, name := range []string{
		"put_out_of_work", "blocked_beyond_bound", "without_end", "rights_changed", "refused", "rotations", "known",
		"check_said_safe_and_was_not", "check_safe", "check_safe-with-consent", "check_impossible",
	} {
		p.count(name, 0)
	}
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seedsOf(t) {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 0))
				s := &scene{name: "s" + strconv.FormatUint(seed, 36)}
				p.count("seeds", 1)
				p.build(t, s, r)
				for _, trait := range s.traits {
					if slices.Contains(p.open, trait) {
						p.count("known", 1)
						t.Skipf("an open case: %s", trait)
					}
				}
				p.perform(t, s, r)
				if t.Failed() {
					t.Logf("KEYTURN_SEED=%d: %s; traits: %s", seed, s.strategy, strings.Join(s.traits, ", "))
				}
			})
		}
	})
}

// seedsOf returns the seeds of this run: the same numbers every time, and the one of KEYTURN_SEED
// alone when it is set.
func seedsOf(t *testing.T) []uint64 {
	t.Helper()
	if text := os.Getenv("KEYTURN_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		good(t, err)
		return []uint64{seed}
	}
	n := *seeds
	if n == 0 {
		n = map[bool]int{true: 500, false: 4}[*full]
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = uint64(i) + 1
	}
	return list
}

func (p player) count(name string, n int) { figures.Count(p.label+"_"+name, n) }

// fails counts and reports a broken promise.
func (p player) fails(t *testing.T, name, format string, args ...any) {
	t.Helper()
	p.count(name, 1)
	t.Errorf(name+": "+format, args...)
}

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
	acts := []func(*performance) bool{
		(*performance).rotate,
		(*performance).rehearse,
		(*performance).undo,
		(*performance).emergency,
	}
	r.Shuffle(len(acts), func(i, j int) { acts[i], acts[j] = acts[j], acts[i] })
	for _, act := range acts {
		if !act(f) || t.Failed() {
			break
		}
	}
	if t.Failed() && f.safe {
		f.count("check_said_safe_and_was_not", 1)
	}
}

// check asks the product beforehand what a rotation would meet.
func (f *performance) check() {
	f.t.Helper()
	release := func() {}
	if f.occupy != nil {
		release = f.occupy(f.current())
	}
	r, err := f.CheckRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret})
	release()
	good(f.t, err)
	f.safe = r.Verdict == kms.VerdictSafe && !f.misled
	f.count("check_"+r.Verdict, 1)
	var words []string
	for _, finding := range r.Findings {
		words = append(words, finding.Code)
		if finding.Verdict != string(target.Note) {
			f.count("check_finding:"+finding.Code, 1)
		}
	}
	f.t.Logf("the check says %s: %s", r.Verdict, strings.Join(words, ", "))
	f.same("after the check", f.current())
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

// same compares what the application can do with what it could do before.
func (f *performance) same(when, value string) {
	f.t.Helper()
	out := f.worked(when, value)
	if out[login] != loggedIn {
		f.fails(f.t, "put_out_of_work", "%s: %s", when, out[login])
		return
	}
	names := maps.Clone(f.before)
	maps.Copy(names, out)
	var different []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if out[name] != f.before[name] && slices.Contains(f.stated, name) {
			f.count("known", 1)
		} else if out[name] != f.before[name] {
			different = append(different, fmt.Sprintf("%s: %q was %q", name, out[name], f.before[name]))
		}
	}
	if n := len(different); n > 0 {
		f.fails(f.t, "rights_changed", "%s: %d pieces of work: %s", when, n, strings.Join(different[:min(n, 4)], "; "))
	}
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
	if !ended { // it lasts: an operator must have a way out
		if r, err = f.cancel(); err != nil {
			f.fails(f.t, "without_end", "%s: state %s, %s; cancel: %v; steps %s", what, r.State, r.Reason, err, tail(r))
			stop()
			return false
		}
	}
	stop()
	switch r.State {
	case "abandoned":
		f.same("after "+what+" was abandoned", f.current())
		f.refused(r.Reason)
		return false
	case "quarantined":
		f.fails(f.t, "without_end", "%s: quarantined: %s; steps %s", what, r.Reason, tail(r))
		return false
	}
	f.same("after "+what, f.current())
	return !f.t.Failed()
}

const (
	// stuck is how long a rotation may say why it does not go on before an operator comes.
	stuck = 5 * time.Second
	// slack is what a busy machine adds to a bound.
	slack   = 3 * time.Second
	glimpse = 20 * time.Millisecond
)

func tail(r *kms.DescribeRotationResponse) string {
	var words []string
	for _, s := range r.Steps {
		words = append(words, strings.TrimSpace(s.Event+" "+s.Text))
	}
	return strings.Join(words, "; ")
}

// wait waits until the rotation is in one of the states, or has ended. It reports whether that came
// before the rotation was stuck.
func (f *performance) wait(until ...string) (r *kms.DescribeRotationResponse, ended bool) {
	f.t.Helper()
	var since time.Time
	support.Until(f.t, "the end of a rotation, or a reason why it lasts", func() bool {
		var err error
		r, err = f.DescribeRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret})
		good(f.t, err)
		ended = slices.Contains(append(until, "done", "abandoned", "quarantined"), r.State)
		switch {
		case r.Reason == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		time.Sleep(glimpse)
		return ended || !since.IsZero() && time.Since(since) > stuck
	})
	return r, ended
}

// cancel ends a rotation that lasts, as an operator would who repeats the command for a while.
func (f *performance) cancel() (r *kms.DescribeRotationResponse, err error) {
	for deadline := time.Now().Add(3 * stuck); ; {
		_, err = f.CancelRotation(f.t.Context(), &kms.SecretNameRequest{SecretName: f.secret})
		var ended bool
		if r, ended = f.wait(); ended {
			return r, nil
		}
		if time.Now().After(deadline) {
			return r, errors.Join(err, errors.New("the rotation lasts"))
		}
	}
}

// watch reads the secret until it is stopped, and measures how long reads get no value.
func (f *performance) watch(what string) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var all sync.WaitGroup
	var longest time.Duration
	all.Go(func() {
		last := time.Now()
		for ctx.Err() == nil {
			_, err := f.GetSecretValue(context.WithoutCancel(ctx), &kms.GetSecretValueRequest{SecretName: f.secret})
			longest = max(longest, time.Since(last))
			if err == nil {
				last = time.Now()
			}
			time.Sleep(glimpse)
		}
	})
	return func() {
		f.t.Helper()
		cancel()
		all.Wait()
		figures.Most(f.label+"_blocked_max_ms", int(longest.Milliseconds()))
		if longest > hold+slack {
			f.fails(f.t, "blocked_beyond_bound", "%s: no read was answered for %s", what, longest)
		}
	}
}

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
	return f.act("the end of the grace period", func() error {
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
	if !f.act("emergency rotation", func() error {
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

// refused counts why the product did not rotate.
func (f *performance) refused(reason string) {
	f.t.Helper()
	if f.safe {
		f.fails(f.t, "check_said_safe_and_was_not", "%s", reason)
	}
	f.count("refused", 1)
	key := short(reason, f.name)
	figures.Count(f.label+"_refused:"+key, 1)
	f.t.Logf("refused: %s; traits: %s", reason, strings.Join(f.traits, ", "))
}

var (
	quoted = regexp.MustCompile(`"[^"]*"|'[^']*'|[0-9]+|[0-9a-f-]{36}`)
	spaces = regexp.MustCompile(`[^A-Za-z]+`)
)

// short is a reason without what differs between scenes, as one word.
func short(reason, name string) string {
	reason = quoted.ReplaceAllString(strings.ReplaceAll(reason, name, ""), "")
	key := strings.Trim(spaces.ReplaceAllString(strings.ToLower(reason), "-"), "-")
	return key[:min(len(key), 70)]
}

// pair is a value that holds an account.
type pair struct{ AccountName, AccountPassword string }

// compact is JSON of values that cannot fail.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
