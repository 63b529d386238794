package mysql_test

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
)

// findings returns what a check reports by code and verdict, with the strategies unless it is about
// all.
func findings(t *testing.T, tt target.Target, r target.CheckRequest) map[string]target.Finding {
	t.Helper()
	out := map[string]target.Finding{}
	for _, f := range targettest.Findings(t, tt, r) {
		key := f.Code + " " + string(f.Verdict)
		for _, s := range f.Strategies {
			key += " " + string(s)
		}
		out[key] = f
	}
	return out
}

// reports asserts what a check reports.
func reports(t *testing.T, tt target.Target, r target.CheckRequest, want ...string) map[string]target.Finding {
	t.Helper()
	got := findings(t, tt, r)
	slices.Sort(want)
	if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) {
		t.Errorf("%s: the check reports\n%q, want\n%q", r.Current.Account, have, want)
	}
	return got
}

// testCheck verifies what both servers have in common.
func testCheck(t *testing.T, f fixture, open func(*testing.T, ...string) target.Target) {
	tt := open(t)
	of := func(c target.Credential) target.CheckRequest { return target.CheckRequest{Current: c} }
	alter := func(c target.Credential, clause string) { f.exec(t, "ALTER USER "+quote(c.Account)+"@'%' "+clause) }
	plain := f.account(t, "check-plain")
	reports(t, tt, of(plain))

	missing := plain
	missing.Account = "check-none"
	if !reports(t, tt, of(missing), "no-account impossible")["no-account impossible"].Missing {
		t.Error("an account that does not exist is not probed")
	}
	if reports(t, open(t, `"account_host":"10.%"`), of(plain), "no-account impossible")["no-account impossible"].Missing {
		t.Error("an account at another host counts as one that does not exist")
	}
	wrong := f.account(t, "check-wrong")
	wrong.Secret = plain.Secret
	reports(t, tt, of(wrong), "credential-not-stored impossible")

	two := f.account(t, "check-two")
	at := "CREATE USER " + quote(two.Account) + "@'%s' IDENTIFIED BY '%s'"
	f.exec(t, fmt.Sprintf(at, "127.0.0.2", two.Secret.Reveal()), fmt.Sprintf(at, "10.%", "Another-password-1"))
	got := reports(t, tt, of(two), "accounts-together note", "accounts-left note")
	if text := got["accounts-together note"].Text; !strings.Contains(text, "'check-two'@'%', 'check-two'@'127.0.0.2'") {
		t.Errorf("the accounts are not named: %s", text)
	}
	left := reports(t, open(t, `"account_host":"%"`), of(two), "leave-account-hosts needs-consent", "accounts-left note")
	if !left["leave-account-hosts needs-consent"].Outlasts {
		t.Error("an account that keeps the leaked password outlasts no emergency")
	}
	for text, want := range map[string]bool{
		got["accounts-left note"].Text:  true,
		left["accounts-left note"].Text: false,
	} {
		if strings.Contains(text, `--set 'account_host=["%`) != want {
			t.Errorf("the accounts that a rotation leaves: %s", text)
		}
	}
	reports(t, open(t, `"account_host":"all"`), of(two), "accounts-together note",
		"replace-other-passwords needs-consent single", "replace-other-passwords needs-consent overlap double")

	// At the end of an emergency, what the leaked password still opens.
	renewed := target.Credential{Account: two.Account, Secret: sensitive.New("Another-password-2")}
	alter(two, "IDENTIFIED BY '"+renewed.Secret.Reveal()+"'")
	ended := of(renewed)
	reports(t, open(t, `"account_host":"%"`), ended, "accounts-left note")
	ended.Leaked = two
	left = reports(t, open(t, `"account_host":"%"`), ended, "leave-account-hosts note", "accounts-left note")
	if f := left["leave-account-hosts note"]; !f.Outlasts || !strings.Contains(f.Text, "'check-two'@'127.0.0.2'") {
		t.Errorf("after an emergency: %+v", f)
	}

	terms := f.account(t, "check-terms")
	alter(terms, "REQUIRE X509 WITH MAX_USER_CONNECTIONS 3 PASSWORD EXPIRE INTERVAL 10 DAY ACCOUNT LOCK")
	for key, found := range reports(t, tt, of(terms), "login-terms impossible", "account-locked impossible",
		"connection-limit note", "password-lifetime note") {
		if want := found.Code == "account-locked"; found.Closed != want {
			t.Errorf("%s says that no login succeeds: %t", key, found.Closed)
		}
	}
	checkHosts(t, f, open)
	expired := f.account(t, "check-expired")
	alter(expired, "PASSWORD EXPIRE")
	reports(t, tt, of(expired), "password-expired note")

	second := f.account(t, "check-second")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: second, New: next(t, tt, second)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	reports(t, tt, of(second), "drop-second-password needs-consent overlap single")
	graced := of(c.New)
	reports(t, tt, graced, "drop-second-password needs-consent overlap single")
	graced.Previous = second
	reports(t, tt, graced)
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	reports(t, tt, of(c.New))

	first, other := f.account(t, "check-first"), f.account(t, "check-other")
	pair := target.CheckRequest{Current: first, Partner: other.Account}
	reports(t, tt, pair)
	f.exec(t, "CREATE DATABASE IF NOT EXISTS check_db", "GRANT SELECT ON check_db.* TO "+quote(first.Account)+"@'%'")
	differ := findings(t, tt, pair)["different-rights needs-consent double"]
	if !strings.Contains(differ.Text, "schema check_db at host %") ||
		!strings.Contains(differ.Fix, "SHOW GRANTS FOR 'check-first'@'%'; SHOW GRANTS FOR 'check-other'@'%';") {
		t.Errorf("the right that differs is not named: %+v", differ)
	}
	f.exec(t, "GRANT SELECT ON check_db.* TO "+quote(other.Account)+"@'%'",
		fmt.Sprintf("CREATE USER %s@'127.0.0.2' IDENTIFIED BY '%s'", quote(first.Account), first.Secret.Reveal()))
	// The account that is missing has no rights to compare.
	f.exec(t, "GRANT SELECT ON check_db.* TO "+quote(first.Account)+"@'127.0.0.2'")
	got = reports(t, tt, pair, "different-hosts needs-consent double", "accounts-together note")
	if lacks := got["different-hosts needs-consent double"]; !strings.Contains(lacks.Text,
		"there is no 'check-other'@'127.0.0.2'.") || !strings.Contains(lacks.Fix,
		"SHOW CREATE USER 'check-first'@'127.0.0.2'; SHOW GRANTS FOR 'check-first'@'127.0.0.2';") {
		t.Errorf("an account is missing: %+v", lacks)
	}
	// A host of another application is left as it is now, and is changed when the names change back.
	one, further := f.account(t, "check-shared"), f.account(t, "check-shared-2")
	f.exec(t, "CREATE USER "+quote(one.Account)+"@'127.0.0.2' IDENTIFIED BY 'of-another-application'")
	shared := target.CheckRequest{Current: one, Partner: further.Account}
	if later := findings(t, tt, shared)["different-hosts needs-consent double"]; !strings.Contains(later.Text,
		"'check-shared'@'127.0.0.2' has another password now") {
		t.Errorf("a host of another application: %+v", later)
	}
	reports(t, open(t, `"account_host":"%"`), shared, "accounts-left note")
	checkScopes(t, f, tt)
	pair.Partner = "check-none"
	if _, ok := findings(t, tt, pair)["no-partner impossible double"]; !ok {
		t.Error("a partner that does not exist passes")
	}

	targettest.Must(t, tt.(target.Tester).Test(targettest.Within(t)))
	for _, s := range []target.Strategy{target.Single, target.Overlap, target.Double} {
		if tt.(target.Windower).Window(s) == "" {
			t.Errorf("no window of %s", s)
		}
	}
}

