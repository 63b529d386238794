package rpc

import (
	"net/netip"
	"testing"
)

// TestBodiesGiveWay verifies that the source which holds the most gives way, with its largest body,
// and that what is held stays bounded.
func TestBodiesGiveWay(t *testing.T) {
	t.Parallel()
	b := &bodies{limit: 100}
	aborted := map[string]int{}
	begin := func(name, address string) *bodyReading {
		return b.begin(netip.MustParseAddr(address), func() { aborted[name]++ })
	}
	small, large, other := begin("small", "192.0.2.1"), begin("large", "192.0.2.1"), begin("other", "192.0.2.2")
	if !small.take(30) || !large.take(40) || !other.take(25) {
		t.Fatal("bodies within the limit are refused")
	}
	if !other.take(10) || aborted["large"] != 1 || len(aborted) != 1 {
		t.Errorf("aborted %v; want the largest body of the source that holds the most", aborted)
	}
	if large.take(1) {
		t.Error("a body that was aborted goes on")
	}
	if other.take(60) || aborted["other"] != 1 || !small.take(0) {
		t.Errorf("aborted %v; want the body that is too large for all memory", aborted)
	}
	for _, r := range []*bodyReading{small, large, other} {
		r.end()
		r.end()
	}
	if b.held != 0 || len(b.owners) != 0 {
		t.Errorf("after the end %d bytes of %d sources are held", b.held, len(b.owners))
	}
}
