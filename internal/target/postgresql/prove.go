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

// ProveAccounts compares what an application sees and may do with both logins, in the databases
// that the request names, or in those that applications may open. Other users may own databases and
// objects there, so each login reads the server's catalogs alone, in one transaction that changes
// nothing, and no function, view or policy of another owner runs as an account.
func (t *pg) ProveAccounts(
	ctx context.Context, r target.PlanRequest, a, b target.Credential,
) (p target.Proof, err error) {
	what := "prove that " + a.Account + " and " + b.Account + " are equal"
	if a.Account == b.Account || !slices.Contains(r.Logins[:], a.Account) || !slices.Contains(r.Logins[:], b.Account) {
		return p, target.Denied.Errorf("%s: they are not the two logins", what)
	}
	if p.Databases, p.Left, err = t.toCompare(ctx, what, r, a); err != nil {
		return p, err
	}
	for _, database := range p.Databases {
		what := what + " " + inDatabase(database)
		differ, err := t.compare(ctx, what, database, r, a, b)
		if err == nil && len(differ) > 0 {
			// An object may have been made between the two readings.
			differ, err = t.compare(ctx, what, database, r, a, b)
		}
		if err != nil {
			return p, err
		}
		if len(differ) > 0 {
			return p, target.Failed(target.Denied, "", what+": they differ in "+listed(differ))
		}
	}
	return p, nil
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

// called returns the view with another name for a role, and without the schemas in which names are
// found: one of them may have the name of the acting role.
func (v view) called(role, name string) view {
	out := view{}
	for key, value := range v {
		if key != "search path" {
			out[key] = strings.ReplaceAll(value, role, name)
		}
	}
	return out
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

// views returns what a login sees in each of the databases.
func (t *pg) views(
	ctx context.Context, what string, names []string, c target.Credential,
) (out map[string]view, err error) {
	out = map[string]view{}
	for _, database := range names {
		if out[database], err = t.view(ctx, what+" "+inDatabase(database), database, c); err != nil {
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

// toCompare returns the databases in which to compare: those that the request names, or the one in
// which the target is, and those that applications may open, up to a bound and as far as the server
// lets the login c in. left has a clause about each of the others.
func (t *pg) toCompare(
	ctx context.Context, what string, r target.PlanRequest, c target.Credential,
) (list, left []string, err error) {
	if len(r.Databases) > 0 {
		return r.Databases, nil, nil
	}
	used, err := t.usedDatabases(ctx, what, r, c)
	if err != nil {
		return nil, nil, err
	}
	list = []string{t.database()}
	used = slices.DeleteFunc(used, func(d string) bool { return d == list[0] })
	if n := len(used) - (maxDatabases - 1); n > 0 {
		left = append(left, fmt.Sprintf("not compared: %d further databases, from %q; --database compares in others",
			n, used[len(used)-n]))
		used = used[:len(used)-n]
	}
	for _, database := range used {
		conn, err := t.observe(ctx, database, c)
		if err == nil {
			disconnect(conn)
			list = append(list, database)
			continue
		}
		answer, answered := errors.AsType[*pgconn.PgError](err)
		if !answered {
			return nil, nil, t.loginFailed(what+" "+inDatabase(database)+": log in as "+c.Account, err, c.Secret)
		}
		left = append(left, fmt.Sprintf("not compared: database %q, to which %s cannot connect (%s)",
			database, c.Account, answer.Code))
	}
	return list, left, nil
}

// usedDatabases asks [attempt.usedDatabases] for the accounts of a request.
func (t *pg) usedDatabases(
	ctx context.Context, what string, r target.PlanRequest, c target.Credential,
) ([]string, error) {
	a, err := t.asAdmin(ctx, what, c.Secret)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if err := a.reading(ctx); err != nil {
		return nil, err
	}
	return a.usedDatabases(ctx, cmp.Or(r.Owner, r.Account), r.Logins[:]...)
}

// view returns what a login sees and may do in a database.
func (t *pg) view(ctx context.Context, what, database string, c target.Credential) (view, error) {
	conn, err := t.observe(ctx, database, c)
	if err != nil {
		if answer, ok := errors.AsType[*pgconn.PgError](err); ok && (answer.Code == "3D000" || answer.Code == "42501") {
			return nil, target.Denied.Errorf("%s: there is no database %q that %s may connect to", what, database, c.Account)
		}
		return nil, t.loginFailed(what+": log in as "+c.Account, err, c.Secret)
	}
	defer disconnect(conn)
	fail := func(err error) error { return checkFailed(what+": as "+c.Account, err, c.Secret) }
	out := view{}
	if out["search path"], err = observing(ctx, conn); err != nil {
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

// countRows counts what row security leaves to the acting role of each of its own tables, up to a
// bound. The policies of such a table are its own.
func (v view) countRows(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relrowsecurity AND c.relkind = 'r' AND pg_get_userbyid(c.relowner) = current_user
		ORDER BY c.oid LIMIT $1::int4`, maxSecured)
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
	_, err := conn.PgConn().Exec(ctx, `SAVEPOINT counting; SET LOCAL statement_timeout = '2s';
		SET LOCAL row_security = on`).ReadAll()
	if err != nil {
		return err
	}
	var n int
	err = conn.QueryRow(ctx, fmt.Sprintf("SELECT count(*) FROM (SELECT FROM ONLY %s LIMIT %d) x", table, maxRows)).Scan(&n)
	answer, refused := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		v["rows of "+table] = fmt.Sprint(n)
	case !refused:
		return err
	case answer.Code != "57014": // it took too long
		v["rows of "+table] = answer.Code
	}
	_, err = conn.PgConn().Exec(ctx, "ROLLBACK TO SAVEPOINT counting").ReadAll()
	return err
}
