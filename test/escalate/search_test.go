package escalate

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	full = flag.Bool("full", false, "search for minutes, and print the figures")
	seed = flag.Uint64("seed", 1, "the first seed of the search")
	span = flag.Duration("span", 0, "how long to search; 0 means 5 s, or 3 min with -full")
	all  = flag.Bool("all", false, "go on after a violation, and report each sort once")
)

const (
	// length is how many steps a sequence has after its policies.
	length = 40
	// renewed is after how many worlds the store is made anew: what a world wrote stays in it.
	renewed = 1000
)

func TestMain(m *testing.M) {
	flag.Parse()
	stdout := os.Stdout
	if *full {
		os.Stdout = os.Stderr // for the figures alone
	}
	code := m.Run()
	if *full {
		fmt.Fprintln(stdout, "escalation_operations", figures.operations)
		fmt.Fprintln(stdout, "escalation_sequences", figures.sequences)
		fmt.Fprintln(stdout, "escalation_violations", figures.violations)
	}
	os.Exit(code)
}

var figures struct{ operations, sequences, violations int }

// finding is a sequence that ends in a violation.
type finding struct {
	seed      uint64
	steps     []step
	violation violation
}

func (f finding) String() string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "seed %d: %s: %s\n", f.seed, f.violation.kind, f.violation.text)
	for _, s := range f.steps {
		fmt.Fprintf(b, "%s\n", s)
	}
	return b.String()
}

// signature identifies a kind of finding: what was violated and by which operations.
func (f finding) signature() string {
	ops := map[string]bool{}
	for _, s := range f.steps {
		if s.verb == "call" && (s.who == "mallory" || s.who == "eve") {
			ops[s.op] = true
		}
	}
	return f.violation.kind + " " + strings.Join(sorted(ops), " ")
}

// try makes the sequence of a seed.
func (g *ground) try(ctx context.Context, seed uint64) (steps []step, w *world) {
	w = g.world(ctx)
	gen := &generator{random: rand.New(rand.NewPCG(seed, seed)), world: w}
	run := func(s step) bool {
		steps = append(steps, s)
		_ = w.run(s) // a refusal is as good as any answer
		return w.found == nil && w.trouble == nil
	}
	for _, who := range []string{"mallory", "eve"} {
		for _, s := range gen.grants(who) {
			if !run(s) {
				return steps, w
			}
		}
	}
	for range length {
		if !run(gen.next()) || gen.chance(0.4) && !run(step{verb: "engine"}) {
			return steps, w
		}
	}
	return steps, w
}

// replay makes the steps in a new world.
func (g *ground) replay(ctx context.Context, steps []step) *world {
	w := g.world(ctx)
	for _, s := range steps {
		_ = w.run(s) // a refusal is as good as any answer
		if w.found != nil || w.trouble != nil {
			break
		}
	}
	return w
}

// shrink leaves steps out for as long as the same is violated.
func (g *ground) shrink(ctx context.Context, f finding) (finding, error) {
	for size := max(1, len(f.steps)/2); size > 0; {
		smaller := false
		for at := 0; at+size <= len(f.steps); {
			less := slices.Delete(slices.Clone(f.steps), at, at+size)
			w := g.replay(ctx, less)
			if err := w.end(); err != nil {
				return f, err
			}
			if w.found != nil && w.found.kind == f.violation.kind {
				f.steps, f.violation, smaller = less, *w.found, true
				continue
			}
			at += size
		}
		if !smaller || size > 1 {
			size /= 2
		}
	}
	return f, nil
}

// TestNoRightGivesMore searches sequences of all operations, by callers with small random policies,
// for a value, a credential or a change of an account that the policies do not name.
func TestNoRightGivesMore(t *testing.T) {
	long := *span
	if long == 0 {
		long = 5 * time.Second
		if *full {
			long = 3 * time.Minute
		}
	}
	ctx := t.Context()
	g, err := newGround(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.close() }()
	t.Logf("seeds from %d", *seed)
	seen := map[string]bool{}
	start := time.Now()
	for s := *seed; time.Since(start) < long; s++ {
		if g.worlds > renewed {
			if err := g.renew(ctx); err != nil {
				t.Fatal(err)
			}
		}
		f, err := g.look(ctx, s)
		if err != nil {
			t.Fatalf("seed %d: %v", s, err)
		}
		if f == nil || seen[f.signature()] {
			continue
		}
		seen[f.signature()] = true
		t.Errorf("after %.1f s, %d sequences: %s", time.Since(start).Seconds(), figures.sequences, *f)
		if !*all {
			break
		}
	}
	t.Logf("%d sequences, %d operations", figures.sequences, figures.operations)
}

// look tries one seed, and returns the shortest form of what it finds; nil for nothing.
func (g *ground) look(ctx context.Context, seed uint64) (*finding, error) {
	steps, w := g.try(ctx, seed)
	figures.sequences++
	for _, n := range w.counts {
		figures.operations += n
	}
	if w.trouble != nil {
		return nil, w.trouble
	}
	if err := w.end(); err != nil || w.found == nil {
		return nil, err
	}
	figures.violations++
	f, err := g.shrink(ctx, finding{seed, steps, *w.found})
	return &f, err
}
