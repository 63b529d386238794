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

// events returns the query for the events that run with the rights of accounts, schema and name of
// each. Only an administrator with the privilege sees all of them.
func (mariaDB) events() objects {
	return objects{
		what:  "events",
		query: "SELECT db, name FROM mysql.event WHERE status = 'ENABLED' AND definer IN (%s)",
		table: "mysql.event",
	}
}

func (mySQL) events() objects {
	return objects{
		what: "events",
		query: "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS " +
			"WHERE STATUS = 'ENABLED' AND DEFINER IN (%s)",
		privilege: "EVENT",
	}
}

// list returns the first rows about objects with one of these definers. grant is what a GRANT must
// have for the administrator to see them all. done is false for a server that has not listed them
// in time.
func (c *checker) list(ctx context.Context, o objects, definers []string) (
	rows [][]string, grant string, done bool, err error,
) {
	rows, err = c.conn.rows(ctx, c.t.server.within3s(fmt.Sprintf(o.query, strings.Join(definers, ", "))+" LIMIT 20"))
	switch number, _, _ := numberOf(err); {
	case number == 1969 || number == 3024:
		return nil, "", false, nil
	case number != 1142 && err != nil: // 1142: no right to the table, see lacks
		return nil, "", false, err
	}
	grant, err = c.lacks(ctx, o)
	return rows, grant, true, err
}

// definersOf returns the literals of accounts as the server names definers.
func definersOf(name string, accounts []account) (list []string) {
	for _, a := range accounts {
		list = append(list, quote(name+"@"+a.host))
	}
	return list
}

// events reports events that run with the rights of the accounts of the two names. One that sets
// the password of its definer does so again after an emergency.
func (c *checker) events(ctx context.Context, own []account) error {
	names, definers := shownName(c.current.Account), definersOf(c.current.Account, own)
	if c.partner != "" {
		all, err := c.t.accounts(ctx, c.conn, c.partner)
		if err != nil {
			return err
		}
		names += " or " + shownName(c.partner)
		definers = append(definers, definersOf(c.partner, all)...)
	}
	if len(definers) == 0 {
		return nil
	}
	rows, grant, done, err := c.list(ctx, c.t.server.events(), definers)
	if err != nil {
		return err
	}
	if grant != "" || !done {
		text := "Keyturn cannot see whether scheduled events run with the rights of " + names +
			". Such an event can set a password again after an emergency."
		fix := "The server has not listed them within 3 s; list them by hand."
		if grant != "" {
			if fix, err = c.toAdministrator(ctx, []string{grant}); err != nil {
				return err
			}
		}
		c.outlasts("events-not-read", text, fix)
	}
	if len(rows) == 0 {
		return nil
	}
	var found, statements []string
	for _, r := range rows[:min(len(rows), maxDifferences)] {
		found = append(found, fault.Foreign(r[0]+"."+r[1]))
		statements = append(statements, disable(r[0], r[1]))
	}
	if len(rows) > maxDifferences {
		found = append(found, "…")
	}
	c.outlasts("scheduled-events", "Events run with the rights of "+names+" while event_scheduler is ON: "+
		strings.Join(found, ", ")+". Such an event can set a password again after an emergency.",
		"End the sessions of the accounts, and then: "+strings.Join(statements, " "))
	return nil
}

// disable returns the statement that ends the runs of an event, for an operator.
func disable(schema, name string) string {
	if !fault.IsShown(schema) || !fault.IsShown(name) {
		return "(SELECT HEX(EVENT_SCHEMA), HEX(EVENT_NAME) FROM information_schema.EVENTS finds an event of which no " +
			"statement shows the name)"
	}
	quoted := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	return "ALTER EVENT " + quoted(schema) + "." + quoted(name) + " DISABLE;"
}

// outlasts adds a note about what an emergency leaves.
func (c *checker) outlasts(code, text, fix string) {
	f := c.findings(own(shownName(c.current.Account)))
	f.Add(target.Finding{Code: code, Verdict: target.Note, Text: text, Fix: fix, Outlasts: true})
	c.found = append(c.found, f.List...)
}

// definers reports objects that the application has made: of the two accounts, one alone may alter
// these views and read the text of these routines.
func (c *checker) definers(ctx context.Context, members, partners []account) error {
	list := append(definersOf(c.current.Account, members), definersOf(c.partner, partners)...)
	var found []string
	for _, o := range c.t.server.objects() {
		rows, grant, done, err := c.list(ctx, o, list)
		switch {
		case err != nil:
			return err
		case !done:
			c.unread = append(c.unread, unread{what: o.definers() + " (not listed within 3 s)"})
		case grant != "":
			c.unread = append(c.unread, unread{o.definers(), grant})
		}
		for _, r := range rows {
			found = append(found, r[0])
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

// lacks returns what a GRANT must have for the administrator to see all objects; empty when it
// does.
func (c *checker) lacks(ctx context.Context, o objects) (grant string, err error) {
	if o.privilege == "" {
		if _, err := c.conn.row(ctx, "SELECT 1 FROM "+o.table+" LIMIT 1"); err != nil {
			return "SELECT ON " + o.table, nil
		}
		return "", nil
	}
	row, err := c.conn.row(ctx, "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = "+
		quote(o.privilege)+" AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')")
	if err != nil || len(row) == 0 || row[0] != "0" {
		return "", err
	}
	return o.privilege + " ON *.*", nil
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
