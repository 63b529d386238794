package mysql

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// double compares the partner with the account in use: an application that changes from one to the
// other must notice nothing. accounts are all of the name in use, members those that its credential
// opens.
func (c *checker) double(ctx context.Context, accounts, members []account) error {
	all, err := c.t.accounts(ctx, c.conn, c.request.Partner)
	if err != nil {
		return err
	}
	partners := c.t.within(all)
	if len(partners) == 0 {
		c.report("no-partner", target.Impossible, other(shownName(c.request.Partner)),
			c.t.missing(c.request.Partner, all)+".",
			"Create it with the rights of "+shownName(c.request.Current.Account)+".", target.Double)
		return nil
	}
	for _, a := range partners {
		c.partner(a)
	}
	names := shownName(c.request.Current.Account) + " and " + shownName(c.request.Partner)
	others := c.takesOthers(names, accounts, members, partners)
	c.compareHosts(names, members, partners, others)
	c.otherPasswords(names, accounts, members)
	if err := c.definers(ctx, members, partners); err != nil {
		return err
	}
	if err := c.compare(ctx, names, members, partners); err != nil {
		return err
	}
	return c.notCompared(ctx)
}

// partner reports what keeps an account of the partner's name from getting a password, or from a
// login.
func (c *checker) partner(a account) {
	self := shown(c.request.Partner, a.host)
	_, err := c.t.server.replace(a, sensitive.Value{}, noPassword())
	if c.usable(a, c.request.Partner, other, target.Double) && err != nil {
		c.report("auth-plugin", target.Impossible, other(self), self+": "+err.Error()+".", fixes[err], target.Double)
	}
	if a.locked {
		c.report("account-locked", target.Impossible, other(self), self+" is locked.",
			statement("ALTER USER "+self+" ACCOUNT UNLOCK;", c.request.Partner, a.host), target.Double)
	}
	if a.terms.connections < 0 {
		c.noLogins(other(self), c.request.Partner, a.host, target.Double)
	}
	if fix := c.t.unmet(a.terms); fix != "" && a.terms.subject+a.terms.issuer == "" {
		c.report("login-terms", target.Impossible, other(self), self+" cannot log in as this secret connects.", sentence(fix),
			target.Double)
	}
}

// takesOthers reports accounts of the partner's name that a rotation would change, and that may be
// another application's, because the name in use has no account at the host, or one with another
// password. It returns them.
func (c *checker) takesOthers(names string, accounts, members, partners []account) []account {
	if c.t.config.AccountHost.chosen() {
		return nil
	}
	var further, beside []account // without an account of the name in use at the host; beside another one
	for _, a := range partners {
		switch {
		case len(a.passwords()) == 0 || atHost(members, a.host):
		case atHost(accounts, a.host):
			beside = append(beside, a)
		default:
			further = append(further, a)
		}
	}
	f := c.findings(other(names))
	if len(beside) > 0 {
		// The holder of the credential in use may have set that password, and so delay an emergency until
		// an operator has named the hosts. Without that, it could replace the password of a stranger.
		f.ChangesOthers(otherHosts, whoAll(c.request.Partner, beside)+" gets the new password, too, and may be "+
			"another application's: "+shownName(c.request.Current.Account)+" has another password than the one in use at that "+
			"host.",
			choosing(members)+" leaves it out. "+choosing(members, beside)+" takes it in.",
			target.Double)
	}
	if len(further) > 0 {
		f.ChangesOthers(otherHosts, whoAll(c.request.Partner, further)+" gets the new password, too, and may be "+
			"another application's: "+shownName(c.request.Current.Account)+" has no account at that host.",
			choosing(members)+" leaves it out. Or create both at the same hosts.",
			target.Double)
	}
	c.found = append(c.found, f.List...)
	return slices.Concat(further, beside)
}

// otherPasswords reports accounts of the name in use that have another password, which a rotation
// replaces when that name is the one to change.
func (c *checker) otherPasswords(names string, accounts, members []account) {
	isMember := func(a account) bool { return atHost(members, a.host) }
	others := slices.DeleteFunc(c.t.within(accounts), isMember)
	if len(others) == 0 {
		return
	}
	c.ask(otherHosts, other(names), whoAll(c.request.Current.Account, others)+
		" has another password now. When "+shownName(c.request.Current.Account)+" comes into use again, a rotation "+
		"replaces that password too.", choosing(members)+" leaves it out.", target.Double)
}

// choosing is the command by which a target names the hosts of accounts.
func choosing(accounts ...[]account) string {
	return "keyturn target update TARGET --set " + accountHost(accounts...)
}

