// Package flood attacks a server as a stranger, and as a client whose key has no right, and
// measures another client meanwhile: each of its reads must succeed, about as fast as before. The
// server is a process of its own that may open 1,024 files.
//
// `make prove` attacks for longer and prints one figure a line; `make test` runs a faster cut of
// the same, which does not judge latencies: other tests run at the same time.
package flood

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

var full = flag.Bool("full", false, "attack for longer, judge latencies, and print the figures")

var figures support.Figures

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
	if dir := os.Getenv(dataDir); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(figures.Run(m, full))
}
