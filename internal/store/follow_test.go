package store

import (
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFollowMissesNothing: whoever looks after each signal sees the last change in the end, also
// while the watch breaks again and again, and is not notified about other secrets.
func TestFollowMissesNothing(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		if _, err := count(ctx, db, name); err != nil {
			t.Fatal(err)
		}
	}
	const changes = 300
	f := db.Follow("a", []string{"b", "c"})
	failed := make(chan error, 1)
	go func() {
		for i := range changes {
			_, err := count(ctx, db, []string{"a", "c"}[i%2])
			if i%20 == 0 {
				db.mirror.reset() // as when a watch breaks
			}
			if err != nil || i == changes-1 {
				failed <- err
				return
			}
		}
	}()
	last, deadline := uint64(0), time.After(20*time.Second)
	for last < 1+changes/2 {
		select {
		case <-f.Signal():
			for _, i := range f.Changed() {
				if i != 0 && i != 1 {
					t.Fatalf("notified about place %d of 2", i)
				}
			}
			n, err := seen(ctx, db, "c")
			if err != nil || n < last {
				t.Fatalf("saw %d after %d, %v", n, last, err)
			}
			last = n
		case <-deadline:
			t.Fatalf("the last that was seen is change %d; want %d", last, 1+changes/2)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// TestFollowTells: one follower is notified only about what it follows, by place, and about
// everything when changes may have been missed.
func TestFollowTells(t *testing.T) {
	t.Parallel()
	var h hub
	db := &DB{}
	f, other := db.Follow("a", []string{"x", "y", "z"}), db.Follow("a", []string{"y"})
	if db.Following() != 2 {
		t.Errorf("%d follow; want 2", db.Following())
	}
	told := func(f *Follower) []int {
		t.Helper()
		select {
		case <-f.Signal():
		default:
			return nil
		}
		list := f.Changed()
		slices.Sort(list)
		return list
	}
	db.hub.take([]string{secretKind.key("a/z"), secretKind.key("b/y"), secretKind.key("a/z"), secretKind.key("a/x")})
	if got, not := told(f), told(other); !slices.Equal(got, []int{0, 2}) || not != nil {
		t.Errorf("told %v and %v; want [0 2] and nothing", got, not)
	}
	db.hub.lost()
	if got, also := told(f), told(other); !slices.Equal(got, []int{0, 1, 2}) || !slices.Equal(also, []int{0}) {
		t.Errorf("after a loss told %v and %v; want all", got, also)
	}
	f.Close()
	other.Close()
	if db.Following() != 0 || len(db.hub.followers) != len(h.followers) {
		t.Errorf("%d follow %d secrets after all have ended", db.Following(), len(db.hub.followers))
	}
}

// TestFollowOverNewWatch: what changed while no watch was there is looked for when the next one
// begins.
func TestFollowOverNewWatch(t *testing.T) {
	t.Parallel()
	db := openMirrored(t, 0)
	if _, err := count(t.Context(), db, "a"); err != nil {
		t.Fatal(err)
	}
	f := db.Follow("a", []string{"x"})
	defer f.Close()
	db.mirror.take(clientv3.WatchResponse{Created: true}, 1)
	select {
	case <-f.Signal():
	case <-time.After(10 * time.Second):
		t.Error("a follower is not told that a watch has begun")
	}
}
