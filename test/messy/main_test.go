// Package messy shows that rotation takes nothing from applications on targets as they really are.
//
// For each kind of target, seeds make states of a real server: settings, hosts, plug-ins, hashes,
// limits, options, objects and rights in random mixtures. An unmodified client of the system, with
// the configuration that a user would write, is the application. It does its work before and
// after every rehearsal, rotation, undo and emergency rotation. Every difference in what it can do
// is a failure: more rights as well as fewer.
//
// `make prove` runs at least 500 seeds of each kind and prints one figure per line; `make test`
// runs four of each kind. KEYTURN_SEED repeats the scene of a failure, and nothing else.
package messy

import (
	"flag"
	"os"
	"testing"

	"github.com/keyturn/keyturn/test/support"
)

var (
	full  = flag.Bool("full", false, "run everything, and print the figures")
	seeds = flag.Int("seeds", 0, "how many seeds of each kind; 0 means 500, or 4 without -full")
	first = flag.Uint64("first", 0, "the first seed; 0 means 1")
)

var figures support.Figures

func TestMain(m *testing.M) {
	support.RunMany(full)
	os.Exit(figures.Run(m, full))
}

func good(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
