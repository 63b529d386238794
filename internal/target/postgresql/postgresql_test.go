package postgresql_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

const limit = 20 * time.Second

// cluster is a server with what the tests need to know of it.
type cluster struct {
	*sandbox.Postgres
	ca    string // empty when TLS is off
	log   *support.Log
	count atomic.Int64
}

func startCluster(t *testing.T, tls bool, settings ...string) *cluster {
	t.Helper()
	c := &cluster{log: &support.Log{}}
	config := sandbox.PostgresConfig{
		Log: c.log, Settings: append([]string{"synchronous_commit=on", "log_statement=all", "log_min_messages=info"}, settings...),
		HBA: []string{
			"host all banned 127.0.0.1/32 reject", "host all open 127.0.0.1/32 trust", "host all clear 127.0.0.1/32 password",
			"host all all 127.0.0.1/32 scram-sha-256",
		},
	}
	if tls {
		a := servers.NewAuthority(t, t.TempDir())
		c.ca = a.CA
		for path, into := range map[string]*[]byte{a.CertFile: &config.Certificate, a.KeyFile: &config.Key} {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			*into = content
		}
	}
	c.Postgres = servers.StartPostgres(t, config)
	return c
}

func (c *cluster) exec(t *testing.T, statements string) {
	t.Helper()
	if err := c.Exec(t.Context(), "postgres", statements); err != nil {
		t.Fatalf("%v", err)
	}
}

// role makes a role with a password that its verifier, not a statement, tells the server.
func (c *cluster) role(t *testing.T, name, attributes string) target.Credential {
	t.Helper()
	made, err := target.PasswordRule{Punctuation: "!@:/?#%&=+$"}.Generate(t.Context(), name, target.Credential{}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := postgresql.Verifier(made.Secret)
	if err != nil {
		t.Fatal(err)
	}
	c.exec(t, fmt.Sprintf("CREATE ROLE %s %s PASSWORD '%s'", pgx.Identifier{name}.Sanitize(), attributes, verifier))
	return made
}

func (c *cluster) account(t *testing.T) target.Credential {
	t.Helper()
	return c.role(t, fmt.Sprintf(`app "%d" Ä'`, c.count.Add(1)), "LOGIN")
}

func (c *cluster) config(addr string, more ...string) string {
	tls := `{"off":true}`
	if c.ca != "" {
		ca, _ := json.Marshal(c.ca)
		tls = `{"ca":` + string(ca) + `}`
	}
	return fmt.Sprintf(`{"address":%q,"tls":%s%s}`, addr, tls, strings.Join(append([]string{""}, more...), ","))
}

func (c *cluster) open(t *testing.T, addr string, admin target.Credential, more ...string) target.Target {
	t.Helper()
	return h(c, admin, more...).Open(t, addr)
}

// connect logs in without the code under test.
func (c *cluster) connect(ctx context.Context, who target.Credential) (*pgx.Conn, error) {
	mode := "disable"
	if c.ca != "" {
		mode = "require"
	}
	cfg, err := pgx.ParseConfig("sslmode=" + mode)
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = "127.0.0.1", uint16(c.Port), "postgres", who.Account, who.Secret.Reveal()
	return pgx.ConnectConfig(ctx, cfg)
}

func (c *cluster) login(ctx context.Context, who target.Credential) (bool, error) {
	conn, err := c.connect(ctx, who)
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok && answer.Code == "28P01" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, conn.Close(ctx)
}

func h(c *cluster, admin target.Credential, more ...string) targettest.Harness {
	return targettest.Harness{
		Kind: postgresql.Kind(), Addr: c.Addr(), Admin: admin, Login: c.login, Account: c.account,
		Config: func(addr string) string { return c.config(addr, more...) },
		Refused: func(account string) target.Credential {
			return target.Credential{Account: account, Secret: targettest.Value(account)}
		},
		Session: func(t *testing.T, who target.Credential) func() error {
			conn, err := c.connect(t.Context(), who)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			return func() error {
				var one int
				return conn.QueryRow(t.Context(), "SELECT 1").Scan(&one)
			}
		},
		Standing: standing(c, admin),
	}
}

// reader is the least that an administrator needs to also read verifiers.
func (c *cluster) reader(t *testing.T, name string) target.Credential {
	t.Helper()
	admin := c.role(t, name, "LOGIN CREATEROLE")
	c.exec(t, "GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO "+name)
	return admin
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	c := startCluster(t, true, "max_prepared_transactions=50", "session_preload_libraries=passwordcheck", "max_connections=100")
	reader, blind := c.reader(t, "reader"), c.role(t, "blind", "LOGIN CREATEROLE")
	t.Run("suite", func(t *testing.T) {
		t.Run("verifiers readable", func(t *testing.T) { t.Parallel(); targettest.Run(t, h(c, reader)) })
		t.Run("verifiers not readable", func(t *testing.T) { t.Parallel(); targettest.Run(t, h(c, blind)) })
		for name, test := range map[string]func(*testing.T, *cluster, target.Credential, target.Credential){
			"inspect": testInspect, "classes": testClasses, "tls": testTLS, "check_sql": testCheckSQL, "names": testNames,
			"preparation of passwords": testSASLprep, "retire without verifiers": testBlindRetire, "iterations": testIterations,
			"retired by hand": testRetireOther, "standing": testStanding, "standing of administrators": testStandingOfAdmin,
			"standing without rights": testStandingUnreadable,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, c, reader, blind) })
		}
	})
	if !strings.Contains(c.log.String(), "ALTER ROLE") || !strings.Contains(c.log.String(), "PREPARE TRANSACTION") {
		t.Error("the server's log does not hold the statements")
	}
}

