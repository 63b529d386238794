package postgresql

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestDatabasesAreDocumented verifies that the page has the bound of a comparison, in one place.
func TestDatabasesAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/targets/postgresql.md")
	if err != nil {
		t.Fatal(err)
	}
	bound := regexp.MustCompile(fmt.Sprintf(`\b(%d|%d) (others|more|databases)\b`, maxDatabases-1, maxDatabases))
	want := []string{fmt.Sprintf("%d others", maxDatabases-1)}
	if got := bound.FindAllString(string(text), -1); !slices.Equal(got, want) {
		t.Errorf("the page has the bound as %q, want %q", got, want)
	}
}
