package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
)

const (
	// shownDifferences is the number of differences that an error names.
	shownDifferences = 5
	// Bounds of what is counted of tables with row security.
	maxSecured = 200
	maxRows    = 1000
)

// view is what an application sees and may do in one database.
type view map[string]string

// ProveAccounts compares what an application sees and may do with both logins, in each database to
// which they may connect. It also makes a table as each of them, and rolls that back.
func (t *pg) ProveAccounts(ctx context.Context, r target.PlanRequest, a, b target.Credential) error {
	what := "prove that " + a.Account + " and " + b.Account + " are equal"
	if a.Account == b.Account || !slices.Contains(r.Logins[:], a.Account) || !slices.Contains(r.Logins[:], b.Account) {
		return target.Denied.Errorf("%s: they are not the two logins", what)
	}
	databases, err := t.databases(ctx, what, r.Databases, a)
	if err != nil {
		return err
	}
	for _, database := range databases {
		what := what + " in database " + database
		differ, err := t.compare(ctx, what, database, r, a, b)
		if err == nil && len(differ) > 0 {
			// An object may have been made between the two readings.
			differ, err = t.compare(ctx, what, database, r, a, b)
		}
		if err != nil {
			return err
		}
		if len(differ) > 0 {
			return target.Failed(target.Denied, "", what+": they differ in "+listed(differ))
		}
	}
	return nil
}

// listed names the first differences, and how many more there are.
func listed(differ []string) string {
	more := ""
	if n := len(differ) - shownDifferences; n > 0 {
		differ, more = differ[:shownDifferences], fmt.Sprintf(", and %d more", n)
	}
	return strings.Join(differ, "; ") + more
}

// compare returns the differences between what two logins see.
func (t *pg) compare(
	ctx context.Context, what, database string, r target.PlanRequest, a, b target.Credential,
) ([]string, error) {
	one, err := t.view(ctx, what, database, a)
	if err != nil {
		return nil, err
	}
	other, err := t.view(ctx, what, database, b)
	if err != nil {
		return nil, err
	}
	if r.Owner != "" && one["acts as"] != r.Owner {
		return nil, target.Denied.Errorf("%s: %s acts as %q, not as %q", what, a.Account, one["acts as"], r.Owner)
	}
	// The clone is a member of the account, also where both act as a third role.
	delete(one, "may become "+b.Account)
	delete(other, "may become "+a.Account)
	return one.differences(other), nil
}

func (v view) differences(other view) []string {
	var out []string
	for key, value := range v {
		if also, ok := other[key]; !ok || also != value {
			out = append(out, fmt.Sprintf("%s (%q, %q)", key, value, also))
		}
	}
	for key, value := range other {
		if _, ok := v[key]; !ok {
			out = append(out, fmt.Sprintf("%s (%q, %q)", key, "", value))
		}
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b)) })
	return out
}

// changes returns the differences that a plan can have made. An object that is there only
// afterwards was made by another client meanwhile.
func (v view) changes(after view) []string {
	own := maps.Clone(after)
	maps.DeleteFunc(own, func(key, _ string) bool {
		_, before := v[key]
		return !before && rank(key) == len(first)
	})
	return v.differences(own)
}

// first lists the beginnings of differences from which others follow.
var first = []string{
	"acts as",
	"belongs",
	"attributes",
	"setting of the login",
	"setting search_path",
	"may become",
	"has the rights of",
}

func rank(difference string) int {
	at := slices.IndexFunc(first, func(prefix string) bool { return strings.HasPrefix(difference, prefix) })
	if at < 0 {
		return len(first)
	}
	return at
}

