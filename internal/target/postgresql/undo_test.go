package postgresql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// rightsOf is all that the server stores about rights in one database and in the catalogs that all
// share: owners and access lists, roles, memberships, settings, default privileges and policies.
const rightsOf = `SELECT string_agg(line, E'\n' ORDER BY line) FROM (
	SELECT concat_ws(' ', 'dependency', classid::regclass, dbid, objid, objsubid, refobjid, deptype) line
		FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
	UNION ALL SELECT concat_ws(' ', 'role', oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
		rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil, rolpassword) FROM pg_authid
	UNION ALL SELECT concat_ws(' ', 'setting', setrole, setdatabase, setconfig) FROM pg_db_role_setting
	UNION ALL SELECT 'member ' || (to_jsonb(m) - 'oid')::text FROM pg_auth_members m
	UNION ALL SELECT concat_ws(' ', 'label', objoid, provider, label) FROM pg_shseclabel
	UNION ALL SELECT concat_ws(' ', 'defaults', defaclrole, defaclnamespace, defaclobjtype, defaclacl) FROM pg_default_acl
	UNION ALL SELECT concat_ws(' ', 'relation', oid, relowner, relacl, relrowsecurity) FROM pg_class
	UNION ALL SELECT concat_ws(' ', 'column', attrelid, attnum, attacl) FROM pg_attribute WHERE attacl IS NOT NULL
	UNION ALL SELECT concat_ws(' ', 'function', oid, proowner, proacl, prosecdef, proconfig) FROM pg_proc
	UNION ALL SELECT concat_ws(' ', 'type', oid, typowner, typacl) FROM pg_type
	UNION ALL SELECT concat_ws(' ', 'schema', oid, nspowner, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_t'
	UNION ALL SELECT concat_ws(' ', 'database', oid, datdba, datacl) FROM pg_database
	UNION ALL SELECT concat_ws(' ', 'large object', oid, lomowner, lomacl) FROM pg_largeobject_metadata
	UNION ALL SELECT concat_ws(' ', 'policy', oid, polroles, polqual) FROM pg_policy
	UNION ALL SELECT concat_ws(' ', 'publication', oid, pubowner) FROM pg_publication
	UNION ALL SELECT concat_ws(' ', 'extension', oid, extowner) FROM pg_extension
	UNION ALL SELECT concat_ws(' ', 'server', oid, srvowner, srvacl) FROM pg_foreign_server
	UNION ALL SELECT concat_ws(' ', 'mapping', umid, umuser, srvid) FROM pg_user_mappings) x`

// grown makes an application with every kind of object and right that a role can have in a
// database, and others that it has not.
func (c *cluster) grown(t *testing.T, name string) target.Credential {
	t.Helper()
	app := c.role(t, name, "LOGIN CREATEDB CONNECTION LIMIT 9 VALID UNTIL '2100-01-01'")
	c.exec(t, strings.ReplaceAll(`CREATE SCHEMA app AUTHORIZATION app; GRANT CREATE ON DATABASE postgres TO app;
		CREATE ROLE app_reads; CREATE ROLE app_others; GRANT app_reads TO app;
		ALTER ROLE app SET work_mem = '5MB'; ALTER ROLE app IN DATABASE postgres SET statement_timeout = '1min';
		ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT ON TABLES TO app_reads;
		ALTER DEFAULT PRIVILEGES FOR ROLE app_others GRANT SELECT ON TABLES TO app;
		CREATE TABLE app.lent (n int, m int);
		GRANT SELECT ON app.lent TO app WITH GRANT OPTION; GRANT UPDATE (m) ON app.lent TO app;
		CREATE FOREIGN DATA WRAPPER app_wrapper; CREATE SERVER app_server FOREIGN DATA WRAPPER app_wrapper;
		GRANT USAGE ON FOREIGN SERVER app_server TO app; CREATE USER MAPPING FOR app SERVER app_server`, "app", name))
	targettest.Must(t, c.as(t, app, strings.Split(strings.ReplaceAll(`CREATE SEQUENCE counts
		CREATE TABLE mine (n int, who text DEFAULT current_user)
		ALTER TABLE mine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY
		CREATE POLICY own ON mine TO app USING (who = current_user)
		INSERT INTO mine DEFAULT VALUES
		CREATE DOMAIN small AS int
		CREATE COLLATION mine FROM "C"
		CREATE FUNCTION f() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = app AS 'SELECT current_user'
		CREATE PUBLICATION app_news FOR TABLE mine
		SELECT lo_create(0)`, "app", name), "\n")...))
	return app
}

// clone gives a second login its password.
func (c *cluster) clone(t *testing.T, tt target.Target, app target.Credential, r target.PlanRequest) target.Credential {
	t.Helper()
	clone, err := targetGenerate(t, tt, r.Logins[1])
	targettest.Must(t, err)
	change := target.Change{ID: r.Logins[1], Strategy: target.Double, New: clone, Old: app}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	return clone
}

