// Package consumer shows that applications that read secrets by package consumer, and connect by its adapters, notice no rotation
// and no outage of the server, against real servers and with real drivers.
//
// `make prove` runs all of it and prints one figure a line; `make test` runs a faster cut of the same.
package consumer

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "run everything, and print the figures")

// patience bounds what a test waits for: the machine may be busy.
const patience = 2 * time.Minute

// look is how often a test looks at what it waits for.
const look = 20 * time.Millisecond

// figures are what was counted, by name.
var figures = struct {
	sync.Mutex
	values map[string]int
}{values: map[string]int{}}

// count adds to a figure. A figure that stays 0 is printed too, once it was named.
func count(name string, n int) {
	figures.Lock()
	defer figures.Unlock()
	figures.values[name] += n
}

// most raises a figure to n, when it is less.
func most(name string, n int) {
	figures.Lock()
	defer figures.Unlock()
	figures.values[name] = max(figures.values[name], n)
}

// pick is one value for a full run and another for the faster cut.
func pick[T any](inFull, inCut T) T {
	if *full {
		return inFull
	}
	return inCut
}

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		os.Exit(child())
	}
	flag.Parse()
	stdout := os.Stdout
	if *full {
		os.Stdout = os.Stderr // for the figures alone
	}
	code := m.Run()
	if *full {
		names := []string{}
		for name := range figures.values {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintln(stdout, name, figures.values[name])
		}
	}
	os.Exit(code)
}

func good(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

// eventually waits until done is, and reports whether it came to that in time.
func eventually(done func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(look) {
		if done() {
			return true
		}
	}
	return false
}