// views returns what a login sees in each of the databases; none means all to which it may connect.
func (t *pg) views(ctx context.Context, what string, names []string, c target.Credential) (map[string]view, error) {
	databases, err := t.databases(ctx, what, names, c)
	if err != nil {
		return nil, err
	}
	out := map[string]view{}
	for _, database := range databases {
		if out[database], err = t.view(ctx, what+" in database "+database, database, c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Bounds of the wait for a session of the comparison itself that has ended, and that the server
// still counts.
const (
	lastSession   = 2 * time.Second
	betweenLogins = 20 * time.Millisecond
)

// observe opens a session of an application for the comparison. Its sessions follow one another, so
// an account whose limit leaves one of them waits until the server has forgotten the one before.
func (t *pg) observe(ctx context.Context, database string, c target.Credential) (conn *pgx.Conn, err error) {
	for deadline := time.Now().Add(lastSession); ; {
		conn, err = t.connectAs(ctx, t.config.AdminAddress, database, c)
		answer, _ := errors.AsType[*pgconn.PgError](err)
		if answer == nil || !isAdmitted(err) || answer.Code != "53300" || time.Now().After(deadline) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(betweenLogins + rand.N(betweenLogins)):
		}
	}
}

// databases returns the databases to compare: those named, or all to which a login may connect, the
// application's first.
func (t *pg) databases(ctx context.Context, what string, names []string, c target.Credential) ([]string, error) {
	conn, err := t.observe(ctx, t.database(), c)
	if err != nil {
		return nil, t.loginFailed(what+": log in as "+c.Account, err, c.Secret)
	}
	defer disconnect(conn)
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_catalog.pg_database
		WHERE datallowconn AND datconnlimit <> 0 AND NOT datistemplate
			AND pg_catalog.has_database_privilege(session_user, oid, 'CONNECT')
		ORDER BY datname <> $1, datname`, t.database())
	if err != nil {
		return nil, checkFailed(what, err, c.Secret)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, checkFailed(what, err, c.Secret)
	}
	for _, name := range names {
		if !slices.Contains(found, name) {
			return nil, target.Denied.Errorf("%s: there is no database %q that %s may connect to", what, name, c.Account)
		}
	}
	if len(names) > 0 {
		return names, nil
	}
	return found, nil
}

// view returns what a login sees and may do in a database.
func (t *pg) view(ctx context.Context, what, database string, c target.Credential) (view, error) {
	conn, err := t.observe(ctx, database, c)
	if err != nil {
		return nil, t.loginFailed(what+": log in as "+c.Account, err, c.Secret)
	}
	defer disconnect(conn)
	fail := func(err error) error { return checkFailed(what+": as "+c.Account, err, c.Secret) }
	out := view{}
	if out["makes"], err = makes(ctx, conn); err != nil {
		return nil, fail(err)
	}
	var release int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int4").Scan(&release); err != nil {
		return nil, fail(err)
	}
	rows, err := conn.Query(ctx, seenAt(release))
	if err != nil {
		return nil, fail(err)
	}
	var key, value string
	if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { out[key] = value; return nil }); err != nil {
		return nil, fail(err)
	}
	if err := out.countRows(ctx, conn); err != nil {
		return nil, fail(err)
	}
	maps.DeleteFunc(out, func(_, value string) bool { return value == "" })
	return out, nil
}

// makes makes a table by a name alone, in a transaction that it rolls back. It returns the schema,
// the owner and the privileges of the table, or the code of the refusal.
func makes(ctx context.Context, conn *pgx.Conn) (text string, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() {
		if failed := tx.Rollback(ctx); err == nil {
			err = failed
		}
	}()
	if _, err := tx.Exec(ctx, "CREATE TABLE keyturn_proof (n int)"); err != nil {
		answer, ok := errors.AsType[*pgconn.PgError](err)
		if !ok {
			return "", err
		}
		return answer.Code, nil
	}
	err = tx.QueryRow(ctx, `SELECT concat_ws(' ', 'tables in', relnamespace::regnamespace, 'of', pg_get_userbyid(relowner),
			relacl) FROM pg_catalog.pg_class WHERE oid = 'keyturn_proof'::regclass`).
		Scan(&text)
	return text, err
}

// countRows counts what row security leaves of each table that has it, up to a bound.
func (v view) countRows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relrowsecurity AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.oid LIMIT $1::int4`, maxSecured)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, table := range tables {
		if err := v.countIn(ctx, conn, table); err != nil {
			return err
		}
	}
	return nil
}

func (v view) countIn(ctx context.Context, conn *pgx.Conn, table string) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '2s'"); err != nil {
		return err
	}
	var n int
	err = tx.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM (SELECT FROM %s LIMIT %d) x", table, maxRows)).Scan(&n)
	answer, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		v["rows of "+table] = fmt.Sprint(n)
	case !refused:
		return err
	case answer.Code != "57014": // it took too long
		v["rows of "+table] = answer.Code
	}
	return tx.Rollback(ctx)
}