// compare reports rights that only one of two names has. It leaves out the hosts at which only one
// of them has an account: see [checker.compareHosts].
func (c *checker) compare(ctx context.Context, names string, members, partners []account) error {
	a, err := c.rights(ctx, c.request.Current.Account, members)
	if err != nil {
		return err
	}
	b, err := c.rights(ctx, c.request.Partner, partners)
	if err != nil {
		return err
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	var differ []right
	for r := range all {
		inA, hasA := a[r]
		inB, hasB := b[r]
		if (hasA != hasB || inA != inB) && atHost(members, r.host) == atHost(partners, r.host) {
			differ = append(differ, r)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	slices.SortFunc(differ, func(a, b right) int {
		return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.host, b.host))
	})
	var list []string
	for _, r := range differ[:min(len(differ), maxDifferences)] {
		list = append(list, r.String())
	}
	first := fault.Foreign(strings.Join(list, ", "))
	if len(differ) > maxDifferences {
		first += ", …"
	}
	c.ask(otherRights, other(names), names+" have different rights: "+first+".", c.equalizing(differ, members),
		target.Double)
	return nil
}

// equalizing is the advice about rights that differ, with the statements that show what each
// account has. No statement shows it for a host where neither name has an account.
func (c *checker) equalizing(differ []right, members []account) string {
	const lead = "Grant both the same. These show what each has:"
	var list []string
	for _, r := range differ {
		show := "SHOW GRANTS FOR "
		if r.what == loginTerms {
			show = "SHOW CREATE USER "
		}
		for _, name := range c.names() {
			statement := show + shown(name, r.host) + ";"
			if atHost(members, r.host) && areShown(name, r.host) && !slices.Contains(list, statement) {
				list = append(list, statement)
			}
		}
	}
	statements, _ := target.WholeStatements(list, " ", lead, c.request.Current.Secret)
	if statements == "" {
		return "Grant both the same."
	}
	return lead + " " + statements
}

// right is something that an account may have, at its host.
type right struct{ what, host string }

func (r right) String() string { return r.what + " at host " + r.host }

// loginTerms are the terms of an account's logins, which are no grants.
const loginTerms = "terms of logins"

// scope is a table of rights on something smaller than the server.
type scope struct {
	table string
	// where names the scope of a row, and what its rights.
	where, what string
	// optional rights are not compared where the administrator may not read them.
	optional bool
}

var scopes = []scope{
	{
		table: "mysql.tables_priv",
		where: "'table ', Db, '.', Table_name",
		what:  "CONCAT(Table_priv, ';', Column_priv)",
	},
	{
		table: "mysql.proxies_priv",
		where: "'proxy for ', Proxied_user, '@', Proxied_host",
		what:  "With_grant",
	},
	{
		table: "mysql.global_grants",
		where: "'grant option of ', PRIV",
		what:  "WITH_GRANT_OPTION",
	},
	{
		table:    "mysql.columns_priv",
		where:    "'column ', Db, '.', Table_name, '.', Column_name",
		what:     "Column_priv",
		optional: true,
	},
	{
		table:    "mysql.procs_priv",
		where:    "LOWER(Routine_type), ' ', Db, '.', Routine_name",
		what:     "Proc_priv",
		optional: true,
	},
}

// rights returns what each scope permits: global privileges, schemas, tables, columns, routines,
// proxies and roles, and the terms of logins.
func (c *checker) rights(ctx context.Context, name string, accounts []account) (map[right]string, error) {
	out := map[right]string{}
	for _, a := range accounts {
		if err := c.ofAccount(ctx, out, identity{name, a.host}, a.terms); err != nil {
			return nil, err
		}
	}
	schemas, err := c.conn.rows(ctx, "SELECT * FROM mysql.db WHERE User = "+quote(name))
	for _, r := range schemas { // Host, Db, User and the privileges
		if len(r) > 3 {
			out[right{"schema " + r[1], r[0]}] = strings.Join(r[3:], ",")
		}
	}
	for _, s := range scopes {
		if err != nil {
			return nil, err
		}
		if !s.optional && !slices.Contains(c.t.server.tables(), s.table) {
			continue // MariaDB has no dynamic privileges
		}
		var rows [][]string
		rows, err = c.read(ctx, s.table, s.optional, "SELECT CONCAT("+s.where+"), Host, "+s.what+
			" FROM "+s.table+" WHERE User = "+quote(name))
		for _, r := range rows {
			out[right{r[0], r[1]}] = r[2]
		}
	}
	return out, err
}

// ofAccount adds the global privileges, roles and terms of an account.
func (c *checker) ofAccount(ctx context.Context, out map[right]string, self identity, t terms) error {
	global, _, err := c.t.server.global(ctx, c.conn, self)
	if err != nil {
		return err
	}
	slices.Sort(global)
	out[right{"global privileges", self.host}] = strings.Join(global, ",")
	roles, err := c.conn.rows(ctx, c.t.server.roles([]identity{self}))
	if err != nil {
		return err
	}
	for _, r := range roles {
		out[right{"role " + r[0], self.host}] = "granted " + r[2]
	}
	query, table := c.t.server.defaultRoles(self)
	roles, err = c.read(ctx, table, true, query)
	for _, r := range roles {
		out[right{"default roles", self.host}] += r[0] + ","
	}
	out[right{loginTerms, self.host}] = fmt.Sprint(t.transport, t.subject, t.issuer, t.connections, t.limits)
	out[right{"partial revokes", self.host}] = t.revokes
	return err
}

// read reads rows for a comparison.
func (c *checker) read(ctx context.Context, table string, optional bool, query string) ([][]string, error) {
	rows, err := c.conn.rows(ctx, query)
	if number, _, _ := numberOf(err); optional && number == 1142 {
		if u := (unread{table, "SELECT ON " + table}); !slices.Contains(c.unread, u) {
			c.unread = append(c.unread, u)
		}
		return nil, nil
	}
	return rows, err
}