// checkHosts verifies that an emergency waits for the consent to change an account of the partner's
// name that may be another application's, unless account_host names the accounts.
func checkHosts(t *testing.T, f fixture, open func(*testing.T, ...string) target.Target) {
	t.Helper()
	one, clone := f.account(t, "check-e1"), f.account(t, "check-e1c")
	create := "CREATE USER %s@'127.0.0.2' IDENTIFIED BY '%s'"
	f.exec(t, fmt.Sprintf(create, quote(clone.Account), "of-another-application"))
	pair := target.CheckRequest{Current: one, Partner: clone.Account}
	const hosts = "different-hosts needs-consent double"
	got := reports(t, open(t), pair, hosts)[hosts]
	if !got.Others || !strings.Contains(got.Text, "'check-e1c'@'127.0.0.2' gets the new password") ||
		!strings.Contains(got.Fix, `update TARGET --set 'account_host=["%"]'`) {
		t.Errorf("an account of another application: %+v", got)
	}
	reports(t, open(t, `"account_host":["%"]`), pair)
	// Another application may have both names at a host.
	f.exec(t, fmt.Sprintf(create, quote(one.Account), "of-another-application, too"))
	named := false
	for _, finding := range targettest.Findings(t, open(t), pair) {
		named = named || finding.Others &&
			strings.Contains(finding.Text, "'check-e1c'@'127.0.0.2' gets the new password") &&
			strings.Contains(finding.Fix, `update TARGET --set 'account_host=["%"]' leaves it out`) &&
			strings.Contains(finding.Fix, `update TARGET --set 'account_host=["%","127.0.0.2"]' takes it in`)
	}
	if !named {
		t.Error("an emergency changes an account of the other name that may be another application's")
	}
	for _, finding := range targettest.Findings(t, open(t, `"account_host":["%","127.0.0.2"]`), pair) {
		if finding.Others {
			t.Errorf("an emergency waits although the accounts are named: %+v", finding)
		}
	}
}

