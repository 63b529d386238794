package postgresql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// TestFindingsConcealValues verifies that a check and a plan name a setting of an application's own
// without its value, that nothing in them sets another value when it is run, and that the statement
// that runs has it.
func TestFindingsConcealValues(t *testing.T) {
	t.Parallel()
	for _, clone := range []string{"app_clone", `app = "clone" SET x`, "app\n; DROP ROLE app; --"} {
		account := role{name: "app", settings: []setting{
			{name: "pgrst.jwt_secret", value: "marker = 'x'"},
			{name: "app.tenant", value: "marker", database: "shop = 'y'"},
			{name: "statement_timeout", value: "20s"},
		}}
		all := equalized(role{name: clone}, account)
		s := &setup{attempt: &attempt{t: &pg{}}, shared: all}
		s.request.Account = "app"
		planned := s.plan().Steps[0].Statements
		if len(planned) != 3 || !strings.HasSuffix(planned[2], ` SET "statement_timeout" = '20s'`) {
			t.Errorf("%s: planned: %q", clone, planned)
		}
		for _, p := range planned[:2] {
			if !strings.HasPrefix(p, "-- ALTER ROLE ") || strings.ContainsAny(p, "\n\r") {
				t.Errorf("%s: a statement without its value can be run: %q", clone, p)
			}
			if !strings.Contains(p, `FROM pg_db_role_setting WHERE setrole = '"app"'::regrole`) {
				t.Errorf("%s: not said where the value is: %q", clone, p)
			}
		}
		fix := runTheseAlso(all, "app")
		for _, text := range []string{strings.Join(planned, "\n"), fix} {
			if strings.Contains(text, "marker") || strings.Contains(text, "…") || !strings.Contains(text, `"jwt_secret"`) ||
				!strings.Contains(text, `"app"."tenant"`) || !strings.Contains(text, "20s") {
				t.Errorf("%s: shown: %s", clone, text)
			}
		}
		if !strings.HasPrefix(fix, "Run "+all[2]+". Run ALTER ROLE ") || strings.Contains(fix, `"tenant" = `) {
			t.Errorf("%s: advised: %s", clone, fix)
		}
		if !strings.Contains(strings.Join(s.shared, "\n"), "marker") {
			t.Errorf("%s: the statements that run lack the value", clone)
		}
	}
}

// TestManyStatements verifies that the advice about many differences has whole statements, and says
// that there are more.
func TestManyStatements(t *testing.T) {
	t.Parallel()
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprintf("ALTER ROLE %q SET %q = 'x'", strings.Repeat("c", 63), fmt.Sprint("a.", i)))
	}
	for _, fix := range []string{
		runThese(all), runIn("app", all...), runTheseAlso(all, "app"),
		running("Run ", all, 3, ""), running("Run ", all[:3], 3, ""),
	} {
		got := target.BoundedFindings([]target.Finding{{Fix: fix}})[0].Fix
		if strings.Count(got, "ALTER ROLE") < 3 || strings.Count(got, "ALTER ROLE") != strings.Count(got, "= 'x'") ||
			!strings.HasSuffix(got, "= 'x'. These are not all: check again after them.") {
			t.Errorf("fix: %s", got)
		}
	}
}
