package oauth_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// TestForeignNames verifies that no member of a client is shown as a command.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	for _, member := range []string{"client_id", "token_endpoint_auth_method"} {
		r := startRegistry(t)
		r.clients["app"] = map[string]any{member: targettest.HostileName}
		targettest.Harmless(t, targettest.Findings(t, r.open(t, "", ""), target.CheckRequest{Current: change.Old}))
	}
}