// testUndo verifies that a clone that was used leaves every right as it was before.
func testUndo(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "undoes", "LOGIN SUPERUSER"))
	app := c.grown(t, "grown")
	before := c.read(t, rightsOf)
	r := target.PlanRequest{Account: "grown", Logins: [2]string{"grown", "grown_clone"}, Current: app}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	clone := c.clone(t, tt, app, r)
	targettest.Must(t, proved(t, tt, r, app, clone))
	targettest.Must(t, c.as(t, clone,
		"CREATE TABLE passing (n int)", "DROP TABLE passing", "SET ROLE NONE", "CREATE TEMPORARY TABLE own (n int)"))
	c.exec(t, "GRANT SELECT ON grown.lent TO grown_clone")
	c.until(t, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'grown_clone'")
	r.Undo = true
	c.exec(t, "ALTER ROLE grown PASSWORD NULL")
	_, err := tt.(target.Preparer).PlanAccounts(t.Context(), r)
	targettest.Expect(t, err, target.Denied, `the one in use is of "grown_clone": give the applications one`,
		`ALTER ROLE "grown" PASSWORD '…'`)
	verifier := c.stored(t, clone.Account)
	c.exec(t, "ALTER ROLE grown PASSWORD '"+verifier+"'")
	before = replacedPassword(before, verifier)
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	if after := c.read(t, rightsOf); after != before {
		t.Errorf("the rights differ:\n%s", difference(before, after))
	}
	if again := planned(t, tt, r); len(again.Steps) != 0 {
		t.Errorf("planned again: %+v", again.Steps)
	}
}

// replacedPassword returns the rights with the verifier that the test has given the account.
func replacedPassword(rights, verifier string) string {
	lines := strings.Split(rights, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "role ") && strings.Contains(line, " grown ") {
			lines[i] = line[:strings.LastIndex(line, " ")+1] + verifier
		}
	}
	return strings.Join(lines, "\n")
}

// difference lists the lines that only one of two texts has.
func difference(one, other string) string {
	var out []string
	for _, side := range []struct{ sign, has, lacks string }{{"-", one, other}, {"+", other, one}} {
		for line := range strings.SplitSeq(side.has, "\n") {
			if !strings.Contains("\n"+side.lacks+"\n", "\n"+line+"\n") {
				out = append(out, side.sign+line)
			}
		}
	}
	return strings.Join(out, "\n")
}

// testProof verifies that each kind of difference between the logins is found.
func testProof(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "proves", "LOGIN SUPERUSER"))
	app := c.grown(t, "proven")
	r := target.PlanRequest{
		Account:   "proven",
		Logins:    [2]string{"proven", "proven_clone"},
		Databases: []string{"postgres"},
		Current:   app,
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	clone := c.clone(t, tt, app, r)
	prove := func() error { return proved(t, tt, r, app, clone) }
	targettest.Must(t, prove())
	const label = `SET allow_system_table_mods = on; INSERT INTO pg_shseclabel
		SELECT oid, 'pg_authid'::regclass, 'anon', 'MASKED' FROM pg_roles WHERE rolname = 'proven'`
	for _, tc := range []struct{ harm, want, repair string }{
		{"ALTER ROLE proven_clone CREATEDB BYPASSRLS", "", "ALTER ROLE proven_clone NOCREATEDB NOBYPASSRLS"},
		{"ALTER ROLE proven_clone CREATEROLE", "attributes of the login alone", "ALTER ROLE proven_clone NOCREATEROLE"},
		{"GRANT proven_others TO proven_clone", "may become proven_others", "REVOKE proven_others FROM proven_clone"},
		{label, "security label of the login by anon",
			"SET allow_system_table_mods = on; DELETE FROM pg_shseclabel"},
		{"ALTER ROLE proven_clone IN DATABASE postgres SET statement_timeout = '2min'", "setting of the login postgres",
			"ALTER ROLE proven_clone IN DATABASE postgres SET statement_timeout = '1min'"},
		{"ALTER ROLE proven_clone IN DATABASE postgres SET role = 'none'", "acts as",
			"ALTER ROLE proven_clone IN DATABASE postgres RESET role"},
		{"ALTER ROLE proven_clone RESET role", "acts as", "ALTER ROLE proven_clone SET role = 'proven'"},
		{"GRANT EXECUTE ON FUNCTION proven.f() TO proven_clone", "belongs to the login alone: pg_proc",
			"REVOKE EXECUTE ON FUNCTION proven.f() FROM proven_clone"},
		{"CREATE USER MAPPING FOR proven_clone SERVER proven_server", "belongs to the login alone: pg_user_mapping",
			"DROP USER MAPPING FOR proven_clone SERVER proven_server"},
	} {
		c.exec(t, tc.harm)
		if err := prove(); tc.want != "" {
			targettest.Expect(t, err, target.Denied, tc.want)
		} else if err == nil {
			t.Errorf("%s: not found", tc.harm)
		}
		c.exec(t, tc.repair)
		if err := prove(); err != nil {
			t.Errorf("%s, repaired: %v", tc.harm, err)
		}
	}
}

// testBeforeAndAfter verifies that a plan is compared by what the account could do before it and
// can do after it.
func testBeforeAndAfter(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "compares", "LOGIN SUPERUSER"))
	for name, tc := range map[string]struct{ watches, want string }{
		"rows of a policy": {`CREATE TABLE %[1]s.t AS SELECT 1 AS n; ALTER TABLE %[1]s.t ENABLE ROW LEVEL SECURITY,
				FORCE ROW LEVEL SECURITY, OWNER TO %[1]s;
			CREATE POLICY p ON %[1]s.t USING (NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s_clone'))`, "rows of"},
		"nothing": {"", ""},
	} {
		account := strings.ReplaceAll(name, " ", "_")
		app := c.role(t, account, "LOGIN")
		c.exec(t, "CREATE SCHEMA "+account+" AUTHORIZATION "+account+";"+fmt.Sprintf(tc.watches+"--%[1]s", account))
		r := target.PlanRequest{Account: account, Logins: [2]string{account, account + "_clone"}, Current: app}
		err := tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r))
		if tc.want == "" {
			targettest.Must(t, err)
			continue
		}
		targettest.Expect(t, err, target.Denied, "differs from before in "+tc.want)
	}
}
