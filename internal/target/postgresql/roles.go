package postgresql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
)

// role has the attributes of a role, and its settings.
type role struct {
	oid        uint32
	name       string
	canLogin   bool
	super      bool
	replicas   bool
	limit      int    // of connections; negative for none
	validUntil string // empty for none
	expired    bool
	settings   []setting // without the one in acts
	labels     []setting // security labels, by the name of their provider
	attributes []string  // such as CREATEDB, which membership does not give
	// acts is the role that its sessions act as; its own name without a setting "role".
	acts string
	// stray is the value of a setting "role" without effect: everybody may set any name for
	// themselves, and the server ignores the setting of a login that may not act as that role.
	stray string
}

// setting is one of ALTER ROLE … SET; of one database or, if that is empty, of all.
type setting struct {
	database, name, value string
	long                  bool // the value has more than maxSetting bytes, and is not read
}

// maxSetting is the length of the longest setting that is read, with its name. An account may give
// itself one of any length.
const maxSetting = 64 << 10

// where returns the part of ALTER ROLE that names the database.
func (s setting) where() string {
	if s.database == "" {
		return ""
	}
	return " IN DATABASE " + quoteIdentifier(s.database)
}

func (s setting) same(o setting) bool {
	return s.database == o.database && strings.EqualFold(s.name, o.name)
}

// role reads a role.
func (a *attempt) role(ctx context.Context, name string) (r role, found bool, err error) {
	err = a.conn.QueryRow(ctx, `SELECT oid, rolname, rolcanlogin, rolsuper, rolreplication, rolconnlimit,
			COALESCE(rolvaliduntil::text, ''), COALESCE(rolvaliduntil < now(), false)
		FROM pg_catalog.pg_roles WHERE rolname = $1`, name).
		Scan(&r.oid, &r.name, &r.canLogin, &r.super, &r.replicas, &r.limit, &r.validUntil, &r.expired)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, failed(a.what, err, a.secrets...)
	}
	r.acts = r.name
	if r.attributes, r.labels, err = a.apartFromSettings(ctx, r.oid); err != nil {
		return r, false, err
	}
	all, err := a.settings(ctx, r.oid)
	for _, s := range all {
		if s.same(setting{name: "role"}) {
			r.stray = s.value
			continue
		}
		r.settings = append(r.settings, s)
	}
	if err != nil || r.stray == "" {
		return r, true, err
	}
	may, err := a.mayAct(ctx, r.oid, r.stray)
	if may {
		r.acts, r.stray = r.stray, ""
	}
	return r, true, err
}

// longSetting returns the name of a setting whose value is too long to be copied; empty for none.
func (r role) longSetting() string {
	for _, s := range r.settings {
		if s.long {
			return s.name
		}
	}
	return ""
}

// mayAct reports whether sessions of a login may act as the role of that name, as the server
// decides it at each login.
func (a *attempt) mayAct(ctx context.Context, login uint32, name string) (may bool, err error) {
	err = a.conn.QueryRow(ctx, `SELECT COALESCE((SELECT pg_has_role($1::oid, r.oid, $3) FROM pg_roles r
		WHERE r.rolname = $2::text), false)`, login, name, a.able.becoming()).Scan(&may)
	return may, asFailed(a, err)
}

// becoming is the privilege of a membership to act as a role.
func (able abilities) becoming() string {
	if able.release >= 160000 {
		return "SET"
	}
	return "MEMBER"
}

// apartFromSettings reads the attributes and security labels of a role.
func (a *attempt) apartFromSettings(
	ctx context.Context, oid uint32,
) (attributes []string, labels []setting, err error) {
	rows, err := a.conn.Query(ctx, `SELECT '', x FROM pg_catalog.pg_roles r, unnest(ARRAY[
			CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
			CASE WHEN rolbypassrls THEN 'BYPASSRLS' END]) x WHERE r.oid = $1 AND x IS NOT NULL
		UNION ALL SELECT provider, label FROM pg_catalog.pg_shseclabel
			WHERE classoid = 'pg_catalog.pg_authid'::regclass AND objoid = $1 ORDER BY 1, 2`, oid)
	if err != nil {
		return nil, nil, failed(a.what, err, a.secrets...)
	}
	var s setting
	_, err = pgx.ForEachRow(rows, []any{&s.name, &s.value}, func() error {
		if s.name == "" {
			attributes = append(attributes, s.value)
		} else {
			labels = append(labels, s)
		}
		return nil
	})
	return attributes, labels, asFailed(a, err)
}

