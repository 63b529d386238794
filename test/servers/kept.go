package servers

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// kept is a server process that ends with its test.
type kept struct {
	cmd    *exec.Cmd
	exited chan struct{}
	out    support.Log
}

// startKept starts a process, and ends it with the test: by stop, and when that does not help by
// killing its group. Where the system can, the server dies with this process.
func startKept(t testing.TB, cmd *exec.Cmd, stop func()) *kept {
	t.Helper()
	k := &kept{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &k.out, &k.out, time.Second
	if err := startBound(cmd, k.exited); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if stop != nil {
			stop()
		}
		killOwnGroup(cmd.Process)
		<-k.exited
	})
	return k
}

// ready asks probe until it succeeds, and fails the test when the process ends or the time is over.
func (k *kept) ready(t testing.TB, within time.Duration, probe func() error) error {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-k.exited:
			return errors.New("the server ended at once: " + k.out.Tail())
		case <-deadline:
			return errors.New("the server is not ready (" + err.Error() + "): " + k.out.Tail())
		}
	}
}