// checkScopes verifies that rights on columns and routines, options to grant and limits are
// compared as far as the administrator may read them.
func checkScopes(t *testing.T, f fixture, tt target.Target) {
	first, other := f.account(t, "check-scopes"), f.account(t, "check-scopes-2")
	pair := target.CheckRequest{Current: first, Partner: other.Account}
	reports(t, tt, pair)
	f.exec(t, "CREATE DATABASE scopes_db", "CREATE TABLE scopes_db.t (a int, b int)",
		"CREATE PROCEDURE scopes_db.p() SELECT 1", "CREATE ROLE scopes_role")
	to := func(c target.Credential) string { return " TO " + quote(c.Account) + "@'%'" }
	n := 0
	for want, grant := range map[string][2]string{
		"column scopes_db.t.b at host %":        {"GRANT SELECT (a) ON scopes_db.t", "GRANT SELECT (b) ON scopes_db.t"},
		"procedure scopes_db.p at host %":       {"GRANT EXECUTE ON PROCEDURE scopes_db.p", ""},
		"proxy for check-plain@% at host %":     {"GRANT PROXY ON 'check-plain'@'%'", ""},
		"role scopes_role at host %":            {"GRANT scopes_role", "GRANT scopes_role"},
		"grant option of XA_RECOVER_ADMIN at h": {"GRANT XA_RECOVER_ADMIN ON *.*", "GRANT XA_RECOVER_ADMIN ON *.*"},
	} {
		n++
		first, other := f.account(t, fmt.Sprint("check-scope-", n)), f.account(t, fmt.Sprint("check-scope2-", n))
		option := ""
		switch {
		case strings.HasPrefix(want, "role"):
			option = " WITH ADMIN OPTION"
		case strings.HasPrefix(want, "grant option") && strings.Contains(fmt.Sprintf("%T", f), "mySQL"):
			option = " WITH GRANT OPTION"
		case strings.HasPrefix(want, "grant option"):
			continue // MariaDB has no dynamic privileges
		}
		f.exec(t, grant[0]+to(first)+option)
		if grant[1] != "" {
			f.exec(t, grant[1]+to(other))
		}
		pair := target.CheckRequest{Current: first, Partner: other.Account}
		got := reports(t, tt, pair, "different-rights needs-consent double")
		if text := got["different-rights needs-consent double"].Text; !strings.Contains(text, want) {
			t.Errorf("%s is not named: %s", want, text)
		}
	}
	f.exec(t, "CREATE DEFINER = 'check-scopes-2'@'%' PROCEDURE scopes_db.q() SELECT 1",
		"CREATE DEFINER = 'check-scopes'@'%' VIEW scopes_db.v AS SELECT a FROM scopes_db.t")
	const definers = "objects-of-one-account needs-consent double"
	got := reports(t, tt, pair, definers)[definers]
	if !strings.Contains(got.Text, "scopes_db.v, scopes_db.q") {
		t.Errorf("the objects are not named: %s", got.Text)
	}
	f.exec(t, "DROP PROCEDURE scopes_db.q", "DROP VIEW scopes_db.v")
	f.exec(t, "ALTER USER "+quote(other.Account)+"@'%' WITH MAX_QUERIES_PER_HOUR 100")
	got = reports(t, tt, pair, "different-rights needs-consent double")["different-rights needs-consent double"]
	if !strings.Contains(got.Text, "terms of logins at host %") ||
		!strings.Contains(got.Fix, "SHOW CREATE USER 'check-scopes'@'%';") {
		t.Errorf("the limit that differs is not named: %s", got.Text)
	}
}

