package postgresql_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
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
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

const limit = 20 * time.Second

// cluster is a server, with its log and a count of the accounts made.
type cluster struct {
	*sandbox.Postgres
	ca    string // empty when TLS is off
	log   *support.Log
	count atomic.Int64
	// admins get the ADMIN option on the roles that are made, which PostgreSQL 16 demands.
	admins []string
}

func startCluster(t *testing.T, tls bool, settings ...string) *cluster {
	t.Helper()
	return startClusterWith(t, tls, sandbox.PostgresConfig{Settings: settings})
}

func startClusterWith(t *testing.T, tls bool, config sandbox.PostgresConfig) *cluster {
	t.Helper()
	c := &cluster{log: &support.Log{}}
	config.Log = c.log
	config.Settings = append(
		[]string{"synchronous_commit=on", "log_statement=all", "log_min_messages=info"}, config.Settings...,
	)
	config.HBA = append([]string{
		"host all banned,barred 127.0.0.1/32 reject",
		"host all open 127.0.0.1/32 trust",
		"host all clear 127.0.0.1/32 password",
		"host all old_form 127.0.0.1/32 md5",
	}, config.HBA...)
	if config.ClientCA != nil {
		config.HBA = append(config.HBA, "hostssl all certified 127.0.0.1/32 scram-sha-256 clientcert=verify-ca")
	}
	config.HBA = append(config.HBA, "host all all 127.0.0.1/32 scram-sha-256")
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

// role makes a role. The server gets the verifier of its password, not the password.
func (c *cluster) role(t *testing.T, name, attributes string) target.Credential {
	t.Helper()
	password, err := target.PasswordRule{Punctuation: "!@:/?#%&=+$"}.New(rand.Reader)
	targettest.Must(t, err)
	verifier, err := postgresql.Verifier(password)
	targettest.Must(t, err)
	c.exec(t, fmt.Sprintf("CREATE ROLE %s %s PASSWORD '%s'", id(name), attributes, verifier))
	c.administer(t, name)
	return target.Credential{Account: name, Secret: password}
}

// administer gives the administrators the option that PostgreSQL 16 demands.
func (c *cluster) administer(t *testing.T, roles ...string) {
	t.Helper()
	for _, admin := range c.admins {
		for _, role := range roles {
			if role != admin && c.atLeast(16) {
				c.exec(t, "GRANT "+id(role)+" TO "+admin+" WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
			}
		}
	}
}

// alter runs ALTER ROLE.
func (c *cluster) alter(t *testing.T, who target.Credential, change string) {
	t.Helper()
	c.exec(t, "ALTER ROLE "+id(who.Account)+" "+change)
}

// id returns a name quoted as an identifier.
func id(name string) string { return pgx.Identifier{name}.Sanitize() }

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

// openAs opens a target whose application logs in like l.
func (c *cluster) openAs(t *testing.T, admin target.Credential, l target.Login, more ...string) target.Target {
	t.Helper()
	return c.openWith(t, target.Settings{
		Config: json.RawMessage(c.config(c.Addr(), more...)),
		Admin:  admin,
		Login:  l,
	})
}

func (c *cluster) openWith(t *testing.T, s target.Settings) target.Target {
	t.Helper()
	tt, err := postgresql.Kind().Open(s)
	targettest.Must(t, err)
	return tt
}

// connect logs in without the code under test.
func (c *cluster) connect(ctx context.Context, who target.Credential) (*pgx.Conn, error) {
	return c.connectTo(ctx, "postgres", who)
}

func (c *cluster) connectTo(ctx context.Context, database string, who target.Credential) (*pgx.Conn, error) {
	mode := "disable"
	if c.ca != "" {
		mode = "require"
	}
	cfg, err := pgx.ParseConfig("sslmode=" + mode)
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port, cfg.Database = "127.0.0.1", uint16(c.Port), database
	cfg.User, cfg.Password = who.Account, who.Secret.Reveal()
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
		Kind:    postgresql.Kind(),
		Addr:    c.Addr(),
		Admin:   admin,
		Login:   c.login,
		Account: c.account,
		Config:  func(addr string) string { return c.config(addr, more...) },
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
		ByHand:   func(t *testing.T, who target.Credential) { c.alter(t, who, "PASSWORD '"+who.Secret.Reveal()+"'") },
		Standing: standing(c, admin),
	}
}

// unread is the harness of an administrator that does not read verifiers.
func unread(h targettest.Harness) targettest.Harness {
	h.ForeignUnread = "the administrator does not read pg_authid"
	return h
}

// reader makes an administrator with the fewest rights that let it read verifiers.
func (c *cluster) reader(t *testing.T, name string) target.Credential {
	t.Helper()
	admin := c.role(t, name, "LOGIN CREATEROLE")
	c.exec(t, "GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO "+name)
	return admin
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	c := startCluster(t, true,
		"max_prepared_transactions=50",
		"session_preload_libraries=passwordcheck",
		"max_connections=100",
	)
	reader, blind := c.reader(t, "reader"), c.role(t, "blind", "LOGIN CREATEROLE")
	t.Run("suite", func(t *testing.T) {
		t.Run("verifiers readable", func(t *testing.T) { t.Parallel(); targettest.Run(t, h(c, reader)) })
		t.Run("verifiers not readable", func(t *testing.T) { t.Parallel(); targettest.Run(t, unread(h(c, blind))) })
		for name, test := range map[string]func(*testing.T, *cluster, target.Credential, target.Credential){
			"inspect":                    testInspect,
			"classes":                    testClasses,
			"tls":                        testTLS,
			"check_sql":                  testCheckSQL,
			"names":                      testNames,
			"preparation of passwords":   testSASLprep,
			"retire without verifiers":   testBlindRetire,
			"iterations":                 testIterations,
			"check":                      testCheck,
			"check of two logins":        testCheckPair,
			"check of no connections":    testNoConnections,
			"check of expiry":            testExpiresSoon,
			"check of pg_hba.conf":       testNamed,
			"check of the administrator": testMayAlter,
			"check without rights":       testUnread,
			"planned values":             testPlannedValues,
			"check without answers":      testUnanswered,
			"form":                       testForm,
			"login":                      testLogin,
			"stored as MD5":              testStoredAsMD5,
			"pooler by role":             testPoolerByRole,
			"role of the login":          testRoleOfLogin,
			"window":                     testWindow,
			"retired by hand":            testRetireOther,
			"forms of verifiers":         testForms,
			"standing":                   testStanding,
			"standing of administrators": testStandingOfAdmin,
			"standing without rights":    testStandingUnreadable,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, c, reader, blind) })
		}
	})
	if !strings.Contains(c.log.String(), "ALTER ROLE") || !strings.Contains(c.log.String(), "PREPARE TRANSACTION") {
		t.Error("the server's log does not hold the statements")
	}
}

