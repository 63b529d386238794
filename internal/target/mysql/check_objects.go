package mysql

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// objects is a query for what has accounts as its definer.
type objects struct {
	what string
	// query returns schema and name of objects; %s stands for the list of definers.
	query string
	// privilege lets the administrator see all of them. A table is read instead where it is empty.
	privilege, table string
}

// views and routines are what only its definer may alter or read, whatever the others may do.
var views = objects{
	what:      "views",
	query:     "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE DEFINER IN (%s)",
	privilege: "SHOW VIEW",
}

func (mariaDB) objects() []objects {
	return []objects{views, {
		what:  "routines",
		query: "SELECT db, name FROM mysql.proc WHERE definer IN (%s)",
		table: "mysql.proc",
	}}
}

func (mySQL) objects() []objects {
	return []objects{views, {
		what: "routines",
		query: "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES " +
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

// maxListed is how many objects of one sort a check reads: one more says that there are more.
const maxListed = 20

// list returns the first rows about objects with one of these definers. grant is what a GRANT must
// have for the administrator to see them all. done is false for a server that has not listed them
// in time.
func (c *checker) list(ctx context.Context, o objects, definers []string) (
	rows [][]string, grant string, done bool, err error,
) {
	query := fmt.Sprintf(o.query+" ORDER BY 1, 2 LIMIT %d", strings.Join(definers, ", "), maxListed+1)
	rows, err = c.conn.rows(ctx, c.t.server.within3s(query))
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
// the password of its definer does so again after an emergency. accounts has all of the name in
// use.
func (c *checker) events(ctx context.Context, accounts []account) error {
	definers := definersOf(c.request.Current.Account, accounts)
	if c.request.Partner != "" {
		partners, err := c.t.accounts(ctx, c.conn, c.request.Partner)
		if err != nil {
			return err
		}
		definers = append(definers, definersOf(c.request.Partner, partners)...)
	}
	if len(definers) == 0 {
		return nil
	}
	rights := "the rights of " + strings.Join(shownNames(c.names()), " or ")
	rows, grant, done, err := c.list(ctx, c.t.server.events(), definers)
	number, message, _ := numberOf(err)
	unread := "Keyturn cannot see whether scheduled events run with " + rights +
		". Such an event can set a password again after an emergency."
	switch byHand := c.advice("", nil, 0, c.allEvents()); {
	case err != nil && number == 0: // no answer
		return err
	case err != nil:
		c.outlasts("events-not-read", unread+" The server answers: "+message+".", byHand)
	case !done:
		c.outlasts("events-not-read", unread+" The server has not listed them within 3 s.", byHand)
	case grant != "":
		fix, err := c.toAdministrator(ctx, []string{grant})
		if err != nil {
			return err
		}
		c.outlasts("events-not-read", unread, fix)
	}
	if len(rows) == 0 {
		return nil
	}
	var found, statements []string
	for _, r := range rows[:min(len(rows), maxListed)] {
		found = append(found, fault.Foreign(r[0]+"."+r[1]))
		if s, ok := disable(r[0], r[1]); ok {
			statements = append(statements, s)
		}
	}
	text := count(len(rows), "scheduled event runs", "scheduled events run") + " with " + rights +
		" while event_scheduler is ON, and can set a password again after an emergency: "
	c.outlasts("scheduled-events", listing(text, found, len(rows)),
		c.advice(afterLeak, statements, len(rows), c.allEvents()))
	return nil
}

// afterLeak says when to end events, and which: a check also finds the application's own.
const afterLeak = "Only after a leak, and only for events that are not the application's own, end the sessions of " +
	"the accounts. Then run (which makes you their definer, so that no check finds them again):"

// names returns the name in use, and the partner's if there is one.
func (c *checker) names() []string {
	if c.request.Partner == "" {
		return []string{c.request.Current.Account}
	}
	return []string{c.request.Current.Account, c.request.Partner}
}

// count says how many rows a list has, of which at most [maxListed] were read, and one more.
func count(rows int, one, several string) string {
	switch {
	case rows > maxListed:
		return fmt.Sprintf("More than %d %s", maxListed, several)
	case rows == 1:
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", rows, several)
}

// listing completes a text with as many names of rows as a finding has space for.
func listing(text string, names []string, rows int) string {
	shown, left := target.WholeStatements(names[:min(len(names), maxDifferences)], ", ", text+", ….")
	switch more := rows > min(len(names), maxDifferences); {
	case shown == "":
		return strings.TrimSuffix(text, ": ") + "."
	case left > 0 || more:
		return text + shown + ", …."
	}
	return text + shown + "."
}

// advice returns the fix of a finding about rows: statements about them, each in full, and the
// query that lists all of them, also those that were not read or for which there is no space.
func (c *checker) advice(lead string, statements []string, rows int, query string) string {
	const page = `docs/targets/mysql.md, "After a leak", has the query that lists all of them.`
	secret := c.request.Current.Secret
	all, more := "To list all of them: ", "These are not all of them. To list all of them: "
	if query == "" || !target.FixFits(lead+" "+more+query, secret) {
		all, more, query = page, "These are not all of them: "+page, ""
	}
	shown, left := target.WholeStatements(statements, " ", lead+" "+more+query, secret)
	end := all + query
	if shown == "" {
		return end
	}
	if left > 0 || rows > len(statements) {
		end = more + query
	}
	return lead + " " + shown + " " + end
}

// allEvents returns the query by which an operator finds all events of the accounts of both names,
// and whether one is still enabled; empty where no query shows a name.
func (c *checker) allEvents() string {
	var of []string
	for _, name := range c.names() {
		if !fault.IsShown(name) || strings.Contains(name, `\`) { // see shownName
			return ""
		}
		prefix := name + "@" // in LIKE, a name may have wildcards
		of = append(of, fmt.Sprintf("LEFT(DEFINER, %d) = %s", utf8.RuneCountInString(prefix), quote(prefix)))
	}
	return "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, STATUS FROM information_schema.EVENTS WHERE " +
		strings.Join(of, " OR ") + ";"
}

// disable returns the statement that ends the runs of an event, for an operator. There is none for
// a name that is not shown as it is.
func disable(schema, name string) (statement string, ok bool) {
	quoted := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	return "ALTER EVENT " + quoted(schema) + "." + quoted(name) + " DISABLE;", fault.IsShown(schema) && fault.IsShown(name)
}

// outlasts adds a note about what an emergency leaves.
func (c *checker) outlasts(code, text, fix string) {
	f := c.findings(own(shownName(c.request.Current.Account)))
	f.Outlasting(code, text, fix)
	c.found = append(c.found, f.List...)
}

// definers reports objects that the application has made: of the two accounts, one alone may alter
// these views and read the text of these routines.
func (c *checker) definers(ctx context.Context, members, partners []account) error {
	list := append(definersOf(c.request.Current.Account, members), definersOf(c.request.Partner, partners)...)
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
			found = append(found, r[0]+"."+r[1])
		}
	}
	if len(found) > 0 {
		first := fault.Foreign(strings.Join(found[:min(len(found), maxDifferences)], ", "))
		self := shownName(c.request.Current.Account)
		c.ask(objectsOfOne, own(self), self+" or "+shownName(c.request.Partner)+" is the definer of "+first+
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
