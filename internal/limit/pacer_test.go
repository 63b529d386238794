package limit_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/limit"
)

// TestPacer verifies that a client with several connections is slowed down to its rate, that
// another is not delayed meanwhile, and that the delay ends with the flood.
func TestPacer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(50)
		answers := make([]int, 20)
		begun := time.Now()
		var connections sync.WaitGroup
		for i := range answers {
			connections.Go(func() {
				for time.Since(begun) < 10*time.Second {
					p.Wait(t.Context(), "flood")
					answers[i]++
				}
			})
		}
		for range 10 {
			start := time.Now()
			if !p.Wait(t.Context(), "other") || time.Since(start) > 0 {
				t.Error("another client is delayed")
			}
			time.Sleep(500 * time.Millisecond)
		}
		connections.Wait()
		total := 0
		for _, n := range answers {
			total += n
		}
		if total < 700 || total > 800 {
			t.Errorf("%d answers in 10 s, want 250 at once and 50 a second", total)
		}
		time.Sleep(10 * time.Second)
		start := time.Now()
		if p.Wait(t.Context(), "flood"); time.Since(start) > 0 {
			t.Error("delayed after the flood")
		}
	})
}

// TestPacerIsBounded verifies that the number of answers that wait has a bound.
func TestPacerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(1)
		var all sync.WaitGroup
		var mu sync.Mutex
		closed := 0
		for i := range 6000 {
			all.Go(func() {
				for range 6 { // five come at once
					if !p.Wait(t.Context(), fmt.Sprint(i)) {
						mu.Lock()
						closed++
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		if closed != 6000-4096 {
			t.Errorf("%d connections are to be closed, want %d", closed, 6000-4096)
		}
	})
}