// TestLogHoldsNoPassword rotates where every statement is logged, with its parameters.
func TestLogHoldsNoPassword(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false, "max_prepared_transactions=5", "log_min_error_statement=info", "log_min_duration_statement=0", "log_parameter_max_length=-1", "log_parameter_max_length_on_error=-1")
	admin := c.reader(t, "reader")
	secrets := []target.Credential{admin}
	for _, strategy := range postgresql.Kind().Strategies {
		tt := c.open(t, c.Addr(), admin, `"check_sql":"SELECT 1"`)
		change := newChange(t, c, tt, strategy)
		secrets = append(secrets, change.Old, change.New)
		do(t, nil, func(ctx context.Context) error { return tt.Apply(ctx, change) })
		do(t, nil, func(ctx context.Context) error { return tt.Verify(ctx, change.New) })
		if strategy == target.Double {
			do(t, nil, func(ctx context.Context) error { return tt.Retire(ctx, change) })
		}
		_, err := tt.(target.Inspector).Inspect(t.Context(), []target.Credential{change.Old, change.New})
		if err != nil {
			t.Error(err)
		}
	}
	log := c.log.String()
	if n := strings.Count(log, "PASSWORD 'SCRAM-SHA-256$"); n < 3 {
		t.Fatalf("the log shows %d changes of a password; it does not log statements", n)
	}
	for _, s := range secrets {
		if strings.Contains(log, s.Secret.Reveal()) {
			t.Errorf("the log holds the password of %s", s.Account)
		}
	}
}

func newChange(t *testing.T, c *cluster, tt target.Target, s target.Strategy) target.Change {
	t.Helper()
	old := c.account(t)
	account := old.Account
	if s == target.Double {
		account = c.account(t).Account
	}
	candidate, err := targettest.Generate(t.Context(), tt, account, old)
	if err != nil {
		t.Fatal(err)
	}
	return target.Change{ID: "c" + rand.Text(), Strategy: s, New: candidate, Old: old}
}

// do calls f and asserts the class of its error; nil means none.
func do(t *testing.T, want *target.Class, f func(context.Context) error) error {
	t.Helper()
	err := f(targettest.Within(t))
	switch {
	case want == nil && err != nil:
		t.Fatalf("%v of class %v", err, target.ClassOf(err))
	case want != nil && (err == nil || target.ClassOf(err) != *want):
		t.Errorf("%v of class %v, want %v", err, target.ClassOf(err), *want)
	}
	return err
}

func class(c target.Class) *target.Class { return &c }

func (c *cluster) works(t *testing.T, who target.Credential, want bool) {
	t.Helper()
	targettest.Login(c.login).Works(t, "login", who, want)
}

