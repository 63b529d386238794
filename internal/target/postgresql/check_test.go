package postgresql_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// findings checks an account, and returns "code verdict" of what is found, and all texts.
func findings(t *testing.T, tt target.Target, r target.CheckRequest) (codes, text string) {
	t.Helper()
	list, err := tt.(target.Checker).CheckAccount(targettest.Within(t), r)
	targettest.Must(t, err)
	var all []string
	for _, f := range list {
		all = append(all, f.Code+" "+string(f.Verdict))
		text += f.Text + " " + f.Fix + "\n"
		if f.Text == "" || (f.Verdict == target.NeedsConsent) != (f.Consent != "") ||
			f.Verdict == target.Impossible && f.Fix == "" {
			t.Errorf("the finding is incomplete: %+v", f)
		}
		if secret := r.Current.Secret.Reveal(); strings.Contains(f.Text+f.Fix, secret) {
			t.Errorf("%s holds the password", f.Code)
		}
	}
	return strings.Join(all, ", "), text
}

func testCheck(t *testing.T, c *cluster, reader, blind target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	c.exec(t, "CREATE DATABASE refuses")
	c.exec(t, "REVOKE CONNECT ON DATABASE refuses FROM PUBLIC")
	for _, tc := range []struct {
		change, want, text string
		login              target.Login
	}{
		{"INHERIT", "", "", target.Login{}},
		{"NOLOGIN", "no-login impossible", `LOGIN.`, target.Login{}},
		{"VALID UNTIL '2001-01-01'", "expired impossible", "VALID UNTIL 'infinity'", target.Login{}},
		{"CONNECTION LIMIT 0", "connection-limit impossible, connection-limit note", "proves the password", target.Login{}},
		{"PASSWORD NULL", "no-password impossible", "has no password", target.Login{}},
		{"INHERIT", "database-denied impossible, database-denied note",
			`GRANT CONNECT ON DATABASE "refuses" TO "app `, target.Login{Database: "refuses"}},
		{"INHERIT", "no-such-database impossible", "no database", target.Login{Database: "nowhere"}},
	} {
		who := c.account(t)
		c.alter(t, who, tc.change)
		got, text := findings(t, c.openAs(t, reader, tc.login), target.CheckRequest{Current: who})
		if got != tc.want || !strings.Contains(text, tc.text) {
			t.Errorf("%s: %s: %s; want %s", tc.change, got, text, tc.want)
		}
		for _, f := range targettest.Findings(t, c.openAs(t, reader, tc.login), target.CheckRequest{Current: who}) {
			if want := f.Code == "no-login" || f.Code == "expired"; f.Closed != want {
				t.Errorf("%s: %s says that no login succeeds: %t", tc.change, f.Code, f.Closed)
			}
		}
	}
	for _, change := range []string{"NOLOGIN", "VALID UNTIL '2001-01-01'"} {
		who := c.account(t)
		c.alter(t, who, change)
		_, text := findings(t, tt, target.CheckRequest{Current: who, Emergency: true})
		first, then := strings.Index(text, "PASSWORD NULL."), strings.LastIndex(text, "Run ALTER ROLE")
		if first < 0 || then < first {
			t.Errorf("%s, in an emergency: %q does not remove the leaked password before it opens the role", change, text)
		}
	}
	missing := c.account(t)
	missing.Account = "missing role"
	if got, _ := findings(t, tt, target.CheckRequest{Current: missing}); got != "no-such-account impossible" {
		t.Errorf("a role that does not exist: %s", got)
	}
	if list := targettest.Findings(t, tt, target.CheckRequest{Current: missing}); !list[0].Missing {
		t.Errorf("a role that does not exist is not probed: %+v", list)
	}
	md5 := c.account(t)
	c.md5(t, &md5)
	for _, tc := range []struct {
		admin   target.Credential
		methods string
		consent []string
		urgent  bool
		want    string
	}{
		{reader, `"scram-sha-256"`, nil, false, "md5-not-allowed impossible"},
		{reader, `"scram-sha-256"`, nil, true, "form-changes needs-consent"},
		{reader, `"scram-sha-256","md5"`, nil, false, "md5 note"},
		{reader, `"scram-sha-256","md5"`, nil, true, "md5 note"},
		{reader, `"scram-sha-256"`, []string{"form-changes"}, false, "form-changes needs-consent"},
		{blind, `"scram-sha-256","md5"`, nil, false, "form-changes needs-consent"},
		{blind, `"scram-sha-256"`, nil, false, ""},
	} {
		in := c.openWith(t, target.Settings{
			Config:  json.RawMessage(c.config(c.Addr(), `"require_auth":[`+tc.methods+`]`)),
			Admin:   tc.admin,
			Consent: tc.consent,
		})
		if got, _ := findings(t, in, target.CheckRequest{Current: md5, Emergency: tc.urgent}); got != tc.want {
			t.Errorf("a password stored as MD5, with %s and %v, in an emergency %v: %s; want %s",
				tc.methods, tc.consent, tc.urgent, got, tc.want)
		}
	}
}

