package postgresql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// grant is what a login has on one object and the other login lacks, from one grantor.
type grant struct {
	object  string // such as TABLE public.orders, or TABLES in default privileges
	grantor string
	// counts says that the grantor answers for the application: the administrator, a superuser, one of
	// the accounts or a role of theirs, an owner of the application's objects.
	counts    bool
	lent      bool   // the grantor is not the owner, in whose name a superuser revokes
	prefix    string // of the statements: ALTER DEFAULT PRIVILEGES …
	rights    string // such as SELECT, UPDATE (n)
	grantable bool   // the login may grant the rights on
	// onlyOption says that the other login has the rights, and may not grant them on.
	onlyOption bool
	n          int // how many such grants there are, of which some are read
}

// describedObject returns the object of the grant in words.
func (g grant) describedObject() string {
	if g.prefix != "" {
		return "future " + strings.ToLower(g.object)
	}
	return g.object
}

// had describes the rights of the grant in words.
func (g grant) had() string {
	text := g.rights + " on " + g.describedObject()
	if g.grantable {
		text += " with grant option"
	}
	return text
}

func (g grant) give(to string) string {
	statement := g.prefix + "GRANT " + g.rights + " ON " + g.object + " TO " + quoteIdentifier(to)
	if g.grantable {
		statement += " WITH GRANT OPTION"
	}
	return statement
}

func (g grant) take(from string) string {
	option := ""
	if g.onlyOption {
		option = "GRANT OPTION FOR "
	}
	revoke := g.prefix + "REVOKE " + option + g.rights + " ON " + g.object + " FROM " + quoteIdentifier(from)
	if g.lent {
		return "SET ROLE " + quoteIdentifier(g.grantor) + "; " + revoke + "; RESET ROLE"
	}
	return revoke
}

// granted reports what was granted to a login in a database, and the other login lacks. Each login
// of the server can grant something: on large objects, on tables to come. So what a stranger grants
// is a note.
func (k *check) granted(database string, p pair, login role, list []grant) {
	for _, counts := range []bool{true, false} {
		found := slices.DeleteFunc(slices.Clone(list), func(g grant) bool { return g.counts != counts })
		switch {
		case len(found) == 0:
		case counts:
			k.ungranted(database, p, login, found)
		default:
			k.grantedByOthers(database, login, found)
		}
	}
}

// ungranted reports rights that the application's own people have granted to one login. The first
// remedy takes nothing from an application.
func (k *check) ungranted(database string, p pair, login role, list []grant) {
	lacks, to := p.besides(login).name, p.acts
	if to == "" {
		to = lacks
	}
	var had, gives, takes []string
	for _, g := range list {
		had, gives, takes = append(had, g.had()), append(gives, g.give(to)), append(takes, g.take(login.name))
	}
	more := list[0].n - len(list)
	named := distinct(had)
	text := fmt.Sprintf("%s has grants that %s lacks, read in %s and granted by %s: %s.", login.name, lacks,
		databaseNamed(database), strings.Join(grantorsOf(list), ", "), several(named, len(named)+more))
	if p.acts == "" {
		text += " The logins act as different roles, so each needs grants of its own."
	}
	who := "a superuser"
	if by := grantorsOf(list); len(by) == 1 {
		who += " or as " + by[0]
	}
	lead := "As " + who + ", in " + databaseNamed(database) + ", run "
	k.unequal(login.name, text, givingRather(lead, distinct(gives), distinct(takes), more, login.name))
}

// givingRather returns the advice to give another login what a login has, with the statements that
// take it from the login instead, if there is space for all of them. more is how many grants were
// not read.
func givingRather(lead string, gives, takes []string, more int, from string) string {
	const unless = " Only if no application needs it, "
	whole := lead + strings.Join(gives, "; ") + "." + unless + "run " + strings.Join(takes, "; ") + " instead: " +
		quoteIdentifier(from) + " then loses it."
	if more == 0 && target.FixFits(whole) {
		return whole
	}
	return running(lead, gives, more, unless+"revoke it from "+quoteIdentifier(from)+" instead.")
}

// grantedByOthers reports rights that a stranger has granted to one login.
func (k *check) grantedByOthers(database string, login role, list []grant) {
	var objects, takes []string
	for _, g := range list {
		objects, takes = append(objects, g.describedObject()), append(takes, g.take(login.name))
	}
	named, more := distinct(objects), list[0].n-len(list)
	has := belonging{database: database, n: len(named) + more}
	k.found(target.Finding{
		Code:       "granted-by-others",
		Verdict:    target.Note,
		Strategies: double,
		Account:    login.name,
		Text: fmt.Sprintf("%s has %s (%s) from %s. The grantor does not own objects of the application.", login.name, has,
			several(named, has.n), strings.Join(grantorsOf(list), ", ")),
		Fix: running("In "+databaseNamed(database)+", run ", distinct(takes), more, ""),
	})
}

