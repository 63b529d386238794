package postgresql_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// as runs statements in a session of a credential.
func (c *cluster) as(t *testing.T, who target.Credential, statements ...string) error {
	t.Helper()
	conn, err := c.connect(t.Context(), who)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// until waits until a query says true.
func (c *cluster) until(t *testing.T, query string, arguments ...any) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx := targettest.Within(t); c.read(t, "SELECT ("+query+")::text", arguments...) != "true"; {
		select {
		case <-ctx.Done():
			t.Fatalf("never true: %s", query)
		case <-tick.C:
		}
	}
}

func planned(t *testing.T, tt target.Target, r target.PlanRequest) target.Plan {
	t.Helper()
	p, err := tt.(target.Preparer).PlanAccounts(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func proved(t *testing.T, tt target.Target, r target.PlanRequest, one, other target.Credential) error {
	t.Helper()
	_, err := tt.(target.Preparer).ProveAccounts(t.Context(), r, one, other)
	return err
}

func TestTwoLogins(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	t.Run("from one", func(t *testing.T) { testFromOne(t, c) })
	t.Run("as before", func(t *testing.T) { testStaysAsItWas(t, c) })
	t.Run("from an owner", func(t *testing.T) { testMigrates(t, c) })
	t.Run("of a team", func(t *testing.T) { testTeam(t, c) })
	t.Run("undone", func(t *testing.T) { testUndo(t, c) })
	t.Run("proof", func(t *testing.T) { testProof(t, c) })
	t.Run("proof in all databases", func(t *testing.T) { testProofEverywhere(t, c) })
	t.Run("without a right", func(t *testing.T) { testLackingRight(t, c) })
	t.Run("before and after", func(t *testing.T) { testBeforeAndAfter(t, c) })
	t.Run("refused", func(t *testing.T) { testPlanRefuses(t, c) })
}

func testFromOne(t *testing.T, c *cluster) {
	for name, admin := range map[string]target.Credential{
		"reader": c.reader(t, "reader"),
		"blind":  c.role(t, "blind", "LOGIN CREATEROLE"),
	} {
		t.Run(name, func(t *testing.T) { twoLogins(t, c, c.open(t, c.Addr(), admin), name) })
	}
}

// belongings makes the database objects, grants and settings of a login.
func (c *cluster) belongings(t *testing.T, app target.Credential, prefix string) {
	t.Helper()
	name := id(app.Account)
	c.exec(t, "CREATE DATABASE "+prefix)
	targettest.Must(t, c.Exec(t.Context(), prefix,
		"CREATE TABLE elsewhere (n int); ALTER TABLE elsewhere OWNER TO "+name))
	c.exec(t, "GRANT SET ON PARAMETER app.tenant TO "+prefix)
	c.exec(t, "CREATE TABLE "+prefix+"_granted (n int, m int)")
	c.exec(t, "GRANT SELECT, UPDATE (m) ON "+prefix+"_granted TO "+name)
	c.exec(t, "CREATE SCHEMA "+prefix+" AUTHORIZATION "+name)
	c.exec(t, "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "+name)
	c.alter(t, app, "SET search_path = "+prefix+`, "$user", public`)
	c.alter(t, app, "IN DATABASE "+prefix+" SET work_mem = '5MB'")
	c.alter(t, app, "SET app.tenant = 'a=b, ''c'''")
	targettest.Must(t, c.as(t, app,
		"CREATE TABLE mine (n serial)", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"))
}

// attributes reads the limit, expiry, inheritance and settings of a role.
const attributes = `SELECT concat_ws(' ', rolconnlimit, rolvaliduntil = '2100-01-01', rolinherit,
		(SELECT string_agg(c, ' ' ORDER BY setdatabase, n)
			FROM pg_db_role_setting, unnest(setconfig) WITH ORDINALITY u (c, n) WHERE setrole = r.oid))
	FROM pg_roles r WHERE rolname = $1`

// twoLogins turns a login that is in use into two, and rotates.
func twoLogins(t *testing.T, c *cluster, tt target.Target, prefix string) {
	name := prefix + `'s "app"`
	app := c.role(t, name, "LOGIN CONNECTION LIMIT 7 VALID UNTIL '2100-01-01'")
	c.belongings(t, app, prefix)
	before, err := c.connect(t.Context(), app)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close(context.Background())

	r := target.PlanRequest{
		Account: name,
		Logins:  [2]string{name, name + "2"},
		Current: app,
	}
	p := planned(t, tt, r)
	shown, err := json.Marshal(p)
	if err != nil || strings.Contains(string(shown), "SCRAM") || strings.Contains(string(shown), app.Secret.Reveal()) {
		t.Fatalf("the plan cannot be shown, or shows too much: %v", err)
	}
	if len(p.Steps) != 1 || !strings.Contains(p.Steps[0].Statements[0], "LOGIN INHERIT CONNECTION LIMIT 7") {
		t.Fatalf("the plan: %s", shown)
	}
	stale := p
	stale.Steps = []target.PlanStep{{Database: "postgres", Statements: []string{"SELECT 1"}}}
	targettest.Expect(t, tt.(target.Preparer).ApplyPlan(t.Context(), stale), target.Denied, "plan again")
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	if again := planned(t, tt, r); len(again.Steps) != 0 {
		t.Errorf("planned again: %+v", again)
	}

	c.works(t, app, true)
	var one int
	if err := before.QueryRow(t.Context(), "SELECT count(*) FROM mine").Scan(&one); err != nil {
		t.Errorf("a session that was open: %v", err)
	}
	fresh, err := targetGenerate(t, tt, name+"2")
	targettest.Must(t, err)
	change := target.Change{ID: prefix, Strategy: target.Double, New: fresh, Old: app}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	targettest.Must(t, proved(t, tt, r, app, fresh))
	// Each login uses, changes and drops what the other one makes.
	targettest.Must(t, c.as(t, app,
		"CREATE TABLE by_one (n int)",
		"SELECT * FROM "+prefix+"_granted",
		"ALTER TABLE mine ADD m int"))
	targettest.Must(t, c.as(t, fresh,
		"INSERT INTO by_one VALUES (1)",
		"ALTER TABLE by_one ADD m int",
		"DROP TABLE by_one",
		"INSERT INTO mine DEFAULT VALUES",
		"SELECT f()",
		"UPDATE "+prefix+"_granted SET m = 1",
		"CREATE TABLE by_other (n int)"))
	targettest.Must(t, c.as(t, app, "DROP TABLE by_other"))
	want := `7 t t search_path=` + prefix + `, "$user", public app.tenant=a=b, 'c'%s work_mem=5MB`
	for login, role := range map[string]string{name: "", name + "2": " role=" + name} {
		if got, want := c.read(t, attributes, login), fmt.Sprintf(want, role); got != want {
			t.Errorf("%s has\n%s, want\n%s", login, got, want)
		}
	}
	targettest.Must(t, tt.Retire(targettest.Within(t), change))
	c.works(t, app, false)
	c.works(t, fresh, true)

	// The statements that poolers send between two clients keep the session in the account's role.
	for _, reset := range []string{"RESET ALL", "DISCARD ALL", "RESET role", "SET SESSION AUTHORIZATION DEFAULT"} {
		conn, err := c.connect(t.Context(), fresh)
		targettest.Must(t, err)
		_, err = conn.PgConn().Exec(t.Context(), reset).ReadAll()
		targettest.Must(t, err)
		results, err := conn.PgConn().Exec(t.Context(), "SELECT current_user").ReadAll()
		targettest.Must(t, err)
		if got := string(results[0].Rows[0][0]); got != name {
			t.Errorf("after %s the session acts as %s", reset, got)
		}
		targettest.Must(t, conn.Close(t.Context()))
	}

	// A right that only one login has is reported by the proof and refused by a plan.
	app, err = targetGenerate(t, tt, name)
	targettest.Must(t, err)
	third := target.Change{
		ID:       prefix + "3",
		Strategy: target.Double,
		New:      app,
		Old:      fresh,
	}
	targettest.Must(t, tt.Apply(targettest.Within(t), third))
	c.exec(t, "CREATE TABLE "+prefix+"_alone (n int); GRANT INSERT ON "+prefix+"_alone TO "+id(name+"2"))
	err = proved(t, tt, r, app, fresh)
	targettest.Expect(t, err, target.Denied, "belongs to the login alone: pg_class")
	_, err = tt.(target.Preparer).PlanAccounts(t.Context(), r)
	targettest.Expect(t, err, target.Denied, `has grants on 1 object of database "postgres"`)
	c.exec(t, "DROP TABLE "+prefix+"_alone; ALTER ROLE "+id(name+"2")+" RESET search_path")
	err = proved(t, tt, r, app, fresh)
	targettest.Expect(t, err, target.Denied, "setting search_path")
	r.Current = app
	repair := planned(t, tt, r)
	if got := fmt.Sprint(repair.Steps); !strings.Contains(got, `SET "search_path" = '`+prefix+`', '$user', 'public'`) {
		t.Errorf("the plan that repairs it: %s", got)
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), repair))
	targettest.Must(t, proved(t, tt, r, app, fresh))

	// The clone can be removed, and its objects stay.
	targettest.Must(t, c.as(t, fresh, "SET ROLE NONE", "CREATE TABLE "+prefix+"_strays (n int)"))
	r.Undo = true
	c.until(t, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = $1", name+"2")
	undo := planned(t, tt, r)
	if last := undo.Steps[len(undo.Steps)-1].Statements; last[len(last)-1] != "DROP ROLE "+id(name+"2") {
		t.Errorf("the plan to undo: %+v", undo.Steps)
	}
	err = tt.(target.Preparer).ApplyPlan(t.Context(), undo)
	targettest.Expect(t, err, target.Denied, "permission denied to reassign objects")
	if prefix == "reader" { // an administrator that is a member of the roles may give objects away
		options := ""
		if c.atLeast(16) {
			options = " WITH INHERIT TRUE, SET TRUE"
		}
		c.exec(t, "GRANT "+id(name)+", "+id(name+"2")+" TO "+prefix+options)
		targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), undo))
		targettest.Must(t, c.as(t, app, "DROP TABLE "+prefix+"_strays"))
		c.works(t, app, true)
	}
}

