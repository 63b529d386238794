package postgresql

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// role has the attributes of a role.
type role struct {
	oid        uint32
	name       string
	canLogin   bool
	super      bool
	replicas   bool
	limit      int // of connections; negative for none
	validUntil string
}

// belongings plans to give a login's objects to the owner, and refuses a login with something that
// cannot be moved.
func (s *setup) belongings(ctx context.Context, r role) error {
	rows, err := s.conn.Query(ctx, `SELECT COALESCE(d.datname, ''), COALESCE(d.datallowconn, true), s.deptype::text,
			s.classid = 'pg_catalog.pg_default_acl'::regclass, count(*)
		FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
		WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.refobjid = $1 AND s.deptype IN ('o', 'a')
		GROUP BY 1, 2, 3, 4 ORDER BY 1`, r.oid)
	if err != nil {
		return failed(s.what, err, s.secrets...)
	}
	defer rows.Close()
	for rows.Next() {
		var b belonging
		if err := rows.Scan(&b.database, &b.connectable, &b.kind, &b.defaults, &b.n); err != nil {
			return failed(s.what, err, s.secrets...)
		}
		if err := s.checkMovable(r, b); err != nil {
			return err
		}
		database := cmp.Or(b.database, s.t.config.Database)
		statement := "REASSIGN OWNED BY " + quoteIdentifier(r.name) + " TO " + quoteIdentifier(s.request.Owner)
		if !slices.Contains(s.moves[database], statement) {
			s.moves[database] = append(s.moves[database], statement)
		}
	}
	if err := rows.Err(); err != nil {
		return failed(s.what, err, s.secrets...)
	}
	return nil
}

// belonging counts the dependencies of one kind that a database has on a role.
type belonging struct {
	database    string
	connectable bool
	kind        string // as in pg_shdepend: "o" for an owner, "a" for a grant
	defaults    bool   // default privileges
	n           int
}

func (s *setup) checkMovable(r role, b belonging) error {
	switch {
	case b.defaults:
		return s.refuse(
			"%q has default privileges in database %q; make them the owner's (ALTER DEFAULT PRIVILEGES FOR "+
				"ROLE %s) first",
			r.name,
			b.database,
			quoteIdentifier(s.request.Owner),
		)
	case b.kind == "a":
		return s.refuse(
			"%q has grants of its own on %d objects of database %q, which the other login would lack; grant "+
				"them to %s and revoke them first",
			r.name,
			b.n,
			b.database,
			quoteIdentifier(s.request.Owner),
		)
	case !b.connectable:
		return s.refuse("%q owns %d objects in database %q, which permits no connections", r.name, b.n, b.database)
	}
	return nil
}

func (s *setup) role(ctx context.Context, name string) (r role, found bool, err error) {
	err = s.conn.QueryRow(ctx, `SELECT oid, rolname, rolcanlogin, rolsuper, rolreplication, rolconnlimit,
			COALESCE(rolvaliduntil::text, '')
		FROM pg_catalog.pg_roles WHERE rolname = $1`, name).
		Scan(&r.oid, &r.name, &r.canLogin, &r.super, &r.replicas, &r.limit, &r.validUntil)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	if err != nil {
		return r, false, failed(s.what, err, s.secrets...)
	}
	return r, true, nil
}

// settings returns the settings of a role, as the ends of ALTER ROLE statements. It leaves out the
// setting role, which each login gets anew.
func (s *setup) settings(ctx context.Context, oid uint32) ([]string, error) {
	rows, err := s.conn.Query(ctx, `SELECT COALESCE(d.datname, ''), c
		FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
			unnest(s.setconfig) WITH ORDINALITY u (c, n)
		WHERE s.setrole = $1 ORDER BY 1, n`, oid)
	if err != nil {
		return nil, failed(s.what, err, s.secrets...)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var database, setting string
		if err := rows.Scan(&database, &setting); err != nil {
			return nil, failed(s.what, err, s.secrets...)
		}
		name, value, _ := strings.Cut(setting, "=")
		if strings.EqualFold(name, "role") {
			continue
		}
		where := ""
		if database != "" {
			where = " IN DATABASE " + quoteIdentifier(database)
		}
		out = append(out, where+" SET "+settingName(name)+" = "+settingValue(name, value))
	}
	if err := rows.Err(); err != nil {
		return nil, failed(s.what, err, s.secrets...)
	}
	return out, nil
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