// md5 gives a role a password that is stored as MD5.
func (c *cluster) md5(t *testing.T, who *target.Credential) {
	t.Helper()
	sum := md5.Sum([]byte(who.Secret.Reveal() + who.Account))
	c.alter(t, *who, "PASSWORD 'md5"+hex.EncodeToString(sum[:])+"'")
}

func (c *cluster) stored(t *testing.T, account string) string {
	t.Helper()
	return c.read(t, "SELECT COALESCE(rolpassword, '') FROM pg_authid WHERE rolname = $1", account)
}

// testForm verifies that a rotation keeps how the password in use is stored, unless the operator
// agrees. The other login has a password that is stored in another form. An emergency keeps MD5
// only where the target allows it, and no number of iterations: the holder of the leaked password
// may have chosen them.
func testForm(t *testing.T, c *cluster, reader, blind target.Credential) {
	const both, scram = `"md5","scram-sha-256"`, `"scram-sha-256"`
	for _, s := range postgresql.Kind().Strategies {
		for name, tc := range map[string]struct {
			admin   target.Credential
			consent []string
			md5     bool
			urgent  bool
			methods string
			want    string
		}{
			"MD5":                      {reader, nil, true, false, both, "md5"},
			"MD5, agreed":              {reader, []string{"form-changes"}, true, false, both, "SCRAM-SHA-256$4096:"},
			"MD5, not readable":        {blind, nil, true, false, both, "SCRAM-SHA-256$4096:"},
			"SCRAM":                    {reader, nil, false, false, both, "SCRAM-SHA-256$4321:"},
			"MD5, urgent":              {reader, nil, true, true, both, "md5"},
			"MD5, urgent, not allowed": {reader, nil, true, true, scram, "SCRAM-SHA-256$4096:"},
			"SCRAM, urgent":            {reader, nil, false, true, both, "SCRAM-SHA-256$4096:"},
		} {
			tt := c.openWith(t, target.Settings{
				Config:  json.RawMessage(c.config(c.Addr(), `"require_auth":[`+tc.methods+`]`)),
				Admin:   tc.admin,
				Consent: tc.consent,
			})
			change := newChange(t, c, tt, s)
			change.Emergency = tc.urgent
			if tc.md5 {
				c.md5(t, &change.Old)
			} else {
				c.exec(t, "ALTER ROLE "+id(change.Old.Account)+" PASSWORD '"+
					strings.Replace(c.stored(t, change.Old.Account), "$4096:", "$4321:", 1)+"'")
			}
			targettest.Must(t, tt.Apply(targettest.Within(t), change))
			targettest.Must(t, tt.Apply(targettest.Within(t), change))
			if got := c.stored(t, change.New.Account); !strings.HasPrefix(got, tc.want) {
				t.Errorf("%s, %s: stored %.20q, want %q", name, s, got, tc.want)
			}
			live, err := c.open(t, c.Addr(), reader).(target.Inspector).
				Inspect(t.Context(), []target.Credential{change.New})
			if err != nil || live[0] != target.Live {
				t.Errorf("%s, %s: %v, %v", name, s, live, err)
			}
		}
	}
}