func targetGenerate(t *testing.T, tt target.Target, account string) (target.Credential, error) {
	t.Helper()
	return tt.(target.Generator).Generate(t.Context(), account, target.Credential{}, rand.Reader)
}

// work lists statements of an application with a role, a schema and tables of its own, all found by
// the name of the role that it acts as.
var work = []string{
	"SELECT * FROM mine",
	"INSERT INTO mine (n) VALUES (1)",
	"CREATE TABLE made (n int)",
	"ALTER TABLE made OWNER TO messy",
	"ALTER DEFAULT PRIVILEGES FOR ROLE messy GRANT SELECT ON TABLES TO PUBLIC",
	"DO $$ BEGIN ASSERT (SELECT count(*) FROM secured) = 1; END $$",
	"DO $$ BEGIN ASSERT (SELECT count(*) FROM guarded) = 1; END $$",
	"INSERT INTO secured DEFAULT VALUES",
	"DELETE FROM secured WHERE n IS NULL",
	"CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
	"ALTER PUBLICATION p ADD TABLE made",
	"DISCARD ALL",
	"SELECT * FROM mine",
	"DROP TABLE made",
	"ALTER SCHEMA messy OWNER TO messy",
	"GRANT SELECT ON mine TO PUBLIC",
	"REVOKE SELECT ON mine FROM PUBLIC",
	"SELECT pg_catalog.pg_cancel_backend(0)",
}