func testInspect(t *testing.T, c *cluster, reader, blind target.Credential) {
	live, expired, locked, none := c.account(t), c.account(t), c.account(t), c.account(t)
	for who, attribute := range map[*target.Credential]string{&expired: "VALID UNTIL '2001-01-01'", &locked: "NOLOGIN", &none: "PASSWORD NULL"} {
		c.exec(t, "ALTER ROLE "+pgx.Identifier{who.Account}.Sanitize()+" "+attribute)
	}
	md5 := c.account(t)
	c.exec(t, "SET password_encryption = md5; ALTER ROLE "+pgx.Identifier{md5.Account}.Sanitize()+" PASSWORD 'legacy-of-days-1'")
	md5.Secret = targettest.Value("legacy-of-days-1")
	wrong, nobody := live, live
	wrong.Secret, nobody.Account = expired.Secret, "nobody"
	all := []target.Credential{live, wrong, expired, locked, none, nobody, md5}
	got, err := c.open(t, c.Addr(), reader).(target.Inspector).Inspect(t.Context(), all)
	want := []target.Liveness{target.Live, target.Dead, target.Dead, target.NotKnown, target.Dead, target.Dead, target.Live}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Inspect = %v, %v; want %v", got, err, want)
	}
	got, err = c.open(t, c.Addr(), blind).(target.Inspector).Inspect(t.Context(), all)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(make([]target.Liveness, len(all))) {
		t.Errorf("Inspect without the right = %v, %v; want nothing known", got, err)
	}
}

func testClasses(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	verify := func(want target.Class, text string, who target.Credential, more ...string) {
		t.Helper()
		err := do(t, class(want), func(ctx context.Context) error { return c.open(t, c.Addr(), reader, more...).Verify(ctx, who) })
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%v; want a text with %q", err, text)
		}
	}
	locked, expired := c.account(t), c.account(t)
	c.exec(t, "ALTER ROLE "+pgx.Identifier{locked.Account}.Sanitize()+" NOLOGIN")
	c.exec(t, "ALTER ROLE "+pgx.Identifier{expired.Account}.Sanitize()+" VALID UNTIL '2001-01-01'")
	verify(target.Denied, "is not permitted to log in (28000)", locked)
	verify(target.Rejected, "(28P01)", expired)
	verify(target.Denied, "pg_hba.conf rejects", c.role(t, "banned", "LOGIN"))
	verify(target.Denied, "require_auth", c.role(t, "open", "LOGIN"))
	clear := c.role(t, "clear", "LOGIN")
	verify(target.Denied, "require_auth", clear)
	do(t, nil, func(ctx context.Context) error {
		return c.open(t, c.Addr(), reader, `"require_auth":["password"]`).Verify(ctx, clear)
	})
	verify(target.Denied, `"no such" does not exist (3D000)`, c.account(t), `"database":"no such"`)
	full := c.account(t)
	c.exec(t, "ALTER ROLE "+pgx.Identifier{full.Account}.Sanitize()+" CONNECTION LIMIT 0")
	verify(target.Unreachable, "too many connections", full)

	change := newChange(t, c, tt, target.Single)
	missing, super := change, change
	missing.ID, super.ID = "missing", "super"
	missing.New.Account = "no such role"
	do(t, class(target.Denied), func(ctx context.Context) error { return tt.Apply(ctx, missing) })
	c.role(t, "super", "LOGIN SUPERUSER")
	super.New.Account = "super"
	err := do(t, class(target.Denied), func(ctx context.Context) error { return tt.Apply(ctx, super) })
	if err == nil || !strings.Contains(err.Error(), "(42501)") {
		t.Errorf("changing a superuser as another: %v", err)
	}
	overlap := change
	overlap.Strategy = target.Overlap
	do(t, class(target.Denied), func(ctx context.Context) error { return tt.Apply(ctx, overlap) })
	do(t, class(target.Denied), func(ctx context.Context) error { return tt.Retire(ctx, change) })
	same := change
	same.Strategy = target.Double
	do(t, class(target.Denied), func(ctx context.Context) error { return tt.Retire(ctx, same) })
	c.works(t, change.Old, true)
}