// testCheckPair verifies the findings about two logins that are no longer equal, and that the
// statement in each finding repairs it.
func testCheckPair(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), c.role(t, "pairs", "LOGIN SUPERUSER"))
	app := c.role(t, "pair", "LOGIN")
	c.exec(t, "CREATE SCHEMA pair AUTHORIZATION pair; ALTER ROLE pair SET search_path = pair, public")
	r := target.PlanRequest{Account: "pair", Logins: [2]string{"pair", "pair_clone"}, Current: app}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	ask := target.CheckRequest{Current: app, Partner: "pair_clone"}
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("a new clone: %s: %s", got, text)
	}
	for _, tc := range []struct{ harm, want, repair string }{
		{"ALTER ROLE pair_clone RESET search_path", "unequal-logins needs-consent",
			`ALTER ROLE "pair_clone" SET "search_path" = 'pair', 'public'`},
		{"ALTER ROLE pair_clone RESET role", "unequal-logins needs-consent",
			`ALTER ROLE "pair_clone" SET role = 'pair'`},
		{"ALTER ROLE pair_clone NOLOGIN", "no-login impossible", `ALTER ROLE "pair_clone" LOGIN`},
		{"ALTER ROLE pair CONNECTION LIMIT 5", "unequal-logins needs-consent",
			`ALTER ROLE "pair_clone" CONNECTION LIMIT 5`},
		{"ALTER ROLE pair_clone CREATEDB BYPASSRLS", "unequal-logins needs-consent",
			`ALTER ROLE "pair_clone" NOBYPASSRLS; ALTER ROLE "pair_clone" NOCREATEDB`},
		{"CREATE ROLE others; GRANT others TO pair_clone", "unequal-logins needs-consent", "REVOKE others FROM pair_clone"},
		{"CREATE ROLE more; GRANT more TO pair_clone", "unequal-logins needs-consent", "GRANT more TO pair"},
		{"REVOKE pair FROM pair_clone", "not-a-member impossible", `GRANT "pair" TO "pair_clone"`},
		{"CREATE TABLE pair.stray (n int); ALTER TABLE pair.stray OWNER TO pair_clone", "unequal-logins needs-consent",
			`REASSIGN OWNED BY "pair_clone" TO "pair"`},
	} {
		c.exec(t, tc.harm)
		got, text := findings(t, tt, ask)
		if got != tc.want || !strings.Contains(text, tc.repair) {
			t.Errorf("%s: %s: %s; want %s", tc.harm, got, text, tc.want)
		}
		c.exec(t, tc.repair)
		if got, text := findings(t, tt, ask); got != "" {
			t.Errorf("%s, repaired: %s: %s", tc.harm, got, text)
		}
	}
	// The server refuses to make the account a member of its own member.
	c.exec(t, "CREATE ROLE circle; GRANT pair TO circle; GRANT circle TO pair_clone")
	if got, text := findings(t, tt, ask); got != "unequal-logins needs-consent" ||
		strings.Contains(text, "GRANT circle") ||
		!strings.Contains(text, "Only if no application needs it, run REVOKE circle FROM pair_clone") {
		t.Errorf("a member of the account: %s: %s", got, text)
	}
	c.exec(t, "DROP ROLE circle")
	// The credential in use may be the clone's.
	clone := app
	clone.Account = "pair_clone"
	c.exec(t, "ALTER ROLE pair_clone PASSWORD '"+c.stored(t, "pair")+"'")
	if got, text := findings(t, tt, target.CheckRequest{Current: clone, Partner: "pair"}); got != "" {
		t.Errorf("the clone in use: %s: %s", got, text)
	}
	c.exec(t, `CREATE TABLE pair.audited (who text); GRANT ALL ON pair.audited TO pair`)
	for what, tc := range map[string][2]string{
		"policy own on pair.audited": {`ALTER TABLE pair.audited ENABLE ROW LEVEL SECURITY;
			CREATE POLICY own ON pair.audited USING (who = session_user)`, "DROP POLICY own ON pair.audited"},
		"default of a column of pair.audited": {"ALTER TABLE pair.audited ALTER who SET DEFAULT session_user",
			"ALTER TABLE pair.audited ALTER who DROP DEFAULT"},
		"rule or view pair.own": {"CREATE VIEW pair.own AS SELECT FROM pair.audited WHERE who = session_user; " +
			"GRANT SELECT ON pair.own TO pair",
			"DROP VIEW pair.own"},
		"function pair.who()": {"CREATE FUNCTION pair.who() RETURNS name LANGUAGE sql AS 'SELECT session_user'",
			"DROP FUNCTION pair.who()"},
		"function pair.setting()": {"CREATE FUNCTION pair.setting() RETURNS text LANGUAGE sql AS " +
			"$$SELECT current_setting('session_authorization')$$", "DROP FUNCTION pair.setting()"},
		"function pair.system()": {"CREATE FUNCTION pair.system() RETURNS text LANGUAGE plpgsql AS " +
			"'BEGIN RETURN system_user; END'", "DROP FUNCTION pair.system()"},
		"function pair.login()": {"CREATE FUNCTION pair.login() RETURNS name LANGUAGE sql RETURN session_user",
			"DROP FUNCTION pair.login()"},
	} {
		c.exec(t, tc[0])
		if got, text := findings(t, tt, ask); got != "session-user needs-consent" || !strings.Contains(text, what) {
			t.Errorf("%s asks for session_user: %s: %s", what, got, text)
		}
		c.exec(t, tc[1])
	}
	// Another database in which the application has something counts, too.
	c.exec(t, "CREATE DATABASE elsewhere")
	targettest.Must(t, c.Exec(t.Context(), "elsewhere", "CREATE TABLE owned (who text); ALTER TABLE owned OWNER TO pair; "+
		"ALTER TABLE owned ALTER who SET DEFAULT session_user"))
	if got, text := findings(t, tt, ask); got != "session-user needs-consent" ||
		!strings.Contains(text, `a column of public.owned of database "elsewhere"`) {
		t.Errorf("another database: %s: %s", got, text)
	}
	named := c.openAs(t, c.role(t, "names", "LOGIN SUPERUSER"), target.Login{Database: "postgres"})
	if got, text := findings(t, named, ask); got != "" {
		t.Errorf("a database that the application does not open: %s: %s", got, text)
	}
	targettest.Must(t, c.Exec(t.Context(), "elsewhere", "DROP TABLE owned"))
	c.testByGroup(t, tt, ask)
	testForeignDatabase(t, c, tt, ask)
	ask.Partner = "no such role"
	if got, _ := findings(t, tt, ask); got != "no-such-account impossible" {
		t.Errorf("a partner that does not exist: %s", got)
	}
	// Two roles that have nothing of their own are equal; one that has is not.
	c.testApart(t, tt)
	one, two := c.account(t), c.account(t)
	ask = target.CheckRequest{Current: one, Partner: two.Account}
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("two plain roles: %s: %s", got, text)
	}
	c.exec(t, "CREATE TABLE pair.granted (n int); GRANT SELECT ON pair.granted TO "+id(one.Account))
	if got, text := findings(t, tt, ask); got != "unequal-logins needs-consent" {
		t.Errorf("a role with a grant of its own: %s: %s", got, text)
	}
	c.exec(t, "REVOKE ALL ON pair.granted FROM "+id(one.Account)+"; ALTER TABLE pair.granted OWNER TO "+id(one.Account))
	if got, text := findings(t, tt, ask); got != "unequal-logins needs-consent" ||
		!strings.Contains(text, "--account="+fault.ShellWord(one.Account)+" --clone=CLONE ") ||
		!strings.Contains(text, "CLONE is a new name, unless "+id(two.Account)) {
		t.Errorf("a role with an object of its own: %s: %s", got, text)
	}
}