// TestLogHoldsNoPassword rotates at a server that logs every statement with its parameters.
func TestLogHoldsNoPassword(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false,
		"max_prepared_transactions=5",
		"log_min_error_statement=info",
		"log_min_duration_statement=0",
		"log_parameter_max_length=-1",
		"log_parameter_max_length_on_error=-1",
	)
	admin := c.reader(t, "reader")
	secrets := []target.Credential{admin}
	for _, strategy := range postgresql.Kind().Strategies {
		tt := c.open(t, c.Addr(), admin, `"check_sql":"SELECT 1"`)
		change := newChange(t, c, tt, strategy)
		secrets = append(secrets, change.Old, change.New)
		targettest.Must(t, tt.Apply(targettest.Within(t), change))
		targettest.Must(t, tt.Verify(targettest.Within(t), change.New))
		if strategy == target.Double {
			targettest.Must(t, tt.Retire(targettest.Within(t), change))
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
	targettest.Must(t, err)
	return target.Change{
		ID:       "c" + rand.Text(),
		Strategy: s,
		New:      candidate,
		Old:      old,
	}
}

func (c *cluster) works(t *testing.T, who target.Credential, want bool) {
	t.Helper()
	targettest.Login(c.login).Works(t, "login", who, want)
}

func testInspect(t *testing.T, c *cluster, reader, blind target.Credential) {
	live, expired, locked, none := c.account(t), c.account(t), c.account(t), c.account(t)
	c.alter(t, expired, "VALID UNTIL '2001-01-01'")
	c.alter(t, locked, "NOLOGIN")
	c.alter(t, none, "PASSWORD NULL")
	md5 := c.account(t)
	c.exec(t, "SET password_encryption = md5; ALTER ROLE "+id(md5.Account)+" PASSWORD 'legacy-of-days-1'")
	md5.Secret = targettest.Value("legacy-of-days-1")
	wrong, missing := live, live
	wrong.Secret, missing.Account = expired.Secret, "missing"
	all := []target.Credential{live, wrong, expired, locked, none, missing, md5}
	got, err := c.open(t, c.Addr(), reader).(target.Inspector).Inspect(t.Context(), all)
	want := []target.Liveness{
		target.Live,
		target.Dead,
		target.Dead,
		target.NotKnown,
		target.Dead,
		target.Dead,
		target.Live,
	}
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
		err := c.open(t, c.Addr(), reader, more...).Verify(targettest.Within(t), who)
		targettest.Expect(t, err, want, text)
	}
	locked, expired := c.account(t), c.account(t)
	c.alter(t, locked, "NOLOGIN")
	c.alter(t, expired, "VALID UNTIL '2001-01-01'")
	verify(target.Admitted, "is not permitted to log in (28000)", locked)
	verify(target.Rejected, "(28P01)", expired)
	verify(target.Denied, "pg_hba.conf rejects", c.role(t, "banned", "LOGIN"))
	verify(target.Denied, "require_auth", c.role(t, "open", "LOGIN"))
	clear := c.role(t, "clear", "LOGIN")
	verify(target.Denied, "require_auth", clear)
	targettest.Must(t, c.open(t, c.Addr(), reader, `"require_auth":["password"]`).Verify(targettest.Within(t), clear))
	old := c.role(t, "old_form", "LOGIN")
	c.md5(t, &old)
	for who, want := range map[*target.Credential]string{
		&old:                                  `require_auth=["scram-sha-256","md5"]`,
		&clear:                                `require_auth=["scram-sha-256","password"]`,
		{Account: "open", Secret: old.Secret}: "",
	} {
		if got := target.SettingOf(c.open(t, c.Addr(), reader).Verify(targettest.Within(t), *who)); got != want {
			t.Errorf("a login of %s needs the setting %q, want %q", who.Account, got, want)
		}
	}
	targettest.Must(t, c.open(t, c.Addr(), reader, `"require_auth":"md5"`).Verify(targettest.Within(t), old))
	full := c.account(t)
	c.alter(t, full, "CONNECTION LIMIT 0")
	verify(target.Admitted, "too many connections for role", full)
	c.exec(t, "CREATE DATABASE shut")
	c.exec(t, "REVOKE CONNECT ON DATABASE shut FROM PUBLIC")
	c.exec(t, "CREATE DATABASE narrow CONNECTION LIMIT 0")
	for database, text := range map[string]string{
		"no such": `"no such" does not exist (3D000)`,
		"shut":    "(42501)",
		"narrow":  "too many connections for database",
	} {
		who := c.account(t)
		in := c.openAs(t, reader, target.Login{Database: database})
		targettest.Expect(t, in.Verify(targettest.Within(t), who), target.Admitted, text)
		who.Secret = full.Secret
		targettest.Expect(t, in.Verify(targettest.Within(t), who), target.Rejected, "(28P01)")
	}

	change := newChange(t, c, tt, target.Single)
	missing, super := change, change
	missing.ID, super.ID = "missing", "super"
	missing.New.Account = "no such role"
	targettest.Expect(t, tt.Apply(targettest.Within(t), missing), target.Denied)
	c.role(t, "super", "LOGIN SUPERUSER")
	super.New.Account = "super"
	targettest.Expect(t, tt.Apply(targettest.Within(t), super), target.Denied, "(42501)")
	wrong := reader
	wrong.Secret = sensitive.New("not its password")
	err := c.open(t, c.Addr(), wrong).Apply(targettest.Within(t), change)
	targettest.Expect(t, err, target.Denied, "(28P01)")
	if !target.IsAdminRejected(err) {
		t.Error("a rejected administrator is not reported as one, so calls try it again and again")
	}
	overlap := change
	overlap.Strategy = target.Overlap
	targettest.Expect(t, tt.Apply(targettest.Within(t), overlap), target.Denied)
	targettest.Expect(t, tt.Retire(targettest.Within(t), change), target.Denied)
	same := change
	same.Strategy = target.Double
	targettest.Expect(t, tt.Retire(targettest.Within(t), same), target.Denied)
	c.works(t, change.Old, true)
}

