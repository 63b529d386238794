// Package prove shows that rotation keeps its promises against real servers, with the faults that
// the world has: processes that die at any line, networks that lose an answer, engines that come
// back late, people who change a password by hand.
//
// `make prove` runs all of it and prints one figure a line; `make test` runs a faster cut of the
// same.
package prove

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/keyturn/keyturn/test/support"
)

var full = flag.Bool("full", false, "run everything, and print the figures")

var figures support.Figures

// pick is one number for a full run and another for the faster cut.
func pick(inFull, inCut int) int {
	if *full {
		return inFull
	}
	return inCut
}

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case childServer:
		os.Exit(child())
	case childOracle:
		os.Exit(oracle())
	}
	support.RunMany(full)
	os.Exit(figures.Run(m, full))
}

// compact is JSON of values that cannot fail.
func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
