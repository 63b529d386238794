package postgresql_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// TestAfterALeak verifies that the end of an emergency names the section of the page of this kind,
// and that the queries there list each way back that the holder of a leaked credential has made.
func TestAfterALeak(t *testing.T) {
	t.Parallel()
	if leaves := strings.Join(postgresql.Kind().Leaves, " "); !strings.Contains(leaves, "SECURITY DEFINER") ||
		!strings.Contains(leaves, `docs/targets/postgresql.md, "After a leak"`) {
		t.Errorf("the end of an emergency: %q", leaves)
	}
	page, err := os.ReadFile("../../../docs/targets/postgresql.md")
	targettest.Must(t, err)
	_, section, _ := strings.Cut(string(page), "\n## After a leak\n")
	_, section, _ = strings.Cut(section, "```sql\n")
	queries, _, _ := strings.Cut(section, "```")

	c := startCluster(t, false, "max_prepared_transactions=5")
	app, mallory := c.role(t, "app", "LOGIN"), c.role(t, "mallory", "LOGIN")
	c.exec(t, "CREATE ROLE app_clone LOGIN IN ROLE app; CREATE SCHEMA s8 AUTHORIZATION app")
	targettest.Must(t, c.as(t, app,
		"CREATE FUNCTION s8.door(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN EXECUTE q; END$$",
		"GRANT USAGE ON SCHEMA s8 TO mallory",
		"CREATE TABLE s8.t (n int)",
		"CREATE FUNCTION s8.trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$",
		"CREATE TRIGGER trap BEFORE INSERT ON s8.t FOR EACH ROW EXECUTE FUNCTION s8.trap()",
		"BEGIN", "LOCK TABLE s8.t", "PREPARE TRANSACTION 'left'",
	))
	c.exec(t, "GRANT app TO mallory")
	targettest.Must(t, c.as(t, mallory, "SELECT s8.door('ALTER ROLE app RESET work_mem')"))
	open, err := c.connect(t.Context(), app)
	targettest.Must(t, err)
	defer func() { _ = open.Close(t.Context()) }()

	wants := []string{"door", "trap", "mallory", "app", "left"}
	all := strings.SplitAfterN(queries, ";\n", len(wants)+1)
	if len(all) != len(wants)+1 {
		t.Fatalf("the page has %d queries", len(all)-1)
	}
	boss := c.role(t, "boss", "LOGIN SUPERUSER")
	for _, before := range []string{
		"SELECT",
		"DROP ROLE app_clone", // an account of strategy single has no clone
	} {
		c.exec(t, before)
		conn, err := c.connect(t.Context(), boss)
		targettest.Must(t, err)
		for i, want := range wants {
			rows, err := conn.Query(t.Context(), all[i])
			targettest.Must(t, err)
			list, err := pgx.CollectRows(rows, pgx.RowToMap)
			if err != nil || !strings.Contains(fmt.Sprint(list), want) {
				t.Errorf("after %s, %s: %v, %v; want %s", before, all[i], list, err, want)
			}
		}
		_ = conn.Close(t.Context())
	}
}