// messy makes an application that has grown for years.
func (c *cluster) messy(t *testing.T) target.Credential {
	t.Helper()
	app := c.role(t, "messy", "LOGIN")
	c.exec(t, `CREATE SCHEMA messy AUTHORIZATION messy; GRANT CREATE ON DATABASE postgres TO messy`)
	targettest.Must(t, c.as(t, app,
		"CREATE TABLE mine (n int)",
		"CREATE TABLE secured (owner text DEFAULT current_user, n int)",
		"ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
		"CREATE POLICY own ON secured USING (owner = current_user)",
		"INSERT INTO secured VALUES ('messy', 1)",
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE PUBLICATION p"))
	c.exec(t, `CREATE TABLE messy.guarded (owner text); ALTER TABLE messy.guarded ENABLE ROW LEVEL SECURITY;
		CREATE POLICY own ON messy.guarded USING (owner = current_user); GRANT SELECT ON messy.guarded TO messy;
		INSERT INTO messy.guarded VALUES ('messy'), ('other')`)
	return app
}

// testStaysAsItWas verifies that an application works with either login as it did before.
func testStaysAsItWas(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "admin", "LOGIN SUPERUSER"))
	app := c.messy(t)
	targettest.Must(t, c.as(t, app, work...))
	r := target.PlanRequest{Account: "messy", Logins: [2]string{"messy", "messy_clone"}, Current: app}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	targettest.Must(t, c.as(t, app, work...))
	clone, err := targetGenerate(t, tt, "messy_clone")
	targettest.Must(t, err)
	change := target.Change{ID: "messy", Strategy: target.Double, New: clone, Old: app}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	targettest.Must(t, c.as(t, clone, work...))
	targettest.Must(t, proved(t, tt, r, app, clone))
	targettest.Must(t, c.as(t, app, work...))

	// A clone that acts as itself is found.
	c.exec(t, "ALTER ROLE messy_clone RESET role")
	err = proved(t, tt, r, app, clone)
	targettest.Expect(t, err, target.Denied, `acts as ("messy", "messy_clone")`)
	c.exec(t, "ALTER ROLE messy_clone SET role = 'messy'")
}

