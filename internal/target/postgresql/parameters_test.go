package postgresql

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// TestMissingRightIsOfItsStatement verifies that only the refusal of a statement that sets what the
// administrator may not set says how it may.
func TestMissingRightIsOfItsStatement(t *testing.T) {
	t.Parallel()
	const grant = `GRANT SET ON PARAMETER "app"."tenant" TO "admin"`
	for _, grants := range []string{grant, ""} {
		missing := missingRight{admin: "admin", settings: []string{"app.tenant"}, grant: grants}
		want := grants
		if grants == "" {
			want = "only a superuser may set app.tenant"
		}
		for statement, advised := range map[string]bool{
			`ALTER ROLE "a" SET "app"."tenant" = '1'`:                  true,
			`ALTER ROLE "a" IN DATABASE "d" RESET "app"."tenant"`:      true,
			`ALTER ROLE "a" SET "work_mem" = '5MB'`:                    false,
			`ALTER ROLE "a" RENAME TO "b"`:                             false,
			`CREATE ROLE "b" LOGIN`:                                    false,
			`ALTER ROLE "a" SET "app"."tenants" = '"app"."tenant" = '`: false,
		} {
			err := missing.advised(statement, target.Denied.Errorf("permission denied"))
			if got := strings.Contains(err.Error(), want); got != advised {
				t.Errorf("%s: %v", statement, err)
			}
		}
	}
}
