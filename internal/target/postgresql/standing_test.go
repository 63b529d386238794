package postgresql_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// standing returns the suite's view of a cluster's roles.
func standing(c *cluster, admin target.Credential) *targettest.Standing {
	return &targettest.Standing{
		Others: []string{
			strings.ToUpper(admin.Account), admin.Account + " ", `"` + admin.Account + `"`, admin.Account + "@%",
		},
		Privileged: func(t *testing.T) string {
			return c.role(t, fmt.Sprintf("super%d", c.count.Add(1)), "LOGIN SUPERUSER").Account
		},
		Trace: func(t *testing.T, account string) string {
			row := c.read(t, "SELECT a::text || a.xmin::text FROM pg_authid a WHERE rolname = $1", account)
			failed := strings.Count(c.log.String(), `authentication failed for user "`+account+`"`)
			return fmt.Sprint(row, failed)
		},
	}
}

// read reads one text as a superuser.
func (c *cluster) read(t *testing.T, query string, arguments ...any) string {
	t.Helper()
	conn, err := c.Admin(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var out string
	if err := conn.QueryRow(t.Context(), query, arguments...).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// testStanding verifies each reason for which a role is privileged, with an administrator who is no
// superuser.
func testStanding(t *testing.T, c *cluster, _, blind target.Credential) {
	g := c.open(t, c.Addr(), blind).(target.Guarded)
	judge := func(account string) target.Standing {
		t.Helper()
		got, err := g.Standing(t.Context(), account)
		if err != nil {
			t.Fatalf("%s: %v", account, err)
		}
		return got
	}
	c.exec(t, `CREATE ROLE st_group; CREATE ROLE st_owner CREATEDB; CREATE ROLE st_chief SUPERUSER;
		CREATE ROLE st_between IN ROLE st_chief; CREATE ROLE rds_superuser; CREATE TABLE st_data (x int);
		GRANT ALL ON st_data TO st_group`)
	for attributes, want := range map[string]string{
		"LOGIN":                                     "",
		"LOGIN CREATEDB":                            "",
		"LOGIN IN ROLE st_group, st_owner":          "",
		"LOGIN IN ROLE pg_monitor":                  "",
		"NOLOGIN SUPERUSER":                         "is a superuser",
		"LOGIN CREATEROLE":                          "CREATEROLE",
		"LOGIN REPLICATION":                         "REPLICATION",
		"LOGIN BYPASSRLS":                           "BYPASSRLS",
		"LOGIN IN ROLE st_chief":                    `is a member of "st_chief", which is a superuser`,
		"LOGIN NOINHERIT IN ROLE st_between":        `is a member of "st_chief", which is a superuser`,
		"LOGIN IN ROLE st_group, blind":             `is a member of "blind", which may create`,
		"LOGIN IN ROLE pg_execute_server_program":   `is a member of "pg_execute_server_program"`,
		"LOGIN IN ROLE pg_read_server_files":        `is a member of "pg_read_server_files"`,
		"LOGIN IN ROLE pg_write_server_files":       `is a member of "pg_write_server_files"`,
		"LOGIN IN ROLE pg_read_all_data":            "stored passwords of all roles",
		"LOGIN NOINHERIT IN ROLE pg_write_all_data": `is a member of "pg_write_all_data"`,
		"LOGIN IN ROLE rds_superuser":               `is a member of "rds_superuser"`,
	} {
		name := fmt.Sprintf("st_%d", c.count.Add(1))
		c.exec(t, "CREATE ROLE "+name+" "+attributes)
		got := judge(name)
		if got.Administrator || (got.Privileged == "") != (want == "") || !strings.Contains(got.Privileged, want) {
			t.Errorf("%s: %+v, want %q", attributes, got, want)
		}
	}
	c.exec(t, `CREATE ROLE st_reader; GRANT SELECT (rolpassword) ON pg_catalog.pg_authid TO st_reader;
		CREATE ROLE st_setter; CREATE ROLE st_set_by_group IN ROLE st_setter`)
	if got := judge("st_reader"); !strings.Contains(got.Privileged, "stored passwords") {
		t.Errorf("a role that reads verifiers: %+v", got)
	}
	if c.read(t, "SELECT (current_setting('server_version_num')::int >= 150000)::text") == "true" {
		c.exec(t, "GRANT ALTER SYSTEM ON PARAMETER archive_command TO st_setter")
		for _, name := range []string{"st_setter", "st_set_by_group"} {
			if got := judge(name); !strings.Contains(got.Privileged, "ALTER SYSTEM") {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

// testStandingOfAdmin verifies that the administrator is found by what the server makes of a name.
func testStandingOfAdmin(t *testing.T, c *cluster, _, _ target.Credential) {
	long := "administrator_" + strings.Repeat("ä", 24) + "x" // 63 bytes
	admin := c.role(t, long, "LOGIN CREATEROLE")
	c.exec(t, `CREATE ROLE st_mask; GRANT st_mask TO "`+long+`"; ALTER ROLE "`+long+`" SET role = st_mask;
		CREATE ROLE st_app LOGIN IN ROLE "`+long+`"`)
	g := c.open(t, c.Addr(), admin).(target.Guarded)
	for account, want := range map[string]bool{
		long:                      true,
		long + "yz":               true,
		long + "ää":               true,
		"st_mask":                 true,
		long[:len(long)-1]:        false,
		long[:len(long)-3] + "ää": false,
		"st_app":                  false,
	} {
		got, err := g.Standing(t.Context(), account)
		if err != nil || got.Administrator != want {
			t.Errorf("%q: %+v, %v; want the administrator: %v", account, got, err, want)
		}
	}
	if got, err := g.Standing(t.Context(), "st_app"); err != nil || got.Privileged == "" {
		t.Errorf("a member of the administrator's role: %+v, %v", got, err)
	}
	for _, account := range []string{"", "postgres\x00", "\x00", "not UTF-8 \xff"} {
		if got, err := g.Standing(t.Context(), account); target.ClassOf(err) != target.Denied {
			t.Errorf("%q: %+v, %v of class %v, want denied", account, got, err, target.ClassOf(err))
		}
	}
}

// testStandingUnreadable verifies that an administrator without the right to read roles gets no
// verdict, and the statement that grants the right.
func testStandingUnreadable(t *testing.T, c *cluster, _, blind target.Credential) {
	c.exec(t, "CREATE DATABASE closed")
	if err := c.Exec(t.Context(), "closed", "REVOKE SELECT ON pg_catalog.pg_auth_members FROM PUBLIC"); err != nil {
		t.Fatal(err)
	}
	g := c.open(t, c.Addr(), blind, `"database":"closed"`).(target.Guarded)
	_, err := g.Standing(t.Context(), c.account(t).Account)
	for _, text := range []string{"GRANT SELECT ON", "pg_auth_members", `"blind"`} {
		if target.ClassOf(err) != target.Denied || !strings.Contains(err.Error(), text) {
			t.Errorf("%v of class %v, want denied with %q", err, target.ClassOf(err), text)
		}
	}
}
