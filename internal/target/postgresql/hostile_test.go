package postgresql_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// shadows makes, as the owner of a database, an operator, a function, a type or a view of the same
// name for what a session may look up, and puts their schema first in the search_path of every
// session of the database.
const shadows = `
CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.seen() RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
	BEGIN RAISE LOG 'hostile code in a session of %', session_user; RETURN true; END $$;
DO $do$
DECLARE
	o record;
	known pg_catalog.regtype[] :=
		'{name,text,oid,int4,int8,bool,timestamptz,interval,"char",regclass,xid,int2,anyelement}';
BEGIN
	FOR o IN SELECT p.oprname, p.oprleft::regtype l, p.oprright::regtype r, p.oprresult::regtype t, p.oid
		FROM pg_operator p WHERE p.oprleft = ANY (known) AND p.oprright = ANY (known)
			AND 'anyelement'::regtype NOT IN (p.oprleft, p.oprright, p.oprresult)
	LOOP
		EXECUTE format('CREATE FUNCTION evil.o%s(a %s, b %s) RETURNS %s LANGUAGE plpgsql SET search_path = pg_catalog AS '
			|| '$f$ BEGIN PERFORM evil.seen(); RETURN a OPERATOR(pg_catalog.%s) b; END $f$',
			o.oid, o.l, o.r, o.t, o.oprname);
		EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.o%s)',
			o.oprname, o.l, o.r, o.oid);
	END LOOP;
	FOR o IN SELECT p.proname, p.oid, pg_get_function_arguments(p.oid) a, p.prorettype::regtype t, p.pronargs
		FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
			AND p.prorettype = ANY (known) AND p.proargtypes::oid[]::regtype[] <@ known AND p.provariadic = 0
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql SET search_path = pg_catalog AS '
				|| '$f$ BEGIN PERFORM evil.seen(); RETURN NULL; END $f$', o.proname, o.a, o.t);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	FOR o IN SELECT c.relname FROM pg_class c
		WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
	LOOP
		BEGIN
			EXECUTE format('CREATE VIEW evil.%I AS SELECT * FROM pg_catalog.%I WHERE evil.seen()', o.relname, o.relname);
			EXECUTE format('GRANT SELECT ON evil.%I TO PUBLIC', o.relname);
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	FOR o IN SELECT t FROM unnest(ARRAY['int4', 'int8', 'text', 'name', 'oid', 'bool', 'regclass']) t
	LOOP
		EXECUTE format('CREATE DOMAIN evil.%I AS pg_catalog.%I CHECK (evil.seen())', o.t, o.t);
	END LOOP;
END $do$;
CREATE TABLE public.bait (n pg_catalog.int4); INSERT INTO public.bait VALUES (1);
ALTER TABLE public.bait ENABLE ROW LEVEL SECURITY;
CREATE POLICY bait ON public.bait USING (evil.seen()); GRANT SELECT ON public.bait TO PUBLIC;
ALTER DATABASE shop SET role = 'mal';
ALTER DATABASE shop SET standard_conforming_strings = off;
ALTER DATABASE shop SET quote_all_identifiers = on;
ALTER DATABASE shop SET default_transaction_read_only = on;
ALTER DATABASE shop SET row_security = off;
ALTER DATABASE shop SET search_path = evil, pg_catalog, public`

// TestHostile verifies that ordinary accounts of a server, which own databases, settings and locks
// there, make Keyturn do nothing for them.
func TestHostile(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, false, sandbox.PostgresConfig{
		HBA:      []string{"local all all trust"},
		Settings: []string{"max_prepared_transactions=5"},
	})
	t.Run("database", func(t *testing.T) { testHostileDatabase(t, c) })
	t.Run("role of its own", func(t *testing.T) { testOwnRole(t, c) })
	t.Run("lock", func(t *testing.T) { testForeignLock(t, c) })
	t.Run("library", func(t *testing.T) { testOwnLibrary(t, c) })
	t.Run("pooler", func(t *testing.T) { testOldPooler(t, c) })
	t.Run("endpoint", func(t *testing.T) { testAdminAtEndpoint(t, c) })
}

