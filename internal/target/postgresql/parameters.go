package postgresql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// setStatement finds the name of the setting in a statement that sets or resets one.
var setStatement = regexp.MustCompile(`^ALTER ROLE "(?:[^"]|"")*"(?: IN DATABASE "(?:[^"]|"")*")? ` +
	`(?:SET|RESET) ("(?:[^"]|"")*"(?:\."(?:[^"]|"")*")*)(?: = |$)`)

// missingRight says which settings of the planned statements the administrator may not set, and how
// it may; empty if it may set all.
func (s *setup) missingRight(ctx context.Context) (string, error) {
	var names []string
	for _, statement := range s.shared {
		if m := setStatement.FindStringSubmatch(statement); m != nil {
			name := strings.ReplaceAll(strings.ReplaceAll(strings.Trim(m[1], `"`), `"."`, "."), `""`, `"`)
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	may := "false"
	if s.able.release >= 150000 {
		may = "has_parameter_privilege(n, 'SET')"
	}
	var admin string
	rows, err := s.conn.Query(ctx, `SELECT current_user::text, n FROM unnest($1::text[]) n
		WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE lower(name) = lower(n) AND context = 'user')
			AND NOT `+may, names)
	if err != nil {
		return "", asFailed(s.attempt, err)
	}
	var lacking []string
	var name string
	_, err = pgx.ForEachRow(rows, []any{&admin, &name}, func() error { lacking = append(lacking, name); return nil })
	switch {
	case err != nil || len(lacking) == 0:
		return "", asFailed(s.attempt, err)
	case s.able.release < 150000:
		return fmt.Sprintf("administrator %q may not set %s: before PostgreSQL 15 only a superuser may",
			admin, strings.Join(lacking, ", ")), nil
	}
	var grants []string
	for _, name := range lacking {
		grants = append(grants, settingName(name))
	}
	return fmt.Sprintf("administrator %q may not set %s: GRANT SET ON PARAMETER %s TO %s", admin,
		strings.Join(lacking, ", "), strings.Join(grants, ", "), quoteIdentifier(admin)), nil
}