// testApart verifies that two logins that act as themselves are compared like others: with what
// either of them has given itself, and with what only one of them has. Each finding has the
// statements that repair it.
func (c *cluster) testApart(t *testing.T, tt target.Target) {
	t.Helper()
	one, two := c.role(t, "apart", "LOGIN"), c.role(t, "apart_too", "LOGIN")
	c.exec(t, "CREATE ROLE apart_group; CREATE ROLE apart_more; CREATE ROLE apart_chief CREATEROLE")
	ask := target.CheckRequest{Current: one, Partner: two.Account}
	if c.read(t, "SELECT (current_setting('server_version_num')::int >= 160000)::text") == "true" {
		c.exec(t, "CREATE ROLE apart_guests; GRANT apart_guests TO apart, apart_too WITH SET FALSE") // which is no difference
	}
	targettest.Must(t, c.as(t, two, "ALTER ROLE apart_too SET default_transaction_read_only = on",
		"ALTER ROLE apart_too SET search_path = 'evil'", "ALTER ROLE apart_too SET statement_timeout = 1"))
	got, text := findings(t, tt, ask)
	if got != "unequal-logins needs-consent" ||
		!strings.Contains(text, `ALTER ROLE "apart_too" RESET "default_transaction_read_only"`) {
		t.Errorf("settings that a login has given itself: %s: %s", got, text)
	}
	c.exec(t, "ALTER ROLE apart_too RESET ALL")
	for _, tc := range []struct{ harm, repair string }{
		{"ALTER ROLE apart_too CONNECTION LIMIT 5", `ALTER ROLE "apart_too" CONNECTION LIMIT -1`},
		{"ALTER ROLE apart CREATEDB", `ALTER ROLE "apart_too" CREATEDB`},
		{"ALTER ROLE apart NOCREATEDB", `ALTER ROLE "apart_too" NOCREATEDB`},
		{"GRANT apart_group TO apart", "GRANT apart_group TO apart_too"},
		{"GRANT apart_more TO apart_too", "Run GRANT apart_more TO apart"},
		{"GRANT apart_chief TO apart_too", "Only if no application needs it, run REVOKE apart_chief FROM apart_too"},
		{"ALTER ROLE apart SET work_mem = '5MB'", `ALTER ROLE "apart_too" SET "work_mem" = '5MB'`},
	} {
		c.exec(t, tc.harm)
		got, text := findings(t, tt, ask)
		if got != "unequal-logins needs-consent" || !strings.Contains(text, tc.repair) {
			t.Errorf("two plain roles, %s: %s: %s; want %s", tc.harm, got, text, tc.repair)
		}
		_, repair, _ := strings.Cut(strings.ReplaceAll(text, ", run ", "Run "), "Run ")
		repair, _, _ = strings.Cut(repair, ". ")
		c.exec(t, strings.TrimSuffix(strings.TrimSpace(repair), "."))
		if got, text := findings(t, tt, ask); got != "" {
			t.Errorf("two plain roles, %s, repaired: %s: %s", tc.harm, got, text)
		}
	}
}

