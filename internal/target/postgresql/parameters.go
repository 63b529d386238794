package postgresql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// setStatement finds the name of the setting in a statement that sets or resets one.
var setStatement = regexp.MustCompile(`^ALTER ROLE ` + identifier + `(?: IN DATABASE ` + identifier + `)? ` +
	`(?:SET|RESET) (` + identifier + `(?:\.` + identifier + `)*)(?: = |$)`)

// missingRight is what keeps an administrator from setting settings. The zero value stands for
// nothing.
type missingRight struct {
	admin    string
	settings []string
	grant    string // the statement that gives the right; empty if only a superuser may set them
}

// note says for a plan that it will fail, and what to run first.
func (m missingRight) note() string {
	text := fmt.Sprintf("administrator %q may not set %s, so the plan will fail. ",
		m.admin, strings.Join(m.settings, ", "))
	if m.grant == "" {
		return text + "Before PostgreSQL 15 only a superuser may."
	}
	return text + "Run " + m.grant + " first."
}

// advised adds to the error of a statement that sets one of the settings how the administrator may
// set it. It returns any other error unchanged.
func (m missingRight) advised(statement string, err error, secrets ...sensitive.Value) error {
	switch name := settingIn(statement); {
	case err == nil || name == "" || !slices.Contains(m.settings, name):
		return err
	case m.grant == "":
		return target.WithAdvice(err, "before PostgreSQL 15 only a superuser may set "+name, secrets...)
	}
	return target.WithAdvice(err, m.grant, secrets...)
}

// settingIn returns the name of the setting that a statement sets or resets; empty for none.
func settingIn(statement string) string {
	m := setStatement.FindStringSubmatch(statement)
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(strings.ReplaceAll(strings.Trim(m[1], `"`), `"."`, "."), `""`, `"`)
}

// missingRight returns which settings of the planned statements the administrator may not set.
func (s *setup) missingRight(ctx context.Context) (missing missingRight, err error) {
	var names []string
	for _, statement := range s.shared {
		if name := settingIn(statement); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return missing, nil
	}
	may := "false"
	if s.able.release >= 150000 {
		may = "has_parameter_privilege(n, 'SET')"
	}
	rows, err := s.conn.Query(ctx, `SELECT current_user::text, n FROM unnest($1::text[]) n
		WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings WHERE lower(name) = lower(n) AND context = 'user')
			AND NOT `+may, names)
	if err != nil {
		return missing, asFailed(s.attempt, err)
	}
	var name string
	_, err = pgx.ForEachRow(rows, []any{&missing.admin, &name}, func() error {
		missing.settings = append(missing.settings, name)
		return nil
	})
	if err != nil || len(missing.settings) == 0 || s.able.release < 150000 {
		return missing, asFailed(s.attempt, err)
	}
	var grants []string
	for _, name := range missing.settings {
		grants = append(grants, settingName(name))
	}
	missing.grant = "GRANT SET ON PARAMETER " + strings.Join(grants, ", ") + " TO " + quoteIdentifier(missing.admin)
	return missing, nil
}
