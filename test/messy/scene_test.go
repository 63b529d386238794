package messy

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/test/applications"
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
	// changes are pieces of work that a consent lets a rotation change, by the consent.
	changes map[string][]string
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
}

// play makes a scene for each seed and goes through it.
func (p player) play(t *testing.T) {
	for _, name := range []string{
		"put_out_of_work", "blocked_beyond_bound", "without_end", "rights_changed", "refused", "rotations", "known",
		"check_said_safe_and_was_not", "check_said_impossible_and_was_not", "check_missed_a_consent",
		"check_safe", "check_safe-with-consent", "check_impossible", "agreed", "lasting",
	} {
		p.count(name, 0)
	}
	t.Run("seeds", func(t *testing.T) {
		for _, seed := range seedsOf(t) {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 0))
				s := &scene{name: "s" + strconv.FormatUint(seed, 10)}
				p.count("seeds", 1)
				p.build(t, s, r)
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
	n, from := *seeds, max(*first, 1)
	if n == 0 {
		n = map[bool]int{true: 500, false: 4}[*full]
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = from + uint64(i)
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
