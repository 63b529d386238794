package mysql

import (
	"context"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// objects is a query for what has accounts as its definer.
type objects struct {
	what string
	// query returns names of objects; %s stands for the list of definers.
	query string
	// privilege lets the administrator see all of them. A table is read instead where it is empty.
	privilege, table string
}

// views and routines are what only its definer may alter or read, whatever the others may do.
var views = objects{
	what:      "views",
	query:     "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) FROM information_schema.VIEWS WHERE DEFINER IN (%s)",
	privilege: "SHOW VIEW",
}

func (mariaDB) objects() []objects {
	return []objects{views, {
		what:  "routines",
		query: "SELECT CONCAT(db, '.', name) FROM mysql.proc WHERE definer IN (%s)",
		table: "mysql.proc",
	}}
}

func (mySQL) objects() []objects {
	return []objects{views, {
		what: "routines",
		query: "SELECT CONCAT(ROUTINE_SCHEMA, '.', ROUTINE_NAME) FROM information_schema.ROUTINES " +
			"WHERE DEFINER IN (%s)",
		privilege: "SHOW_ROUTINE",
	}}
}

// within3s bounds a query of a server with very many tables.
func (mariaDB) within3s(query string) string {
	return "SET STATEMENT max_statement_time = 3 FOR " + query
}

func (mySQL) within3s(query string) string {
	return strings.Replace(query, "SELECT ", "SELECT /*+ MAX_EXECUTION_TIME(3000) */ ", 1)
}

// definers reports objects that the application has made: of the two accounts, one alone may alter
// these views and read the text of these routines.
func (c *checker) definers(ctx context.Context, members, partners []account) error {
	var list []string
	for _, a := range members {
		list = append(list, quote(c.current.Account+"@"+a.host))
	}
	for _, a := range partners {
		list = append(list, quote(c.partner+"@"+a.host))
	}
	var found []string
	for _, o := range c.t.server.objects() {
		rows, err := c.conn.rows(ctx, c.t.server.within3s(fmt.Sprintf(o.query, strings.Join(list, ", "))+" LIMIT 20"))
		switch number, _, _ := numberOf(err); {
		case number == 1142: // no right to the table, which c.sees reports
		case number == 1969 || number == 3024:
			c.unread = append(c.unread, unread{what: o.definers() + " (not listed within 3 s)"})
			continue
		case err != nil:
			return err
		}
		for _, r := range rows {
			found = append(found, r[0])
		}
		if err := c.sees(ctx, o); err != nil {
			return err
		}
	}
	if len(found) > 0 {
		first := fault.Foreign(strings.Join(found[:min(len(found), maxDifferences)], ", "))
		self := shownName(c.current.Account)
		c.ask(objectsOfOne, own(self), self+" or "+shownName(c.partner)+" is the definer of "+first+
			": the other account may not alter such views, nor read the text of such routines.",
			"Have another account make and alter them, or use strategy overlap.", target.Double)
	}
	return nil
}

// sees remembers objects of which the administrator may see only some.
func (c *checker) sees(ctx context.Context, o objects) error {
	missing := false
	if o.privilege == "" {
		_, err := c.conn.row(ctx, "SELECT 1 FROM "+o.table+" LIMIT 1")
		missing = err != nil
	} else {
		row, err := c.conn.row(ctx, "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = "+
			quote(o.privilege)+" AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')")
		if err != nil || len(row) == 0 {
			return err
		}
		missing = row[0] == "0"
	}
	if missing && o.privilege != "" {
		c.unread = append(c.unread, unread{o.definers(), o.privilege + " ON *.*"})
	} else if missing {
		c.unread = append(c.unread, unread{o.definers(), "SELECT ON " + o.table})
	}
	return nil
}

func (o objects) definers() string { return "definers of " + o.what }

// unread is what is not compared, and what a GRANT must have that changes that; empty where none
// does.
type unread struct{ what, grant string }

// notCompared reports what of the two accounts could not be read.
func (c *checker) notCompared(ctx context.Context) error {
	if len(c.unread) == 0 {
		return nil
	}
	var what, grants []string
	for _, u := range c.unread {
		what = append(what, u.what)
		if u.grant != "" {
			grants = append(grants, u.grant)
		}
	}
	text := "Not compared between the two accounts: " + strings.Join(what, ", ") + "."
	if len(grants) == 0 {
		c.ask(notCompared, subject{}, text, "Compare them by hand, and then agree.", target.Double)
		return nil
	}
	fix, err := c.toAdministrator(ctx, grants)
	c.ask(notCompared, subject{}, text+" The administrator may not see them all.", fix, target.Double)
	return err
}

// toAdministrator completes grants as statements about the account that the administrator's login
// has reached.
func (c *checker) toAdministrator(ctx context.Context, grants []string) (string, error) {
	row, err := c.conn.row(ctx, "SELECT CURRENT_USER()")
	if err != nil || len(row) == 0 {
		return "", err
	}
	var out []string
	for _, g := range grants {
		out = append(out, identityOf(row[0]).granting(g))
	}
	return strings.Join(out, " "), nil
}
