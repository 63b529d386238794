package mysql

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// double compares the partner with the account in use: an application that changes from one to the
// other must notice nothing.
func (c *checker) double(ctx context.Context, members []account) error {
	all, err := c.t.accounts(ctx, c.conn, c.partner)
	if err != nil {
		return err
	}
	partners := c.t.within(all)
	if len(partners) == 0 {
		c.report("no-partner", target.Impossible, quote(c.partner), c.t.missing(c.partner, all)+".",
			"Create it with the rights of "+quote(c.current.Account)+".", target.Double)
		return nil
	}
	for _, a := range partners {
		self := who(c.partner, a.host)
		if _, err := c.t.server.replace(a, sensitive.Value{}, noPassword()); c.usable(a, self, target.Double) && err != nil {
			c.report("auth-plugin", target.Impossible, self, self+": "+err.Error()+".", fixes[err], target.Double)
		}
		if a.locked {
			c.report("account-locked", target.Impossible, self, self+" is locked.",
				"ALTER USER "+self+" ACCOUNT UNLOCK;", target.Double)
		}
		if fix := c.t.unmet(a.terms); fix != "" && a.terms.subject+a.terms.issuer == "" {
			c.report("login-terms", target.Impossible, self, self+" cannot log in: "+fix+".", fix, target.Double)
		}
	}
	names := quote(c.current.Account) + " and " + quote(c.partner)
	if !slices.EqualFunc(members, partners, func(a, b account) bool { return a.host == b.host }) {
		c.ask(otherHosts, names, names+" exist at different hosts: "+whoAll(c.current.Account, members)+"; "+
			whoAll(c.partner, partners)+". An application may be refused after a rotation.",
			"Create both at the same hosts.", target.Double)
	}
	return c.compare(ctx, names, members, partners)
}

// compare reports rights that only one of two names has.
func (c *checker) compare(ctx context.Context, names string, members, partners []account) error {
	a, err := c.rights(ctx, c.current.Account, members)
	if err != nil {
		return err
	}
	b, err := c.rights(ctx, c.partner, partners)
	if err != nil {
		return err
	}
	var differ []string
	for _, where := range slices.Sorted(maps.Keys(a)) {
		if a[where] != b[where] {
			differ = append(differ, where)
		}
	}
	for _, where := range slices.Sorted(maps.Keys(b)) {
		if _, both := a[where]; !both {
			differ = append(differ, where)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	shown := strings.Join(differ[:min(len(differ), maxDifferences)], ", ")
	if len(differ) > maxDifferences {
		shown += ", …"
	}
	c.ask(otherRights, names, names+" have different rights: "+shown+".", "Grant both the same.", target.Double)
	return nil
}

// rights returns what each scope permits: global privileges, schemas, tables and roles.
func (c *checker) rights(ctx context.Context, name string, accounts []account) (map[string]string, error) {
	out := map[string]string{}
	for _, a := range accounts {
		self := identity{name, a.host}
		global, _, err := c.t.server.global(ctx, c.conn, self)
		if err != nil {
			return nil, err
		}
		slices.Sort(global)
		out["global privileges at host "+a.host] = strings.Join(global, ",")
		roles, err := c.conn.rows(ctx, c.t.server.roles([]identity{self}))
		if err != nil {
			return nil, err
		}
		for _, r := range roles {
			out["role "+r[0]+" at host "+a.host] = "granted"
		}
		if out["default roles at host "+a.host], err = c.defaultRoles(ctx, self); err != nil {
			return nil, err
		}
		out["terms of logins at host "+a.host] = fmt.Sprint(
			a.terms.transport, a.terms.subject, a.terms.issuer, a.terms.connections, a.terms.hourly)
	}
	schemas, err := c.conn.rows(ctx, "SELECT * FROM mysql.db WHERE User = "+quote(name))
	if err != nil {
		return nil, err
	}
	for _, r := range schemas { // Host, Db, User and the privileges
		if len(r) > 3 {
			out["schema "+r[1]+" at host "+r[0]] = strings.Join(r[3:], ",")
		}
	}
	tables, err := c.conn.rows(ctx, "SELECT Host, Db, Table_name, Table_priv, Column_priv FROM mysql.tables_priv "+
		"WHERE User = "+quote(name))
	for _, r := range tables {
		out["table "+r[1]+"."+r[2]+" at host "+r[0]] = r[3] + ";" + r[4]
	}
	return out, err
}

// defaultRoles returns the roles that a login has at once. They are not compared where the
// administrator may not read them.
func (c *checker) defaultRoles(ctx context.Context, who identity) (string, error) {
	rows, err := c.conn.rows(ctx, c.t.server.defaultRoles(who))
	if number, message, _ := numberOf(err); number == 1142 {
		c.report("default-roles", target.Note, "", "Default roles are not compared: "+message+".", "", target.Double)
		return "", nil
	}
	var out []string
	for _, r := range rows {
		out = append(out, r[0])
	}
	return strings.Join(out, ","), err
}
