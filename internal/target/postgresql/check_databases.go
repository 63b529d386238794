package postgresql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// noDeadline is how long the databases may take if the check has no deadline.
const noDeadline = 15 * time.Second

// pair is what a check reads in databases: two logins, and the role that both act as, which is
// empty if they act as different ones.
type pair struct {
	account, clone role
	acts           string
	// alone are the logins whose own rights the other one lacks.
	alone []role
}

// besides returns the login that is not the one given.
func (p pair) besides(login role) role {
	if login.name == p.account.name {
		return p.clone
	}
	return p.account
}

// databases reads what a pair has, and the objects that read session_user, in the database that the
// application names, or, if it names none, in all that it may open. The owner of any database can
// grant the account something there, lock its catalogs and let statements take long. So the
// databases share a part of the time, and one that is not read in it is a finding. All of these
// findings at most need consent, for which an emergency does not wait: it reads no database.
func (k *check) databases(ctx context.Context, p pair) error {
	if k.emergency {
		return nil
	}
	list, err := k.inShared(ctx, p)
	if err != nil {
		return err
	}
	if n := len(list); n > maxDatabases {
		list = list[:maxDatabases]
		k.unread(p, fmt.Sprintf("The account and its groups have rights in %d databases, of which the check reads %d. In "+
			"the others, Keyturn cannot see what uses session_user.", n, maxDatabases), setDatabaseAdvice)
	}
	found := inDatabases{pair: p}
	within, cancel := share(ctx, 3)
	err = k.visit(ctx, within, list[0], &found)
	cancel()
	if err != nil {
		return err
	}
	further, cancel := share(ctx, 3)
	defer cancel()
	for i, database := range list[1:] {
		within, cancel := share(further, len(list)-1-i)
		err := k.visit(ctx, within, database, &found)
		cancel()
		if err != nil {
			return err
		}
	}
	k.session(found)
	return nil
}

// setDatabaseAdvice is the advice where the account has rights in too many databases.
const setDatabaseAdvice = "Set the database that the application opens (keyturn rotation configure NAME " +
	"--login-database=DATABASE)."

// share returns a context for a part of the time that is left: one n-th.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	left := noDeadline
	if at, ok := ctx.Deadline(); ok {
		left = time.Until(at)
	}
	return context.WithTimeout(ctx, left/time.Duration(n))
}

// inShared reads what the whole server knows: it reports objects of the logins alone, and returns
// the databases to read, first the application's.
func (k *check) inShared(ctx context.Context, p pair) ([]string, error) {
	if err := k.reading(ctx); err != nil {
		return nil, err
	}
	if err := k.limited(ctx); err != nil {
		return nil, err
	}
	for _, login := range p.alone {
		if err := k.owns(ctx, p, login); err != nil {
			return nil, err
		}
	}
	list := []string{k.t.database()}
	if k.t.login.Database == "" {
		more, err := k.usedDatabases(ctx, p.account.acts, p.account.name, p.clone.name)
		if err != nil {
			return nil, err
		}
		list = append(list, slices.DeleteFunc(more, func(d string) bool { return d == list[0] })...)
	}
	return list, k.rollback(ctx)
}

// owns reports what a login itself owns. Only its owner can give an object to a role, and only to
// one that it may act as.
func (k *check) owns(ctx context.Context, p pair, login role) error {
	acts := p.acts
	own, err := k.belongings(ctx, login)
	for _, b := range own {
		if !b.owned || k.t.login.Database != "" && b.database != "" && b.database != k.t.login.Database {
			continue
		}
		fix := anotherClone(login.name, p.besides(login).name)
		switch {
		case acts != "" && b.defaults:
			fix = "Give them to " + quoteIdentifier(acts) + ", and take them from " + quoteIdentifier(login.name) +
				" (ALTER DEFAULT PRIVILEGES)."
		case acts != "" && b.database == "":
			fix = runIn(k.t.config.Database, reassign(login.name, acts))
		case acts != "":
			fix = runIn(b.database, reassign(login.name, acts))
		}
		k.unequal(login.name, fmt.Sprintf("%s has %s, which the other login lacks.", login.name, b), fix)
	}
	return err
}

// anotherClone is the advice about two logins that act as different roles. Of the second login that
// exists, no clone can be made if something is its own.
func anotherClone(account, taken string) string {
	return "keyturn target prepare-accounts TARGET --account=" + fault.ShellWord(account) + " --clone=CLONE makes a " +
		"second login of equal rights. CLONE is a new name, unless " + quoteIdentifier(taken) + " has nothing of its own."
}

