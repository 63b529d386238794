package postgresql_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// grantsCluster is a server with two logins that act as themselves, whose application opens the
// database shop.
type grantsCluster struct {
	*cluster
	reader, web1, web2 target.Credential
}

// TestGrants verifies that what both logins have is no finding, no matter who has granted it and in
// which way, and that the statements of a finding about what only one has leave each of the two
// with all that either could do before.
func TestGrants(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false)
	g := &grantsCluster{
		cluster: c,
		reader:  c.reader(t, "reader"),
		web1:    c.role(t, "web1", "LOGIN"),
		web2:    c.role(t, "web2", "LOGIN"),
	}
	c.exec(t, "CREATE ROLE teller; CREATE ROLE team; GRANT team TO web1, web2; CREATE ROLE owners")
	c.exec(t, "CREATE DATABASE shop")
	c.exec(t, "REVOKE CONNECT, TEMPORARY ON DATABASE shop FROM PUBLIC")
	c.exec(t, "GRANT CONNECT ON DATABASE shop TO web1, web2, reader")
	g.shop(t, `CREATE TABLE public.ref (n int, m int, "a  b" int); CREATE SEQUENCE public.s; CREATE SCHEMA more;
		CREATE TYPE public.mood AS ENUM ('ok'); CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
		REVOKE ALL ON FUNCTION public.f() FROM PUBLIC; REVOKE ALL ON TYPE public.mood FROM PUBLIC;
		REVOKE ALL ON LANGUAGE plpgsql FROM PUBLIC; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER v FOREIGN DATA WRAPPER w;
		SELECT lo_create(77)`)
	t.Run("equal", g.testEqual)
	t.Run("one has more", g.testOneHasMore)
	t.Run("revoked", g.testRevokes)
	t.Run("long names", g.testLongNames)
}

func (g *grantsCluster) shop(t *testing.T, statements string) {
	t.Helper()
	targettest.Must(t, g.Exec(t.Context(), "shop", statements))
}

// check returns the findings about the pair, as they are shown.
func (g *grantsCluster) check(t *testing.T) []target.Finding {
	t.Helper()
	tt := g.openAs(t, g.reader, target.Login{Database: "shop"})
	list, err := target.CheckAccount(targettest.Within(t), tt,
		target.CheckRequest{Current: g.web1, Partner: "web2", Secret: "web_pair"})
	targettest.Must(t, err)
	return list
}

// equal fails if the check finds something.
func (g *grantsCluster) equal(t *testing.T, what string) {
	t.Helper()
	if list := g.check(t); len(list) > 0 {
		t.Errorf("%s: %+v", what, list)
	}
}

func (g *grantsCluster) testEqual(t *testing.T) {
	for _, tc := range []struct{ grant, revoke string }{
		{"GRANT SELECT ON public.ref TO web1, web2", "REVOKE ALL ON public.ref FROM web1, web2"},
		{"GRANT SELECT ON public.ref TO web1, PUBLIC", "REVOKE ALL ON public.ref FROM web1, PUBLIC"},
		{"GRANT SELECT ON public.ref TO web1, team", "REVOKE ALL ON public.ref FROM web1, team"},
		{"GRANT SELECT (n) ON public.ref TO web1; GRANT SELECT ON public.ref TO web1, web2",
			"REVOKE ALL ON public.ref FROM web1, web2; REVOKE ALL (n) ON public.ref FROM web1"},
		{"GRANT SELECT ON public.ref TO teller WITH GRANT OPTION; GRANT SELECT ON public.ref TO web1; SET ROLE teller; " +
			"GRANT SELECT ON public.ref TO web2; RESET ROLE",
			"REVOKE ALL ON public.ref FROM web1, teller CASCADE"},
		{"GRANT SELECT ON public.ref TO teller WITH GRANT OPTION; GRANT SELECT ON public.ref TO web1, web2; " +
			"SET ROLE teller; GRANT SELECT ON public.ref TO web2; RESET ROLE",
			"REVOKE ALL ON public.ref FROM web1, web2, teller CASCADE"},
		{"GRANT UPDATE ON SEQUENCE public.s TO web1; GRANT ALL ON SEQUENCE public.s TO web2; " +
			"GRANT ALL ON SEQUENCE public.s TO web1",
			"REVOKE ALL ON SEQUENCE public.s FROM web1, web2"},
	} {
		g.shop(t, tc.grant)
		g.equal(t, tc.grant)
		g.shop(t, tc.revoke)
	}
	g.shop(t, `ALTER TABLE public.ref OWNER TO owners; GRANT owners TO web1, web2; SET ROLE owners;
		GRANT SELECT ON public.ref TO web1 WITH GRANT OPTION`)
	g.equal(t, "the other login has the rights of the owner")
	g.shop(t, "SET ROLE owners; REVOKE ALL ON public.ref FROM web1")
	g.shop(t, "REVOKE owners FROM web1, web2; ALTER TABLE public.ref OWNER TO CURRENT_USER")
}

