package postgresql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
)

// membership is a role that a login is a member of and the other login is not, or not in the same
// way.
type membership struct {
	group string
	give  string   // the statement after which the other login is a member, too
	takes []string // the statements that end the membership of the login
	// circular says that the role is a member of the other login, so that the server refuses give.
	circular bool
}

// maxMemberships is how many memberships a check reads: a finding has space for fewer statements.
const maxMemberships = 16

// exceeding reports the memberships that only the clone can use. The first remedy takes nothing
// from an application. There is no other for a role that would make the account privileged.
func (k *check) exceeding(ctx context.Context, account, clone role) error {
	list, err := k.memberships(ctx, clone, account)
	if err != nil {
		return err
	}
	var gives, takes []string
	for _, m := range list {
		why, err := k.privilegedGroup(ctx, m.group)
		switch {
		case err != nil:
			return err
		case why != "":
			why += ", so GRANT would make " + account.name + " privileged, too"
		case m.circular:
			why = "is a member of " + account.name + " itself"
		default:
			gives, takes = append(gives, m.give), append(takes, m.takes...)
			continue
		}
		k.unequal(clone.name,
			fmt.Sprintf("%s is a member of %s, and %s is not. %s %s.", clone.name, fault.Quoted(m.group), account.name,
				fault.Quoted(m.group), why),
			running("Only if no application needs it, run ", m.takes, 0, ""))
	}
	if len(gives) > 0 {
		k.unequal(clone.name, fmt.Sprintf("%s is a member of roles that %s is not a member of.", clone.name, account.name),
			givingRather("Run ", gives, takes, 0, clone.name))
	}
	return nil
}

// privilegedGroup says why the members of a role are privileged; empty if they are not.
func (k *check) privilegedGroup(ctx context.Context, name string) (why string, err error) {
	roles, err := k.becomes(ctx, name)
	if err != nil || len(roles) == 0 {
		return "", err
	}
	if why = privileged(roles); why != "" {
		return why, nil
	}
	if roles[0].administrator {
		return "is the administrator's role", nil
	}
	return k.altersSystem(ctx, roles)
}

// memberships returns the roles that a login is a member of, and that another one cannot use as
// that one does. Since PostgreSQL 16 a membership has options, and there is one for each grantor.
func (a *attempt) memberships(ctx context.Context, login, like role) (list []membership, err error) {
	differs, by := "NOT pg_has_role($2::oid, g.oid, 'MEMBER')", "''"
	arguments := []any{login.oid, like.oid, login.name, like.name}
	if a.able.release >= 160000 {
		differs = `NOT pg_has_role($2::oid, g.oid, 'SET') AND (` + differs + ` OR bool_or(m.set_option)
				OR bool_or(m.admin_option) AND NOT pg_has_role($2::oid, g.oid, 'MEMBER WITH ADMIN OPTION'))
			OR $5::bool AND bool_or(m.inherit_option) AND NOT pg_has_role($2::oid, g.oid, 'USAGE')`
		by = "' GRANTED BY ' || quote_ident(pg_get_userbyid(m.grantor))"
		arguments = append(arguments, login.acts == login.name) // otherwise it has the rights of another role
	}
	rows, err := a.conn.Query(ctx, fmt.Sprintf(`SELECT g.rolname::text,
			'GRANT ' || quote_ident(g.rolname) || ' TO ' || quote_ident($4) || %[1]s,
			array_agg('REVOKE ' || quote_ident(g.rolname) || ' FROM ' || quote_ident($3) || %[2]s ORDER BY m.grantor),
			pg_has_role(g.oid, $2::oid, 'MEMBER')
		FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
		WHERE m.member = $1 AND g.oid <> $2 GROUP BY g.oid, g.rolname HAVING %[3]s ORDER BY 1 LIMIT %[4]d`,
		a.able.membershipOptions(), by, differs, maxMemberships),
		arguments...)
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	var m membership
	_, err = pgx.ForEachRow(rows, []any{&m.group, &m.give, &m.takes, &m.circular}, func() error {
		found := m
		found.give, found.takes = requoted(m.give), nil
		for _, statement := range m.takes {
			found.takes = append(found.takes, requoted(statement))
		}
		list = append(list, found)
		return nil
	})
	return list, asFailed(a, err)
}

// membershipOptions is an expression for the options of a GRANT of the membership m, which may have
// several grantors.
func (able abilities) membershipOptions() string {
	if able.release >= 160000 {
		return `' WITH ' || CASE WHEN bool_or(m.admin_option) THEN 'ADMIN TRUE, ' ELSE '' END
			|| 'INHERIT ' || bool_or(m.inherit_option) || ', SET ' || bool_or(m.set_option)`
	}
	return `CASE WHEN bool_or(m.admin_option) THEN ' WITH ADMIN OPTION' ELSE '' END`
}
