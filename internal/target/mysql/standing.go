package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

const (
	// maxReached bounds the roles that a look-up follows from one account.
	maxReached = 200
	// maxRows bounds the rows that one query of a look-up may return.
	maxRows = 10_000
)

// identity is a user or a role as the server stores it.
type identity struct {
	user string
	host string
}

// identityOf reads what the server's functions CURRENT_USER and USER return.
func identityOf(text string) identity {
	at := max(strings.LastIndexByte(text, '@'), 0)
	return identity{text[:at], strings.TrimPrefix(text[at:], "@")}
}

// String returns the identity for an operator.
func (i identity) String() string { return shown(i.user, i.host) }

// granting returns the statement that grants something to the identity, for an operator.
func (i identity) granting(what string) string {
	return statement("GRANT "+what+" TO "+i.String()+";", i.user, i.host)
}

// where selects the rows of an identity in a table.
func (i identity) where(user, host string) string {
	return "(" + user + " = " + quote(i.user) + " AND " + host + " = " + quote(i.host) + ")"
}

// grants is how the two servers store the rights of an account.
type grants interface {
	// global returns the global privileges of an identity, as the server names them, and whether it
	// exists.
	global(ctx context.Context, conn *conn, who identity) (privileges []string, found bool, err error)
	// everybody returns the roles that every account has without a grant.
	everybody(ctx context.Context, conn *conn) ([]identity, error)
	// roles returns the query for the roles that are granted to identities: user and host of each
	// role, and Y where it may be granted on.
	roles(to []identity) string
	// defaultRoles returns the query for the roles that a login of an identity has at once, and the
	// table that it reads.
	defaultRoles(who identity) (query, table string)
	// objects returns the queries for objects with a definer, and within3s bounds such a query.
	objects() []objects
	// events returns the query for enabled events with a definer, schema and name of each.
	events() objects
	within3s(query string) string
	// tables returns the tables that a look-up reads.
	tables() []string
}

// harmless lists the global privileges that change neither accounts nor the server and read no
// stored passwords, in MySQL's and MariaDB's spellings. Any other makes an account privileged, also
// a privilege that a later release of the server adds.
var harmless = []string{
	"APPLICATION_PASSWORD_ADMIN", // of the account's own passwords
	"BINLOG MONITOR",
	"CREATE TEMPORARY TABLES",
	"LOCK TABLES",
	"PROCESS",
	"REFERENCES",
	"RESOURCE_GROUP_USER",
	"SHOW CREATE ROUTINE",
	"SHOW DATABASES",
	"SHOW VIEW",
	"SHOW_ROUTINE",
	"SLAVE MONITOR",
	"XA_RECOVER_ADMIN",
}

// Standing reports the standing of an account by its global privileges and its rights on the schema
// mysql, and by the ones of every role and account that it can act as.
func (t *my) Standing(ctx context.Context, account string) (target.Standing, error) {
	attempt := "find out what " + account + " is"
	if strings.ContainsRune(account, 0) || account == "" {
		return target.Standing{}, target.Denied.Errorf("%s: an account has a name without zero bytes", attempt)
	}
	conn, err := t.asAdmin(ctx, attempt, t.admin.Secret)
	if err != nil {
		return target.Standing{}, err
	}
	defer conn.Close()
	l := &lookup{t: t, conn: conn, name: account}
	s, err := l.standing(ctx)
	if err == nil {
		return s, nil
	}
	failed := readFailed(attempt, err, t.admin.Secret)
	if failed.Class == target.Denied {
		failed.Text += "; the administrator must be able to read the tables of privileges:"
		for _, table := range t.server.tables() {
			failed.Text += " " + l.me.granting("SELECT ON "+table)
		}
	}
	if errors.Is(err, errStored) {
		failed.Class = target.Denied
	}
	return target.Standing{}, failed
}

// errStored is in the chain of an error about the content of the server's tables.
var errStored = errors.New("the server's tables of privileges")

// lookup reads the rights of the accounts of one name.
type lookup struct {
	t    *my
	conn *conn
	name string
	who  []identity // the accounts
	me   identity   // the administrator's account, as the server found it
}

func (l *lookup) standing(ctx context.Context) (target.Standing, error) {
	var s target.Standing
	var err error
	if s.Administrator, err = l.administrator(ctx); err != nil {
		return s, err
	}
	all, err := l.t.accounts(ctx, l.conn, l.name)
	if err != nil {
		return s, err
	}
	for _, a := range l.t.within(all) {
		l.who = append(l.who, identity{l.name, a.host})
	}
	if len(l.who) == 0 {
		return s, nil
	}
	reached, err := l.reached(ctx)
	if err != nil {
		return s, err
	}
	for _, who := range reached {
		why, err := l.privilege(ctx, who)
		if err != nil {
			return s, err
		}
		if why != "" && !slices.Contains(l.who, who) {
			why = fmt.Sprintf("can take the place of %s, which %s", who, why)
		}
		if why != "" {
			s.Privileged = why
			return s, nil
		}
	}
	return s, nil
}

