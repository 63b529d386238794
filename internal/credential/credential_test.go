package credential_test

import (
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/credential"
)

// TestDocument verifies that docs/consumer-adapters.md lists the usual names of each part, in their
// order.
func TestDocument(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/consumer-adapters.md")
	if err != nil {
		t.Fatal(err)
	}
	for part, title := range map[credential.Part]string{
		credential.Account:   "account",
		credential.Secret:    "credential",
		credential.PublicKey: "public key",
		credential.KeyID:     "key ID",
	} {
		row := "| " + title + " | `" + strings.Join(credential.Usual(part), "`, `") + "` |"
		if !strings.Contains(string(page), row+"\n") {
			t.Errorf("docs/consumer-adapters.md lacks the row %s", row)
		}
	}
}