// checkBlind verifies that a check of two accounts asks for consent where the administrator may not
// see all of them, and that the statements which it names are enough. They grant what the page of
// the kind grants for strategy double alone, so the administrator has the rest.
func checkBlind(t *testing.T, f fixture, open func(target.Credential) target.Target, tables ...string) {
	t.Helper()
	admin := f.account(t, "check-blind")
	to := " TO 'check-blind'@'%'"
	f.exec(t, "GRANT CREATE USER ON *.*"+to)
	for _, table := range tables {
		f.exec(t, "GRANT SELECT ON mysql."+table+to)
	}
	tt := open(admin)
	first, other := f.account(t, "check-blind-1"), f.account(t, "check-blind-2")
	pair := target.CheckRequest{Current: first, Partner: other.Account}
	const unread, events = "not-compared needs-consent double", "events-not-read note"
	found := reports(t, tt, pair, unread, events)
	f.exec(t, strings.TrimSuffix(found[events].Fix, ";"))
	got := found[unread]
	if !strings.Contains(got.Text, "mysql.columns_priv, mysql.procs_priv") ||
		!strings.Contains(got.Text, "definers of views, definers of routines") {
		t.Errorf("the rights that are not compared are not named: %+v", got)
	}
	for statement := range strings.SplitSeq(strings.TrimSuffix(got.Fix, ";"), "; ") {
		if !strings.HasSuffix(statement, to) {
			t.Errorf("%s is not about the administrator", statement)
		}
		f.exec(t, statement)
	}
	reports(t, tt, pair)
}