func (a *attempt) settings(ctx context.Context, oid uint32) (out []setting, err error) {
	rows, err := a.conn.Query(ctx, `SELECT COALESCE(d.datname, ''),
			CASE WHEN octet_length(c) > $2 THEN split_part(c, '=', 1) ELSE c END, octet_length(c) > $2
		FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
			unnest(s.setconfig) WITH ORDINALITY u (c, n)
		WHERE s.setrole = $1 ORDER BY 1, n`, oid, maxSetting)
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	var s setting
	var line string
	_, err = pgx.ForEachRow(rows, []any{&s.database, &line, &s.long}, func() error {
		s.name, s.value, _ = strings.Cut(line, "=")
		out = append(out, s)
		return nil
	})
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	return out, nil
}

// ignoring are the versions that ignore the setting "role" of a role, by major version: the minor
// releases of November 14, 2024, which were repaired a week later.
var ignoring = map[int]int{12: 120021, 13: 130017, 14: 140014, 15: 150009, 16: 160005, 17: 170001}

func ignoresRole(version int) bool { return ignoring[version/10000] == version }

// losesRole reports whether DISCARD ALL and SET SESSION AUTHORIZATION DEFAULT end the effect of the
// setting "role", as before those releases.
func losesRole(version int) bool {
	at, ok := ignoring[version/10000]
	return version < 120000 || ok && version < at
}

// member reports whether sessions of a role have the rights of another one, and whether they may
// act as it.
func (a *attempt) member(ctx context.Context, login, group string) (has, becomes bool, err error) {
	err = a.conn.QueryRow(ctx, `SELECT pg_catalog.pg_has_role($1::name, $2::name, 'USAGE'),
		pg_catalog.pg_has_role($1::name, $2::name, $3)`, login, group, a.able.becoming()).
		Scan(&has, &becomes)
	if err != nil {
		return false, false, failed(a.what, err, a.secrets...)
	}
	return has, becomes, nil
}

// belonging counts the dependencies of one kind that a database has on a role.
type belonging struct {
	database    string // empty for objects that all databases share
	connectable bool
	owned       bool // otherwise it is a grant
	defaults    bool // default privileges
	n           int
}

// databaseNamed names a database in a text. Its name may hold anything, so it is quoted.
func databaseNamed(name string) string { return "database " + fault.Quoted(name) }

func inDatabase(name string) string { return "in " + databaseNamed(name) }

// String completes the sentence "The role has …", of a plan and of a finding.
func (b belonging) String() string {
	what, where := "grants on", "shared by all databases"
	switch {
	case b.defaults:
		what = "default privileges for"
	case b.owned:
		what = "ownership of"
	}
	if b.database != "" {
		where = "of " + databaseNamed(b.database)
	}
	objects := "objects"
	if b.n == 1 {
		objects = "object"
	}
	return fmt.Sprintf("%s %d %s %s", what, b.n, objects, where)
}

// belongings returns what belongs to a role itself; memberships are no belongings.
func (a *attempt) belongings(ctx context.Context, r role) (out []belonging, err error) {
	rows, err := a.conn.Query(ctx, `SELECT COALESCE(d.datname, ''), COALESCE(d.datallowconn, true), s.deptype = 'o',
			s.classid = 'pg_catalog.pg_default_acl'::regclass, count(*)
		FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
		WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = $1 AND s.deptype IN ('o', 'a')
			AND s.classid <> 'pg_catalog.pg_auth_members'::regclass
		GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4`, r.oid)
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	var b belonging
	_, err = pgx.ForEachRow(rows, []any{&b.database, &b.connectable, &b.owned, &b.defaults, &b.n}, func() error {
		out = append(out, b)
		return nil
	})
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	return out, nil
}

