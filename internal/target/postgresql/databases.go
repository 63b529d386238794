package postgresql

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// maxDatabases is how many databases of an account are read.
const maxDatabases = 16

// usedDatabases returns the databases that applications may open with the logins: those with
// something that belongs to a login or to the role that it acts as; then those with something that
// was granted to it, which the owner of any database can do; then those with something of its
// groups, where a login may connect. The rights of superusers and predefined roles lie in all
// databases, and count in none.
func (a *attempt) usedDatabases(ctx context.Context, acts string, logins ...string) ([]string, error) {
	rows, err := a.conn.Query(ctx, `WITH RECURSIVE
		login AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)),
		may (oid, itself) AS (
			SELECT oid, true FROM pg_catalog.pg_roles WHERE rolname = $2 OR rolname = ANY ($1)
			UNION SELECT g.oid, false FROM may
				JOIN pg_catalog.pg_auth_members m ON m.member = may.oid
				JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE NOT g.rolsuper AND g.rolname !~ '^pg_')
		SELECT d.datname::text FROM may
			JOIN pg_catalog.pg_shdepend s ON s.refobjid = may.oid AND s.refclassid = 'pg_catalog.pg_authid'::regclass
			JOIN pg_catalog.pg_database d
				ON d.oid = s.dbid OR d.oid = s.objid AND s.classid = 'pg_catalog.pg_database'::regclass
		WHERE d.datallowconn
			AND (may.itself OR EXISTS (SELECT FROM login WHERE has_database_privilege(login.oid, d.oid, 'CONNECT')))
		GROUP BY d.datname ORDER BY bool_or(may.itself AND s.deptype = 'o') DESC, bool_or(may.itself) DESC, d.datname
			LIMIT 1000`, logins, acts)
	if err != nil {
		return nil, asFailed(a, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return list, asFailed(a, err)
}