func testTLS(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	port := fmt.Sprint(c.Port)
	otherName := strings.Replace(c.config(c.Addr()), `"tls":{`, `"tls":{"server_name":"other.example",`, 1)
	for _, tt := range []struct{ config, text string }{
		{c.config("localhost:" + port), ""},
		{otherName, "not other.example"},
		{fmt.Sprintf(`{"address":%q}`, c.Addr()), "unknown authority"},
	} {
		opened, err := postgresql.Kind().Open(target.Settings{Config: json.RawMessage(tt.config), Admin: reader})
		targettest.Must(t, err)
		targettest.Result(t, opened.Verify(targettest.Within(t), who), target.Unreachable, tt.text)
	}
}

func testCheckSQL(t *testing.T, c *cluster, reader, _ target.Credential) {
	who := c.account(t)
	c.exec(t, "CREATE TABLE checked (n int); GRANT SELECT, INSERT ON checked TO "+id(who.Account)+
		"; CREATE TABLE hidden (n int)") // not TO PUBLIC: the checks of other accounts would read it
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
			targettest.Must(t, tt.Verify(targettest.Within(t), who))
			continue
		}
		err := tt.Verify(targettest.Within(t), who)
		targettest.Expect(t, err, target.Denied, "check_sql", code)
		if !target.IsAuthenticated(err) {
			t.Errorf("the password was accepted before %v", err)
		}
	}
}