// equalized returns the statements after which a login has the limits and settings of another one.
func equalized(login, like role) (out []string) {
	alter := "ALTER ROLE " + quoteIdentifier(login.name)
	if login.stray != "" {
		out = append(out, alter+" RESET role")
	}
	if login.limit != like.limit {
		out = append(out, fmt.Sprintf("%s CONNECTION LIMIT %d", alter, like.limit))
	}
	if login.validUntil != like.validUntil {
		out = append(out, alter+" VALID UNTIL "+quoteLiteral(orInfinity(like.validUntil)))
	}
	for _, s := range login.settings {
		if !slices.ContainsFunc(like.settings, s.same) {
			out = append(out, alter+s.where()+" RESET "+settingName(s.name))
		}
	}
	for _, s := range like.settings {
		if !slices.Contains(login.settings, s) {
			out = append(out, alter+s.where()+" SET "+settingName(s.name)+" = "+settingValue(s.name, s.value))
		}
	}
	return out
}

// ownSetting is the beginning of a statement that sets what the server does not know (app.tenant).
var ownSetting = regexp.MustCompile(
	`^ALTER ROLE ` + identifier + `(?: IN DATABASE ` + identifier + `)? ` +
		`SET ` + identifier + `(?:\.` + identifier + `)+ = `)

// withheldFrom reports whether a statement sets a setting that the server does not know, in which
// applications keep secrets (pgrst.jwt_secret): a right to check is none to read them. head is the
// statement as far as it can be shown, on one line.
func withheldFrom(statement string) (head string, withheld bool) {
	head = strings.TrimSuffix(ownSetting.FindString(statement), " = ")
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(head), head != ""
}

// readSettings says where an operator reads the settings of a role.
func readSettings(login string) string {
	return "SELECT setconfig FROM pg_db_role_setting WHERE setrole = " + quoteLiteral(plainIdentifier(login)) +
		"::regrole shows it."
}

// concealed returns statements without the values that are withheld: a comment stands for each of
// those statements, because a value in its place could be run, and would be a wrong one.
func concealed(statements []string, like string) []string {
	out := slices.Clone(statements)
	for i, s := range out {
		if head, withheld := withheldFrom(s); withheld {
			out[i] = fmt.Sprintf("-- %s = (the value that %s has): it is not shown here. %s",
				head, quoteIdentifier(like), readSettings(like))
			out[i] = strings.NewReplacer("\n", " ", "\r", " ").Replace(out[i])
		}
	}
	return out
}

func labelled(login, provider, label string) string {
	return "SECURITY LABEL FOR " + quoteIdentifier(provider) + " ON ROLE " + quoteIdentifier(login) + " IS " + label
}

// labelledAlike returns the statements that take from a login the attributes which another one does
// not have, and give it the security labels of that one.
func labelledAlike(login, like role) (out []string) {
	for _, attribute := range login.attributes {
		if !slices.Contains(like.attributes, attribute) {
			out = append(out, "ALTER ROLE "+quoteIdentifier(login.name)+" NO"+attribute)
		}
	}
	for _, l := range login.labels {
		if !slices.ContainsFunc(like.labels, l.same) {
			out = append(out, labelled(login.name, l.name, "NULL"))
		}
	}
	for _, l := range like.labels {
		if !slices.Contains(login.labels, l) {
			out = append(out, labelled(login.name, l.name, quoteLiteral(l.value)))
		}
	}
	return out
}

// attributesLike returns the statements that give a login the attributes of another one that it
// lacks.
func attributesLike(login, like role) (out []string) {
	for _, attribute := range like.attributes {
		if !slices.Contains(login.attributes, attribute) {
			out = append(out, "ALTER ROLE "+quoteIdentifier(login.name)+" "+attribute)
		}
	}
	return out
}