// limited ends the statements of a transaction before the time of the context does, so that the
// server says what took long.
func (a *attempt) limited(ctx context.Context) error {
	at, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	left := max(time.Until(at)*4/5, 2*time.Millisecond)
	return a.run(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d",
		left.Milliseconds(), min(left/2, 3*time.Second).Milliseconds()))
}

// inDatabases is what was found about a pair in databases.
type inDatabases struct {
	pair
	reads   []string // the objects that read session_user, with their database if it is a further one
	further bool     // some of it is in a further database
}

// visit reads one database. within bounds it, ctx the whole check. The error is of an application's
// own database that could not be asked.
func (k *check) visit(ctx, within context.Context, database string, found *inDatabases) error {
	reads, err := k.read(within, database, found.pair)
	if err != nil {
		return k.notRead(ctx, within, found.pair, database, err)
	}
	further := database != k.t.database()
	for _, r := range reads {
		if further {
			r += " of " + databaseNamed(database)
			found.further = true
		}
		found.reads = append(found.reads, r)
	}
	return nil
}

// read reports the grants to the logins alone in a database, and returns the objects there that
// read session_user.
func (k *check) read(ctx context.Context, database string, p pair) (reads []string, err error) {
	a := k.attempt
	if database != k.t.config.Database {
		if a, err = k.t.asAdminOf(ctx, k.what, database); err != nil {
			return nil, err
		}
		defer a.close()
	}
	if err := a.reading(ctx); err != nil {
		return nil, err
	}
	if reads, err = k.readIn(ctx, a, database, p); err != nil {
		_ = a.rollback(ctx) // a connection that is broken has rolled back
		return nil, err
	}
	return reads, a.rollback(ctx)
}

func (k *check) readIn(ctx context.Context, a *attempt, database string, p pair) ([]string, error) {
	for _, login := range p.alone {
		if err := a.limited(ctx); err != nil {
			return nil, err
		}
		list, err := k.grants(ctx, a, database, p, login)
		if err != nil {
			return nil, err
		}
		k.granted(database, p, login, list)
	}
	if p.acts == "" {
		return nil, nil
	}
	if err := a.limited(ctx); err != nil {
		return nil, err
	}
	reads, long, total, err := a.readsSession(ctx, p.acts, k.t.login.Role)
	if err == nil && total > 0 {
		k.unread(p, fmt.Sprintf("These definitions in %s are too long to search for session_user: %s.",
			databaseNamed(database), several(long, total)), k.furtherAdvice(database))
	}
	return reads, err
}

// several names the first of a list, at most three, and how many more of total there are.
func several(list []string, total int) string {
	named := list[:min(len(list), 3)]
	if more := total - len(named); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(named, ", "), more)
	}
	return strings.Join(named, ", ")
}