// administrator reports whether the account has the administrator's name, at any host: which of the
// accounts with that name a login reaches depends on the client's host.
func (l *lookup) administrator(ctx context.Context) (bool, error) {
	row, err := l.conn.row(ctx, "SELECT CURRENT_USER(), USER()")
	if err != nil {
		return false, err
	}
	names := []string{l.t.admin.Account}
	for i, name := range row {
		names = append(names, identityOf(name).user)
		if i == 0 {
			l.me = identityOf(name)
		}
	}
	for _, spelling := range spellings(l.name) {
		// The server compares user names by their bytes, without the spaces at the end.
		same := func(name string) bool { return strings.TrimRight(name, " ") == strings.TrimRight(spelling, " ") }
		if slices.ContainsFunc(names, same) {
			return true, nil
		}
	}
	return false, nil
}

// quotedName is a user in quotes, with or without a host.
var quotedName = regexp.MustCompile("^(?:'([^']*)'|`([^`]*)`|\"([^\"]*)\")(?:@.*)?$")

// spellings returns a name, and the users that a reader may take it for: without its quotes and
// without its host. To the server these are other accounts; they serve only to refuse the
// administrator's.
func spellings(name string) []string {
	out := []string{name}
	if m := quotedName.FindStringSubmatch(strings.TrimSpace(name)); m != nil {
		out = append(out, m[1]+m[2]+m[3])
	}
	if i := strings.LastIndexByte(name, '@'); i > 0 {
		out = append(out, name[:i])
	}
	return out
}

// reached returns the account and everything that it can act as: roles that are granted to it or to
// every account, accounts for which it may be a proxy, and all that these can act as.
func (l *lookup) reached(ctx context.Context) ([]identity, error) {
	everybody, err := l.t.server.everybody(ctx, l.conn)
	if err != nil {
		return nil, err
	}
	reached := append(slices.Clone(l.who), everybody...)
	for from := 0; from < len(reached); {
		next := reached[from:]
		from = len(reached)
		var proxied []string
		for _, who := range next {
			proxied = append(proxied, who.where("User", "Host"))
		}
		for _, query := range []string{
			l.t.server.roles(next),
			"SELECT Proxied_user, Proxied_host FROM mysql.proxies_priv WHERE " + strings.Join(proxied, " OR "),
		} {
			rows, err := l.conn.rows(ctx, query)
			if err != nil {
				return nil, err
			}
			for _, row := range rows {
				if who := (identity{row[0], row[1]}); !slices.Contains(reached, who) {
					reached = append(reached, who)
				}
			}
		}
		if len(reached) > maxReached {
			return nil, fmt.Errorf(
				"%w: %s can take the place of more than %d roles and accounts", errStored, shownName(l.name), maxReached,
			)
		}
	}
	return reached, nil
}

// privilege says why an identity is privileged; empty when it is not.
func (l *lookup) privilege(ctx context.Context, who identity) (string, error) {
	if who.user == "" && !slices.Contains(l.who, who) {
		return "may be any user", nil // a proxy for the anonymous account
	}
	global, _, err := l.t.server.global(ctx, l.conn, who)
	if err != nil {
		return "", err
	}
	for _, p := range global {
		if !slices.Contains(harmless, strings.ToUpper(p)) {
			return "has the global privilege " + fault.Foreign(p), nil
		}
	}
	// The server finds rights on schemas and tables by the client's host, so rows of the same name
	// at other hosts count. Rows of the anonymous user count for every account. Names of schemas
	// are patterns.
	row, err := l.conn.row(ctx, "SELECT Db FROM mysql.db WHERE User IN ("+quote(who.user)+
		`, '') AND 'mysql' LIKE LOWER(Db) ESCAPE '\' LIMIT 1`)
	if err != nil || row != nil {
		return "has rights on the schema mysql, where accounts are stored", err
	}
	row, err = l.conn.row(ctx, "SELECT Table_name FROM mysql.tables_priv WHERE User IN ("+quote(who.user)+
		", '') AND LOWER(Db) = 'mysql' LIMIT 1")
	if err != nil || row == nil {
		return "", err
	}
	return "has rights on the table mysql." + fault.Foreign(row[0]), nil
}

// rows returns all rows as strings.
func (c *conn) rows(ctx context.Context, query string) (out [][]string, err error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(values); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case len(out) == maxRows:
			return nil, fmt.Errorf("%w: more than %d rows", errStored, maxRows)
		}
		row := make([]string, len(values))
		for i, v := range values {
			if b, ok := v.([]byte); ok {
				row[i] = string(b)
			} else if v != nil {
				row[i] = fmt.Sprint(v)
			}
		}
		out = append(out, row)
	}
}

var _ target.Guarded = (*my)(nil)