// grantorsOf names the grantors of a list.
func grantorsOf(list []grant) []string {
	var names []string
	for _, g := range list {
		names = append(names, fault.Quoted(g.grantor))
	}
	return distinct(names)
}

// grants reads what was granted to a login itself in the current database and the other login
// lacks, a few objects of each sort, and in the application's database also what all databases
// share.
func (k *check) grants(ctx context.Context, a *attempt, database string, p pair, login role) (list []grant, err error) {
	own := database == k.t.database()
	parameters := ""
	if a.able.release >= 150000 {
		parameters = `UNION ALL SELECT d.classid, 0, 'PARAMETER ' || p.parname, p.paracl, NULL, '', '', true
			FROM dependency d JOIN pg_parameter_acl p ON p.oid = d.objid WHERE d.classid = 'pg_parameter_acl'::regclass`
	}
	routine := "FUNCTION "
	if a.able.release >= 110000 {
		routine = "ROUTINE "
	}
	acts := p.acts
	if acts == "" {
		acts = login.name
	}
	rows, err := a.conn.Query(ctx, fmt.Sprintf(grantsOf, parameters, routine), login.name, own,
		[]string{p.account.name, p.clone.name, p.account.acts, p.clone.acts, k.t.admin.Account}, acts, p.acts == "",
		p.besides(login).name)
	if err != nil {
		return nil, asFailed(a, err)
	}
	var g grant
	into := []any{&g.object, &g.grantor, &g.counts, &g.lent, &g.prefix, &g.rights, &g.grantable, &g.onlyOption, &g.n}
	_, err = pgx.ForEachRow(rows, into, func() error {
		found := g
		found.object, found.prefix = requoted(g.object), requoted(g.prefix)
		found.rights = requoted(g.rights)
		list = append(list, found)
		return nil
	})
	return list, asFailed(a, err)
}