// distinct returns each of a list once.
func distinct(list []string) (once []string) {
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

// notRead reports a database that could not be read. It returns the error of an application's own
// database that has not answered.
func (k *check) notRead(ctx, within context.Context, p pair, database string, err error) error {
	further := database != k.t.database()
	name := databaseNamed(database)
	fix := k.furtherAdvice(database)
	switch code := codeOf(err); {
	case ctx.Err() != nil:
		return err
	case isDenied(err) && (code == notPermitted || !further):
		k.unread(p, fmt.Sprintf("The administrator cannot open %s, so its policies and functions that read session_user are "+
			"not known.", name), strings.TrimSpace(fmt.Sprintf("Run GRANT CONNECT ON DATABASE %s TO %s. %s",
			quoteIdentifier(database), quoteIdentifier(k.t.admin.Account), fix)))
	case code == lockTimedOut:
		k.unread(p, fmt.Sprintf("What reads session_user in %s is not known, because a session has locked its catalogs "+
			"(%s).", name, lockTimedOut), strings.TrimSpace("Find the session "+inDatabase(database)+
			": SELECT pid, usename FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE granted AND "+
			"mode = 'AccessExclusiveLock'). "+fix))
	case code == canceled, within.Err() != nil:
		k.unread(p, fmt.Sprintf("What reads session_user in %s is not known, because reading it takes longer than a check "+
			"may.", name), strings.TrimSpace("SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity shows what "+
			"makes it slow. "+fix))
	case further:
		k.unread(p, fmt.Sprintf("What reads session_user in %s is not known, because it cannot be read: %s.",
			name, fault.Foreign(err.Error())), fix)
	default:
		return err
	}
	return nil
}

// notPermitted is the code of a missing right.
const notPermitted = "42501"

// canceled is the code of a statement that took longer than statement_timeout.
const canceled = "57014"

// codeOf returns the code of the server's answer in an error; empty for none.
func codeOf(err error) string {
	e, ok := errors.AsType[*target.Error](err)
	if !ok {
		return ""
	}
	return e.Code
}

// furtherAdvice is the advice about a database that the application may not open at all; empty for
// the one that it opens.
func (k *check) furtherAdvice(database string) string {
	if database == k.t.database() {
		return ""
	}
	return nameIt
}

// nameIt is the advice about a database that the application may not open at all.
const nameIt = "If the application opens another database, name it: keyturn rotation configure NAME " +
	"--login-database=DATABASE."

func (k *check) unread(p pair, text, fix string) {
	k.found(target.Finding{
		Code:       consentUnread,
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    p.clone.name,
		Text:       text,
		Fix:        fix,
		Consent:    consentUnread,
	})
}

// session reports the objects that read session_user, which differs between the logins.
func (k *check) session(found inDatabases) {
	if len(found.reads) == 0 {
		return
	}
	fix := "Use current_user there, which is the same for both. In a function with SECURITY DEFINER, current_user is " +
		"its owner: have the caller hand over the name."
	if found.further {
		fix += " " + nameIt
	}
	k.found(target.Finding{
		Code:       consentSession,
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    found.clone.name,
		Text: "The name of the login (session_user) differs between the two, and is read by " +
			strings.Join(found.reads, ", ") + ".",
		Fix:     fix,
		Consent: consentSession,
	})
}

// isDenied reports whether a login was refused for good: by a missing right, or because the
// database takes no sessions.
func isDenied(err error) bool {
	const takesNone = "55000"
	e, ok := errors.AsType[*target.Error](err)
	return ok && (e.Class == target.Denied || e.Code == takesNone)
}

// Bounds of what is searched for session_user in a database, in bytes: of one text, and of all. An
// account that may create functions chooses how long they are.
const (
	maxSearched    = 1 << 20
	maxSearchedAll = 64 << 20
)

// readsSession returns what reads the name of the login, and what is too long to be searched, of
// which there is total, of all that concerns sessions that act as one role or take another one.
func (a *attempt) readsSession(ctx context.Context, acts, takes string) (
	reads, long []string, total int, err error,
) {
	rows, err := a.conn.Query(ctx, readsSessionAt(a.able.release), acts, takes, maxSearched, maxSearchedAll)
	if err != nil {
		return nil, nil, 0, asFailed(a, err)
	}
	var isLong bool
	var name string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&isLong, &name, &n}, func() error {
		if isLong {
			long, total = append(long, requoted(name)), n
		} else {
			reads = append(reads, requoted(name))
		}
		return nil
	})
	return reads, long, total, asFailed(a, err)
}

