package durability_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

const kills = 34

// TestKill kills a server that is at work, again and again, and verifies each time that
// everything it has acknowledged is there. Some kills come while it starts, the very first start
// included.
func TestKill(t *testing.T) {
	t.Parallel()
	n := support.Seed(t)
	random := rand.New(rand.NewPCG(n, 1<<32))
	dir, list := t.TempDir(), newWriters(n)
	a := newTrail(filepath.Join(dir, "audit"))
	var reads, early, under, happened int
	for round := range kills {
		if round%4 == 0 {
			early++
			starting := launch(t, dir)
			wait(random, 200*time.Millisecond)
			starting.Kill()
		}
		s := start(t, dir)
		under += pending(list)
		r, _ := settleAll(t, s.client, list, a)
		reads += r
		done := work(t, s.client, list)
		wait(random, 250*time.Millisecond)
		s.Kill()
		done()
		if t.Failed() {
			t.Fatalf("round %d; the server's log:\n%s", round, s.Log.Tail())
		}
	}
	s := start(t, dir)
	under += pending(list)
	r, records := settleAll(t, s.client, list, a)
	acked := 0
	for _, w := range list {
		acked += len(w.acked)
		happened += w.happened
	}
	if acked < kills {
		t.Errorf("only %d changes were acknowledged in %d rounds: the test says little", acked, kills)
	}
	t.Logf("%d kills at work and %d at the start; %d changes acknowledged and found, in store and trail; %d under way "+
		"when killed, of which %d had happened; %d reads; %d records",
		kills, early, acked, under, happened, reads+r, records)
}

// wait waits a random time, at most so long: that is when the kill comes.
func wait(random *rand.Rand, most time.Duration) {
	<-time.After(time.Duration(random.Int64N(int64(most))))
}

func pending(list []*writer) (n int) {
	for _, w := range list {
		if w.pending != nil {
			n++
		}
	}
	return n
}