// testNoConnections verifies that a login that may have no session at all is no second login, and
// that the statement of the finding repairs it. With one login, the refusal proves the password.
func testNoConnections(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	one, two := c.role(t, "unlimited", "LOGIN"), c.role(t, "limited", "LOGIN CONNECTION LIMIT 0")
	ask := target.CheckRequest{Current: one, Partner: two.Account, Emergency: true}
	list, err := tt.(target.Checker).CheckAccount(targettest.Within(t), ask)
	targettest.Must(t, err)
	others := 0
	for _, f := range list {
		if f.Verdict == target.Impossible {
			others++
			if f.Code != "connection-limit" || f.InUse || f.Account != "limited" || len(f.Strategies) != 1 ||
				f.Fix != `Run ALTER ROLE "limited" CONNECTION LIMIT -1.` {
				t.Errorf("the partner: %+v", f)
			}
		}
	}
	if others != 1 {
		t.Errorf("the partner has %d findings: %+v", others, list)
	}
	list, err = tt.(target.Checker).CheckAccount(targettest.Within(t),
		target.CheckRequest{Current: two, Partner: one.Account, Emergency: true})
	targettest.Must(t, err)
	for _, f := range list {
		if f.Verdict == target.Impossible && !f.InUse {
			t.Errorf("an emergency of the account with the limit is held up: %+v", f)
		}
	}
	c.exec(t, `ALTER ROLE "limited" CONNECTION LIMIT -1`)
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("repaired: %s: %s", got, text)
	}
	super := c.role(t, "limited_super", "LOGIN SUPERUSER CONNECTION LIMIT 0")
	got, text := findings(t, tt, target.CheckRequest{Current: super})
	if got != "may-not-alter impossible" {
		t.Errorf("a superuser, for whom no limit holds: %s: %s", got, text)
	}
}

// testExpiresSoon verifies that the statements about the expiry of two logins stand together, so
// that they stay equal.
func testExpiresSoon(t *testing.T, c *cluster, reader, _ target.Credential) {
	const valid = "LOGIN VALID UNTIL '" + "%s" + "'"
	soon := time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339)
	one, two := c.role(t, "ending", fmt.Sprintf(valid, soon)), c.role(t, "ending_too", fmt.Sprintf(valid, soon))
	tt := c.open(t, c.Addr(), reader)
	ask := target.CheckRequest{Current: one, Partner: two.Account}
	list, err := tt.(target.Checker).CheckAccount(targettest.Within(t), ask)
	targettest.Must(t, err)
	const want = `Run ALTER ROLE "ending" VALID UNTIL 'infinity'; ALTER ROLE "ending_too" VALID UNTIL 'infinity'; ` +
		"the same later date in both instead of 'infinity' also works."
	if len(list) != 1 || list[0].Code != "expires-soon" || list[0].Fix != want || len(list[0].Strategies) > 0 ||
		!strings.Contains(list[0].Text, `The one of role "ending_too" expires at`) {
		t.Errorf("two logins: %+v", list)
	}
	_, text := findings(t, tt, target.CheckRequest{Current: one})
	const alone = `Run ALTER ROLE "ending" VALID UNTIL 'infinity'; a later date instead of 'infinity' also works.`
	if !strings.Contains(text, alone) {
		t.Errorf("one login: %s; want %s", text, alone)
	}
}

// testByGroup verifies that what reads session_user is found in a database where the accounts have
// their rights by a group alone, and only while they may connect to it and have the rights.
func (c *cluster) testByGroup(t *testing.T, tt target.Target, ask target.CheckRequest) {
	t.Helper()
	c.exec(t, "CREATE DATABASE grouped")
	c.exec(t, "CREATE ROLE pair_members; CREATE ROLE pair_readers IN ROLE pair_members; "+
		"GRANT pair_readers TO pair")
	targettest.Must(t, c.Exec(t.Context(), "grouped", `CREATE TABLE audit (who text);
		ALTER TABLE audit ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON audit USING (who = session_user);
		GRANT SELECT ON audit TO pair_members`))
	for _, tc := range []struct{ change, want, text string }{
		{"", "session-user needs-consent", `policy own on public.audit of database "grouped"`},
		{"", "session-user needs-consent", "name it: keyturn rotation configure NAME --login-database"},
		{"REVOKE CONNECT ON DATABASE grouped FROM PUBLIC", "", ""},
		{"GRANT CONNECT ON DATABASE grouped TO pair", "session-user needs-consent", `of database "grouped"`},
		{"REVOKE pair_readers FROM pair", "", ""},
		{"REVOKE CONNECT ON DATABASE grouped FROM pair", "", ""},
	} {
		if tc.change != "" {
			c.exec(t, tc.change)
		}
		if got, text := findings(t, tt, ask); got != tc.want || !strings.Contains(text, tc.text) {
			t.Errorf("rights by a group, %s: %s: %s; want %s, %s", tc.change, got, text, tc.want, tc.text)
		}
	}
}

