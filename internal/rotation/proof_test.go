package rotation_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
)

// TestLoginTime verifies that a login while reads are blocked leaves a part of the time for a look
// at the target's own state.
func TestLoginTime(t *testing.T) {
	t.Parallel()
	const hold = 40 * time.Second
	r := record(rotation.Applied)
	r.Strategy, r.HeldAt, r.Hold = target.Single, noon, hold
	for since, want := range map[time.Duration]time.Duration{
		0:                30 * time.Second,
		20 * time.Second: 15 * time.Second,
		hold:             5 * time.Second,
	} {
		if got := r.LoginTime(noon.Add(since)); got != want {
			t.Errorf("%v after reads were blocked for %v a login may take %v, want %v", since, hold, got, want)
		}
	}
}
