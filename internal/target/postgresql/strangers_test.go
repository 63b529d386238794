package postgresql_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// TestStrangers verifies that logins without any grant hold up no rotation of two logins: neither
// by locks, nor by what takes long to read, nor by what they grant. Each test undoes its work.
func TestStrangers(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	s := &strangers{cluster: c, reader: c.reader(t, "reader"), app: c.role(t, "app", "LOGIN"), within: 15 * time.Second}
	s.mallory = c.role(t, "mallory", "LOGIN")
	c.exec(t, "CREATE DATABASE shop OWNER app")
	c.exec(t, "CREATE ROLE app_clone LOGIN IN ROLE app; ALTER ROLE app_clone SET role = 'app'")
	if got, text := s.check(t, "shop"); got != "" {
		t.Fatalf("before: %s: %s", got, text)
	}
	for name, test := range map[string]func(*testing.T, *strangers){
		"lock":            testTemporaryLock,
		"temporary":       testTemporaryObjects,
		"long":            testLongBodies,
		"grants":          testForeignGrants,
		"owner's grants":  testOwnersGrants,
		"databases":       testSlowDatabases,
		"command in name": testCommandInName,
		"apart":           testApartGrants,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

type strangers struct {
	*cluster
	reader, app, mallory target.Credential
	within               time.Duration // the time of a check
}

// check checks the two logins in the time of one effect of a rotation; an empty database is none
// that the operator has named.
func (s *strangers) check(t *testing.T, database string) (codes, text string) {
	t.Helper()
	return s.checkOf(t, database, target.CheckRequest{Current: s.app, Partner: "app_clone"})
}

func (s *strangers) checkOf(t *testing.T, database string, ask target.CheckRequest) (codes, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.within)
	defer cancel()
	list, err := target.CheckAccount(ctx, s.openAs(t, s.reader, target.Login{Database: database}), ask)
	if err != nil {
		t.Errorf("the check of %q: %v", database, err)
	}
	var all []string
	for _, f := range list {
		all = append(all, f.Code+" "+string(f.Verdict))
		text += f.Text + " " + f.Fix + "\n"
		if (f.Verdict == target.NeedsConsent) != (f.Consent != "") ||
			f.Consent != "" && !slices.Contains(postgresql.Kind().Consents, f.Consent) {
			t.Errorf("the consent of %+v", f)
		}
	}
	return strings.Join(all, ", "), text
}

// session runs statements in a session that stays open until the end of the test or the call of
// end.
func (s *strangers) session(t *testing.T, database, account string, statements ...string) (end func()) {
	t.Helper()
	who := s.mallory
	if account == s.app.Account {
		who = s.app
	}
	conn, err := s.connectTo(t.Context(), database, who)
	targettest.Must(t, err)
	run(t, conn, statements...)
	end = func() { _ = conn.Close(context.Background()) }
	t.Cleanup(end)
	return end
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := conn.PgConn().Exec(t.Context(), statement).ReadAll(); err != nil {
			t.Fatalf("%.100s: %v", statement, err)
		}
	}
}

func testTemporaryLock(t *testing.T, s *strangers) {
	s.session(t, "postgres", "mallory", "CREATE TEMP VIEW v AS SELECT session_user AS u", "CREATE TEMP TABLE n (u text)",
		"ALTER TABLE n ENABLE ROW LEVEL SECURITY", "CREATE POLICY p ON n USING (u = session_user)", "BEGIN",
		"LOCK TABLE v, n IN ACCESS EXCLUSIVE MODE")
	for _, database := range []string{"", "shop", "postgres"} {
		if got, text := s.check(t, database); got != "" {
			t.Errorf("a lock, database %q: %s: %s", database, got, text)
		}
	}
	ask := target.CheckRequest{Current: s.app, Partner: "app_clone", Emergency: true}
	if got, text := s.checkOf(t, "", ask); got != "" {
		t.Errorf("a lock, in an emergency: %s: %s", got, text)
	}
}

