package mysql

import "testing"

// TestCanonicalAccount verifies that spellings which the server takes for one user have one name,
// and no others.
func TestCanonicalAccount(t *testing.T) {
	t.Parallel()
	for spelling, want := range map[string]string{
		"app":     "app",
		"'app'":   "app",
		"''app''": "'app'", // it takes one pair away
		"'app":    "'app",
		"App":     "App",
		"'":       "'",
		"''":      "",
		"app@%":   "app@%",
	} {
		if got := (config{}).CanonicalAccount(spelling); got != want {
			t.Errorf("%s is %s; want %s", spelling, got, want)
		}
	}
}
