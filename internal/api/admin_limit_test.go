package api

import (
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestOneCallerTriesARejectedAdministrator verifies who may log in as an administrator that was
// rejected, and when.
func TestOneCallerTriesARejectedAdministrator(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	const here = "t1"
	a := administrator{fingerprint{1}, fingerprint{10}, here}
	other := administrator{fingerprint{2}, fingerprint{20}, here}
	l := newAdminLimit()
	may := func(what, by string, after time.Duration, want bool) {
		t.Helper()
		why, _, _ := l.hold(a, by, by == "probe", begin.Add(after))
		if ok := why == ""; ok != want {
			t.Errorf("%s: may log in: %t (%s), want %t", what, ok, why, want)
		}
	}
	const window = rotation.LoginWindow
	may("nothing is known", "x", 0, true)
	l.failed(a, "it said no", false, begin)
	may("a failed login that was no rejection", "y", 0, true)
	l.failed(a, "it said no", true, begin)
	may("a call that began before the rejection", "x", -time.Millisecond, false)
	may("in the window", "x", window-1, false)
	if why, _, _ := l.hold(a, "x", false, begin); !strings.Contains(why, "(it said no)") {
		t.Errorf("in the window: it does not say what the target answered: %q", why)
	}
	may("a probe after the window", "probe", window, false)
	may("after the window", "x", window+time.Second, true)
	may("while another tries", "y", window+time.Second, false)
	may("while another tries, by a call that began before", "y", window, false)
	may("again, by the same", "x", window, true)
	l.release(a, "y")
	may("released by another", "y", window, false)
	l.release(other, "x")
	l.release(a, "x")
	may("released", "y", window, true)
	may("held for too long", "x", 2*window, true)
	l.failed(a, "it said no", false, begin.Add(2*window))
	may("after an answer that may be a rejection", "x", 3*window-1, false)
	may("a probe after an hour", "probe", 2*window+probeAdminAfter, true)
	may("the clock was set back", "y", -time.Hour, true)
	l.failed(a, "it said no", true, begin)
	if !l.accepted(a) || l.accepted(a) {
		t.Error("accepted: it does not report once that the administrator was rejected before")
	}
	may("accepted", "y", 0, true)

	l.failed(a, "it said no", true, begin)
	first := a
	a.target = "t2"
	may("at another target in the window", "x", window-1, false)
	if why, _, _ := l.hold(a, "x", false, begin); strings.Contains(why, "it said no") {
		t.Errorf("at another target: %q", why)
	}
	may("a probe of another target", "probe", window, true)
	l.failed(a, "it said no", true, begin.Add(window))
	if why, _, _ := l.hold(first, "probe", true, begin.Add(2*window)); why == "" {
		t.Error("a probe within an hour of a rejection at its own target, after one at another target, may log in")
	}
	l.accepted(a)
	if why, _, _ := l.hold(first, "probe", true, begin.Add(2*window)); why != "" {
		t.Errorf("a probe of the first target after the administrator was accepted at the other: %s", why)
	}
	l.failed(a, "it said no", true, begin)
	a.version = fingerprint{3}
	may("with a new version", "x", 0, true)
	may("with a new version that another tries", "y", 0, false)
	l.failed(a, "it said no", true, begin)
	may("with a new version that was rejected", "y", window-1, false)
	l.accepted(a)
	earlier := a
	earlier.version = fingerprint{1}
	if !l.accepted(earlier) || l.accepted(earlier) {
		t.Error("an earlier version is accepted: it does not report once that it was rejected before")
	}
	a.version = fingerprint{4}
	may("with another version", "x", 0, true)
	may("with another version that was not rejected", "y", 0, true)
}

// TestRejectedAdministratorsAreBounded verifies that the administrators which were rejected last
// are remembered.
func TestRejectedAdministratorsAreBounded(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	l := newAdminLimit()
	key := func(n int) fingerprint { return fingerprint{byte(n), byte(n >> 8)} }
	// Each is remembered twice, with its version and without.
	admin := func(n int) administrator {
		return administrator{version: key(n), account: fingerprint{0xff, 0xff}}
	}
	const more = 10
	for n := range maxRejectedAdmins + more {
		l.failed(admin(n), "it said no", true, begin.Add(time.Duration(n)*time.Microsecond))
	}
	if len(l.rejected) != maxRejectedAdmins {
		t.Errorf("%d are remembered, want %d", len(l.rejected), maxRejectedAdmins)
	}
	for n, want := range map[int]bool{0: false, more: false, more + 1: true, maxRejectedAdmins + more - 1: true} {
		if _, ok := l.rejected[key(n)]; ok != want {
			t.Errorf("number %d is remembered: %t, want %t", n, ok, want)
		}
	}
}
