package mysql_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// testAfterALeak verifies that the end of an emergency names the section of the page of these
// kinds, that each query there lists what the holder of a leaked credential has made, and that the
// statement beside it ends that.
func testAfterALeak(t *testing.T, f fixture, kind target.Kind, tt target.Target) {
	if leaves := strings.Join(kind.Leaves, " "); !strings.Contains(leaves, target.OpenSessions) ||
		!strings.Contains(leaves, "stored routines") || !strings.Contains(leaves, `docs/targets/mysql.md, "After a leak"`) {
		t.Errorf("the end of an emergency: %q", leaves)
	}
	page, err := os.ReadFile("../../../docs/targets/mysql.md")
	targettest.Must(t, err)
	_, section, _ := strings.Cut(string(page), "\n## After a leak\n")
	_, section, _ = strings.Cut(section, "```sql\n")
	section, _, _ = strings.Cut(section, "```")

	app, clone := f.account(t, "app"), f.account(t, "app_clone")
	f.account(t, "mallory")
	f.account(t, "appXclone") // which a pattern of app_clone could match
	f.exec(t, "SET GLOBAL log_bin_trust_function_creators = ON",
		"CREATE DATABASE leak_db", "CREATE TABLE leak_db.t (a int)", "GRANT ALL ON leak_db.* TO app@'%'",
		"GRANT ALL ON leak_db.* TO app_clone@'%'", "GRANT PROXY ON app@'%' TO mallory@'%'",
		"CREATE DEFINER = appXclone@'%' VIEW leak_db.innocent AS SELECT 1")
	f.exec(t, "CREATE DEFINER = appXclone@'%' EVENT leak_db.others ON SCHEDULE EVERY 1 DAY DO SET @a = 1",
		"GRANT PROXY ON appXclone@'%' TO mallory@'%'")
	open, err := f.connect(t.Context(), app)
	targettest.Must(t, err)
	defer open.Close()
	conn := boss(t, f, "leak-boss")
	as := func(c target.Credential, statements ...string) {
		t.Helper()
		conn, err := f.connect(t.Context(), c)
		targettest.Must(t, err)
		defer conn.Close()
		for _, s := range statements {
			_, err := conn.(driver.ExecerContext).ExecContext(t.Context(), s, nil)
			targettest.Must(t, err)
		}
	}
	as(app,
		"CREATE EVENT leak_db.back ON SCHEDULE EVERY 1 DAY DO SET @a = 1",
		"CREATE PROCEDURE leak_db.door() SELECT 1",
		"CREATE PROCEDURE leak_db.harmless() SQL SECURITY INVOKER SELECT 1",
		"CREATE VIEW leak_db.pane AS SELECT 1")
	as(clone, "CREATE FUNCTION leak_db.hatch() RETURNS int NO SQL RETURN 1",
		"CREATE TRIGGER leak_db.trap BEFORE INSERT ON leak_db.t FOR EACH ROW SET @a = 1")
	// A check has queries of its own for two of these.
	advised := map[int]string{}
	for _, finding := range targettest.Findings(t, tt, target.CheckRequest{Current: app, Partner: clone.Account}) {
		if i, ok := map[string]int{"scheduled-events": 1, "proxy-users": 5}[finding.Code]; ok {
			_, advised[i], _ = strings.Cut(finding.Fix, "To list all of them: ")
		}
	}
	if len(advised) != 2 {
		t.Errorf("a check finds %v", advised)
	}
	for i, want := range []string{"app", "back", "door hatch", "pane", "trap", "mallory"} {
		query, rest, found := strings.Cut(section, ";\n")
		comment, query, _ := strings.Cut(query, "\n")
		_, end, ends := strings.Cut(comment, ": ")
		if !found || !ends {
			t.Fatalf("the page has %d queries with a statement each", i)
		}
		end, _, _ = strings.Cut(end, ",")
		section = rest
		rows := list(t, conn, query)
		for k := 0; k < 50 && i == 0 && len(rows) > 1; k++ { // a closed session ends soon
			f.exec(t, "DO SLEEP(0.1)")
			rows = list(t, conn, query)
		}
		if other, ok := advised[i]; ok {
			if of := list(t, conn, other); !sameRows(of, rows) {
				t.Errorf("the query of the page lists %v, and the one of a check, %s, lists %v", rows, other, of)
			}
		}
		if text := fmt.Sprint(rows); len(rows) != len(strings.Fields(want)) {
			t.Errorf("%s: %s; want %s", query, text, want)
		}
		for j, name := range strings.Fields(want)[:min(len(rows), len(strings.Fields(want)))] {
			if !strings.Contains(fmt.Sprint(rows), name) {
				t.Errorf("%s: %v; want %s", query, rows, name)
			}
			statement := end
			for column, value := range rows[j] {
				statement = strings.ReplaceAll(statement, "{"+column+"}", value)
			}
			f.exec(t, statement)
		}
		left := list(t, conn, query)
		for k := 0; k < 50 && i == 0 && len(left) > 0; k++ { // a killed session ends soon
			f.exec(t, "DO SLEEP(0.1)")
			left = list(t, conn, query)
		}
		if len(left) > 0 && want != "back" || strings.Contains(fmt.Sprint(left), "ENABLED") {
			t.Errorf("%s leaves %v", end, left)
		}
	}
}

// sameRows compares rows in any order.
func sameRows(a, b []map[string]string) bool {
	sorted := func(rows []map[string]string) (out []string) {
		for _, r := range rows {
			out = append(out, fmt.Sprint(r))
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(sorted(a), sorted(b))
}

// boss opens a session that sees everything.
func boss(t *testing.T, f fixture, name string) driver.Conn {
	t.Helper()
	c := f.account(t, name)
	f.exec(t, "GRANT ALL ON *.* TO "+quote(name)+"@'%'")
	conn, err := f.connect(t.Context(), c)
	targettest.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// list returns the rows of a query by the names of columns, in lower case.
func list(t *testing.T, conn driver.Conn, query string) (out []map[string]string) {
	t.Helper()
	rows, err := conn.(driver.QueryerContext).QueryContext(context.WithoutCancel(t.Context()), query, nil)
	targettest.Must(t, err)
	defer rows.Close()
	for {
		values := make([]driver.Value, len(rows.Columns()))
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return out
		} else {
			targettest.Must(t, err)
		}
		row := map[string]string{}
		for i, column := range rows.Columns() {
			value := values[i]
			if text, ok := value.([]byte); ok {
				value = string(text)
			}
			row[strings.ToLower(column)] = fmt.Sprint(value)
		}
		out = append(out, row)
	}
}