// testForeignDatabase verifies that the owner of another database, who has granted the account
// something there and keeps the database from being read, stops no emergency rotation, and others
// until the operator names the database of the application.
func testForeignDatabase(t *testing.T, c *cluster, tt target.Target, ask target.CheckRequest) {
	t.Helper()
	owner := c.role(t, "landlord", "LOGIN")
	c.exec(t, "CREATE DATABASE landlords OWNER landlord")
	conn, err := c.connectTo(t.Context(), "landlords", owner)
	targettest.Must(t, err)
	_, err = conn.PgConn().Exec(t.Context(), `CREATE TABLE bait (n int); GRANT SELECT ON bait TO pair;
		CREATE VIEW locked AS SELECT 1`).ReadAll()
	targettest.Must(t, err)
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("a grant in a foreign database: %s: %s", got, text)
	}
	_, err = conn.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").ReadAll()
	targettest.Must(t, err)
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("a lock in a foreign database: %s: %s", got, text)
	}
	_, err = conn.PgConn().Exec(t.Context(), "COMMIT; ALTER DATABASE landlords SET local_preload_libraries = "+
		"'$libdir/plugins/nowhere'").ReadAll()
	targettest.Must(t, err)
	got, text := findings(t, tt, ask)
	if got != "database-unread needs-consent" ||
		!strings.Contains(text, `What reads session_user in database "landlords" is not known`) ||
		!strings.Contains(text, "keyturn rotation configure NAME --login-database") {
		t.Errorf("a foreign database that cannot be read: %s: %s", got, text)
	}
	ask.Emergency = true
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("a foreign database that cannot be read, in an emergency: %s: %s", got, text)
	}
	targettest.Must(t, conn.Close(t.Context()))
	c.exec(t, "DROP DATABASE landlords WITH (FORCE)")
}

// testMayAlter verifies that a role is found whose password the administrator may not change, and
// that the statement in the finding repairs it.
func testMayAlter(t *testing.T, c *cluster, reader, _ target.Credential) {
	plain := c.role(t, "plain_admin", "LOGIN")
	who := c.role(t, "alterable", "LOGIN")
	ask := target.CheckRequest{Current: who}
	tt := c.open(t, c.Addr(), plain)
	got, text := findings(t, tt, ask)
	_, statements, _ := strings.Cut(text, "Run ")
	if got != "may-not-alter impossible" || !strings.Contains(text, `"plain_admin" may not change`) {
		t.Fatalf("an administrator without CREATEROLE: %s: %s", got, text)
	}
	c.exec(t, strings.TrimSuffix(strings.TrimSpace(statements), "."))
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("repaired: %s: %s", got, text)
	}
	c.exec(t, "CREATE ROLE ungranted LOGIN PASSWORD '"+c.stored(t, "alterable")+"'")
	want := map[bool]string{true: "may-not-alter impossible"}[c.atLeast(16)]
	if got, text := findings(t, tt, target.CheckRequest{Current: target.Credential{
		Account: "ungranted",
		Secret:  who.Secret,
	}}); got != want {
		t.Errorf("an administrator without the ADMIN option: %s: %s; want %s", got, text, want)
	}
	super := target.CheckRequest{Current: c.role(t, "too_high", "LOGIN SUPERUSER")}
	if got, text := findings(t, c.open(t, c.Addr(), reader), super); got != "may-not-alter impossible" {
		t.Errorf("a superuser: %s: %s", got, text)
	}
}

// testUnread verifies that what the administrator may not read in the application's database needs
// the consent that it might need, and that the check fails when an answer is lost.
func testUnread(t *testing.T, c *cluster, reader, _ target.Credential) {
	app := c.role(t, "unread", "LOGIN")
	c.exec(t, "CREATE ROLE unread_clone LOGIN IN ROLE unread; ALTER ROLE unread_clone SET role = 'unread'")
	c.exec(t, "CREATE DATABASE unread")
	c.exec(t, "REVOKE CONNECT ON DATABASE unread FROM PUBLIC")
	c.exec(t, "GRANT CONNECT ON DATABASE unread TO unread")
	ask := target.CheckRequest{Current: app, Partner: "unread_clone"}
	p := targettest.NewProxy(t, c.Addr())
	in := c.openWith(t, target.Settings{
		Config: json.RawMessage(c.config(p.Addr())),
		Admin:  reader,
		Login:  target.Login{Database: "unread"},
	})
	got, text := findings(t, in, ask)
	if got != "database-unread needs-consent" ||
		!strings.Contains(text, `GRANT CONNECT ON DATABASE "unread" TO `+id(reader.Account)) {
		t.Errorf("a database that the administrator may not open: %s: %s", got, text)
	}
	c.exec(t, "GRANT CONNECT ON DATABASE unread TO "+id(reader.Account))
	if got, text := findings(t, in, ask); got != "" {
		t.Errorf("a database that the administrator may open: %s: %s", got, text)
	}
	// Only the second connection, to the application's database, ends before the server has answered.
	p.CutLater(1)
	_, err := in.(target.Checker).CheckAccount(targettest.Within(t), ask)
	targettest.Expect(t, err, target.Unreachable, "")
	p.CutLater(1)
	ask.Emergency = true
	if got, text := findings(t, in, ask); got != "pooler-not-known note" {
		t.Errorf("a database that does not answer, in an emergency: %s: %s", got, text)
	}
}

