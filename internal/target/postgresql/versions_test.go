package postgresql_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// TestVersions runs the suite, and makes two logins from one, with other versions of the server
// than the system's.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range servers.PostgresVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			c := startClusterWith(t, false, sandbox.PostgresConfig{
				Programs: servers.PostgresPrograms(t, version),
				Settings: []string{
					"max_prepared_transactions=50",
					"max_connections=100",
					"shared_preload_libraries=passwordcheck",
				},
			})
			if !strings.HasPrefix(c.Version, version) {
				t.Fatalf("the server has version %s", c.Version)
			}
			reader, blind := c.reader(t, "reader"), c.role(t, "blind", "LOGIN CREATEROLE")
			c.admins = []string{"reader", "blind"}
			t.Run("suite", func(t *testing.T) { targettest.Run(t, h(c, reader)) })
			t.Run("form", func(t *testing.T) { testForm(t, c, reader, blind) })
			switch version {
			case "17.0":
				t.Run("from an owner", func(t *testing.T) { testMigrates(t, c) })
				testLosesRole(t, c)
			case "17.1":
				testIgnoresRole(t, c)
			default:
				t.Run("two logins", func(t *testing.T) { twoLogins(t, c, c.open(t, c.Addr(), reader), "reader") })
				t.Run("as before", func(t *testing.T) { testStaysAsItWas(t, c) })
				t.Run("from an owner", func(t *testing.T) { testMigrates(t, c) })
				t.Run("undone", func(t *testing.T) { testUndo(t, c) })
				t.Run("proof", func(t *testing.T) { testProof(t, c) })
				t.Run("before and after", func(t *testing.T) { testBeforeAndAfter(t, c) })
				t.Run("check of two logins", func(t *testing.T) { testCheckPair(t, c, reader, blind) })
				t.Run("check of the administrator", func(t *testing.T) { testMayAlter(t, c, reader, blind) })
			}
		})
	}
}

// testLosesRole verifies that a server where DISCARD ALL ends the effect of a role's setting "role"
// is found.
func testLosesRole(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "admin", "LOGIN SUPERUSER"))
	app := c.messy(t)
	r := target.PlanRequest{Account: "messy", Logins: [2]string{"messy", "messy_clone"}, Current: app}
	p := planned(t, tt, r)
	if !strings.Contains(strings.Join(p.Notes, " "), "DISCARD ALL") {
		t.Errorf("the notes: %q", p.Notes)
	}
	targettest.Must(t, tt.(target.Preparer).ApplyPlan(t.Context(), p))
	c.exec(t, "ALTER ROLE messy_clone PASSWORD '"+c.stored(t, "messy")+"'")
	clone := app
	clone.Account = "messy_clone"
	targettest.Must(t, c.as(t, clone, "RESET ALL", "SELECT * FROM mine", "RESET role", "SELECT * FROM mine"))
	if c.as(t, clone, "DISCARD ALL", "SELECT * FROM mine") == nil {
		t.Error("DISCARD ALL keeps the role: the finding is wrong")
	}
	got, text := findings(t, tt, target.CheckRequest{Current: app, Partner: "messy_clone"})
	if got != "role-reset needs-consent" {
		t.Errorf("found: %s: %s", got, text)
	}
}

// testIgnoresRole verifies that a server that ignores a role's setting "role" is found and refused.
func testIgnoresRole(t *testing.T, c *cluster) {
	tt := c.open(t, c.Addr(), c.role(t, "admin", "LOGIN SUPERUSER"))
	app := c.role(t, "app", "LOGIN")
	r := target.PlanRequest{Account: "app", Logins: [2]string{"app", "app_clone"}, Current: app}
	_, err := tt.(target.Preparer).PlanAccounts(t.Context(), r)
	targettest.Expect(t, err, target.Denied, "ignores a role's setting")
	c.exec(t, "CREATE ROLE app_clone LOGIN IN ROLE app; ALTER ROLE app_clone SET role = 'app'")
	clone := app
	clone.Account = "app_clone"
	c.exec(t, "ALTER ROLE app_clone PASSWORD '"+c.stored(t, "app")+"'")
	err = proved(t, tt, r, app, clone)
	targettest.Expect(t, err, target.Denied, `acts as ("app", "app_clone")`)
	got, text := findings(t, tt, target.CheckRequest{Current: app, Partner: "app_clone"})
	if got != "role-ignored impossible" {
		t.Errorf("found: %s: %s", got, text)
	}
}

