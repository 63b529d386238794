package conns

import (
	"net/netip"
	"testing"
)

// TestRecentKeepsWhatIsAskedFor verifies that a full map forgets the source that was not asked for
// longest, and not the one that was added first.
func TestRecentKeepsWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	source := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	r := newRecent[byte](3)
	for n := byte(1); n <= 3; n++ {
		r.put(source(n), n)
	}
	for n := byte(4); n <= 9; n++ {
		if v, ok := r.get(source(1)); !ok || v != 1 {
			t.Fatalf("the source that is asked for all the time is forgotten after %d sources", n-1)
		}
		r.put(source(n), n)
	}
	if len(r.by) != 3 || r.order.Len() != 3 {
		t.Errorf("%d sources, want 3", len(r.by))
	}
	if _, ok := r.get(source(2)); ok {
		t.Error("a source that was not asked for is kept")
	}
}