// testHostileDatabase runs everything that Keyturn does in a database whose owner has shadowed
// whatever a session looks up by a name, and has a role for every session.
func testHostileDatabase(t *testing.T, c *cluster) {
	admin := c.role(t, "root", "LOGIN SUPERUSER")
	mal, app := c.role(t, "mal", "LOGIN"), c.role(t, "app", "LOGIN")
	c.exec(t, "CREATE DATABASE shop OWNER mal")
	conn, err := c.connectTo(t.Context(), "shop", mal)
	targettest.Must(t, err)
	_, err = conn.PgConn().Exec(t.Context(), shadows).ReadAll()
	targettest.Must(t, err)
	targettest.Must(t, conn.Close(t.Context()))
	// The names are shadowed, also for a superuser: else the test shows nothing.
	conn, err = c.connectTo(t.Context(), "shop", c.role(t, "probe", "LOGIN SUPERUSER"))
	targettest.Must(t, err)
	_, err = conn.PgConn().Exec(t.Context(), "SELECT 1::int4, 'a'::name = 'b'::name").ReadAll()
	targettest.Must(t, err)
	targettest.Must(t, conn.Close(t.Context()))
	support.Until(t, "hostile code of a probe", func() bool {
		return strings.Contains(c.log.String(), hostile+"probe")
	})

	lost := c.open(t, c.Addr(), admin, `"database":"nowhere"`)
	_, err = lost.(target.Guarded).Standing(targettest.Within(t), "app")
	targettest.Expect(t, err, target.Denied, "--set=database=NAME")
	tt := c.open(t, c.Addr(), admin, `"database":"shop"`)
	standing, err := tt.(target.Guarded).Standing(targettest.Within(t), "app")
	if err != nil || standing != (target.Standing{}) {
		t.Errorf("Standing: %+v, %v", standing, err)
	}
	r := target.PlanRequest{
		Account:   "app",
		Logins:    [2]string{"app", "app_clone"},
		Databases: []string{"shop"},
		Current:   app,
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), planned(t, tt, r)))
	clone := c.clone(t, tt, app, r)
	targettest.Must(t, proved(t, tt, r, app, clone))
	findings(t, c.openAs(t, admin, target.Login{Database: "shop"}),
		target.CheckRequest{Current: app, Partner: "app_clone"})
	targettest.Must(t, tt.Retire(targettest.Within(t), target.Change{
		ID: "hostile", Strategy: target.Double, New: clone, Old: app,
	}))
	fresh, err := targetGenerate(t, tt, "app")
	targettest.Must(t, err)
	change := target.Change{ID: "hostile1", Strategy: target.Single, New: fresh, Old: app}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	live, err := tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{fresh, app})
	if err != nil || live[0] != target.Live || live[1] != target.Dead {
		t.Errorf("Inspect: %v, %v", live, err)
	}
	targettest.Must(t, tt.Verify(targettest.Within(t), fresh))
	targettest.Must(t, tt.(target.Reverter).Revert(targettest.Within(t), change))

	for _, session := range []string{admin.Account, app.Account} {
		if text := c.log.String(); strings.Contains(text, hostile+session) {
			_, text, _ = strings.Cut(text, hostile+session)
			t.Errorf("code of the database's owner ran in a session of %s: %.1000s", session, text)
		}
	}
}

// hostile is what the shadows write to the server's log, before the session's login.
const hostile = "hostile code in a session of "

