package postgresql

import (
	"strings"
	"testing"
)

// TestFindingsConcealValues verifies that a check names a setting of an application's own without
// its value.
func TestFindingsConcealValues(t *testing.T) {
	t.Parallel()
	account := role{name: "app", settings: []setting{
		{name: "pgrst.jwt_secret", value: "marker = 'x'"},
		{name: "statement_timeout", value: "20s"},
	}}
	said := strings.Join(concealed(equalized(role{name: "app_clone"}, account)), "\n")
	if strings.Contains(said, "marker") || !strings.Contains(said, "jwt_secret") || !strings.Contains(said, "20s") {
		t.Errorf("shown: %s", said)
	}
}
