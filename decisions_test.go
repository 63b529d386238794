package keyturn_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestDecisions verifies that the decisions in docs/adr are numbered without a gap, once each, that
// title and file name have the same number, and that each says whether it holds.
func TestDecisions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("docs/adr/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d decisions, %v", len(files), err)
	}
	for i, path := range files {
		number, text := i+1, read(t, path)
		if !strings.HasPrefix(filepath.Base(path), fmt.Sprintf("%04d-", number)) {
			t.Errorf("%s has not the number %d, which is the next", path, number)
		}
		if !strings.HasPrefix(text, fmt.Sprintf("# %d. ", number)) {
			t.Errorf("%s: the title does not begin with the number %d", path, number)
		}
		if !strings.Contains(text, "\n\nStatus: accepted.\n") && !strings.Contains(text, "\n\nStatus: replaced by ") {
			t.Errorf("%s has no line \"Status: accepted.\" or \"Status: replaced by …\"", path)
		}
	}
}
