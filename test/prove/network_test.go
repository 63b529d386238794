package prove

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// silentFor is how long a call to a target may take where the network goes silent, in
// milliseconds. It is more than a call takes on a busy machine.
const silentFor = 4000

// silentCalls is how many calls may go unanswered before the network is healed.
const silentCalls = 4

// network harms the connections between engine and target at positions of the bytes of a
// rotation, from its first to its last, and heals them. The rotation ends as it would have
// without, because reads may be blocked for longer than the network is silent. A rotation that
// blocks reads for as long as they may be is taken back.
func (f fixture) network(t *testing.T) {
	for _, name := range []string{
		"network_runs",
		"network_wrong_ends",
		"network_false_quarantines",
		"network_credentials_lost",
		"network_runs_" + f.name,
	} {
		figures.Count(name, 0)
	}
	wire := newCable(t, f.addr)
	call := max(silentFor, f.slow)
	c, secret := f.begin(t, newPlace(t), order{Effect: call, Hold: silentCalls * call}, wire.addr(), "0s")
	n := 2
	turn := func(h harm) {
		hit := wire.set(h)
		c.rotate(t, secret, version(n))
		c.untilHarmed(t, secret, hit, h.kind)
		if h.kind != unharmed {
			wire.heal()
		}
		if r := c.until(t, secret); !f.whole(t, c, "network", secret, n, r) {
			t.Fatalf("with harm %+v of %v bytes; log: %s", h, wire.counts(), c.Log.Tail())
		}
		n++
	}
	c.untilProbed(t, secret)
	turn(harm{})
	length := wire.counts()
	kinds := []harmKind{cut, drop, mute}
	positions := pick(24, 2)
	if f.mute {
		positions = 2
	}
	for i := range positions {
		for _, reply := range []bool{false, true} {
			whole := length[0]
			if reply {
				whole = length[1]
			}
			for j, kind := range kinds {
				if !*full && (i+j)%len(kinds) > 0 {
					continue // every third in the faster cut
				}
				turn(harm{kind: kind, reply: reply, after: (i*len(kinds) + j) * whole / (positions * len(kinds))})
				figures.Count("network_runs", 1)
				figures.Count("network_runs_"+f.name, 1)
			}
		}
	}
}

// untilHarmed waits until the harm was done and, where it lasts, noticed.
func (c *process) untilHarmed(t testing.TB, secret string, hit <-chan struct{}, kind harmKind) {
	t.Helper()
	if kind == unharmed {
		return
	}
	support.Retry(t, func() error {
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		if err == nil && ended(r.State) {
			return nil // it has needed fewer bytes this time
		}
		select {
		case <-hit:
			if kind == drop || err == nil && noticed(r) {
				return nil
			}
		default:
		}
		return fmt.Errorf("the network was not harmed, or no step shows it: %+v, %v; log: %s", r, err, c.Log.Tail())
	})
}

// noticed reports whether a step of the rotation has failed.
func noticed(r *kms.DescribeRotationResponse) bool {
	for _, s := range r.Steps {
		if s.Event == "failed" ||
			s.Event == "no-answer" ||
			s.Event == "not-reached" ||
			s.Event == "not-ready" ||
			strings.Contains(s.Event, "rejected") {
			return true
		}
	}
	return false
}

// untilProbed waits until the target has answered for the credential in use, so that nothing else
// is on the wire.
func (c *process) untilProbed(t testing.TB, secret string) {
	t.Helper()
	support.Until(t, "the target to accept the credential of "+secret, func() bool {
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		good(t, err)
		return r.CredentialState == "live"
	})
}