// testNames verifies that a name is never truncated to another role's.
func testNames(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	victim := c.role(t, strings.Repeat("v", 63), "LOGIN")
	change := newChange(t, c, tt, target.Double)
	for _, name := range []string{victim.Account + "v", "", "a\x00b"} {
		change.New.Account = name
		targettest.Expect(t, tt.Apply(targettest.Within(t), change), target.Denied)
		targettest.Expect(t, tt.Verify(targettest.Within(t), change.New), target.Rejected)
	}
	c.works(t, victim, true)
}

// testSASLprep compares with the verifiers that the server itself makes of passwords.
func testSASLprep(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	var all []target.Credential
	for i, password := range []string{
		"I\u00ADX soft hyphen",
		"\u00AA ordinal",
		"\u2168 nine",
		"e\u0301 composed",
		"a\u00A0no-break",
		"zero\u200Bwidth",
		"\u3000wide",
		"\u0007bell",
		"\u0627\u0031 bidi fails",
		"\u0627\u0628\u0628\u0628",
		"\uFB01 ligature",
		"unassigned \u0221",
		"private \uE000",
		"\U0001F511 key",
		`quote'"\`,
		"\u00AD\u00AD 1\u00AD\u00AD\u00AD\u00AD",
	} {
		password += "-and-1" // passwordcheck demands digits and other characters
		who := target.Credential{Account: fmt.Sprintf("prep%d", i), Secret: targettest.Value(password)}
		c.exec(t, "CREATE ROLE "+who.Account+" LOGIN")
		c.alter(t, who, "PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'")
		all = append(all, who)
	}
	got, err := tt.(target.Inspector).Inspect(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range got {
		if l != target.Live {
			t.Errorf("%s: Inspect says %v of password %+q, which is live", all[i].Account, l, all[i].Secret.Reveal())
		}
		targettest.Must(t, tt.Verify(targettest.Within(t), all[i]))
	}
}

func testBlindRetire(t *testing.T, c *cluster, _, blind target.Credential) {
	tt := c.open(t, c.Addr(), blind)
	change := newChange(t, c, tt, target.Double)
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	// Nothing is removed while no login checks the old password.
	barred := change
	barred.Old = c.role(t, "barred", "LOGIN")
	targettest.Expect(t, tt.Retire(targettest.Within(t), barred), target.Denied)
	if c.read(t, "SELECT (rolpassword IS NULL)::text FROM pg_authid WHERE rolname = 'barred'") != "false" {
		t.Error("the password of a role that no login has checked was removed")
	}
	// A limit comes after the password, so it hides nothing.
	c.alter(t, change.Old, "CONNECTION LIMIT 0")
	targettest.Must(t, tt.Retire(targettest.Within(t), change))
	c.alter(t, change.Old, "CONNECTION LIMIT -1")
	c.works(t, change.Old, false)
}

// testForms gives a role a verifier with more iterations than Keyturn computes, as its owner may.
// An emergency removes it like any other.
func testForms(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader)
	change := newChange(t, c, tt, target.Double)
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	verifier, err := postgresql.Verifier(targettest.Value("set-by-the-holder-A1!"))
	targettest.Must(t, err)
	form, rest, _ := strings.Cut(verifier, "$")
	_, rest, _ = strings.Cut(rest, ":")
	c.alter(t, change.Old, "PASSWORD '"+form+"$1000001:"+rest+"'")
	var found target.Foreign
	targettest.Must(t, tt.(target.Evictor).RetireOrEvict(targettest.Within(t), change,
		func(_ context.Context, f target.Foreign) (bool, error) { found = f; return true, nil }))
	left := c.read(t, "SELECT COALESCE(rolpassword, '') FROM pg_authid WHERE rolname = $1", change.Old.Account)
	if found.Kind != target.ForeignNotCompared || left != "" {
		t.Errorf("a verifier that is not computed: %+v, left %t", found, left != "")
	}
	c.works(t, change.New, true)
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
		c.alter(t, byHand, "PASSWORD '"+verifier+"'")
		targettest.Must(t, tt.Retire(targettest.Within(t), change))
		c.works(t, byHand, true)
	}
}

func testIterations(t *testing.T, c *cluster, reader, _ target.Credential) {
	tt := c.open(t, c.Addr(), reader, `"scram_iterations":5000`, `"password_length":40`, `"password_punctuation":"!%&"`)
	change := newChange(t, c, tt, target.Single)
	if change.New.Secret.Len() != 40 || !strings.ContainsAny(change.New.Secret.Reveal(), "!%&") {
		t.Error("the password is not by the configuration")
	}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	stored := c.read(t, "SELECT rolpassword FROM pg_authid WHERE rolname = $1", change.New.Account)
	if !strings.HasPrefix(stored, "SCRAM-SHA-256$5000:") {
		t.Errorf("stored %.20q", stored)
	}
	c.works(t, change.New, true)
}

// prepared counts the prepared transactions of a change.
func (c *cluster) prepared(t *testing.T, changeID string) int {
	t.Helper()
	n, err := strconv.Atoi(c.read(t,
		"SELECT count(*)::text FROM pg_prepared_xacts WHERE gid = 'keyturn-' || $1", changeID))
	targettest.Must(t, err)
	return n
}

func TestPrepared(t *testing.T) {
	t.Parallel()
	c := startCluster(t, false, "max_prepared_transactions=10")
	admin := c.role(t, "blind", "LOGIN CREATEROLE")
	t.Run("every cut", func(t *testing.T) { testEveryCut(t, c, admin) })
	t.Run("survives kill", func(t *testing.T) { testPreparedSurvivesKill(t, c, admin) })
}

// testPreparedSurvivesKill breaks the connection inside COMMIT PREPARED, kills the server, and then
// commits or reverts.
func testPreparedSurvivesKill(t *testing.T, c *cluster, admin target.Credential) {
	p := targettest.NewProxy(t, c.Addr())
	through := c.open(t, p.Addr(), admin)
	measured := newChange(t, c, through, target.Single)
	measured.ID = strings.Repeat("m", 20)
	targettest.Must(t, through.Apply(targettest.Within(t), measured))
	length, _, _ := p.Passed()

	commit, revert := newChange(t, c, through, target.Single), newChange(t, c, through, target.Single)
	commit.ID, revert.ID = strings.Repeat("c", 20), strings.Repeat("r", 20)
	for _, change := range []*target.Change{&commit, &revert} {
		const goodbye = 5 // bytes that follow COMMIT PREPARED
		for try := 1; ; try++ {
			p.Set(targettest.Fault{After: length - goodbye - 10, Kind: targettest.Reset}, targettest.Fault{})
			targettest.Expect(t, through.Apply(targettest.Within(t), *change), target.Unknown)
			n := c.prepared(t, change.ID)
			if n == 1 {
				break
			}
			if try == 5 {
				t.Fatalf("%d transactions are prepared, want 1", n)
			}
			// The cut was not at the measured place. Try again with another account.
			changeID := change.ID
			*change = newChange(t, c, through, target.Single)
			change.ID = changeID
		}
		c.works(t, change.New, false)
		c.works(t, change.Old, true)
	}
	targettest.Must(t, c.Kill())
	targettest.Must(t, c.Start(t.Context()))
	tt := c.open(t, c.Addr(), admin)
	// The prepared transaction still has the role's lock.
	other := commit
	other.ID = "other"
	targettest.Expect(t, tt.Apply(targettest.Within(t), other), target.Unreachable, "pg_prepared_xacts")
	for range 2 {
		targettest.Must(t, tt.Apply(targettest.Within(t), commit))
		c.works(t, commit.New, true)
		c.works(t, commit.Old, false)
		targettest.Must(t, tt.(target.Reverter).Revert(targettest.Within(t), revert))
		c.works(t, revert.New, false)
		c.works(t, revert.Old, true)
	}
	if n := c.prepared(t, commit.ID) + c.prepared(t, revert.ID); n != 0 {
		t.Errorf("%d prepared transactions are left", n)
	}
}

// testEveryCut breaks the connection at positions all along the request. Apply must not report
// something that is not true of the server, and another Apply must succeed.
func testEveryCut(t *testing.T, c *cluster, admin target.Credential) {
	p := targettest.NewProxy(t, c.Addr())
	through := c.open(t, p.Addr(), admin)
	change := newChange(t, c, through, target.Single)
	targettest.Must(t, through.Apply(targettest.Within(t), change))
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
		if class := target.ClassOf(err); err == nil && !in || in && err != nil && class != target.Unknown {
			t.Errorf("cut after %d of %d bytes: %v of class %v, and the password works: %v",
				length*i/steps, length, err, class, in)
		}
		p.Set(targettest.Fault{}, targettest.Fault{})
		targettest.Must(t, through.Apply(targettest.Within(t), change))
		c.works(t, change.New, true)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	kind := postgresql.Kind()
	const (
		full = `{"address":"db","admin_address":"[::1]:6","verify":["a","b:1"],"database":"x","scram_iterations":4096,` +
			`"require_auth":["md5"],"tls":{"off":true},"check_sql":"SELECT 1","password_length":20}`
		wrong = `{"address":"db","admin_address":"a b","verify":["c d"],"scram_iterations":1,` +
			`"require_auth":["none"],"password_length":3}`
		mistakes = `admin_address: address "a b" is not host or host:port
verify[0]: address "c d" is not host or host:port
scram_iterations is 4096 to 1000000
require_auth has no "none"; it is a list of scram-sha-256, md5, password
password_length is 12 to 128`
	)
	for config, want := range map[string]string{
		`{"address":"db"}`: "",
		full:               "",
		`{}`:               "address: address is required",
		wrong:              mistakes,
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
