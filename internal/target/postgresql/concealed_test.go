package postgresql

import (
	"strings"
	"testing"
)

// TestFindingsConcealValues verifies that a check and a plan name a setting of an application's own
// without its value, and that the statement that runs has it.
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
	s := &setup{attempt: &attempt{t: &pg{}}, shared: equalized(role{name: "app_clone"}, account)}
	planned := strings.Join(s.plan().Steps[0].Statements, "\n")
	if planned != said || !strings.Contains(strings.Join(s.shared, "\n"), "marker") {
		t.Errorf("planned: %s", planned)
	}
}