// may are expressions about a role, each of which is something that it may do.
var may = []string{
	"has_database_privilege(%s, 'shop', 'CONNECT')", "has_database_privilege(%s, 'shop', 'TEMPORARY')",
	"has_database_privilege(%s, 'shop', 'CREATE WITH GRANT OPTION')",
	"has_table_privilege(%s, 'public.ref', 'SELECT')", "has_table_privilege(%s, 'public.ref', 'INSERT')",
	"has_table_privilege(%s, 'public.ref', 'DELETE WITH GRANT OPTION')",
	"has_column_privilege(%s, 'public.ref', 'm', 'UPDATE')",
	"has_column_privilege(%s, 'public.ref', 'a  b', 'REFERENCES')",
	"has_sequence_privilege(%s, 'public.s', 'USAGE')", "has_schema_privilege(%s, 'more', 'CREATE')",
	"has_schema_privilege(%s, 'more', 'USAGE')", "has_type_privilege(%s, 'public.mood', 'USAGE')",
	"has_function_privilege(%s, 'public.f()', 'EXECUTE')", "has_language_privilege(%s, 'plpgsql', 'USAGE')",
	"has_server_privilege(%s, 'v', 'USAGE')", "has_foreign_data_wrapper_privilege(%s, 'w', 'USAGE')",
	`EXISTS (SELECT FROM pg_largeobject_metadata m, aclexplode(m.lomacl) x WHERE m.oid = 77 AND x.grantee = %s::regrole
		AND x.privilege_type = 'UPDATE')`,
	`EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) x WHERE x.grantee = %s::regrole
		AND x.privilege_type = 'SELECT')`,
	"pg_has_role(%s, 'readers', 'USAGE')", "pg_has_role(%s, 'readers', 'MEMBER WITH ADMIN OPTION')",
	"pg_has_role(%s, 'writers', 'MEMBER')", "pg_has_role(%s, 'printers', 'MEMBER WITH ADMIN OPTION')",
}