// testUnanswered verifies that a check does not take an address without an answer of a server for
// one without a pooler. Only an operator who agrees to poolers, a replica and an emergency go on.
func testUnanswered(t *testing.T, c *cluster, reader, _ target.Credential) {
	who, p := c.account(t), targettest.NewProxy(t, c.Addr())
	check := func(verify, consent string, emergency bool) (codes []string, err error) {
		tt := c.openWith(t, target.Settings{
			Config:  json.RawMessage(c.config(c.Addr(), `"verify":[`+verify+`]`)),
			Admin:   reader,
			Consent: []string{consent},
		})
		list, err := tt.(target.Checker).CheckAccount(targettest.Within(t),
			target.CheckRequest{Current: who, Emergency: emergency})
		for _, f := range list {
			codes = append(codes, f.Code+" "+string(f.Verdict))
		}
		return codes, err
	}
	writer := strconv.Quote(p.Addr())
	if codes, err := check(writer, "", false); err != nil || codes != nil {
		t.Errorf("an address that answers: %v, %v", codes, err)
	}
	p.Set(targettest.Fault{}, targettest.Fault{Kind: targettest.Reset})
	for _, tc := range []struct {
		name, verify, consent string
		emergency, ends       bool
	}{
		{"a writer", writer, "", false, true},
		{"a writer before another", writer + "," + strconv.Quote(c.Addr()), "", false, true},
		{"the consent", writer, "pooler", false, false},
		{"a replica", strconv.Quote(c.Addr()) + `,{"address":` + writer + `,"role":"replica"}`, "", false, false},
		{"an emergency", writer, "", true, false},
	} {
		codes, err := check(tc.verify, tc.consent, tc.emergency)
		if strings.Join(codes, ", ") != "pooler-not-known note" {
			t.Errorf("%s: %q is found", tc.name, codes)
		}
		if class := target.ClassOf(err); (err != nil) != tc.ends || tc.ends && class != target.Unreachable {
			t.Errorf("%s: %v of class %v", tc.name, err, class)
		}
	}
}

// testNamed verifies that a line of pg_hba.conf that lets in only one of two logins is found.
func testNamed(t *testing.T, c *cluster, _, _ target.Credential) {
	tt := c.open(t, c.Addr(), c.role(t, "named_admin", "LOGIN SUPERUSER"))
	app := c.role(t, "named", "LOGIN")
	c.exec(t, "CREATE ROLE named_clone LOGIN IN ROLE named; ALTER ROLE named_clone SET role = 'named'")
	for lines, want := range map[string]string{
		"host all all 127.0.0.1/32 scram-sha-256":                                       "",
		"host all named 127.0.0.1/32 scram-sha-256":                                     "hba-names-account impossible",
		"host all +named 127.0.0.1/32 scram-sha-256":                                    "",
		"host all named,named_clone 127.0.0.1/32 scram-sha-256":                         "",
		"host all named 10.0.0.0/8 reject\nhost all all 127.0.0.1/32 scram-sha-256":     "",
		"host all named 127.0.0.1/32 trust\nhost all +named 127.0.0.1/32 scram-sha-256": "hba-names-account note",
	} {
		// The view shows the file. The server does not load it again, so other tests see nothing of it.
		c.writeHBA(t, "local all "+sandbox.PostgresAdmin+" trust\n"+lines+"\n")
		got, text := findings(t, tt, target.CheckRequest{Current: app, Partner: "named_clone"})
		if got != want || want != "" && !strings.Contains(text, "Line 2 of pg_hba.conf lets named in and not named_clone.") {
			t.Errorf("%s: %s: %s; want %s", lines, got, text, want)
		}
	}
}

// writeHBA writes pg_hba.conf until the end of the test.
func (c *cluster) writeHBA(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(c.Data(), "pg_hba.conf")
	before, err := os.ReadFile(path)
	targettest.Must(t, err)
	t.Cleanup(func() { targettest.Must(t, os.WriteFile(path, before, 0o600)) })
	targettest.Must(t, os.WriteFile(path, []byte(text), 0o600))
}

