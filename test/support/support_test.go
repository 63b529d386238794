package support

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFigures verifies that counts keep all their digits and measures four of them.
func TestFigures(t *testing.T) {
	t.Parallel()
	var f Figures
	f.Count("runs", 12345)
	f.Count("runs", 1)
	f.Count("wrong", 0)
	f.Most("slowest", 7)
	f.Most("slowest", 3)
	f.Set("ratio", 1.23456)
	var b strings.Builder
	f.print(&b)
	if want := "ratio 1.235\nruns 12346\nslowest 7\nwrong 0\n"; b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}

// TestChild verifies that a child's lines arrive whole, that it does not see the seed, and that it
// stops when its standard input ends.
func TestChild(t *testing.T) {
	t.Setenv(seedVariable, "1")
	ready := make(chan struct{})
	var got []string
	c := StartChild(t, exec.Command("sh", "-c", `printf 'seed '; echo "$KEYTURN_SEED"; echo ready; echo log >&2; cat`),
		func(line string) {
			if got = append(got, line); line == "ready" {
				close(ready)
			}
		})
	c.Await(t, ready)
	if !c.Running() {
		t.Error("the child has ended before its input did")
	}
	c.Stop(t)
	if want := "seed |ready"; strings.Join(got, "|") != want || c.Log.String() != "log\n" || c.Err != nil {
		t.Errorf("lines %q, log %q, end %v; want the lines %q", got, c.Log.String(), c.Err, want)
	}
}
