// Package prove shows that rotation keeps its promises against real servers, with the faults that the world has: processes
// that die at any line, networks that lose an answer, engines that come back late, people who change a password by hand.
//
// `make prove` runs all of it and prints one figure a line; `make test` runs a faster cut of the same.
package prove

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
)

var full = flag.Bool("full", false, "run everything, and print the figures")

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

// pick is one number for a full run and another for the faster cut.
func pick(inFull, inCut int) int {
	if *full {
		return inFull
	}
	return inCut
}

// atOnce is how many parts run at the same time: they wait for other processes, and for times to pass, more than they compute.
const atOnce = "8"

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case childServer:
		os.Exit(child())
	case childOracle:
		os.Exit(oracle())
	}
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(atOnce) // it is a number
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

// compact is JSON of values that cannot fail.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