// TestStandby verifies that a standby is asked apart from the writer, and that one that the
// configuration calls a writer is found.
func TestStandby(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false, "wal_level=replica", "max_wal_senders=4")
	reader, who := c.reader(t, "reader"), c.account(t)
	standby := servers.StartPostgres(t, sandbox.PostgresConfig{StandbyOf: c.Postgres})
	tt := c.open(t, c.Addr(), reader, fmt.Sprintf(
		`"verify":[%q,{"address":%q,"role":"replica","lag":"7s"}]`, c.Addr(), standby.Addr(),
	))
	copied := tt.(interface {
		VerifyCopies(ctx context.Context, c target.Credential) error
		Lag() time.Duration
	})
	if got := copied.Lag(); got != 7*time.Second {
		t.Errorf("Lag = %v", got)
	}
	if err := standby.Exec(t.Context(), "postgres", "SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	candidate, err := targetGenerate(t, tt, who.Account)
	targettest.Must(t, err)
	change := target.Change{ID: "standby", Strategy: target.Single, New: candidate, Old: who}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	targettest.Must(t, tt.Verify(targettest.Within(t), candidate))
	targettest.Expect(t, copied.VerifyCopies(targettest.Within(t), candidate), target.Rejected, "(28P01)")
	if err := standby.Exec(t.Context(), "postgres", "SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	ctx, tick := targettest.Within(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for err := copied.VerifyCopies(ctx, candidate); err != nil; err = copied.VerifyCopies(ctx, candidate) {
		select {
		case <-ctx.Done():
			t.Fatalf("the standby never accepts the password: %v", err)
		case <-tick.C:
		}
	}
	ask := target.CheckRequest{Current: candidate}
	if got, text := findings(t, tt, ask); got != "" {
		t.Errorf("with its role: %s: %s", got, text)
	}
	wrong := c.open(t, c.Addr(), reader, fmt.Sprintf(`"verify":[%q,%q]`, c.Addr(), standby.Addr()))
	got, text := findings(t, wrong, ask)
	if got != "replica-as-writer impossible, replica-as-writer note" || !strings.Contains(text, `"role": "replica"`) {
		t.Errorf("called a writer: %s: %s", got, text)
	}
	wrong = c.open(t, c.Addr(), reader, fmt.Sprintf(
		`"verify":[%q,{"address":"localhost:%d","role":"replica"}]`, c.Addr(), c.Port,
	))
	if got, text := findings(t, wrong, ask); got != "no-replica note" {
		t.Errorf("a writer called a replica: %s: %s", got, text)
	}
}

// TestPgBouncer verifies what a pooler's answers mean: one with a list of its own hides that a
// password is wrong, one that asks the server knows the new password at once.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, false, sandbox.PostgresConfig{HBA: []string{"local all all trust"}})
	reader, who := c.reader(t, "reader"), c.account(t)
	listed := servers.StartPgBouncer(t, c.Postgres, []string{servers.User(who.Account, who.Secret.Reveal())})
	asking := servers.StartPgBouncer(t, c.Postgres, nil, "auth_user = "+sandbox.PostgresAdmin,
		"auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1")
	behind := func(address string) target.Target {
		return c.open(t, address, reader, fmt.Sprintf(`"admin_address":%q`, c.Addr()),
			fmt.Sprintf(`"verify":[%q,{"address":%q,"role":"pooler"}]`, c.Addr(), address))
	}
	list, query := behind(listed.Addr), behind(asking.Addr)
	for _, tt := range []target.Target{list, query} {
		targettest.Must(t, tt.Verify(targettest.Within(t), who))
		if got, text := findings(t, tt, target.CheckRequest{Current: who}); got != "pooler needs-consent" {
			t.Errorf("found: %s: %s", got, text)
		}
	}
	for _, pooler := range []string{listed.Addr, asking.Addr} {
		undeclared := c.open(t, pooler, reader, fmt.Sprintf(`"admin_address":%q`, c.Addr()))
		if got, text := findings(t, undeclared, target.CheckRequest{Current: who}); got != "pooler needs-consent" {
			t.Errorf("not declared: %s: %s", got, text)
		}
		// The list of the one has no administrator; the other would ask for one.
		targettest.Must(t, undeclared.(target.Tester).Test(targettest.Within(t)))
	}
	candidate, err := targetGenerate(t, list, who.Account)
	targettest.Must(t, err)
	change := target.Change{ID: "pooled", Strategy: target.Single, New: candidate, Old: who}
	targettest.Must(t, list.Apply(targettest.Within(t), change))
	targettest.Expect(t, list.Verify(targettest.Within(t), candidate), target.Unclear, "(08P01)")
	targettest.Must(t, query.Verify(targettest.Within(t), candidate))
	// At the pooler alone, so that no answer of the server hides the pooler's.
	alone := func(l target.Login, who target.Credential) error {
		l.Endpoints = []string{asking.Addr}
		return c.openWith(t, target.Settings{
			Config: []byte(c.config(c.Addr(), fmt.Sprintf(`"verify":[%q]`, asking.Addr))),
			Admin:  reader,
			Login:  l,
		}).Verify(targettest.Within(t), who)
	}
	targettest.Must(t, alone(target.Login{}, candidate))
	for _, err := range []error{
		alone(target.Login{}, who),
		alone(target.Login{}, target.Credential{Account: "none", Secret: who.Secret}),
	} {
		targettest.Expect(t, err, target.Unclear, "(08P01)")
	}
	c.alter(t, candidate, "CONNECTION LIMIT 0")
	if err := alone(target.Login{}, candidate); target.ClassOf(err) == target.Rejected {
		t.Errorf("a limit at the server behind a pooler: %v", err)
	}
}

// atLeast reports whether the server has a major version or a later one.
func (c *cluster) atLeast(major int) bool {
	first, _, _ := strings.Cut(c.Version, ".")
	n, err := strconv.Atoi(first)
	return err == nil && n >= major
}