// grantsOf lists what was granted to a login itself and the other login lacks, with eight of
// them at most that count and eight that do not. The other login has a right also by PUBLIC, by
// a role whose rights it has, as the owner, and on a column by the whole table. An owner of the
// application's objects is who owns the database, may create in a schema where PUBLIC may not,
// or owns a relation on which the acting role has a right. Without an acting role, each login
// needs what is in a schema, no matter who has granted it. Temporary objects are of one session
// alone. Of large objects, which every login can create, at most 1000 are read, first those
// whose owner counts.
const grantsOf = `WITH
	login AS (SELECT oid FROM pg_roles WHERE rolname = $1::text),
	here AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()),
	dependency AS (SELECT s.classid, s.objid, s.objsubid FROM pg_shdepend s
		WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM login) AND s.deptype = 'a'
			AND s.classid <> 'pg_auth_members'::regclass AND (s.dbid = (SELECT oid FROM here) OR $2::bool AND s.dbid = 0)),
	object (class, owner, name, acl, wider, prefix, part, counts) AS (
		SELECT d.classid, c.relowner, CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || quote_ident(n.nspname)
				|| '.' || quote_ident(c.relname),
			CASE d.objsubid WHEN 0 THEN c.relacl ELSE t.attacl END,
			CASE d.objsubid WHEN 0 THEN NULL ELSE c.relacl END, '',
			CASE d.objsubid WHEN 0 THEN '' ELSE ' (' || quote_ident(t.attname) || ')' END, false
		FROM dependency d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
			LEFT JOIN pg_attribute t ON t.attrelid = d.objid AND t.attnum = d.objsubid AND d.objsubid <> 0
		WHERE d.classid = 'pg_class'::regclass AND n.nspname !~ '^pg_(toast|temp)'
		UNION ALL SELECT d.classid, p.proowner, '%[2]s' || p.oid::regprocedure::text, p.proacl, NULL, '', '', false
			FROM dependency d JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE d.classid = 'pg_proc'::regclass AND n.nspname !~ '^pg_(toast|temp)'
		UNION ALL SELECT d.classid, y.typowner, 'TYPE ' || y.oid::regtype::text, y.typacl, NULL, '', '', false
			FROM dependency d JOIN pg_type y ON y.oid = d.objid JOIN pg_namespace n ON n.oid = y.typnamespace
			WHERE d.classid = 'pg_type'::regclass AND n.nspname !~ '^pg_(toast|temp)'
		UNION ALL SELECT d.classid, n.nspowner, 'SCHEMA ' || quote_ident(n.nspname), n.nspacl, NULL, '', '', false
			FROM dependency d JOIN pg_namespace n ON n.oid = d.objid
			WHERE d.classid = 'pg_namespace'::regclass AND n.nspname !~ '^pg_(toast|temp)'
		UNION ALL SELECT m.classid, m.lomowner, 'LARGE OBJECT ' || m.oid, m.lomacl, NULL, '', '', false
			FROM (SELECT d.classid, m.* FROM dependency d JOIN pg_largeobject_metadata m ON m.oid = d.objid
				WHERE d.classid = 'pg_largeobject'::regclass
				ORDER BY m.lomowner IN (SELECT oid FROM pg_roles WHERE rolsuper OR rolname = ANY ($3::text[])) DESC
				LIMIT 1000) m
		UNION ALL SELECT d.classid, f.defaclrole, CASE f.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
				WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END, f.defaclacl,
			NULL, 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(r.rolname)
				|| COALESCE(' IN SCHEMA ' || quote_ident(n.nspname), '') || ' ', '', false
			FROM dependency d JOIN pg_default_acl f ON f.oid = d.objid JOIN pg_roles r ON r.oid = f.defaclrole
				LEFT JOIN pg_namespace n ON n.oid = f.defaclnamespace
			WHERE d.classid = 'pg_default_acl'::regclass
		UNION ALL SELECT d.classid, b.datdba, 'DATABASE ' || quote_ident(b.datname), b.datacl, NULL, '', '', false
			FROM dependency d JOIN pg_database b ON b.oid = d.objid WHERE d.classid = 'pg_database'::regclass
		UNION ALL SELECT d.classid, s.spcowner, 'TABLESPACE ' || quote_ident(s.spcname), s.spcacl, NULL, '', '', true
			FROM dependency d JOIN pg_tablespace s ON s.oid = d.objid WHERE d.classid = 'pg_tablespace'::regclass
		UNION ALL SELECT d.classid, l.lanowner, 'LANGUAGE ' || quote_ident(l.lanname), l.lanacl, NULL, '', '', true
			FROM dependency d JOIN pg_language l ON l.oid = d.objid WHERE d.classid = 'pg_language'::regclass
		UNION ALL SELECT d.classid, v.srvowner, 'FOREIGN SERVER ' || quote_ident(v.srvname), v.srvacl, NULL, '', '', true
			FROM dependency d JOIN pg_foreign_server v ON v.oid = d.objid WHERE d.classid = 'pg_foreign_server'::regclass
		UNION ALL SELECT d.classid, w.fdwowner, 'FOREIGN DATA WRAPPER ' || quote_ident(w.fdwname), w.fdwacl, NULL, '', '',
				true FROM dependency d JOIN pg_foreign_data_wrapper w ON w.oid = d.objid
			WHERE d.classid = 'pg_foreign_data_wrapper'::regclass
		%[1]s),
	item AS (SELECT o.name, o.prefix, o.part, o.class, o.counts, x.grantor, x.grantor <> o.owner AS lent, x.is_grantable,
			x.privilege_type || o.part AS privilege, pg_has_role($6::text::name, o.owner, 'USAGE') AS owns,
			(SELECT max(y.is_grantable::int4) FROM aclexplode(o.acl || o.wider) y WHERE y.privilege_type = x.privilege_type
				AND CASE y.grantee WHEN 0 THEN true ELSE pg_has_role($6::text::name, y.grantee, 'USAGE') END) AS others
		FROM object o, aclexplode(o.acl) x WHERE x.grantee = (SELECT oid FROM login)),
	had AS (SELECT name, prefix, part, class, grantor, is_grantable, others IS NOT NULL AS has, bool_or(counts) AS counts,
			bool_or(lent) AS lent, string_agg(DISTINCT privilege, ', ') AS rights
		FROM item WHERE NOT owns AND COALESCE(others, -1) < is_grantable::int4
		GROUP BY 1, 2, 3, 4, 5, 6, 7),
	grantor AS (SELECT g.oid, g.rolname, g.rolsuper OR g.rolname = ANY ($3::text[])
			OR g.rolname IN (session_user, current_user)
			OR pg_has_role($4::text::name, g.oid, 'MEMBER')
			OR ($2::bool OR $5::bool) AND (pg_has_role(g.oid, (SELECT datdba FROM here), 'USAGE')
				OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND has_schema_privilege(g.oid, n.oid, 'CREATE')
					AND NOT has_schema_privilege('public', n.oid, 'CREATE'))
				OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) x
					WHERE c.relowner = g.oid AND n.nspname !~ '^pg_' AND x.grantee =
						(SELECT oid FROM pg_roles WHERE rolname = $4::text))) AS counts
		FROM pg_roles g WHERE g.oid IN (SELECT grantor FROM had)),
	judged AS (SELECT h.name, g.rolname, h.counts OR g.counts OR $5::bool AND h.class NOT IN ('pg_largeobject'::regclass,
				'pg_default_acl'::regclass, 'pg_database'::regclass) AS counts, h.lent,
			h.prefix, h.rights, h.is_grantable, h.has
		FROM had h JOIN grantor g ON g.oid = h.grantor)
	SELECT name, rolname::text, counts, lent, prefix, rights, is_grantable, has, total::int4 FROM (
		SELECT *, count(*) OVER (PARTITION BY counts) AS total,
			row_number() OVER (PARTITION BY counts ORDER BY prefix, name, rolname, rights) AS n FROM judged) j
	WHERE n <= 8 ORDER BY counts DESC, n`
