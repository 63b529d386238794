// Package flood attacks a server as a stranger, and as a client whose key has no right, and measures another client
// meanwhile: each of its reads must succeed, about as fast as before. The server is a process of its own that may open
// 1,024 files.
//
// `make prove` attacks for longer and prints one figure a line; `make test` runs a faster cut of the same, which does not
// judge latencies: other tests run at the same time.
package flood

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

var full = flag.Bool("full", false, "attack for longer, judge latencies, and print the figures")

// figures are what was measured, by name. The attacks run one after the other.
var figures = map[string]float64{}

// lasts is how long the attack lasts.
func (a attack) lasts() time.Duration {
	switch {
	case !*full:
		return 1500 * time.Millisecond
	case a.long:
		return 45 * time.Second
	}
	return 15 * time.Second
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
		var names []string
		for name := range figures {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(stdout, "%s %.4g\n", name, figures[name])
		}
	}
	os.Exit(code)
}