// testMigrates leaves the scheme of earlier releases.
func testMigrates(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.reader(t, "migrates"))
	c.admins = append(c.admins, "migrates")
	app := c.role(t, "old", "LOGIN CONNECTION LIMIT 9")
	c.exec(t, `CREATE SCHEMA old AUTHORIZATION old; ALTER ROLE old SET work_mem = '5MB'`)
	targettest.Must(t, c.as(t, app, "CREATE TABLE mine (n int)"))
	verifier := c.read(t, "SELECT rolpassword FROM pg_authid WHERE rolname = 'old'")
	c.exec(t, `ALTER ROLE old RENAME TO old_owner; ALTER ROLE old_owner NOLOGIN PASSWORD NULL;
		CREATE ROLE old LOGIN CONNECTION LIMIT 9 IN ROLE old_owner PASSWORD '`+verifier+`';
		ALTER ROLE old SET work_mem = '6MB'; ALTER ROLE old SET role = 'old_owner';
		CREATE ROLE old_clone LOGIN CONNECTION LIMIT 9 IN ROLE old_owner;
		ALTER ROLE old_clone SET work_mem = '6MB'; ALTER ROLE old_clone SET role = 'old_owner'`)
	c.administer(t, "old_owner", "old", "old_clone")
	if c.as(t, app, "SELECT * FROM mine") == nil {
		t.Fatal("the old scheme finds the table: the test shows nothing")
	}
	open, err := c.connect(t.Context(), app)
	targettest.Must(t, err)
	defer open.Close(context.Background())

	legacy := target.PlanRequest{Account: "old", Owner: "old_owner", Logins: [2]string{"old", "old_clone"}, Current: app}
	if p := planned(t, tt, legacy); len(p.Steps) != 0 {
		t.Errorf("a plan for the scheme that is there: %+v", p.Steps)
	}
	r := legacy
	r.Owner = ""
	p := planned(t, tt, r)
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	if again := planned(t, tt, r); len(again.Steps) != 0 {
		t.Errorf("planned again: %+v", again.Steps)
	}
	targettest.Must(t, c.as(t, app, "SELECT * FROM mine", "DISCARD ALL", "DROP TABLE mine", "CREATE TABLE mine (n int)"))
	for _, statement := range []string{"SELECT * FROM old.mine", "RESET ALL", "INSERT INTO old.mine VALUES (1)"} {
		if _, err := open.PgConn().Exec(t.Context(), statement).ReadAll(); err != nil {
			t.Errorf("a session that was open: %s: %v", statement, err)
		}
	}
	clone, err := targetGenerate(t, tt, "old_clone")
	targettest.Must(t, err)
	targettest.Must(t, tt.Apply(targettest.Within(t),
		target.Change{ID: "old", Strategy: target.Double, New: clone, Old: app}))
	targettest.Must(t, c.as(t, clone, "SELECT * FROM mine", "CREATE TABLE more (n int)"))
	targettest.Must(t, proved(t, tt, p.Request, app, clone))
	if got := c.read(t, "SELECT rolconnlimit || ' ' || rolcanlogin FROM pg_roles WHERE rolname = 'old'"); got != "9 true" {
		t.Errorf("the account has limit and login %q", got)
	}
}