func mariaCheck(t *testing.T, n *node) {
	testCheck(t, n, n.open)
	testForeignNames(t, n, n.open)
	checkBlind(t, n, func(admin target.Credential) target.Target { return n.harness(admin).Open(t, n.Addr) },
		"global_priv", "db", "tables_priv", "roles_mapping", "proxies_priv")
	tt := n.open(t)
	ed := n.account(t, "check-ed25519")
	n.alter(t, ed, "IDENTIFIED VIA ed25519 USING PASSWORD("+quote(ed.Secret.Reveal())+")")
	reports(t, tt, target.CheckRequest{Current: ed}, "change-auth-plugin needs-consent overlap")
	parsec := n.account(t, "check-parsec")
	n.exec(t, "UPDATE mysql.global_priv SET Priv = JSON_SET(Priv, '$.plugin', 'parsec') WHERE User = 'check-parsec'")
	foreign := reports(t, tt, target.CheckRequest{Current: parsec}, "auth-plugin impossible")["auth-plugin impossible"]
	if !strings.Contains(foreign.Text, "'check-parsec'@'%' logs in by parsec") ||
		!strings.Contains(foreign.Fix, "ALTER USER 'check-parsec'@'%' IDENTIFIED VIA ed25519") {
		t.Errorf("the plugin, or what to change, is not named: %+v", foreign)
	}
	pair := target.CheckRequest{Current: n.account(t, "check-partner"), Partner: parsec.Account}
	reports(t, tt, pair, "auth-plugin impossible double")
	none, partner := n.account(t, "check-none-in"), n.account(t, "check-none-in-2")
	n.alter(t, partner, "WITH MAX_USER_CONNECTIONS -1")
	closed := target.CheckRequest{Current: none, Partner: partner.Account}
	const limit = "connection-limit impossible"
	fix := reports(t, tt, closed, limit+" double", "different-rights needs-consent double")[limit+" double"]
	if fix.InUse {
		t.Errorf("an emergency promotes a login that no client can use: %+v", fix)
	}
	n.exec(t, strings.TrimSuffix(fix.Fix, ";"))
	n.alter(t, none, "WITH MAX_USER_CONNECTIONS -1")
	reports(t, tt, target.CheckRequest{Current: none}, limit)
	n.alter(t, none, "WITH MAX_USER_CONNECTIONS 0")
	n.alter(t, partner, "PASSWORD EXPIRE")
	reports(t, tt, closed)
	change := target.Change{ID: "x", Strategy: target.Double, Old: none, New: next(t, tt, partner)}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	conn, err := n.connect(t.Context(), change.New) // a rotation ends the expiry of a password
	targettest.Must(t, err)
	_, err = conn.(driver.ExecerContext).ExecContext(t.Context(), "SET @a = 1", nil)
	targettest.Must(t, errors.Join(err, conn.Close()))
	socket := n.account(t, "check-socket")
	n.alter(t, socket, "IDENTIFIED VIA unix_socket")
	got := findings(t, tt, target.CheckRequest{Current: socket})
	if _, ok := got["auth-plugin impossible single"]; !ok {
		t.Errorf("an account without a password: %v", got)
	}
	for missing, text := range map[string]string{
		"GRANT CREATE USER ON *.* TO 'check-admin'@'%'":           "GRANT SELECT ON mysql.",
		"GRANT SELECT ON mysql.* TO 'check-reader'@'%'":           "GRANT CREATE USER ON *.*",
		"GRANT SELECT ON mysql.global_priv TO 'check-some'@'%'":   "GRANT SELECT ON mysql.",
		"GRANT CREATE USER, SELECT ON *.* TO 'check-enough'@'%' ": "",
	} {
		name := strings.Split(missing, "'")[1]
		admin := n.account(t, name)
		n.exec(t, missing)
		err := n.harness(admin).Open(t, n.Addr).(target.Tester).Test(targettest.Within(t))
		targettest.Result(t, err, target.Denied, text)
		if name != "check-some" {
			continue
		}
		for _, table := range []string{"db", "tables_priv", "roles_mapping", "proxies_priv"} {
			if want := "GRANT SELECT ON mysql." + table + " TO 'check-some'@'%';"; !strings.Contains(err.Error(), want) {
				t.Errorf("a test does not name all grants that are missing: %v", err)
			}
		}
	}
}

// TestCheckOfServer verifies findings about a whole server, which no other test of it can bear.
func TestCheckOfServer(t *testing.T) {
	t.Parallel()
	n := start(t, false)
	tt, account := n.open(t), n.account(t, "app")
	r := target.CheckRequest{Current: account}
	reports(t, tt, r)
	n.exec(t, "CREATE USER ''@'localhost'", "CREATE USER ''@'10.1.2.3' IDENTIFIED BY '"+account.Secret.Reveal()+"'")
	reports(t, tt, r, "anonymous-account note", "anonymous-account impossible")
	n.exec(t, "DROP USER ''@'localhost'", "DROP USER ''@'10.1.2.3'")
	checkEvents(t, n, tt)
	n.exec(t, "RENAME TABLE mysql.event TO mysql.event_gone")
	unread := reports(t, tt, r, "events-not-read note")["events-not-read note"]
	if !unread.Outlasts || !strings.Contains(unread.Text, "doesn't exist") ||
		!strings.Contains(unread.Fix, "FROM information_schema.EVENTS") {
		t.Errorf("a server without the table of events: %+v", unread)
	}
	n.exec(t, "RENAME TABLE mysql.event_gone TO mysql.event")
	n.exec(t, "SET GLOBAL max_password_errors = 5")
	reports(t, tt, r, "lock-after-failures needs-consent single", "failed-logins note overlap double")
	n.exec(t, "SET GLOBAL max_password_errors = DEFAULT")
	n.exec(t, "INSTALL SONAME 'simple_password_check'", "SET GLOBAL strict_password_validation = ON",
		"SET GLOBAL default_password_lifetime = 30", "SET GLOBAL read_only = ON")
	reports(t, tt, r, "password-validation impossible", "password-lifetime note", "read-only impossible")
	targettest.Expect(t, tt.(target.Tester).Test(targettest.Within(t)), target.Denied, "read-only")
	n.exec(t, "SET GLOBAL read_only = OFF")
	targettest.Expect(t, tt.(target.Tester).Test(targettest.Within(t)), target.Denied, "strict_password_validation")
}

