package postgresql_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

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

func planned(t *testing.T, tt target.Target, r target.PlanRequest) target.Plan {
	t.Helper()
	p, err := tt.(target.Preparer).PlanAccounts(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTwoLogins(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	t.Run("from one", func(t *testing.T) { testFromOne(t, c) })
	t.Run("of an owner", func(t *testing.T) { testOfAnOwner(t, c) })
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
		Owner:   prefix + "_owner",
		Logins:  [2]string{name, name + "2"},
		Current: app,
	}
	p := planned(t, tt, r)
	shown, err := json.Marshal(p)
	if err != nil || strings.Contains(string(shown), "SCRAM") || strings.Contains(string(shown), app.Secret.Reveal()) {
		t.Fatalf("the plan cannot be shown, or shows too much: %v", err)
	}
	if len(p.Steps) != 1 || !strings.Contains(p.Steps[0].Statements[0], "RENAME TO") {
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
	targettest.Must(t, tt.(target.Preparer).ProveAccounts(t.Context(), r, app, fresh))
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
	want := `7 t t search_path=` + prefix + `, "$user", public app.tenant=a=b, 'c' role=` + prefix + `_owner work_mem=5MB`
	for _, login := range []string{name, name + "2"} {
		if got := c.read(t, attributes, login); got != want {
			t.Errorf("%s has\n%s, want\n%s", login, got, want)
		}
	}
	targettest.Must(t, tt.Retire(targettest.Within(t), change))
	c.works(t, app, false)
	c.works(t, fresh, true)

	// The statements that poolers send between two clients keep the session in the owner's role.
	for _, reset := range []string{"RESET ALL", "DISCARD ALL", "RESET role", "SET SESSION AUTHORIZATION DEFAULT"} {
		conn, err := c.connect(t.Context(), fresh)
		targettest.Must(t, err)
		_, err = conn.PgConn().Exec(t.Context(), reset).ReadAll()
		targettest.Must(t, err)
		results, err := conn.PgConn().Exec(t.Context(), "SELECT current_user").ReadAll()
		targettest.Must(t, err)
		if got := string(results[0].Rows[0][0]); got != r.Owner {
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
	c.exec(t, "CREATE TABLE "+prefix+"_alone (n int); GRANT INSERT ON "+prefix+"_alone TO "+id(name))
	err = tt.(target.Preparer).ProveAccounts(t.Context(), r, app, fresh)
	targettest.Expect(t, err, target.Denied, "relation "+prefix+"_alone")
	_, err = tt.(target.Preparer).PlanAccounts(t.Context(), r)
	targettest.Expect(t, err, target.Denied, "grants of its own on 1 objects")
}

func targetGenerate(t *testing.T, tt target.Target, account string) (target.Credential, error) {
	t.Helper()
	return tt.(target.Generator).Generate(t.Context(), account, target.Credential{}, rand.Reader)
}

// testOfAnOwner begins with roles that an administrator has half prepared.
func testOfAnOwner(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "admin", "LOGIN SUPERUSER"))
	c.exec(t, "CREATE ROLE own NOLOGIN; GRANT CREATE ON SCHEMA public TO own")
	one := c.role(t, "one", "LOGIN")
	c.exec(t, "CREATE DATABASE second")
	c.exec(t, "CREATE TABLE here (n int); ALTER TABLE here OWNER TO one")
	targettest.Must(t, c.Exec(t.Context(), "second", "CREATE TABLE there (n int); ALTER TABLE there OWNER TO one"))
	r := target.PlanRequest{Account: "own", Logins: [2]string{"one", "two"}}
	p := planned(t, tt, r)
	var databases []string
	for _, step := range p.Steps {
		databases = append(databases, step.Database+": "+step.Statements[len(step.Statements)-1])
	}
	want := []string{
		`postgres: ALTER ROLE "two" SET role = 'own'`,
		`postgres: REASSIGN OWNED BY "one" TO "own"`,
		`second: REASSIGN OWNED BY "one" TO "own"`,
	}
	if !slices.Equal(databases, want) {
		t.Errorf("the plan is\n%q, want\n%q", databases, want)
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	if again := planned(t, tt, r); len(again.Steps) != 0 {
		t.Errorf("planned again: %+v", again)
	}
	two, err := targetGenerate(t, tt, "two")
	targettest.Must(t, err)
	targettest.Must(
		t,
		tt.Apply(targettest.Within(t), target.Change{ID: "x", Strategy: target.Double, New: two, Old: one}),
	)
	targettest.Must(t, tt.(target.Preparer).ProveAccounts(t.Context(), r, one, two))
	targettest.Must(t, c.as(t, two, "DROP TABLE here"))
	c.exec(t, "ALTER ROLE two RESET role")
	err = tt.(target.Preparer).ProveAccounts(t.Context(), r, one, two)
	targettest.Expect(t, err, target.Denied, `acts as "two"`)
}

func testPlanRefuses(t *testing.T, c *cluster) {
	blind := c.role(t, "plans", "LOGIN CREATEROLE")
	tt := c.open(t, c.Addr(), blind)
	known := c.role(t, "app", "LOGIN")
	c.role(t, "super", "LOGIN SUPERUSER")
	c.role(t, "streams", "LOGIN REPLICATION")
	c.exec(t, "CREATE ROLE owns NOLOGIN; CREATE ROLE taken NOLOGIN")
	wrong := known
	wrong.Secret = blind.Secret
	none := target.Credential{}
	long := strings.Repeat("x", 64)
	for _, refused := range []struct {
		account, owner, one, other string
		current                    target.Credential
		text                       string
	}{
		{"none", "", "a", "b", none, `there is no role "none"`},
		{"super", "", "a", "b", none, "superuser"},
		{"streams", "", "a", "b", none, "REPLICATION"},
		{"app", "", "a", "a", none, "three roles"},
		{"app", "app", "a", "b", none, "name another owner"},
		{"app", "plans", "a", "b", none, "name another owner"},
		{"owns", "x", "a", "b", none, "name no other"},
		{"app", "", "app", "b", none, `the password of "app" is needed`},
		{"app", "", "app", "b", wrong, "28P01"},
		{"app", "", "app", "taken", known, "exists and cannot log in"},
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