// testTeam verifies a plan for a login that acts as its team by a setting of its own.
func testTeam(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "teams", "LOGIN SUPERUSER"))
	app := c.role(t, "player", "LOGIN")
	c.exec(t, `CREATE ROLE team; CREATE ROLE others; GRANT team, others TO player; ALTER ROLE player SET role = 'team';
		CREATE SCHEMA team AUTHORIZATION team`)
	r := target.PlanRequest{Account: "player", Logins: [2]string{"player", "player_clone"}, Current: app}
	p := planned(t, tt, r)
	if p.Owner != "team" {
		t.Errorf("the logins act as %q", p.Owner)
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	clone := c.clone(t, tt, app, r)
	r.Owner = p.Owner
	targettest.Must(t, proved(t, tt, r, app, clone))
	targettest.Must(t, c.as(t, clone, "CREATE TABLE mine (n int)", "SET ROLE others", "RESET ROLE", "DROP TABLE mine"))
}

func testPlanRefuses(t *testing.T, c *cluster) {
	blind := c.role(t, "plans", "LOGIN CREATEROLE")
	tt := c.open(t, c.Addr(), blind)
	known := c.role(t, "app", "LOGIN")
	c.role(t, "super", "LOGIN SUPERUSER")
	c.role(t, "streams", "LOGIN REPLICATION")
	c.exec(t, "CREATE ROLE owns NOLOGIN; CREATE ROLE taken NOLOGIN")
	c.role(t, "used", "LOGIN")
	c.exec(t, "CREATE TABLE used (n int); ALTER TABLE used OWNER TO used")
	c.role(t, "set", "LOGIN")
	c.exec(t, "ALTER ROLE set SET work_mem = '5MB'")
	none := target.Credential{}
	long := strings.Repeat("x", 64)
	for _, refused := range []struct {
		account, owner, one, other string
		current                    target.Credential
		text                       string
	}{
		{"none", "", "none", "b", none, `there is no role "none"`},
		{"super", "", "super", "b", none, "superuser"},
		{"streams", "", "streams", "b", none, "REPLICATION"},
		{"app", "", "app", "app", none, "two roles"},
		{"app", "", "a", "b", none, "one of the two logins"},
		{"app", "taken", "app", "b", none, "does not act as"},
		{"app", "plans", "app", "b", none, "does not act as"},
		{"owns", "", "owns", "b", none, "cannot log in"},
		{"app", "", "app", "taken", known, "exists and cannot log in"},
		{"app", "", "app", "used", known, `has ownership of 1 object of database "postgres"; name another`},
		{"app", "", "app", "set", known, "settings of its own"},
		{"app", "", "app", long, known, "1 to 63 bytes"},
	} {
		_, err := tt.(target.Preparer).PlanAccounts(t.Context(), target.PlanRequest{
			Account: refused.account,
			Owner:   refused.owner,
			Logins:  [2]string{refused.one, refused.other},
			Current: refused.current,
		})
		if err == nil || !strings.Contains(err.Error(), refused.text) ||
			strings.Contains(err.Error(), blind.Secret.Reveal()) {
			t.Errorf("%v, want %q", err, refused.text)
		}
	}
	c.works(t, known, true)
}

