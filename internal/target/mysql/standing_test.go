package mysql_test

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// fixture is a server of either kind.
type fixture interface {
	account(t *testing.T, name string) target.Credential
	exec(t *testing.T, statements ...string)
	connect(ctx context.Context, c target.Credential) (driver.Conn, error)
}

// standing describes to the suite the accounts of a server. stored reads what it stores of one.
func standing(f fixture, generalLog, stored string, admin target.Credential) *targettest.Standing {
	return &targettest.Standing{
		Spellings: []string{
			"rotator ",
			"rotator@%",
			"rotator@localhost",
			"'rotator'@'%'",
			"`rotator`",
			`"rotator"@"10.%"`,
		},
		Others: []string{"ROTATOR", "Rotator", "rotator2", "'ROTATOR'@'%'", " rotator"},
		Privileged: func(t *testing.T) string {
			name := "super'" + rand.Text()[:8]
			f.account(t, name)
			f.exec(t, "GRANT CREATE USER ON *.* TO "+quote(name)+"@'%'")
			return name
		},
		Trace: func(t *testing.T, account string) string {
			log, err := os.ReadFile(generalLog)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := f.connect(t.Context(), admin)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			rows, err := conn.(driver.QueryerContext).QueryContext(
				t.Context(),
				stored+" WHERE User = "+quote(account),
				nil,
			)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			values := make([]driver.Value, 1)
			if err := rows.Next(values); err != nil {
				t.Fatal(err)
			}
			if err := rows.Next(make([]driver.Value, 1)); !errors.Is(err, io.EOF) {
				t.Fatal("more than one account")
			}
			return fmt.Sprintf("%s %d", values[0], strings.Count(string(log), "Access denied for user '"+account+"'"))
		},
	}
}

// judge verifies what statements make of an account. They name it ACCOUNT, and roles ROLE1 and
// ROLE2.
func judge(t *testing.T, f fixture, g target.Guarded, want string, statements ...string) {
	t.Helper()
	name := "st" + rand.Text()[:8]
	f.account(t, name)
	fill := strings.NewReplacer("ACCOUNT", "'"+name+"'@'%'", "ROLE1", "a"+name, "ROLE2", "b"+name)
	for _, s := range statements {
		f.exec(t, fill.Replace(s))
	}
	got, err := g.Standing(t.Context(), name)
	right := (got.Privileged == "") == (want == "") && strings.Contains(got.Privileged, want)
	if err != nil || got.Administrator || !right {
		t.Errorf("%q: %+v, %v; want %q", statements, got, err, want)
	}
}

// testCommonStanding verifies what the two kinds have in common.
func testCommonStanding(t *testing.T, f fixture, g target.Guarded) {
	judge(t, f, g, "")
	judge(t, f, g, "", "GRANT ALL ON app.* TO ACCOUNT WITH GRANT OPTION", "GRANT SELECT ON `mysq_x`.* TO ACCOUNT")
	judge(t, f, g, "",
		"GRANT PROCESS, LOCK TABLES, SHOW DATABASES, REPLICATION CLIENT, REFERENCES, SHOW VIEW ON *.* TO ACCOUNT")
	judge(t, f, g, "", "CREATE ROLE ROLE1", "GRANT SELECT ON app.* TO ROLE1", "GRANT ROLE1 TO ACCOUNT")
	for _, p := range []string{
		"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "RELOAD", "SHUTDOWN", "FILE", "INDEX", "ALTER", "SUPER",
		"EXECUTE", "REPLICATION SLAVE", "CREATE VIEW", "CREATE ROUTINE", "ALTER ROUTINE", "CREATE USER", "EVENT", "TRIGGER",
		"CREATE TABLESPACE",
	} {
		judge(t, f, g, "has the global privilege "+p, "GRANT "+p+" ON *.* TO ACCOUNT")
	}
	judge(t, f, g, "GRANT OPTION", "GRANT PROCESS ON *.* TO ACCOUNT WITH GRANT OPTION")
	judge(t, f, g, "has rights on the schema mysql", "GRANT UPDATE ON mysql.* TO ACCOUNT")
	judge(t, f, g, "has rights on the schema mysql", "GRANT DELETE ON `my%`.* TO ACCOUNT")
	judge(t, f, g, "has rights on the schema mysql", "GRANT DELETE ON `m_sq_`.* TO ACCOUNT")
	judge(t, f, g, "", "GRANT DELETE ON `my\\_ql`.* TO ACCOUNT")
	judge(t, f, g, "has rights on the table mysql.db", "GRANT INSERT ON mysql.db TO ACCOUNT")
	judge(t, f, g, "has rights on the table mysql.db", "GRANT UPDATE (Db) ON mysql.db TO ACCOUNT")
	judge(t, f, g, "has the global privilege FILE",
		"CREATE ROLE ROLE1", "CREATE ROLE ROLE2", "GRANT FILE ON *.* TO ROLE2", "GRANT ROLE2 TO ROLE1",
		"GRANT ROLE1 TO ACCOUNT")
	judge(t, f, g, "has rights on the schema mysql",
		"CREATE ROLE ROLE1", "GRANT INSERT ON mysql.* TO ROLE1", "GRANT ROLE1 TO ACCOUNT")
	judge(t, f, g, "can take the place of 'rotator'@'%'", "GRANT PROXY ON 'rotator'@'%' TO ACCOUNT")
	// Rows for another host of the same name count for the account.
	f.exec(t, "CREATE USER 'two'@'127.0.0.1'", "GRANT INSERT ON mysql.* TO 'two'@'127.0.0.1'")
	f.account(t, "two")
	if got, err := g.Standing(t.Context(), "two"); err != nil || got.Privileged == "" {
		t.Errorf("rights from another host: %+v, %v", got, err)
	}
	for _, account := range []string{"", "root\x00x"} {
		_, err := g.Standing(t.Context(), account)
		if target.ClassOf(err) != target.Denied {
			t.Errorf("%q: %v of class %v, want denied", account, err, target.ClassOf(err))
		}
	}
}