func testTLS(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	port := fmt.Sprint(c.Port)
	for name, tt := range map[string]struct{ config, text string }{
		"right name":      {c.config("localhost:" + port), ""},
		"wrong name":      {strings.Replace(c.config(c.Addr()), `"tls":{`, `"tls":{"server_name":"other.example",`, 1), "not other.example"},
		"wrong authority": {fmt.Sprintf(`{"address":%q}`, c.Addr()), "unknown authority"},
	} {
		opened, err := postgresql.Kind().Open(target.Settings{Config: json.RawMessage(tt.config), Admin: reader})
		if err != nil {
			t.Fatal(err)
		}
		if tt.text == "" {
			do(t, nil, func(ctx context.Context) error { return opened.Verify(ctx, who) })
			continue
		}
		err = do(t, class(target.Unreachable), func(ctx context.Context) error { return opened.Verify(ctx, who) })
		if err != nil && !strings.Contains(target.DetailOf(err), tt.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testCheckSQL(t *testing.T, c *cluster, reader, _ target.Credential) {
	c.exec(t, "CREATE TABLE checked (n int); GRANT SELECT, INSERT ON checked TO PUBLIC; CREATE TABLE hidden (n int)")
	who := c.account(t)
	for check, code := range map[string]string{
		"SELECT count(*) FROM checked":                       "",
		"SELECT * FROM hidden":                               "42501",
		"INSERT INTO checked VALUES (1)":                     "25006",
		"COMMIT; INSERT INTO checked VALUES (1)":             "42601",
		"SELECT 1 FROM generate_series(1,3) WHERE 1/0 = 1":   "22012",
		"SELECT 'a literal with ; and $1' WHERE '?' <> '$2'": "",
	} {
		setting, _ := json.Marshal(check)
		tt := c.open(t, c.Addr(), reader, `"check_sql":`+string(setting))
		if code == "" {
			do(t, nil, func(ctx context.Context) error { return tt.Verify(ctx, who) })
			continue
		}
		err := do(t, class(target.Denied), func(ctx context.Context) error { return tt.Verify(ctx, who) })
		if err != nil && (!strings.Contains(err.Error(), "check_sql") || !strings.Contains(err.Error(), code)) {
			t.Errorf("%s: %v, want code %s", check, err, code)
		}
	}
}

// testNames holds that a name is never cut to another role's.
func testNames(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	victim := c.role(t, strings.Repeat("v", 63), "LOGIN")
	change := newChange(t, c, tt, target.Double)
	for _, name := range []string{victim.Account + "v", "", "a\x00b"} {
		change.New.Account = name
		do(t, class(target.Denied), func(ctx context.Context) error { return tt.Apply(ctx, change) })
		do(t, class(target.Rejected), func(ctx context.Context) error { return tt.Verify(ctx, change.New) })
	}
	c.works(t, victim, true)
}

// testSASLprep has the server hash passwords itself, and compares.
func testSASLprep(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	var all []target.Credential
	for i, password := range []string{
		"I\u00ADX soft hyphen", "\u00AA ordinal", "\u2168 nine", "e\u0301 composed", "a\u00A0no-break", "zero\u200Bwidth", "\u3000wide", "\u0007bell",
		"\u0627\u0031 bidi fails", "\u0627\u0628\u0628\u0628", "\uFB01 ligature", "unassigned \u0221", "private \uE000", "\U0001F511 key", `quote'"\`, "\u00AD\u00AD 1\u00AD\u00AD\u00AD\u00AD",
	} {
		password += "-and-1" // what passwordcheck wants
		who := target.Credential{Account: fmt.Sprintf("prep%d", i), Secret: targettest.Value(password)}
		c.exec(t, "CREATE ROLE "+who.Account+" LOGIN")
		if err := c.Exec(t.Context(), "postgres", "ALTER ROLE "+who.Account+" PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'"); err != nil {
			t.Fatalf("the server refuses %+q: %v", password, err)
		}
		all = append(all, who)
	}
	got, err := tt.(target.Inspector).Inspect(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range got {
		if l != target.Live {
			t.Errorf("%s: password %+q is %v by our preparation, and live", all[i].Account, all[i].Secret.Reveal(), l)
		}
		do(t, nil, func(ctx context.Context) error { return tt.Verify(ctx, all[i]) })
	}
}

func testBlindRetire(t *testing.T, c *cluster, _, blind target.Credential) {
	tt := c.open(t, c.Addr(), blind)
	change := newChange(t, c, tt, target.Double)
	do(t, nil, func(ctx context.Context) error { return tt.Apply(ctx, change) })
	// The login that tells whether the old password is the role's is not let in: nothing is taken away.
	c.exec(t, "ALTER ROLE "+pgx.Identifier{change.Old.Account}.Sanitize()+" CONNECTION LIMIT 0")
	do(t, class(target.Unreachable), func(ctx context.Context) error { return tt.Retire(ctx, change) })
	c.exec(t, "ALTER ROLE "+pgx.Identifier{change.Old.Account}.Sanitize()+" CONNECTION LIMIT -1")
	c.works(t, change.Old, true)
	do(t, nil, func(ctx context.Context) error { return tt.Retire(ctx, change) })
	c.works(t, change.Old, false)
}

func testRetireOther(t *testing.T, c *cluster, reader, blind target.Credential) {
	for _, admin := range []target.Credential{reader, blind} {
		tt := c.open(t, c.Addr(), admin)
		change := newChange(t, c, tt, target.Double)
		byHand := change.Old
		byHand.Secret = change.New.Secret
		verifier, err := postgresql.Verifier(byHand.Secret)
		if err != nil {
			t.Fatal(err)
		}
		c.exec(t, "ALTER ROLE "+pgx.Identifier{byHand.Account}.Sanitize()+" PASSWORD '"+verifier+"'")
		do(t, nil, func(ctx context.Context) error { return tt.Retire(ctx, change) })
		c.works(t, byHand, true)
	}
}

func testIterations(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader, `"scram_iterations":5000`, `"password_length":40`, `"password_punctuation":"!%&"`)
	change := newChange(t, c, tt, target.Single)
	if change.New.Secret.Len() != 40 || !strings.ContainsAny(change.New.Secret.Reveal(), "!%&") {
		t.Error("the password is not by the configuration")
	}
	do(t, nil, func(ctx context.Context) error { return tt.Apply(ctx, change) })
	conn, err := c.Admin(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var stored string
	if err := conn.QueryRow(t.Context(), "SELECT rolpassword FROM pg_authid WHERE rolname = $1", change.New.Account).Scan(&stored); err != nil || !strings.HasPrefix(stored, "SCRAM-SHA-256$5000:") {
		t.Errorf("stored %.20q, %v", stored, err)
	}
	c.works(t, change.New, true)
}

// prepared counts the prepared transactions of a change.
func (c *cluster) prepared(t *testing.T, id string) (n int) {
	t.Helper()
	conn, err := c.Admin(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'keyturn-' || $1", id).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPrepared(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false, "max_prepared_transactions=10")
	admin := c.role(t, "blind", "LOGIN CREATEROLE")
	t.Run("every cut", func(t *testing.T) { testEveryCut(t, c, admin) })
	t.Run("survives kill", func(t *testing.T) { testPreparedSurvivesKill(t, c, admin) })
}

// testPreparedSurvivesKill breaks the connection inside COMMIT PREPARED, kills the server, and then commits or takes back.
func testPreparedSurvivesKill(t *testing.T, c *cluster, admin target.Credential) {
	p := targettest.NewProxy(t, c.Addr())
	through := c.open(t, p.Addr(), admin)
	measured := newChange(t, c, through, target.Single)
	measured.ID = strings.Repeat("m", 20)
	do(t, nil, func(ctx context.Context) error { return through.Apply(ctx, measured) })
	length, _, _ := p.Passed()

	commit, revert := newChange(t, c, through, target.Single), newChange(t, c, through, target.Single)
	commit.ID, revert.ID = strings.Repeat("c", 20), strings.Repeat("r", 20)
	for _, change := range []*target.Change{&commit, &revert} {
		const goodbye = 5 // bytes that follow COMMIT PREPARED
		for try := 1; ; try++ {
			p.Set(targettest.Fault{After: length - goodbye - 10, Kind: targettest.Reset}, targettest.Fault{})
			do(t, class(target.Unknown), func(ctx context.Context) error { return through.Apply(ctx, *change) })
			n := c.prepared(t, change.ID)
			if n == 1 {
				break
			}
			if try == 5 {
				t.Fatalf("%d transactions are prepared, want 1", n)
			}
			// The connection was cut at another place than the one that was measured: once more, with another account.
			id := change.ID
			*change = newChange(t, c, through, target.Single)
			change.ID = id
		}
		c.works(t, change.New, false)
		c.works(t, change.Old, true)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tt := c.open(t, c.Addr(), admin)
	// Another change of the role does not get past the one that was left.
	other := commit
	other.ID = "other"
	err := do(t, class(target.Unreachable), func(ctx context.Context) error { return tt.Apply(ctx, other) })
	if err == nil || !strings.Contains(err.Error(), "pg_prepared_xacts") {
		t.Errorf("%v", err)
	}
	for range 2 {
		do(t, nil, func(ctx context.Context) error { return tt.Apply(ctx, commit) })
		c.works(t, commit.New, true)
		c.works(t, commit.Old, false)
		do(t, nil, func(ctx context.Context) error { return tt.(target.Reverter).Revert(ctx, revert) })
		c.works(t, revert.New, false)
		c.works(t, revert.Old, true)
	}
	if n := c.prepared(t, commit.ID) + c.prepared(t, revert.ID); n != 0 {
		t.Errorf("%d prepared transactions are left", n)
	}
}

// testEveryCut breaks the connection at positions all along the request: what Apply says must be true of the server, and
// applying again must end well.
func testEveryCut(t *testing.T, c *cluster, admin target.Credential) {
	p := targettest.NewProxy(t, c.Addr())
	through := c.open(t, p.Addr(), admin)
	change := newChange(t, c, through, target.Single)
	do(t, nil, func(ctx context.Context) error { return through.Apply(ctx, change) })
	length, _, _ := p.Passed()
	const steps = 16
	for i := range steps {
		change := newChange(t, c, through, target.Single)
		p.Set(targettest.Fault{After: length * i / steps, Kind: targettest.Reset}, targettest.Fault{})
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := through.Apply(ctx, change)
		cancel()
		in, lerr := c.login(t.Context(), change.New)
		if lerr != nil {
			t.Fatal(lerr)
		}
		if err == nil && !in || in && err != nil && target.ClassOf(err) != target.Unknown {
			t.Errorf("cut after %d of %d bytes: %v of class %v, and the password works: %v", length*i/steps, length, err, target.ClassOf(err), in)
		}
		p.Set(targettest.Fault{}, targettest.Fault{})
		do(t, nil, func(ctx context.Context) error { return through.Apply(ctx, change) })
		c.works(t, change.New, true)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	kind := postgresql.Kind()
	for config, want := range map[string]string{
		`{"address":"db"}`: "",
		`{"address":"db","admin_address":"[::1]:6","verify":["a","b:1"],"database":"x","scram_iterations":4096,"require_auth":["md5"],"tls":{"off":true},"check_sql":"SELECT 1","password_length":20}`: "",
		`{}`: "address: address is required",
		`{"address":"db","admin_address":"a b","verify":["c d"],"scram_iterations":1,"require_auth":["none"],"password_length":3}`: `admin_address: address "a b" is not host or host:port
verify[0]: address "c d" is not host or host:port
scram_iterations is 4096 to 1000000
require_auth has no "none"; it is a list of scram-sha-256, md5, password
password_length is 12 to 128`,
		`{"address":"db","database":"` + strings.Repeat("x", 64) + `"}`: "database has a name of 1 to 63 bytes",
		`{"address":"db","port":1}`:                                     `there is no setting "port"`,
	} {
		err := kind.Check(json.RawMessage(config))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", config, err, want)
		}
	}
	if _, err := kind.Open(target.Settings{Config: json.RawMessage(`{"address":"db"}`)}); err == nil {
		t.Error("a target without an administrator is opened")
	}
}