// testOwnRole verifies that a role which an account only names in its settings gets nothing, is
// given nothing, and is not recommended.
func testOwnRole(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "overseer", "LOGIN SUPERUSER"))
	c.role(t, "sup", "LOGIN SUPERUSER")
	one, two := c.role(t, "pam1", "LOGIN"), c.role(t, "pam2", "LOGIN")
	c.exec(t, "GRANT CREATE ON SCHEMA public TO PUBLIC")
	targettest.Must(t, c.as(t, two,
		"CREATE FUNCTION public.pam() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
		"ALTER ROLE pam2 SET role = 'sup'"))
	targettest.Must(t, c.as(t, one, "ALTER ROLE pam1 SET role = 'sup'"))
	r := target.PlanRequest{Account: "pam1", Logins: [2]string{"pam1", "pam2"}, Current: one}
	_, err := tt.(target.Preparer).PlanAccounts(t.Context(), r)
	targettest.Expect(t, err, target.Denied, `role "pam2" exists and has ownership of 1 object of`)
	got, text := findings(t, tt, target.CheckRequest{Current: one, Partner: "pam2"})
	if strings.Contains(text, "sup") || !strings.Contains(got, "role-without-effect note") {
		t.Errorf("found: %s: %s", got, text)
	}
	// A name that an account gives itself is no owner of an earlier release.
	reads := c.role(t, "crn", "LOGIN")
	c.exec(t, "CREATE ROLE crn_owner NOLOGIN")
	targettest.Must(t, c.as(t, reads, "ALTER ROLE crn SET role = 'crn_owner'"))
	p := planned(t, tt, target.PlanRequest{Account: "crn", Logins: [2]string{"crn", "crn_clone"}, Current: reads})
	if text := fmt.Sprint(p.Steps, p.Others); strings.Contains(text, "crn_owner") {
		t.Errorf("the plan: %s", text)
	}
	// A setting may be too long to be read.
	targettest.Must(t, c.as(t, reads,
		"DO $$ BEGIN EXECUTE format('ALTER ROLE crn SET search_path = %L', repeat('A', 8000000)); END $$"))
	findings(t, tt, target.CheckRequest{Current: reads})
	_, err = tt.(target.Preparer).PlanAccounts(t.Context(),
		target.PlanRequest{Account: "crn", Logins: [2]string{"crn", "crn_clone"}, Current: reads})
	targettest.Expect(t, err, target.Denied, "search_path", "reset it")
	targettest.Must(t, c.as(t, reads, "ALTER ROLE crn RESET search_path"))
	// A role that the account may act as, and that gets objects, needs the caller's right.
	c.exec(t, "CREATE ROLE staff; GRANT staff TO crn")
	targettest.Must(t, c.as(t, reads, "ALTER ROLE crn SET role = 'staff'"))
	clone := c.role(t, "crn_clone", "LOGIN IN ROLE crn")
	c.exec(t, "ALTER ROLE crn_clone SET role = 'staff'")
	targettest.Must(t, c.as(t, clone, "SET ROLE NONE", "CREATE TABLE public.stray (n int)"))
	p = planned(t, tt, target.PlanRequest{Account: "crn", Logins: [2]string{"crn", "crn_clone"}, Current: reads})
	if len(p.Others) != 1 || p.Others[0] != "staff" {
		t.Errorf("others: %q; want the role that gets an object", p.Others)
	}
}

// testForeignLock verifies that no other account keeps a password from being changed.
func testForeignLock(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.reader(t, "locksmith"))
	who, other := c.account(t), c.account(t)
	conn, err := c.connect(t.Context(), other)
	targettest.Must(t, err)
	defer conn.Close(context.Background())
	sum := sha256.Sum256([]byte("keyturn role " + who.Account))
	_, err = conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(binary.BigEndian.Uint64(sum[:8])))
	targettest.Must(t, err)
	fresh, err := targetGenerate(t, tt, who.Account)
	targettest.Must(t, err)
	targettest.Must(t, tt.Apply(targettest.Within(t), target.Change{
		ID: "foreign", Strategy: target.Single, New: fresh, Old: who,
	}))
	c.works(t, fresh, true)
}

// testOwnLibrary verifies that an account cannot hide that its password is right.
func testOwnLibrary(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.reader(t, "librarian"))
	who := c.account(t)
	targettest.Must(t, c.as(t, who, "ALTER ROLE "+id(who.Account)+" SET local_preload_libraries = 'nope'"))
	targettest.Expect(t, tt.Verify(targettest.Within(t), who), target.Admitted, "(58P01)")
	wrong := target.Credential{Account: who.Account, Secret: targettest.Value("wrong-password")}
	targettest.Expect(t, tt.Verify(targettest.Within(t), wrong), target.Rejected, "(28P01)")
}

