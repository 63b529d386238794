package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
)

// shownDifferences is the number of differences that an error names.
const shownDifferences = 5

// ProveAccounts compares the rights of both logins on everything in each database to which they may
// connect. It also makes a table as each of them, which must belong to the owner, and rolls that
// back.
func (t *pg) ProveAccounts(ctx context.Context, r target.PlanRequest, a, b target.Credential) error {
	what := "prove that " + a.Account + " and " + b.Account + " are equal"
	if a.Account == b.Account || !slices.Contains(r.Logins[:], a.Account) || !slices.Contains(r.Logins[:], b.Account) {
		return target.Denied.Errorf("%s: they are not the two logins", what)
	}
	databases, err := t.databases(ctx, what, a)
	if err != nil {
		return err
	}
	for _, name := range r.Databases {
		if !slices.Contains(databases, name) {
			return target.Denied.Errorf("%s: there is no database %q that %s may connect to", what, name, a.Account)
		}
	}
	if len(r.Databases) > 0 {
		databases = r.Databases
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
			more := ""
			if n := len(differ) - shownDifferences; n > 0 {
				differ, more = differ[:shownDifferences], fmt.Sprintf(", and %d more", n)
			}
			return target.Failed(target.Denied, "", what+": they differ in "+strings.Join(differ, "; ")+more)
		}
	}
	return nil
}

// compare returns the differences between the rights of two logins.
func (t *pg) compare(
	ctx context.Context, what, database string, r target.PlanRequest, a, b target.Credential,
) ([]string, error) {
	one, err := t.rightsOf(ctx, what, database, r, a)
	if err != nil {
		return nil, err
	}
	other, err := t.rightsOf(ctx, what, database, r, b)
	if err != nil {
		return nil, err
	}
	return differences(one, other), nil
}

func differences(a, b map[string]string) []string {
	var out []string
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			out = append(out, fmt.Sprintf("%s (%q, %q)", key, value, other))
		}
	}
	for key, value := range b {
		if _, ok := a[key]; !ok {
			out = append(out, fmt.Sprintf("%s (%q, %q)", key, "", value))
		}
	}
	slices.Sort(out)
	return out
}

// databases returns the databases to which a login may connect, the configured one first.
func (t *pg) databases(ctx context.Context, what string, c target.Credential) ([]string, error) {
	conn, err := t.connect(ctx, t.config.AdminAddress, t.config.Database, c)
	if err != nil {
		return nil, t.loginFailed(what, err, c.Secret)
	}
	defer disconnect(conn)
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_catalog.pg_database
		WHERE datallowconn AND NOT datistemplate
			AND pg_catalog.has_database_privilege(session_user, oid, 'CONNECT')
		ORDER BY datname <> $1, datname`, t.config.Database)
	if err != nil {
		return nil, checkFailed(what, err, c.Secret)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, checkFailed(what, err, c.Secret)
	}
	return names, nil
}

// rightsOf returns a login's rights in a database, after it has verified that the login acts as the
// owner.
func (t *pg) rightsOf(
	ctx context.Context, what, database string, r target.PlanRequest, c target.Credential,
) (map[string]string, error) {
	conn, err := t.connect(ctx, t.config.AdminAddress, database, c)
	if err != nil {
		return nil, t.loginFailed(what+": log in as "+c.Account, err, c.Secret)
	}
	defer disconnect(conn)
	fail := func(err error) error { return checkFailed(what+": as "+c.Account, err, c.Secret) }
	made, err := tableOwner(ctx, conn)
	if err != nil {
		return nil, fail(err)
	}
	var session, current string
	if err := conn.QueryRow(ctx, "SELECT session_user::text, current_user::text").Scan(&session, &current); err != nil {
		return nil, fail(err)
	}
	owner := cmp.Or(r.Owner, current)
	if current != owner || current == session || made != "" && made != owner {
		return nil, target.Denied.Errorf(
			"%s: %s acts as %q and makes tables of %q; both should be the owner, %q", what, c.Account, current,
			made, owner,
		)
	}
	rows, err := conn.Query(ctx, rights)
	if err != nil {
		return nil, fail(err)
	}
	out := map[string]string{"owner": current}
	var key, value string
	if _, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error { out[key] = value; return nil }); err != nil {
		return nil, fail(err)
	}
	maps.DeleteFunc(out, func(_, value string) bool { return value == "" })
	return out, nil
}

// tableOwner makes a table in a transaction that it rolls back. It returns the table's owner; empty
// if the login may make no table.
func tableOwner(ctx context.Context, conn *pgx.Conn) (owner string, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer func() {
		if failed := tx.Rollback(ctx); err == nil {
			err = failed
		}
	}()
	var schema string
	err = tx.QueryRow(ctx, `SELECT pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace
		WHERE pg_catalog.has_schema_privilege(oid, 'CREATE') AND nspname !~ '^pg_'
		ORDER BY nspname <> 'public', nspname LIMIT 1`).
		Scan(&schema)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	table := schema + ".keyturn_proof"
	if _, err := tx.Exec(ctx, "CREATE TABLE "+table+" (n int)"); err != nil {
		return "", err
	}
	err = tx.QueryRow(ctx, `SELECT pg_catalog.pg_get_userbyid(relowner)::text FROM pg_catalog.pg_class
		WHERE oid = pg_catalog.to_regclass($1)`, table).
		Scan(&owner)
	return owner, err
}
