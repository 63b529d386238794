package postgresql

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDatabasesAreDocumented verifies that the documents name the bound of a comparison.
func TestDatabasesAreDocumented(t *testing.T) {
	t.Parallel()
	want := fmt.Sprintf("up to %d others", maxDatabases-1)
	for _, file := range []string{"kms/target.go", "docs/targets/postgresql.md"} {
		text, err := os.ReadFile("../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", file, want)
		}
	}
}