// testProofEverywhere verifies that accounts are compared in each database that applications may
// open with them, and that the others are named.
func testProofEverywhere(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "wide_admin", "LOGIN SUPERUSER"))
	app := c.role(t, "wide", "LOGIN")
	c.exec(t, "CREATE ROLE wide_readers; GRANT wide_readers TO wide")
	c.exec(t, "CREATE DATABASE wide")
	c.exec(t, "CREATE DATABASE not_wide")
	c.exec(t, "REVOKE CONNECT ON DATABASE not_wide FROM PUBLIC")
	targettest.Must(t, c.Exec(t.Context(), "wide", "CREATE TABLE t (n int); GRANT SELECT ON t TO wide_readers"))
	targettest.Must(t, c.Exec(t.Context(), "not_wide", "CREATE TABLE t (n int); GRANT SELECT ON t TO wide"))
	r := target.PlanRequest{Account: "wide", Logins: [2]string{"wide", "wide_clone"}, Current: app}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	clone := c.clone(t, tt, app, r)
	proof, err := tt.(target.Preparer).ProveAccounts(t.Context(), r, app, clone)
	targettest.Must(t, err)
	if got := strings.Join(proof.Databases, ","); got != "postgres,wide" || len(proof.Left) != 1 ||
		!strings.Contains(proof.Left[0], `"not_wide", to which wide cannot connect (42501)`) {
		t.Errorf("compared in %s; not compared: %q", got, proof.Left)
	}
	c.exec(t, "ALTER DATABASE wide SET role = 'wide_readers'") // the clone has a role of its own
	targettest.Expect(t, proved(t, tt, r, app, clone), target.Denied, `in database "wide": they differ in acts as`)
	r.Databases = []string{"postgres"}
	targettest.Must(t, proved(t, tt, r, app, clone))
}

// testLackingRight verifies that a plan says which settings the administrator may not give to the
// clone, that the failure of the statement says it, and that the statement which both name helps.
func testLackingRight(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.reader(t, "lacking"))
	app := c.role(t, "lacked", "LOGIN")
	c.exec(t, `ALTER ROLE lacked SET app.tenant = '1'; ALTER ROLE lacked SET log_duration = 'off';
		ALTER ROLE lacked SET work_mem = '5MB'`)
	r := target.PlanRequest{Account: "lacked", Logins: [2]string{"lacked", "lacked_clone"}, Current: app}
	const grant = `GRANT SET ON PARAMETER "app"."tenant", "log_duration" TO "lacking"`
	p := planned(t, tt, r)
	if len(p.Notes) == 0 || !strings.HasSuffix(p.Notes[0], "so the plan will fail. Run "+grant+" first.") {
		t.Errorf("noted: %q, want %s", p.Notes, grant)
	}
	targettest.Expect(t, tt.(target.Preparer).ApplyPlan(t.Context(), p), target.Denied, grant)
	c.exec(t, grant)
	if p = planned(t, tt, r); strings.Contains(strings.Join(p.Notes, ";"), "GRANT SET") {
		t.Errorf("noted after the grant: %q", p.Notes)
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
}
