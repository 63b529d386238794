package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/limit"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestPerKey(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Config{PerKey: 10})
	for i := range 10 {
		if _, ok := l.Take("a", now); !ok {
			t.Fatalf("request %d of a second's worth was refused", i)
		}
	}
	retry, ok := l.Take("a", now)
	if ok || retry != 100*time.Millisecond {
		t.Errorf("one more: allowed %v, retry after %v; want 100ms", ok, retry)
	}
	if _, yes := l.Exhausted("a", now); !yes {
		t.Error("a share that is used up does not show")
	}
	if _, ok := l.Take("b", now); !ok {
		t.Error("another key is refused")
	}
	if _, yes := l.Exhausted("a", now.Add(retry)); yes {
		t.Error("still exhausted when it was said to be over")
	}
	if _, ok := l.Take("a", now.Add(retry)); !ok {
		t.Error("refused when it was said to be over")
	}
}

func TestTotal(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Config{Total: 5})
	for i := range 5 {
		if _, ok := l.Take(fmt.Sprint(i), now); !ok {
			t.Fatalf("request %d was refused", i)
		}
	}
	if _, ok := l.Take("new", now); ok {
		t.Error("more than the total is allowed")
	}
	if _, yes := l.Exhausted("new", now); !yes {
		t.Error("a total that is used up does not show")
	}
}

func TestNone(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Config{})
	for range 1000 {
		if _, ok := l.Take("a", now); !ok || l != nil {
			t.Fatal("no limit limits")
		}
	}
	if _, yes := l.Exhausted("a", now); yes {
		t.Error("no limit is exhausted")
	}
}

// TestStrangersTakeNothing verifies that asking does not count, so that forged requests cannot use
// up a share, and that memory for keys is bounded.
func TestStrangersTakeNothing(t *testing.T) {
	t.Parallel()
	l := limit.New(limit.Config{PerKey: 1})
	for i := range 30_000 {
		l.Exhausted("victim", now)
		l.Take(fmt.Sprint(i), now)
	}
	if _, ok := l.Take("victim", now); !ok {
		t.Error("asking used up the share")
	}
}