// testUnreadable takes each of the administrator's rights to look away.
func testUnreadable(t *testing.T, f fixture, open func(target.Credential) target.Guarded, tables ...string) {
	account := f.account(t, "").Account
	for _, missing := range tables {
		admin := f.account(t, "without-"+missing)
		who := quote(admin.Account) + "@'%'"
		for _, table := range tables {
			if table != missing {
				f.exec(t, "GRANT SELECT ON mysql."+table+" TO "+who)
			}
		}
		_, err := open(admin).Standing(t.Context(), account)
		text := "GRANT SELECT ON mysql." + missing + " TO " + who
		if target.ClassOf(err) != target.Denied || !strings.Contains(err.Error(), text) {
			t.Errorf("%v of class %v, want denied with %q", err, target.ClassOf(err), text)
		}
	}
}

func testStanding(t *testing.T, n *node) {
	g := n.open(t).(target.Guarded)
	testCommonStanding(t, n, g)
	for _, p := range []string{
		"SET USER", "FEDERATED ADMIN", "CONNECTION ADMIN", "READ_ONLY ADMIN", "REPLICATION SLAVE ADMIN",
		"REPLICATION MASTER ADMIN", "BINLOG ADMIN", "BINLOG REPLAY", "DELETE HISTORY",
	} {
		judge(t, n, g, "has the global privilege "+p, "GRANT "+p+" ON *.* TO ACCOUNT")
	}
	judge(t, n, g, "", "GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO ACCOUNT")
	testUnreadable(t, n, func(admin target.Credential) target.Guarded {
		return n.harness(admin).Open(t, n.Addr).(target.Guarded)
	}, "global_priv", "db", "tables_priv", "roles_mapping", "proxies_priv")
}

// TestStandingOfEverybody gives rights to everybody, which no other test of the server can bear.
func TestStandingOfEverybody(t *testing.T) {
	t.Parallel()
	t.Run("MariaDB", func(t *testing.T) {
		t.Parallel()
		n := start(t, false)
		g := n.open(t).(target.Guarded)
		judge(t, n, g, "")
		n.exec(t, "GRANT INSERT ON mysql.* TO PUBLIC")
		judge(t, n, g, "has rights on the schema mysql")
	})
	t.Run("MySQL", func(t *testing.T) {
		t.Parallel()
		n := startMySQL(t)
		g := n.harness().Open(t, n.Addr).(target.Guarded)
		n.exec(t, "CREATE ROLE mandatory, 'harm less'@'10.%'", "GRANT EVENT ON *.* TO mandatory",
			"SET GLOBAL mandatory_roles = '`harm less`@`10.%`'")
		judge(t, n, g, "")
		n.exec(t, "SET GLOBAL mandatory_roles = '`harm less`@`10.%`, mandatory'")
		judge(t, n, g, "can take the place of 'mandatory'@'%', which has the global privilege EVENT")
	})
}

func mySQLStanding(t *testing.T, n *mySQLNode) {
	h := n.harness()
	g := h.Open(t, n.Addr).(target.Guarded)
	testCommonStanding(t, n, g)
	for _, p := range []string{
		"CREATE ROLE", "DROP ROLE", "SYSTEM_USER", "ROLE_ADMIN", "SET_ANY_DEFINER", "SYSTEM_VARIABLES_ADMIN", "BACKUP_ADMIN",
	} {
		judge(t, n, g, "has the global privilege "+p, "GRANT "+p+" ON *.* TO ACCOUNT")
	}
	judge(t, n, g, "", "GRANT APPLICATION_PASSWORD_ADMIN, SHOW_ROUTINE ON *.* TO ACCOUNT")
	judge(
		t,
		n,
		g,
		"has the global privilege ROLE_ADMIN",
		"CREATE ROLE ROLE1",
		"GRANT ROLE_ADMIN ON *.* TO ROLE1",
		"GRANT ROLE1 TO ACCOUNT",
		"SET DEFAULT ROLE NONE TO ACCOUNT",
	)
	testUnreadable(t, n, func(admin target.Credential) target.Guarded {
		h := h
		h.Admin = admin
		return h.Open(t, n.Addr).(target.Guarded)
	}, "user", "global_grants", "db", "tables_priv", "role_edges", "proxies_priv")
}