// checkEvents verifies that an emergency names the events by which its account gets its password
// back, with statements that end them.
func checkEvents(t *testing.T, f fixture, tt target.Target) {
	t.Helper()
	leaked, other := f.account(t, "check-events"), f.account(t, "check-events-2")
	f.exec(t, "CREATE DATABASE events_db",
		"GRANT ALL ON events_db.* TO 'check-events'@'%'", "GRANT ALL ON events_db.* TO 'check-events-2'@'%'")
	r := target.CheckRequest{Current: leaked, Partner: other.Account}
	reports(t, tt, r)
	by := func(c target.Credential, statement string) {
		conn, err := f.connect(t.Context(), c)
		targettest.Must(t, err)
		defer conn.Close()
		_, err = conn.(driver.ExecerContext).ExecContext(t.Context(), statement, nil)
		targettest.Must(t, err)
	}
	by(leaked, "CREATE EVENT events_db.`ba``ck` ON SCHEDULE EVERY 1 DAY DO SET @a = 1")
	conn := boss(t, f, "check-events-boss")
	by(leaked, "CREATE EVENT events_db.off ON SCHEDULE EVERY 1 DAY DISABLE DO SET @a = 1")
	by(other, "CREATE EVENT events_db.back2 ON SCHEDULE EVERY 1 DAY DO SET @a = 1")
	found := reports(t, tt, r, "scheduled-events note")["scheduled-events note"]
	if !found.Outlasts || strings.Contains(found.Text, "events_db.off") || !strings.HasPrefix(found.Fix,
		"Only after a leak, and only for events that are not the application's own, end the sessions ") {
		t.Errorf("events: %+v", found)
	}
	// ALTER EVENT makes the one who runs it the definer.
	if listed := corrects(t, f, conn, found.Fix); len(listed) != 1 || listed[0]["event_name"] != "off" {
		t.Errorf("the query lists %v", listed)
	}
	reports(t, tt, r)

	// Events with long names, more than a check reads, leave each statement whole.
	long := strings.Repeat("d", 64)
	f.exec(t, "CREATE DATABASE "+long, "GRANT ALL ON "+long+".* TO 'check-events'@'%'",
		"GRANT ALL ON "+long+".* TO 'check-events-2'@'%'")
	for i := range 22 {
		by(leaked, fmt.Sprintf("CREATE EVENT %s.`%060d_%03d` ON SCHEDULE EVERY 1 DAY DO SET @a = 1", long, 0, i))
	}
	found = reports(t, tt, r, "scheduled-events note")["scheduled-events note"]
	if !strings.HasPrefix(found.Text, "More than 20 scheduled events run") ||
		!strings.Contains(found.Text, "can set a password again after an emergency: "+long) ||
		!strings.Contains(found.Fix, " DISABLE; These are not all of them. To list all of them: ") {
		t.Errorf("many events: %+v", found)
	}
	bounded := target.BoundedFindings([]target.Finding{found})[0]
	if bounded.Fix != found.Fix || bounded.Text != found.Text {
		t.Errorf("many events are shown as: %+v", bounded)
	}
	for _, event := range corrects(t, f, conn, found.Fix) {
		f.exec(t, "ALTER EVENT "+event["event_schema"]+".`"+strings.ReplaceAll(event["event_name"], "`", "``")+"` DISABLE")
	}
	reports(t, tt, r)

	// An account that may act as the other one needs no password of it.
	f.account(t, "check-events-3")
	f.exec(t, "GRANT PROXY ON 'check-events-2'@'%' TO 'check-events-3'@'%'")
	found = reports(t, tt, r, "proxy-users note")["proxy-users note"]
	if !found.Outlasts || !strings.Contains(found.Text, "'check-events-3'@'%'") {
		t.Errorf("proxies: %+v", found)
	}
	if listed := corrects(t, f, conn, found.Fix); len(listed) != 0 {
		t.Errorf("after the statement of the fix there are %v", listed)
	}
	reports(t, tt, r)
}