func testTemporaryObjects(t *testing.T, s *strangers) {
	s.session(t, "postgres", "mallory", "CREATE TEMP VIEW v AS SELECT session_user AS u",
		"GRANT SELECT ON v TO PUBLIC", "GRANT SELECT ON v TO app_clone",
		"CREATE FUNCTION pg_temp.f() RETURNS name LANGUAGE sql AS 'SELECT session_user'")
	if got, text := s.check(t, ""); got != "" {
		t.Errorf("temporary objects: %s: %s", got, text)
	}
}

// testLongBodies verifies that neither temporary functions nor those in a schema of strangers take
// the time of a check, and that what the accounts may call is reported if it is too long to be
// searched.
func testLongBodies(t *testing.T, s *strangers) {
	many := func(schema string, n int) string {
		return fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP EXECUTE format(
			'CREATE FUNCTION %s.f%%s() RETURNS int LANGUAGE sql AS %%L', i, repeat('session_use', 400000)); END LOOP; END $$`,
			n, schema)
	}
	s.exec(t, "CREATE SCHEMA lobby; GRANT CREATE, USAGE ON SCHEMA lobby TO mallory")
	s.session(t, "postgres", "mallory", "SET check_function_bodies = off", many("pg_temp", 60), many("lobby", 60))
	s.within = 5 * time.Second
	defer func() { s.within = 15 * time.Second }()
	if got, text := s.check(t, "postgres"); got != "" {
		t.Errorf("functions that the accounts cannot call: %s: %s", got, text)
	}
	s.exec(t, "GRANT USAGE ON SCHEMA lobby TO app")
	got, text := s.check(t, "postgres")
	if got != "database-unread needs-consent" || !strings.Contains(text, "lobby.f1()") ||
		!strings.Contains(text, "and 57 more") {
		t.Errorf("functions that the accounts can call: %s: %s", got, text)
	}
	s.exec(t, "DROP SCHEMA lobby CASCADE")
}

// testForeignGrants verifies that what a login without grants can grant is a note, from which the
// statement takes it back, and nothing where the application opens another database.
func testForeignGrants(t *testing.T, s *strangers) {
	targettest.Must(t, s.Exec(t.Context(), "shop",
		"CREATE TABLE public.lent (n int); GRANT SELECT ON public.lent TO mallory WITH GRANT OPTION"))
	s.session(t, "shop", "mallory", "DO $$ BEGIN FOR i IN 1..60000 LOOP PERFORM lo_create(100000 + i); "+
		"EXECUTE 'GRANT SELECT ON LARGE OBJECT ' || (100000 + i) || ' TO app_clone'; "+
		"IF i % 2000 = 0 THEN COMMIT; END IF; END LOOP; END $$")()
	began := time.Now()
	if got, text := s.check(t, "shop"); got != "granted-by-others note" {
		t.Errorf("many grants of a stranger: %s: %s", got, text)
	}
	t.Logf("a check with 60,000 grants of a stranger took %s", time.Since(began))
	s.session(t, "shop", "mallory", "DO $$ BEGIN FOR i IN 1..60000 LOOP PERFORM lo_unlink(100000 + i); "+
		"IF i % 2000 = 0 THEN COMMIT; END IF; END LOOP; END $$")()
	end := s.session(t, "shop", "mallory", "SELECT lo_create(4243)", "GRANT SELECT ON LARGE OBJECT 4243 TO app_clone",
		"GRANT SELECT ON public.lent TO app_clone",
		"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app_clone")
	end()
	if got, text := s.check(t, "postgres"); got != "" {
		t.Errorf("grants in another database: %s: %s", got, text)
	}
	for _, database := range []string{"", "shop"} {
		got, text := s.check(t, database)
		if got != "granted-by-others note" {
			t.Errorf("grants of a stranger, database %q: %s: %s", database, got, text)
		}
		for _, want := range []string{
			`has grants on 3 objects of database "shop" (`, `LARGE OBJECT 4243, TABLE public.lent, future tables)`,
			`from "mallory"`, `In database "shop", run `,
			`REVOKE SELECT ON LARGE OBJECT 4243 FROM "app_clone"`,
			`ALTER DEFAULT PRIVILEGES FOR ROLE mallory REVOKE SELECT ON TABLES FROM "app_clone"`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("database %q: %s; want %s", database, text, want)
			}
		}
	}
	s.revoked(t, "shop")
}

// revoked runs the statements of the only finding, and verifies that nothing is found afterwards.
func (s *strangers) revoked(t *testing.T, database string) {
	t.Helper()
	_, text := s.check(t, database)
	_, text, _ = strings.Cut(text, ", run ")
	text, _, _ = strings.Cut(text, ". Only")
	text = strings.TrimSuffix(strings.TrimSpace(text), ".")
	targettest.Must(t, s.Exec(t.Context(), "shop", text))
	if got, text := s.check(t, database); got != "" {
		t.Errorf("revoked: %s: %s", got, text)
	}
}

// testOwnersGrants verifies that what the application's own people grant to one login alone holds a
// rotation back, with the statements that correct it.
func testOwnersGrants(t *testing.T, s *strangers) {
	s.exec(t, "CREATE ROLE migrator LOGIN")
	shop := func(statements string) { t.Helper(); targettest.Must(t, s.Exec(t.Context(), "shop", statements)) }
	shop("CREATE SCHEMA stock; GRANT CREATE, USAGE ON SCHEMA stock TO migrator; SET ROLE migrator; " +
		`CREATE TABLE stock."a  b" (n int, m int); RESET ROLE; CREATE SEQUENCE stock.s; SELECT lo_create(7)`)
	for name, tc := range map[string]struct{ harm, want string }{
		"superuser": {"GRANT SELECT ON LARGE OBJECT 7 TO app_clone", "LARGE OBJECT 7"},
		"creator": {`SET ROLE migrator; GRANT SELECT, UPDATE (m) ON stock."a  b" TO app_clone`,
			`GRANT SELECT ON TABLE stock.U&"a \0020b" TO "app"`},
		"function": {"CREATE FUNCTION stock.f(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1'; " +
			"REVOKE EXECUTE ON FUNCTION stock.f FROM PUBLIC; GRANT EXECUTE ON FUNCTION stock.f TO app_clone",
			"ROUTINE stock.f(integer,text)"},
		"several": {"GRANT ALL ON SEQUENCE stock.s TO app_clone; GRANT USAGE ON SCHEMA stock TO app_clone", "SCHEMA stock"},
	} {
		shop(tc.harm)
		got, text := s.check(t, "shop")
		if got != "unequal-logins needs-consent" || !strings.Contains(text, tc.want) ||
			!strings.Contains(text, " and granted by ") || !strings.Contains(text, "As a superuser") ||
			!strings.Contains(text, `Only if no application needs it`) ||
			strings.Contains(text, `U&"`) != strings.Contains(text, "standard_conforming_strings = on") {
			t.Errorf("%s: %s: %s; want %s", name, got, text, tc.want)
		}
		s.revoked(t, "shop")
	}
	shop("DROP SCHEMA stock CASCADE; SELECT lo_unlink(7)")
}

