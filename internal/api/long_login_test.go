package api

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestLongLoginLeavesTheNextWindow verifies that a login that lasts longer than a window does not
// end the window of the login after it.
func TestLongLoginLeavesTheNextWindow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	l, w := newLoginWindows(), loginWindow{target: "t", account: "app"}
	long, _ := l.take(w, now)
	now = now.Add(rotation.LoginWindow)
	if _, ok := l.take(w, now); !ok {
		t.Fatal("no login after a window")
	}
	l.giveBack(w, long)
	if _, ok := l.take(w, now); ok {
		t.Error("a login that lasted longer than a window has ended the window of another one")
	}
}