// corrects runs the statements of a fix, and returns the rows of the query at its end.
func corrects(t *testing.T, f fixture, conn driver.Conn, fix string) []map[string]string {
	t.Helper()
	statements, query, found := strings.Cut(fix, "To list all of them: ")
	if !found {
		t.Fatalf("no query: %s", fix)
	}
	_, statements, _ = strings.Cut(statements, ": ")
	statements = strings.TrimSuffix(statements, "These are not all of them. ")
	for statement := range strings.SplitSeq(strings.TrimSuffix(strings.TrimSpace(statements), ";"), "; ") {
		f.exec(t, statement)
	}
	return list(t, conn, query)
}

// TestSlowServer verifies that a check asks for consent where the server does not list in time what
// it compares.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	n := start(t, false)
	pair := target.CheckRequest{Current: n.account(t, "first"), Partner: n.account(t, "other").Account}
	locker := n.account(t, "locker")
	n.exec(t, "GRANT SELECT, LOCK TABLES ON mysql.* TO 'locker'@'%'")
	conn, err := n.connect(t.Context(), locker)
	targettest.Must(t, err)
	defer conn.Close()
	_, err = conn.(driver.ExecerContext).ExecContext(t.Context(), "LOCK TABLES mysql.proc WRITE", nil)
	targettest.Must(t, err)
	const unread = "not-compared needs-consent double"
	got := reports(t, n.open(t), pair, unread)[unread]
	if !strings.Contains(got.Text, "definers of routines (not listed within 3 s)") || got.Fix == "" {
		t.Errorf("what is not compared is not named: %+v", got)
	}
}

// mySQLCheck verifies findings about forms that only MySQL has.
func mySQLCheck(t *testing.T, n *mySQLNode) {
	checkEvents(t, n, n.open(t))
	testCheck(t, n, n.open)
	testForeignNames(t, n, n.open)
	checkBlind(t, n, func(admin target.Credential) target.Target {
		h := n.harness()
		h.Admin = admin
		return h.Open(t, n.Addr)
	}, "user", "global_grants", "db", "tables_priv", "role_edges", "proxies_priv")
	tt := n.open(t)
	n.exec(t, "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so'",
		"INSTALL PLUGIN mysql_no_login SONAME 'mysql_no_login.so'")
	twice := n.account(t, "check-factors")
	alter := func(c target.Credential, clause string) { n.exec(t, "ALTER USER "+quote(c.Account)+"@'%' "+clause) }
	alter(twice, "ADD 2 FACTOR IDENTIFIED WITH auth_socket")
	got := reports(t, tt, target.CheckRequest{Current: twice}, "several-factors impossible")["several-factors impossible"]
	n.exec(t, strings.SplitN(got.Fix, ";", 2)[0])
	reports(t, tt, target.CheckRequest{Current: twice})
	none := n.account(t, "check-no-login")
	alter(none, "IDENTIFIED WITH mysql_no_login")
	reports(t, tt, target.CheckRequest{Current: none}, "auth-plugin impossible")
	alter(twice, "FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME UNBOUNDED")
	reports(t, tt, target.CheckRequest{Current: twice}, "lock-after-failures needs-consent single",
		"failed-logins note overlap double")
	alter(twice, "FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 0")
	reports(t, tt, target.CheckRequest{Current: twice})
}