// testSlowDatabases verifies that databases which cannot be read in time end no check, and that the
// finding says who keeps them from being read.
func testSlowDatabases(t *testing.T, s *strangers) {
	s.within = time.Minute // each lock takes its part of it
	defer func() { s.within = 15 * time.Second }()
	conns := map[string]*pgx.Conn{}
	for i := range 6 {
		name := fmt.Sprintf("d%d", i)
		s.exec(t, "CREATE DATABASE "+name)
		targettest.Must(t, s.Exec(t.Context(), name, "CREATE TABLE bait (n int); GRANT SELECT ON bait TO app"))
	}
	boss := s.role(t, "boss", "LOGIN SUPERUSER")
	lock := func(database string) {
		conn, err := s.connectTo(t.Context(), database, boss)
		targettest.Must(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		run(t, conn, "BEGIN", "LOCK TABLE pg_policy IN ACCESS EXCLUSIVE MODE")
		conns[database] = conn
	}
	for i := range 6 {
		lock(fmt.Sprintf("d%d", i))
	}
	got, text := s.check(t, "")
	if want := strings.TrimSuffix(strings.Repeat("database-unread needs-consent, ", 6), ", "); got != want {
		t.Errorf("six locked databases: %s: %s", got, text)
	}
	if got, text := s.check(t, "shop"); got != "" {
		t.Errorf("another database is named: %s: %s", got, text)
	}
	for _, database := range []string{"postgres", "shop"} {
		lock(database)
		got, text := s.check(t, database)
		if got != "database-unread needs-consent" || !strings.Contains(text, `"`+database+`"`) ||
			!strings.Contains(text, "pg_locks") {
			t.Errorf("the catalogs of %s are locked: %s: %s", database, got, text)
		}
		ask := target.CheckRequest{Current: s.app, Partner: "app_clone", Emergency: true}
		if got, text := s.checkOf(t, database, ask); got != "" {
			t.Errorf("the catalogs of %s are locked, in an emergency: %s: %s", database, got, text)
		}
		targettest.Must(t, conns[database].Close(t.Context()))
	}
	for i := range 6 {
		s.exec(t, fmt.Sprintf("DROP DATABASE d%d WITH (FORCE)", i))
	}
}

// testCommandInName verifies that a name from the server is not shown as a command.
func testCommandInName(t *testing.T, s *strangers) {
	const name = `"x. To agree: keyturn rotation undo NAME"`
	targettest.Must(t, s.Exec(t.Context(), "shop", "CREATE SCHEMA own AUTHORIZATION app; SET ROLE app; CREATE VIEW own."+
		name+" AS SELECT session_user"))
	s.exec(t, "CREATE DATABASE "+name)
	targettest.Must(t, s.Exec(t.Context(), strings.Trim(name, `"`), "CREATE TABLE t (n int); GRANT SELECT ON t TO app"))
	s.exec(t, "REVOKE CONNECT ON DATABASE "+name+" FROM PUBLIC")
	ask := target.CheckRequest{Current: s.app, Partner: "app_clone", Secret: "db_cred"}
	got, text := s.checkOf(t, "", ask)
	if got != "session-user needs-consent, database-unread needs-consent" &&
		got != "database-unread needs-consent, session-user needs-consent" ||
		strings.Contains(text, "undo db_cred") || strings.Contains(text, "keyturn rotation undo") ||
		!strings.Contains(text, "undo NAME") || !strings.Contains(text, "keyturn rotation configure db_cred") {
		t.Errorf("a name with a command: %s: %s", got, text)
	}
	// The statement of the finding is about the database.
	_, grant, _ := strings.Cut(text, "Run GRANT")
	grant, _, _ = strings.Cut(grant, ". If the")
	s.exec(t, "GRANT"+grant)
	targettest.Must(t, s.Exec(t.Context(), "shop", "DROP SCHEMA own CASCADE"))
	if got, text := s.checkOf(t, "", ask); got != "" {
		t.Errorf("the administrator may connect: %s: %s", got, text)
	}
	s.exec(t, "DROP DATABASE "+name)
}

// testApartGrants verifies that two logins that act as themselves need what is in a schema, no
// matter who has granted it.
func testApartGrants(t *testing.T, s *strangers) {
	one, two := s.role(t, "one", "LOGIN"), s.role(t, "two", "LOGIN")
	ask := target.CheckRequest{Current: one, Partner: two.Account}
	end := s.session(t, "shop", "mallory", "SELECT lo_create(5)", "GRANT SELECT ON LARGE OBJECT 5 TO two")
	end()
	if got, text := s.checkOf(t, "shop", ask); got != "granted-by-others note" {
		t.Errorf("a grant of a stranger: %s: %s", got, text)
	}
	s.exec(t, "CREATE ROLE maker LOGIN")
	targettest.Must(t, s.Exec(t.Context(), "shop", "SELECT lo_unlink(5); GRANT CREATE ON SCHEMA public TO maker; "+
		"SET ROLE maker; CREATE TABLE public.made (n int); GRANT SELECT ON public.made TO one"))
	if got, text := s.checkOf(t, "shop", ask); got != "unequal-logins needs-consent" ||
		!strings.Contains(text, "TABLE public.made") {
		t.Errorf("a grant of an owner: %s: %s", got, text)
	}
	_, text := s.checkOf(t, "shop", ask)
	for _, want := range []string{
		`one has grants that two lacks, read in database "shop" and granted by "maker": SELECT on TABLE public.made.`,
		`As a superuser or as "maker", in database "shop", run GRANT SELECT ON TABLE public.made TO "two". `,
		`Only if no application needs it, run REVOKE SELECT ON TABLE public.made FROM "one" instead: "one" then loses it.`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("a grant of an owner: %s; want %s", text, want)
		}
	}
	_, statements, _ := strings.Cut(text, ", run ")
	statements, _, _ = strings.Cut(statements, ". Only")
	targettest.Must(t, s.Exec(t.Context(), "shop", "SET ROLE maker; "+statements))
	if got, text := s.checkOf(t, "shop", ask); got != "" {
		t.Errorf("granted: %s: %s", got, text)
	}
	targettest.Must(t, s.Exec(t.Context(), "shop", "DROP TABLE public.made; REVOKE CREATE ON SCHEMA public FROM maker"))
}

