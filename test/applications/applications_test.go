package applications_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

const (
	value = `{"AccountName":"app","AccountPassword":"the-right-password"}`
	wrong = `{"AccountName":"app","AccountPassword":"a-wrong-password"}`
)

// right is a change of what an application may do, and the work that shows it.
type right struct{ change, work string }

// notices verifies that the work is the same twice, that it shows each right that changes, and that
// a wrong credential is rejected. A server that does not answer has rejected nothing.
func notices(t *testing.T, c applications.Config, take func(what string), rights []right) {
	t.Helper()
	work := func(app *applications.Application, value string) applications.Outcome {
		t.Helper()
		out, err := app.Work(t.Context(), value)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	app := applications.New(c)
	before := work(app, value)
	if again := work(app, value); before[applications.Login] != applications.In || !maps.Equal(before, again) {
		t.Fatalf("the work differs without a reason:\n%v\n%v", before, again)
	}
	for _, r := range rights {
		was := work(app, value)[r.work]
		take(r.change)
		if now := work(app, value)[r.work]; now == was {
			t.Errorf("after %s, %s is still %q", r.change, r.work, now)
		}
	}
	if out := work(app, wrong); out[applications.Login] == applications.In {
		t.Errorf("a wrong password has logged in: %v", out)
	}
	if in, err := app.Login(t.Context(), wrong); in || err != nil {
		t.Errorf("a login with a wrong password: %v, %v; want a rejection", in, err)
	}
	c.Address = support.FreeAddress(t)
	if _, err := applications.New(c).Open(t.Context(), value); err == nil || errors.Is(err, applications.ErrRejected) {
		t.Errorf("a server that is not there has answered: %v", err)
	}
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	applications.Require(t, "postgresql")
	p := servers.StartPostgres(t, sandbox.PostgresConfig{HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
	run := func(statements string) {
		t.Helper()
		if err := p.Exec(context.Background(), "postgres", statements); err != nil {
			t.Fatalf("%s: %v", statements, err)
		}
	}
	run("CREATE ROLE readers; CREATE ROLE writers; CREATE ROLE app LOGIN PASSWORD 'the-right-password'")
	run("CREATE SCHEMA app AUTHORIZATION app")
	run(applications.PostgreSQLObjects("app", "app"))
	run(applications.PostgreSQLRowSecurity("app"))
	run(applications.PostgreSQLLent("app", "app"))
	c := applications.Config{Kind: "postgresql", Address: p.Addr(), Database: "postgres", Name: "app"}
	notices(t, c, run, []right{
		{"REVOKE SELECT ON app.lent FROM app", "lent"},
		{"ALTER ROLE app CREATEDB", "attributes"},
		{"ALTER ROLE app SET statement_timeout = '9s'", "settings"},
		{"CREATE PUBLICATION news FOR TABLE app.orders", "publication"},
		{"GRANT readers TO app", "set role readers"},
		{"UPDATE app.orders SET made_by = 'readers' WHERE id = 1", "rows"},
		{"ALTER ROLE app SET role = 'readers'", "acting role"},
		{"ALTER ROLE app RESET role", "pool 1"},
		{"ALTER ROLE app SET search_path = public", "pool 0"},
	})
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	applications.Require(t, "mariadb")
	m := servers.StartMariaDB(t, nil)
	run := func(statements ...string) {
		t.Helper()
		if err := m.Exec(context.Background(), statements...); err != nil {
			t.Fatalf("%s: %v", statements, err)
		}
	}
	run(applications.MySQLShared...)
	run(applications.MySQLObjects("shop")...)
	run("CREATE USER app@'%' IDENTIFIED BY 'the-right-password'", applications.MySQLGrant("shop", "app@'%'"),
		"GRANT SELECT (id) ON shared.t TO app@'%'")
	c := applications.Config{Kind: "mariadb", Address: m.Addr, Database: "shop"}
	notices(t, c, func(what string) { run(what) }, []right{
		{"REVOKE SELECT (id) ON shared.t FROM app@'%'", "column"},
		{"GRANT SELECT ON shared.* TO app@'%'", "whole table"},
		{"REVOKE CREATE ROUTINE ON shop.* FROM app@'%'", "failures"},
		{"INSERT INTO shop.orders VALUES (3, 'three')", "pool 1"},
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	applications.Require(t, "redis")
	r := servers.StartRedis(t, servers.WithACLFile)
	r.Do(t, "SET", "shared:1", "one")
	rules := "SETUSER app on >the-right-password ~app:* %R~shared:* +@all -@admin -@dangerous"
	set := func(rules string) {
		t.Helper()
		args := []any{"ACL"}
		for _, word := range strings.Fields(rules) {
			args = append(args, word)
		}
		r.Do(t, args...)
	}
	set(rules)
	c := applications.Config{Kind: "redis", Address: r.Addr, Name: "app"}
	notices(t, c, set, []right{
		{"SETUSER app -eval", "work"},
		{"SETUSER app -ping", "work"},
		{"SETUSER app +config|get", "work"},
		{"SETUSER app allkeys", "work"},
	})
}
