package mysql_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// testForeignNames verifies that no name from the server is shown as a command, and that the
// statements of findings are about the account in every SQL mode.
func testForeignNames(t *testing.T, f fixture, open func(*testing.T, ...string) target.Target) {
	tt := open(t)
	a, b := f.account(t, "foreign-a"), f.account(t, "foreign-b")
	long := "`" + strings.ReplaceAll(targettest.HostileCommand+"\n\x1b[2J'$(id)", "`", "``") + "`"
	f.exec(t,
		"CREATE USER 'foreign-a'@'"+targettest.HostileCommand+"' IDENTIFIED BY '"+a.Secret.Reveal()+"'",
		"CREATE DATABASE "+long, "GRANT SELECT ON "+long+".* TO 'foreign-a'@'%'",
		"CREATE DATABASE IF NOT EXISTS foreign_db",
		"CREATE DEFINER = 'foreign-a'@'%' SQL SECURITY INVOKER VIEW foreign_db."+long+" AS SELECT 1",
	)
	list := targettest.Findings(t, tt, target.CheckRequest{Current: a, Partner: b.Account})
	codes := targettest.Codes(list)
	for _, want := range []string{"accounts-together", "different-hosts", "different-rights", "objects-of-one-account"} {
		if !strings.Contains(codes, want) {
			t.Errorf("found %s, not %s", codes, want)
		}
	}
	targettest.Harmless(t, list)
	f.exec(t, "DROP DATABASE "+long, "DROP DATABASE foreign_db")

	// In the mode of most clients a backslash escapes the quote after it.
	c := target.Credential{Account: `foreign\`, Secret: a.Secret}
	f.exec(t, "CREATE USER `foreign\\`@'%' IDENTIFIED BY '"+a.Secret.Reveal()+"' ACCOUNT LOCK")
	for range 2 {
		for _, found := range findings(t, tt, target.CheckRequest{Current: c}) {
			if found.Code != "account-locked" {
				t.Errorf("found %+v", found)
			}
			f.exec(t, strings.TrimSuffix(found.Fix, ";"))
		}
	}
	if left := findings(t, tt, target.CheckRequest{Current: c}); len(left) > 0 {
		t.Errorf("the statement of the finding did not unlock: %+v", left)
	}
	// No statement can have a name that is not shown as it is.
	c.Account = "foreign\x1b"
	f.exec(t, "CREATE USER `foreign\x1b`@'%' IDENTIFIED BY '"+a.Secret.Reveal()+"' ACCOUNT LOCK")
	for _, found := range findings(t, tt, target.CheckRequest{Current: c}) {
		if strings.Contains(found.Fix, "ALTER") || !strings.Contains(found.Fix, "HEX(User)") {
			t.Errorf("fix: %s", found.Fix)
		}
	}
}