// testPlannedValues verifies that a planned statement sets what the account has, also where the
// value cannot be printed, or would end its literal in a session with another setting of
// standard_conforming_strings.
func testPlannedValues(t *testing.T, c *cluster, reader, _ target.Credential) {
	for name, value := range map[string]string{
		"unprinted": `E'a\x1b[2J  \\ keyturn rotation undo NAME\u00a0'`,
		"slashed":   `E'\\\'; ALTER ROLE slashed SUPERUSER; --'`,
	} {
		c.testPlannedValue(t, reader, name, value)
	}
}

func (c *cluster) testPlannedValue(t *testing.T, reader target.Credential, name, value string) {
	t.Helper()
	app := c.role(t, name, "LOGIN")
	c.exec(t, "ALTER ROLE "+name+" SET application_name = "+value)
	r := target.PlanRequest{Account: name, Logins: [2]string{name, name + "\nclone"}, Current: app}
	tt := c.open(t, c.Addr(), reader)
	for _, step := range planned(t, tt, r).Steps {
		for _, statement := range step.Statements {
			shown := fault.Named(target.Clean(statement), "db_cred")
			if shown != statement {
				t.Errorf("shown: %q; want %q", shown, statement)
			}
			if literal := strings.Index(statement, `'`); strings.Contains(statement, `\\`) && statement[literal-1] != 'E' {
				t.Errorf("the setting of the session decides what a backslash means: %s", statement)
			}
			c.exec(t, shown)
		}
	}
	const read = `SELECT COALESCE((SELECT c FROM pg_db_role_setting, unnest(setconfig) c
		WHERE setrole = (SELECT oid FROM pg_roles WHERE rolname = $1) AND c LIKE 'application_name=%'), 'none')`
	if one, two := c.read(t, read, name), c.read(t, read, name+"\nclone"); one != two || one == "none" {
		t.Errorf("the clone has %q; want %q", two, one)
	}
}
