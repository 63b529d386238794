package prove

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/test/signature"
)

// TestSignatureMutations changes signed requests: none may mean something else than what was
// signed, and none may be accepted twice.
func TestSignatureMutations(t *testing.T) {
	t.Parallel()
	lasts := time.Duration(pick(180, 3)) * time.Second
	seed := uint64(time.Now().UnixNano())
	f, err := signature.Run(seed, 0, time.Now().Add(lasts), func(now func() time.Time) rpc.Authenticator {
		return auth.New(signature.Config(now))
	})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	figures.Count("signature_mutations", f.Mutations)
	figures.Count("signature_same_meaning", f.Same)
	figures.Count("signature_other_meaning", f.OtherMeaning)
	figures.Count("signature_replays_accepted", f.Replays)
	if f.OtherMeaning > 0 || f.Replays > 0 {
		t.Errorf("seed %d: %s", seed, f.Example)
	}
}
