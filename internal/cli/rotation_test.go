package cli_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/test/servers"
)

// TestRotationScript types what those type who rotate real credentials: of roles of a PostgreSQL
// server, whose address the script has as $PG. Each role has the password first-password-of- and
// its name.
func TestRotationScript(t *testing.T) {
	t.Parallel()
	p := servers.StartPostgres(t, sandbox.PostgresConfig{HBA: []string{"host all all 127.0.0.1/32 scram-sha-256"}})
	roles := strings.Fields("rotator solo app app_clone drifted kept one two three four")
	for _, role := range roles {
		if err := p.Exec(t.Context(), "postgres",
			fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'first-password-of-%s'", role, role)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Exec(t.Context(), "postgres",
		"ALTER ROLE rotator CREATEROLE; GRANT SELECT ON pg_authid TO rotator"); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/rotation",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PG", p.Addr())
			return environment(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitready": waitReady, "eventually": eventually},
	})
}

// eventually runs a command until its standard output matches, for at most 20 seconds.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
	}
	ts.Fatalf("waited in vain for %q; the last answer was\n%s%s", args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}