// readsSession lists policies, views, functions and defaults that read the name of the login. It
// takes no lock on any object: it searches stored expressions as they are, while the server's own
// functions for their text (pg_get_expr, pg_get_ruledef) lock the relations in them. There,
// session_user is number 12 of the values that need no function, and a constant is a list of bytes.
//
// An object concerns the accounts if it is in a schema that they may use and they have a right on
// it, if it belongs to an owner of such relations or of functions that run with their owner's
// rights, or if a trigger runs it. Temporary objects are of one session alone.
const readsSession = `WITH
	who AS (SELECT r.oid FROM pg_roles r WHERE r.rolname IN ($1::text, $2::text)
		UNION SELECT g.oid FROM pg_roles r JOIN pg_roles g
			ON pg_has_role(r.oid, g.oid, 'MEMBER') AND NOT pg_has_role(r.oid, g.oid, 'USAGE')
			WHERE r.rolname = $1::text AND NOT g.rolsuper AND g.rolname !~ '^pg_'),
	place AS (SELECT n.oid, EXISTS (SELECT FROM who WHERE has_schema_privilege(who.oid, n.oid, 'USAGE')) AS usable
		FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast|temp)' AND n.nspname NOT IN ('pg_catalog', 'information_schema')),
	relation AS (SELECT c.oid, c.relowner AS owner, n.usable AND EXISTS (SELECT FROM who WHERE
				has_any_column_privilege(who.oid, c.oid, 'SELECT, INSERT, UPDATE')
				OR has_table_privilege(who.oid, c.oid, 'DELETE, TRUNCATE')) AS reached
		FROM pg_class c JOIN place n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')),
	routine AS (SELECT p.oid, p.proowner AS owner, p.prosecdef AS definer, n.usable AND EXISTS
				(SELECT FROM who WHERE has_function_privilege(who.oid, p.oid, 'EXECUTE')) AS reached
		FROM pg_proc p JOIN place n ON n.oid = p.pronamespace),
	owner AS (SELECT owner FROM relation WHERE reached UNION SELECT owner FROM routine WHERE reached AND definer),
	near AS (SELECT oid FROM relation WHERE reached OR owner IN (SELECT owner FROM owner)),
	item (kind, id, tree, body) AS (
		SELECT 1, oid, true, polqual::text FROM pg_policy WHERE polrelid IN (SELECT oid FROM near)
		UNION ALL SELECT 1, oid, true, polwithcheck::text FROM pg_policy WHERE polrelid IN (SELECT oid FROM near)
		UNION ALL SELECT 2, oid, true, adbin::text FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM near)
		UNION ALL SELECT 3, oid, true, ev_action::text FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM near)
		UNION ALL SELECT 3, oid, true, ev_qual::text FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM near)
		UNION ALL SELECT 4, p.oid, x.tree, x.body FROM routine r JOIN pg_proc p ON p.oid = r.oid,
				LATERAL (VALUES (false, p.prosrc) %[1]s) x (tree, body)
			WHERE r.reached OR r.owner IN (SELECT owner FROM owner)
				OR r.oid IN (SELECT tgfoid FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM near)
					UNION ALL SELECT evtfoid FROM pg_event_trigger)),
	sized AS (SELECT kind, id, tree, body, octet_length(body) AS size,
			sum(octet_length(body)) OVER (ORDER BY octet_length(body), kind, id) AS total
		FROM item WHERE body IS NOT NULL),
	name AS (SELECT ':funcid ' || oid || ' ' AS call FROM pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace AND proname IN ('session_user', 'system_user')),
	marked AS (
		SELECT true AS long, kind, id FROM sized WHERE size > $3 OR total > $4
		UNION SELECT false, kind, id FROM (
				SELECT kind, id, tree, CASE WHEN tree THEN body || '' ELSE lower(body COLLATE "C") END AS body
				FROM sized WHERE size <= $3 AND total <= $4 OFFSET 0) short
			WHERE CASE WHEN tree THEN strpos(body, '{SQLVALUEFUNCTION :op 12 ') > 0
				OR strpos(body, '%[2]s') > 0 OR strpos(body, '%[3]s') > 0
				OR EXISTS (SELECT FROM name WHERE strpos(body, call) > 0)
			ELSE strpos(body, 'session_user') > 0 OR strpos(body, 'system_user') > 0
				OR strpos(body, 'session_authorization') > 0 END)
	SELECT long, name, total::int4 FROM (SELECT long, name, row_number() OVER (PARTITION BY long ORDER BY name) AS n,
			count(*) OVER (PARTITION BY long) AS total
		FROM (SELECT DISTINCT long, CASE kind
			WHEN 1 THEN (SELECT 'policy ' || quote_ident(polname) || ' on ' || polrelid::regclass::text
				FROM pg_policy WHERE oid = id)
			WHEN 2 THEN (SELECT 'default of a column of ' || adrelid::regclass::text FROM pg_attrdef WHERE oid = id)
			WHEN 3 THEN (SELECT 'rule or view ' || ev_class::regclass::text FROM pg_rewrite WHERE oid = id)
			ELSE 'function ' || id::regprocedure::text END AS name FROM marked) named WHERE name IS NOT NULL) numbered
	WHERE n <= 20 ORDER BY long, name`

// readsSessionAt returns the query for a version of the server: since PostgreSQL 14 the body of a
// function may be stored as it was understood.
func readsSessionAt(release int) string {
	understood := ""
	if release >= 140000 {
		understood = ", (true, p.prosqlbody::text)"
	}
	const setting = "session_authorization"
	return fmt.Sprintf(readsSession, understood, bytesIn(setting), bytesIn(strings.ToUpper(setting)))
}

// bytesIn returns a part of a constant as stored expressions spell it.
func bytesIn(text string) string {
	list := fmt.Sprint([]byte(text))
	return list[1 : len(list)-1]
}