// testLogin verifies that logins are made as the application makes them.
func testLogin(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	c.exec(t, "CREATE ROLE taken_on NOLOGIN; GRANT taken_on TO "+id(who.Account))
	in := func(l target.Login) error {
		return c.openAs(t, reader, l, `"check_sql":"SELECT 1/(CASE current_user WHEN 'taken_on' THEN 1 ELSE 0 END)"`).
			Verify(targettest.Within(t), who)
	}
	targettest.Must(t, in(target.Login{Role: "taken_on"}))
	targettest.Expect(t, in(target.Login{}), target.Denied, "(22012)")
	targettest.Expect(t, in(target.Login{Role: "no_such_role"}), target.Denied, "no_such_role")
	closed := target.Login{Endpoints: []string{"127.0.0.1:1"}}
	tt := c.openAs(t, reader, closed, fmt.Sprintf(`"verify":[%q,"127.0.0.1:1"]`, c.Addr()))
	targettest.Expect(t, tt.Verify(targettest.Within(t), who), target.Unreachable)
	open := target.Login{Endpoints: []string{c.Addr()}}
	tt = c.openAs(t, reader, open, fmt.Sprintf(`"verify":[%q,"127.0.0.1:1"]`, c.Addr()))
	targettest.Must(t, tt.Verify(targettest.Within(t), who))
	for l, text := range map[*target.Login]string{
		{Database: strings.Repeat("x", 64)}: "database",
		{Role: "a\x00b"}:                    "role",
		{CertificateSecret: "cert", Certificate: targettest.Value("no pem")}: "in PEM",
	} {
		_, err := postgresql.Kind().Open(target.Settings{
			Config: json.RawMessage(c.config(c.Addr())),
			Admin:  reader,
			Login:  *l,
		})
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// clientCertificate returns a certificate that is its own authority, and both with its key.
func clientCertificate(t *testing.T, name string) (ca []byte, both string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	targettest.Must(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(time.Hour),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	targettest.Must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	targettest.Must(t, err)
	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return ca, string(ca) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// TestClientCertificate verifies logins that need a certificate besides the password.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ca, both := clientCertificate(t, "an application")
	c := startClusterWith(t, true, sandbox.PostgresConfig{ClientCA: ca})
	reader := c.reader(t, "reader")
	who := c.role(t, "certified", "LOGIN")
	verify := func(l target.Login, who target.Credential) error {
		return c.openAs(t, reader, l).Verify(targettest.Within(t), who)
	}
	with := target.Login{CertificateSecret: "certificate", Certificate: targettest.Value(both)}
	targettest.Must(t, verify(with, who))
	targettest.Expect(t, verify(target.Login{}, who), target.Denied, "certificate (28000)")
	wrong := who
	wrong.Secret = reader.Secret
	targettest.Expect(t, verify(with, wrong), target.Rejected, "(28P01)")
	targettest.Must(t, verify(with, c.account(t)))
}

// TestCertificateNamesOneLogin verifies that a check finds a client certificate with which the
// server lets in one of two logins alone, and asks for consent where the administrator cannot read
// pg_hba.conf.
func TestCertificateNamesOneLogin(t *testing.T) {
	t.Parallel()
	ca, both := clientCertificate(t, "application")
	c := startClusterWith(t, true, sandbox.PostgresConfig{ClientCA: ca})
	who := c.role(t, "application", "LOGIN")
	c.role(t, "application_clone", "LOGIN IN ROLE application")
	c.exec(t, "ALTER ROLE application_clone SET role = 'application'")
	with := target.Login{CertificateSecret: "certificate", Certificate: targettest.Value(both)}
	ask := target.CheckRequest{Current: who, Partner: "application_clone"}
	super := c.role(t, "hba_reader", "LOGIN SUPERUSER")
	for what, tc := range map[string]struct {
		admin target.Credential
		login target.Login
		want  string
	}{
		"no line compares the name":                       {super, with, ""},
		"pg_hba.conf that cannot be read":                 {c.reader(t, "reader"), with, "certificate-name needs-consent"},
		"pg_hba.conf that cannot be read, no certificate": {c.reader(t, "another"), target.Login{}, ""},
	} {
		if got, text := findings(t, c.openAs(t, tc.admin, tc.login), ask); got != tc.want {
			t.Errorf("%s: %s: %s; want %s", what, got, text, tc.want)
		}
	}
	c.exec(t, "CREATE TABLE line (text text); INSERT INTO line VALUES "+
		"('hostssl all all 127.0.0.2/32 scram-sha-256 clientcert=verify-full'), "+
		"('host all all 127.0.0.1/32 scram-sha-256'), ('local all all trust')")
	c.exec(t, "COPY line TO '"+filepath.Join(c.Data(), "pg_hba.conf")+"'")
	if got, text := findings(t, c.openAs(t, super, with), ask); got != "certificate-name needs-consent" {
		t.Errorf("a line that compares the name: %s: %s", got, text)
	}
}