// lacking returns the statements that give a login the memberships of another one that it cannot
// use as that one does.
func (a *attempt) lacking(ctx context.Context, login, like role) ([]string, error) {
	statement := `'GRANT ' || quote_ident(g.rolname) || ' TO ' || quote_ident($4) || ` + a.able.membershipOptions()
	if a.able.release < 160000 {
		statement = `CASE WHEN pg_has_role($2::oid, g.oid, 'MEMBER') THEN 'ALTER ROLE ' || quote_ident($4) || ' INHERIT'
			ELSE ` + statement + ` END`
	}
	rows, err := a.conn.Query(ctx, `SELECT `+statement+`
		FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
		WHERE m.member = $1 AND g.oid <> $2 AND (
			pg_has_role($1::oid, g.oid, 'USAGE') AND NOT pg_has_role($2::oid, g.oid, 'USAGE')
			OR pg_has_role($1::oid, g.oid, $3) AND NOT pg_has_role($2::oid, g.oid, $3))
		GROUP BY g.oid, g.rolname ORDER BY 1`,
		like.oid, login.oid, a.able.becoming(), login.name)
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for i := range out {
		out[i] = requoted(out[i])
	}
	return distinct(out), asFailed(a, err)
}

// beyond returns the statements that take from a login the memberships which another one does not
// have, and which only the login itself could use.
func (a *attempt) beyond(ctx context.Context, login, like role) ([]string, error) {
	by := ""
	if a.able.release >= 160000 {
		by = " || ' GRANTED BY ' || quote_ident(pg_get_userbyid(m.grantor))"
	}
	rows, err := a.conn.Query(ctx, `SELECT 'REVOKE ' || quote_ident(g.rolname) || ' FROM ' || quote_ident($1)`+by+`
		FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
		WHERE m.member = $2 AND g.oid <> $3 AND NOT pg_has_role($3::oid, g.oid, $4) ORDER BY 1`,
		login.name, login.oid, like.oid, a.able.becoming())
	if err != nil {
		return nil, failed(a.what, err, a.secrets...)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for i := range out {
		out[i] = requoted(out[i])
	}
	return out, asFailed(a, err)
}

func orInfinity(validUntil string) string {
	if validUntil == "" {
		return "infinity"
	}
	return validUntil
}

// actsAs returns the statement after which sessions of a login act as a role.
func actsAs(login, as string) string {
	if login == as {
		return "ALTER ROLE " + quoteIdentifier(login) + " RESET role"
	}
	return "ALTER ROLE " + quoteIdentifier(login) + " SET role = " + quoteLiteral(as)
}

func reassign(from, to string) string {
	return "REASSIGN OWNED BY " + quoteIdentifier(from) + " TO " + quoteIdentifier(to)
}

func join(group, login string, version int) string {
	statement := "GRANT " + quoteIdentifier(group) + " TO " + quoteIdentifier(login)
	if version >= 160000 {
		statement += " WITH INHERIT TRUE, SET TRUE"
	}
	return statement
}

// settingName quotes each part of a name such as app.tenant.
func settingName(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = quoteIdentifier(parts[i])
	}
	return strings.Join(parts, ".")
}

// settingValue returns the value of a setting as a statement spells it. For some settings the
// server stores a list of quoted names, and a statement needs one literal per name.
func settingValue(name, value string) string {
	switch strings.ToLower(name) {
	case "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries":
		names := splitNames(value)
		for i := range names {
			names[i] = quoteLiteral(names[i])
		}
		if len(names) > 0 {
			return strings.Join(names, ", ")
		}
	}
	return quoteLiteral(value)
}

// splitNames reads a list such as "$user", public.
func splitNames(list string) []string {
	var names []string
	var name strings.Builder
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"' && quoted && i+1 < len(list) && list[i+1] == '"':
			name.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			names = append(names, name.String())
			name.Reset()
		case c == ' ' && !quoted:
		default:
			name.WriteByte(c)
		}
	}
	if list == "" {
		return nil
	}
	return append(names, name.String())
}
