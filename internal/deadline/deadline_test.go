package deadline_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/internal/deadline"
)

type key struct{}

// TestAfter verifies that a context ends as one of context.WithTimeout does, whether its channel
// was asked for before or not.
func TestAfter(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]bool{"channel first": true, "channel last": false} {
		for _, tt := range []struct {
			name string
			end  func(cancelParent func(), c *deadline.Context)
			want error
		}{
			{"time", func(_ func(), _ *deadline.Context) { time.Sleep(time.Second) }, context.DeadlineExceeded},
			{"cancel", func(_ func(), c *deadline.Context) { c.Cancel() }, context.Canceled},
			{"parent", func(cancel func(), _ *deadline.Context) { cancel() }, context.Canceled},
		} {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
					defer cancel()
					c := deadline.After(parent, time.Second)
					defer c.Cancel()
					if at, ok := c.Deadline(); !ok || !at.Equal(time.Now().Add(time.Second)) {
						t.Errorf("deadline %v, %v", at, ok)
					}
					var derived context.Context = c
					if asked {
						var stop func()
						derived, stop = context.WithCancel(c)
						defer stop()
					}
					time.Sleep(time.Second - 1)
					synctest.Wait()
					if c.Err() != nil || derived.Err() != nil {
						t.Fatalf("ended early: %v, %v", c.Err(), derived.Err())
					}
					tt.end(cancel, c)
					synctest.Wait()
					if err := c.Err(); err != tt.want {
						t.Errorf("%v, want %v", err, tt.want)
					}
					if derived.Err() != tt.want {
						t.Errorf("a derived context: %v, want %v", derived.Err(), tt.want)
					}
					select {
					case <-c.Done():
					default:
						t.Error("the channel is not closed")
					}
					if c.Value(key{}) != "value" {
						t.Error("the value of the parent is missing")
					}
				})
			})
		}
	}
}

// TestEarlierParent verifies that the deadline of the parent holds when it is earlier.
func TestEarlierParent(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	c := deadline.After(parent, time.Hour)
	defer c.Cancel()
	at, _ := c.Deadline()
	if want, _ := parent.Deadline(); !at.Equal(want) {
		t.Errorf("%v, want %v", at, want)
	}
}

// TestAllocations verifies what the package is for.
func TestAllocations(t *testing.T) {
	parent := t.Context()
	n := testing.AllocsPerRun(100, func() {
		c := deadline.After(parent, time.Second)
		_ = c.Err()
		c.Cancel()
	})
	if n > 1 {
		t.Errorf("%v allocations", n)
	}
}
