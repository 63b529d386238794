package postgresql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/target"
)

// Standing reports the standing of a role by its attributes, and by the attributes of every role
// that it is a member of, directly or not.
func (t *pg) Standing(ctx context.Context, account string) (target.Standing, error) {
	what := "find out what role " + account + " is"
	if account == "" || strings.ContainsRune(account, 0) || !utf8.ValidString(account) {
		return target.Standing{}, target.Denied.Errorf("%s: a role has a name in UTF-8 without zero bytes", what)
	}
	a, err := t.asAdmin(ctx, what)
	if err != nil {
		return target.Standing{}, err
	}
	defer a.close()
	standing, err := a.standing(ctx, account)
	return standing, target.WithAdvice(err, "the administrator must be able to read the roles: "+
		"GRANT SELECT ON pg_catalog.pg_roles, pg_catalog.pg_auth_members TO "+quoteIdentifier(t.admin.Account),
		t.admin.Secret)
}

// standing reads in a read-only transaction.
func (a *attempt) standing(ctx context.Context, account string) (target.Standing, error) {
	if err := a.reading(ctx); err != nil {
		return target.Standing{}, err
	}
	var s target.Standing
	// The cast to name truncates the account in the same way as ALTER ROLE truncates its identifier.
	// Behind a pooler, the session's role can differ from the administrator's login.
	err := a.conn.QueryRow(ctx, "SELECT $1::text::name IN (session_user, current_user, $2::text::name)",
		account, a.t.admin.Account).Scan(&s.Administrator)
	if err != nil {
		return target.Standing{}, failed(a.what, err, a.secrets...)
	}
	roles, err := a.becomes(ctx, account)
	if err != nil {
		return target.Standing{}, err
	}
	s.Privileged = privileged(roles)
	if s.Privileged == "" && len(roles) > 0 {
		if s.Privileged, err = a.altersSystem(ctx, roles); err != nil {
			return target.Standing{}, err
		}
	}
	return s, a.rollback(ctx)
}

// reached is an account, or a role that it is a member of.
type reached struct {
	name string
	// itself distinguishes the account from the roles that it is a member of.
	itself        bool
	administrator bool
	superuser     bool
	createRole    bool
	replication   bool
	bypassRLS     bool
	// verifiers reports a right on the stored passwords of all roles.
	verifiers bool
}

// becomes returns the role and all roles that it is a member of. It ignores the options of a
// membership (since PostgreSQL 16): a member with one of them can often give itself the others.
func (a *attempt) becomes(ctx context.Context, account string) ([]reached, error) {
	rows, err := a.conn.Query(ctx, `WITH RECURSIVE may(oid) AS (
			SELECT oid FROM pg_roles WHERE rolname = $1::text::name
			UNION
			SELECT m.roleid FROM pg_auth_members m JOIN may ON m.member = may.oid)
		SELECT r.rolname::text, r.rolname = $1::text::name, r.rolname IN (session_user, current_user, $2::text::name),
			r.rolsuper, r.rolcreaterole, r.rolreplication, r.rolbypassrls,
			has_column_privilege(r.oid, 'pg_catalog.pg_authid', 'rolpassword', 'SELECT, INSERT, UPDATE')
		FROM may JOIN pg_roles r ON r.oid = may.oid
		ORDER BY r.rolname <> $1::text::name, r.rolname`, account, a.t.admin.Account)
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	defer rows.Close()
	var roles []reached
	for rows.Next() {
		var r reached
		err := rows.Scan(
			&r.name,
			&r.itself,
			&r.administrator,
			&r.superuser,
			&r.createRole,
			&r.replication,
			&r.bypassRLS,
			&r.verifiers,
		)
		if err != nil {
			return nil, failed(a.what, err, a.secrets...)
		}
		roles = append(roles, r)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	return roles, nil
}

// predefined lists roles that give their members access to the server's files and programs, to all
// data, or an administrator's rights: PostgreSQL's own, and the ones of managed services.
var predefined = []string{
	"pg_execute_server_program",
	"pg_read_server_files",
	"pg_write_server_files",
	"pg_read_all_data",
	"pg_write_all_data",
	"alloydbsuperuser",
	"azure_pg_admin",
	"cloudsqlsuperuser",
	"pg_rds_superuser",
	"rds_password",
	"rds_replication",
	"rds_superuser",
}

// privileged says why the account, which is the first of the roles, is privileged.
func privileged(roles []reached) string {
	for _, r := range roles {
		why := ""
		switch {
		case r.superuser:
			why = "is a superuser"
		case r.createRole:
			why = "may create and alter roles (CREATEROLE)"
		case r.replication:
			why = "may replicate the whole server (REPLICATION)"
		case r.bypassRLS:
			why = "bypasses row security (BYPASSRLS)"
		case slices.Contains(predefined, r.name):
			why = "has rights on the whole server"
		case r.verifiers:
			why = "may read or write the stored passwords of all roles"
		case r.administrator && !r.itself:
			why = "is the administrator's role"
		default:
			continue
		}
		if r.itself {
			return why
		}
		return fmt.Sprintf("is a member of %q, which %s", r.name, why)
	}
	return ""
}

// altersSystem says whether the roles may set one of the server's parameters. PostgreSQL 15 and
// later can grant that right.
func (a *attempt) altersSystem(ctx context.Context, roles []reached) (string, error) {
	if a.able.release < 150000 {
		return "", nil
	}
	var can bool
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.name
	}
	err := a.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_parameter_acl p, pg_roles r
		WHERE r.rolname = ANY ($1::text[]) AND has_parameter_privilege(r.oid, p.parname, 'ALTER SYSTEM'))`,
		names).Scan(&can)
	if err != nil {
		return "", failed(a.what, err, a.secrets...)
	}
	if can {
		return "may change parameters of the server (ALTER SYSTEM)", nil
	}
	return "", nil
}

var _ target.Guarded = (*pg)(nil)