// rights returns what a login may do.
func (g *grantsCluster) rights(t *testing.T, login string) map[string]bool {
	t.Helper()
	conn, err := g.connectTo(t.Context(), "shop", g.reader)
	targettest.Must(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	has := map[string]bool{}
	for _, expression := range may {
		var is bool
		targettest.Must(t, conn.QueryRow(t.Context(), "SELECT "+fmt.Sprintf(expression, "'"+login+"'")).Scan(&is))
		if is {
			has[expression] = true
		}
	}
	return has
}

func (g *grantsCluster) testOneHasMore(t *testing.T) {
	g.shop(t, `GRANT TEMPORARY ON DATABASE shop TO web2; GRANT CREATE ON DATABASE shop TO web1 WITH GRANT OPTION;
		GRANT SELECT ON public.ref TO web1; GRANT SELECT, INSERT ON public.ref TO web2;
		GRANT DELETE ON public.ref TO web1; GRANT DELETE ON public.ref TO web2 WITH GRANT OPTION;
		GRANT UPDATE (m), REFERENCES ("a  b") ON public.ref TO web1; GRANT USAGE ON SEQUENCE public.s TO web1;
		GRANT CREATE ON SCHEMA more TO web1; GRANT USAGE ON SCHEMA more TO web2; GRANT USAGE ON TYPE public.mood TO web2;
		GRANT EXECUTE ON FUNCTION public.f() TO web1; GRANT USAGE ON LANGUAGE plpgsql TO web2;
		GRANT USAGE ON FOREIGN SERVER v TO web1; GRANT USAGE ON FOREIGN DATA WRAPPER w TO web2;
		GRANT UPDATE ON LARGE OBJECT 77 TO web1; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO web2`)
	g.exec(t, "CREATE ROLE readers; CREATE ROLE writers; CREATE ROLE printers; GRANT readers TO web2 WITH ADMIN OPTION; "+
		"GRANT writers TO web2; GRANT printers TO web1 WITH ADMIN OPTION")
	either := g.rights(t, "web1")
	maps.Copy(either, g.rights(t, "web2"))
	if len(either) != len(may) {
		t.Fatalf("either login may do %d of %d things", len(either), len(may))
	}
	rounds := 0
	for list := g.check(t); len(list) > 0; list = g.check(t) {
		if rounds++; rounds > 10 {
			t.Fatalf("after %d rounds: %+v", rounds, list)
		}
		for _, f := range list {
			isGrant := strings.Contains(f.Text, "each needs grants of its own")
			if f.Code != "unequal-logins" || strings.Contains(f.Text, "SELECT on TABLE public.ref") ||
				!isGrant && !strings.Contains(f.Text, "is a member of roles that") ||
				!strings.Contains(f.Fix, "Only if no application") && !strings.HasPrefix(f.Fix, "Run GRANT printers ") {
				t.Errorf("a finding: %+v", f)
			}
			if isGrant {
				g.shop(t, statementsOf(t, f.Fix, ", run ", ". "))
			} else {
				g.exec(t, statementsOf(t, f.Fix+" ", "Run ", ". "))
			}
		}
	}
	for _, login := range []string{"web1", "web2"} {
		if has := g.rights(t, login); !maps.Equal(has, either) {
			t.Errorf("%s may do %v; want %v", login, has, either)
		}
	}
	for _, who := range []target.Credential{g.web1, g.web2} {
		conn, err := g.connectTo(t.Context(), "shop", who)
		targettest.Must(t, err)
		run(t, conn, "SELECT FROM public.ref", "INSERT INTO public.ref VALUES (1)", "UPDATE public.ref SET m = 1",
			"DELETE FROM public.ref", "SELECT nextval('public.s'), public.f()", "CREATE TEMP TABLE x (n int)")
		_ = conn.Close(context.Background())
	}
}

// statementsOf returns the statements of an advice between two texts.
func statementsOf(t *testing.T, fix, from, to string) string {
	t.Helper()
	_, rest, found := strings.Cut(fix, from)
	statements, _, ends := strings.Cut(rest, to)
	if !found || !ends {
		t.Fatalf("no statements: %s", fix)
	}
	return statements
}

// testRevokes verifies that the statements of the second remedy take what one login has more from
// it, and nothing from the other.
func (g *grantsCluster) testRevokes(t *testing.T) {
	before := g.rights(t, "web2")
	g.shop(t, `CREATE TABLE public.lent (n int); GRANT SELECT ON public.lent TO web1, web2;
		GRANT INSERT ON public.lent TO web1 WITH GRANT OPTION; GRANT INSERT ON public.lent TO web2;
		GRANT UPDATE ON public.lent TO teller WITH GRANT OPTION; SET ROLE teller; GRANT UPDATE ON public.lent TO web1`)
	list := g.check(t)
	if len(list) != 1 || !strings.Contains(list[0].Text, "INSERT on TABLE public.lent with grant option") {
		t.Fatalf("%+v", list)
	}
	g.shop(t, statementsOf(t, list[0].Fix, "Only if no application needs it, run ", " instead"))
	g.equal(t, "revoked")
	g.exec(t, "CREATE ROLE lenders; GRANT lenders TO web2")
	list = g.check(t)
	if len(list) != 1 || !strings.HasPrefix(list[0].Fix, "Run GRANT lenders TO web1") {
		t.Fatalf("%+v", list)
	}
	g.exec(t, statementsOf(t, list[0].Fix, "Only if no application needs it, run ", " instead"))
	g.equal(t, "a membership revoked")
	g.shop(t, "SET ROLE web1; SELECT FROM public.lent; INSERT INTO public.lent VALUES (1)")
	if after := g.rights(t, "web2"); !maps.Equal(before, after) {
		t.Errorf("the other login may do %v; want %v", after, before)
	}
}

// testLongNames verifies that no statement of an advice is cut, however many and long the names.
func (g *grantsCluster) testLongNames(t *testing.T) {
	for i := range 12 {
		g.shop(t, fmt.Sprintf("CREATE TABLE public.%[1]s (n int); GRANT ALL ON public.%[1]s TO web1",
			id(fmt.Sprintf("%02d %s", i, strings.Repeat("x", 55)))))
	}
	rounds := 0
	for list := g.check(t); len(list) > 0; list = g.check(t) {
		if rounds++; rounds > 12 || len(list) != 1 || strings.Contains(list[0].Fix, "…") {
			t.Fatalf("round %d: %+v", rounds, list)
		}
		g.shop(t, statementsOf(t, list[0].Fix, ", run ", ". "))
	}
	if rounds < 2 {
		t.Errorf("%d rounds", rounds)
	}
}