// testOldPooler verifies that a pooler whose list holds an old password does not make it work.
func testOldPooler(t *testing.T, c *cluster) {
	who := c.account(t)
	pooler := servers.StartPgBouncer(t, c.Postgres, []string{servers.User(who.Account, who.Secret.Reveal())})
	tt := c.open(t, pooler.Addr, c.reader(t, "plumber"), fmt.Sprintf(`"admin_address":%q`, c.Addr()))
	targettest.Must(t, tt.Verify(targettest.Within(t), who))
	fresh, err := targetGenerate(t, tt, who.Account)
	targettest.Must(t, err)
	targettest.Must(t, tt.Apply(targettest.Within(t), target.Change{
		ID: "pooler", Strategy: target.Single, New: fresh, Old: who,
	}))
	targettest.Expect(t, tt.Verify(targettest.Within(t), who), target.Rejected, "(28P01)")
}

// testAdminAtEndpoint verifies that the administrator's credential goes to admin_address alone, and
// that a check takes no answer but a server's for one.
func testAdminAtEndpoint(t *testing.T, c *cluster) {
	admin, who := c.reader(t, "guarded"), c.account(t)
	liar := serve(t, nil)
	tt := c.open(t, liar.addr, admin, fmt.Sprintf(`"admin_address":%q`, c.Addr()))
	if err := tt.Verify(targettest.Within(t), who); err == nil {
		t.Error("a login at a server that answers nothing succeeds")
	}
	stranger := serve(t, []byte(message('E', "SFATAL\x00C53300\x00Mno more connections\x00\x00")))
	for _, endpoint := range []string{liar.addr, stranger.addr} {
		at := c.open(t, endpoint, admin, fmt.Sprintf(`"admin_address":%q`, c.Addr()))
		_, err := at.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: who})
		targettest.Expect(t, err, target.Unreachable, "whether "+endpoint+" is a pooler")
	}
	if _, err := tt.(target.Guarded).Standing(targettest.Within(t), who.Account); err != nil {
		t.Error(err)
	}
	got := liar.received()
	if !strings.Contains(got, who.Account) || strings.Contains(got, admin.Account) {
		t.Errorf("the endpoint received %q; want logins of the account alone", got)
	}
}

// liar is a server that answers each login with the same bytes.
type liar struct {
	addr string
	mu   sync.Mutex
	got  bytes.Buffer
}

// serve starts a liar. Without an answer it closes each connection.
func serve(t *testing.T, answer []byte) *liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	targettest.Must(t, err)
	s := &liar{addr: l.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		open.Wait()
	})
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { s.answer(conn, answer) })
		}
	})
	return s
}

func (s *liar) answer(conn net.Conn, answer []byte) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	first := make([]byte, 4096)
	n, _ := conn.Read(first)
	s.mu.Lock()
	s.got.Write(first[:n])
	s.mu.Unlock()
	if len(answer) > 0 {
		_, _ = conn.Write(answer)
		_, _ = io.Copy(io.Discard, conn)
	}
}

func (s *liar) received() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

// message returns a message of the server.
func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))) + body
}

// TestLiar verifies that no answer in a false order proves a password, and that no announced length
// makes the process wait for it.
func TestLiar(t *testing.T) {
	t.Parallel()
	rejected := message('E', "SFATAL\x00C28P01\x00Mno\x00\x00")
	refused := message('E', "SFATAL\x00C53300\x00Mno\x00RInitializeSessionUserId\x00\x00")
	accepted := message('R', "\x00\x00\x00\x00")
	for name, tc := range map[string]struct {
		answer string
		class  target.Class
	}{
		"accepted after a rejection":  {rejected + accepted, target.Rejected},
		"accepted after a refusal":    {refused + accepted, target.Unreachable},
		"accepted without a password": {accepted + refused, target.Denied},
		"a message of a gigabyte":     {"E\x3f\xff\xff\xff", target.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{}
			who := target.Credential{Account: "app", Secret: targettest.Value("a password")}
			tt := c.openWith(t, target.Settings{
				Config: []byte(c.config(serve(t, []byte(tc.answer)).addr)),
				Admin:  who,
			})
			began := time.Now()
			targettest.Expect(t, tt.Verify(targettest.Within(t), who), tc.class)
			if took := time.Since(began); took > limit/4 {
				t.Errorf("it took %v", took)
			}
		})
	}
}
