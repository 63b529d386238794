package mysql_test

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	driverpkg "github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/mysql"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

type node struct {
	*servers.MariaDB
	ca    string
	admin target.Credential
	count atomic.Int64
}

func start(t *testing.T, tls bool, arguments ...string) *node {
	t.Helper()
	n := &node{}
	var authority *servers.Authority
	if tls {
		authority = servers.NewAuthority(t, t.TempDir())
		n.ca = authority.CA
	}
	n.MariaDB = servers.StartMariaDB(t, authority, arguments...)
	n.admin = n.account(t, "rotator")
	// The least that an administrator needs.
	n.exec(t, "GRANT CREATE USER ON *.* TO 'rotator'@'%'", "CREATE DATABASE app")
	for _, table := range []string{"global_priv", "db", "tables_priv", "roles_mapping", "proxies_priv"} {
		n.exec(t, "GRANT SELECT ON mysql."+table+" TO 'rotator'@'%'")
	}
	return n
}

func (n *node) exec(t *testing.T, statements ...string) {
	t.Helper()
	if err := n.Exec(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

// account makes an account from a hash.
func (n *node) account(t *testing.T, name string) target.Credential {
	t.Helper()
	if name == "" {
		name = fmt.Sprintf(`ap'p\ "%d" ä`, n.count.Add(1))
	}
	c, err := target.PasswordRule{Punctuation: "!@:/?#%&=+$"}.Generate(t.Context(), name, target.Credential{}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n.exec(t, "CREATE USER "+quote(name)+"@'%' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(c.Secret)))
	return c
}

func (n *node) config(addr string, more ...string) string {
	tls := `{"off":true}`
	if n.ca != "" {
		ca, _ := json.Marshal(n.ca)
		tls = `{"ca":` + string(ca) + `}`
	}
	return fmt.Sprintf(`{"address":%q,"tls":%s%s}`, addr, tls, strings.Join(append([]string{""}, more...), ","))
}

// connect logs in without the code under test.
func (n *node) connect(ctx context.Context, c target.Credential) (driver.Conn, error) {
	cfg := driverpkg.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd, cfg.Logger = "tcp", n.Addr, c.Account, c.Secret.Reveal(), &driverpkg.NopLogger{}
	connector, err := driverpkg.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

func (n *node) login(ctx context.Context, c target.Credential) (bool, error) {
	return login(n.connect(ctx, c))
}

// login tells a rejected login from one without an answer, and ends an accepted one.
func login(conn driver.Conn, err error) (bool, error) {
	if answer, ok := errors.AsType[*driverpkg.MySQLError](err); ok && (answer.Number == 1045 || answer.Number == 1698) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, conn.Close()
}

// session opens a session and returns a check that it is usable.
func session(
	connect func(context.Context, target.Credential) (driver.Conn, error),
) func(*testing.T, target.Credential) func() error {
	return func(t *testing.T, c target.Credential) func() error {
		conn, err := connect(t.Context(), c)
		targettest.Must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return func() error {
			_, err := conn.(driver.ExecerContext).ExecContext(t.Context(), "DO 1", nil)
			return err
		}
	}
}

func (n *node) harness(admin target.Credential, more ...string) targettest.Harness {
	return targettest.Harness{
		Kind: mysql.MariaDB(), Addr: n.Addr, Admin: admin, Login: n.login,
		Config:   func(addr string) string { return n.config(addr, more...) },
		Account:  func(t *testing.T) target.Credential { return n.account(t, "") },
		Session:  session(n.connect),
		Standing: standing(n, n.GeneralLog, "SELECT Priv FROM mysql.global_priv", n.admin),
	}
}

func (n *node) open(t *testing.T, more ...string) target.Target {
	t.Helper()
	return n.harness(n.admin, more...).Open(t, n.Addr)
}

func (n *node) works(t *testing.T, c target.Credential, want bool) {
	t.Helper()
	targettest.Login(n.login).Works(t, "login", c, want)
}

// do calls f and asserts the class of its error, and a text in it; an empty text means that there is none.
func do(t *testing.T, class target.Class, text string, f func(context.Context) error) {
	t.Helper()
	err := f(targettest.Within(t))
	if text == "" {
		targettest.Must(t, err)
		return
	}
	targettest.Expect(t, err, class, text)
}

func ok(t *testing.T, f func(context.Context) error) { t.Helper(); do(t, 0, "", f) }

// next makes a candidate for the account of a credential.
func next(t *testing.T, tt target.Target, old target.Credential) target.Credential {
	t.Helper()
	c, err := targettest.Generate(t.Context(), tt, old.Account, old)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	n := start(t, true, "--max-connections=100")
	t.Run("suite", func(t *testing.T) {
		t.Run("conformance", func(t *testing.T) { t.Parallel(); targettest.Run(t, n.harness(n.admin)) })
		for name, test := range map[string]func(*testing.T, *node){
			"classes": testClasses, "tls": testTLS, "check_sql": testCheckSQL, "inspect": testInspect, "other methods": testOtherMethods,
			"abandoned candidate": testAbandoned, "by hand": testByHand, "host": testHost, "administrator": testAdmin,
			"standing": testStanding,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, n) })
		}
	})
	testValidation(t, n)
}

func testClasses(t *testing.T, n *node) {
	tt := n.open(t)
	verify := func(class target.Class, text string, c target.Credential, more ...string) {
		t.Helper()
		do(t, class, text, func(ctx context.Context) error { return n.open(t, more...).Verify(ctx, c) })
	}
	locked, full, expired := n.account(t, ""), n.account(t, ""), n.account(t, "")
	n.exec(t, "ALTER USER "+quote(locked.Account)+"@'%' ACCOUNT LOCK", "ALTER USER "+quote(full.Account)+"@'%' WITH MAX_USER_CONNECTIONS 1")
	verify(target.Denied, "(4151)", locked)
	conn, err := n.connect(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	verify(target.Unreachable, "(1226)", full)
	verify(target.Denied, "(1044)", expired, `"database":"app"`)
	verify(target.Denied, "1044", expired, `"database":"none"`)
	old := n.account(t, "")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	missing := c
	missing.Old.Account, missing.New.Account = "none", "none"
	do(t, target.Denied, "no account 'none'@'%'", func(ctx context.Context) error { return tt.Apply(ctx, missing) })
	do(t, target.Denied, "not the account's, so the old one is not taken away", func(ctx context.Context) error { return tt.Retire(ctx, c) })
	single, mixed := c, c
	single.Strategy = target.Single
	do(t, target.Denied, "nothing to retire", func(ctx context.Context) error { return tt.Retire(ctx, single) })
	mixed.Strategy = target.Double
	do(t, target.Denied, "do not fit", func(ctx context.Context) error { return tt.Retire(ctx, mixed) })
	empty := c
	empty.New.Secret = targettest.Value("")
	do(t, target.Refused, "empty", func(ctx context.Context) error { return tt.Apply(ctx, empty) })
	other, err := mysql.MySQL().Open(target.Settings{Config: []byte(n.config(n.Addr)), Admin: n.admin})
	if err != nil {
		t.Fatal(err)
	}
	do(t, target.Denied, "register it as kind mariadb", func(ctx context.Context) error { return other.Apply(ctx, c) })
	n.works(t, old, true)
}

func testTLS(t *testing.T, n *node) {
	who := n.account(t, "")
	for config, text := range map[string]string{
		strings.Replace(n.config(n.Addr), "127.0.0.1", "localhost", 1):                           "",
		strings.Replace(n.config(n.Addr), `"tls":{`, `"tls":{"server_name":"other.example",`, 1): "not other.example",
		fmt.Sprintf(`{"address":%q}`, n.Addr):                                                    "unknown authority",
	} {
		tt, err := mysql.MariaDB().Open(target.Settings{Config: []byte(config), Admin: n.admin})
		if err != nil {
			t.Fatal(err)
		}
		do(t, target.Unreachable, text, func(ctx context.Context) error { return tt.Verify(ctx, who) })
	}
}

func testCheckSQL(t *testing.T, n *node) {
	who := n.account(t, "")
	n.exec(t, "CREATE TABLE app.seen (n int)", "CREATE TABLE app.hidden (n int)", "GRANT SELECT, INSERT ON app.seen TO "+quote(who.Account)+"@'%'")
	for check, text := range map[string]string{
		"SELECT count(*) FROM app.seen":             "",
		"SELECT * FROM app.hidden":                  "(1142)",
		"INSERT INTO app.seen VALUES (1)":           "(1792)",
		"ROLLBACK; INSERT INTO app.seen VALUES (1)": "(1064)",
		"SELECT this is not SQL":                    "check_sql",
	} {
		setting, _ := json.Marshal(check)
		do(t, target.Denied, text, func(ctx context.Context) error { return n.open(t, `"check_sql":`+string(setting)).Verify(ctx, who) })
	}
}

func testInspect(t *testing.T, n *node) {
	live, locked, invalid, nobody := n.account(t, ""), n.account(t, ""), n.account(t, ""), n.account(t, "")
	n.exec(t, "ALTER USER "+quote(locked.Account)+"@'%' ACCOUNT LOCK", "ALTER USER "+quote(invalid.Account)+"@'%' IDENTIFIED VIA mysql_native_password USING 'invalid'")
	wrong := live
	wrong.Secret, nobody.Account = locked.Secret, "none"
	lockedWrong := locked
	lockedWrong.Secret = live.Secret
	got, err := n.open(t).(target.Inspector).Inspect(t.Context(), []target.Credential{live, wrong, locked, lockedWrong, invalid, nobody})
	want := []target.Liveness{target.Live, target.Dead, target.NotKnown, target.Dead, target.Dead, target.Dead}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Inspect = %v, %v; want %v", got, err, want)
	}
}

// query reads one value as the administrator of the tests.
func (n *node) query(t *testing.T, query string) string {
	t.Helper()
	conn, err := n.connect(t.Context(), n.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rows, err := conn.(driver.QueryerContext).QueryContext(t.Context(), query, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	values := make([]driver.Value, 1)
	if err := rows.Next(values); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s", values[0])
}

// testOtherMethods holds that a way to log in without a password outlives a rotation.
func testOtherMethods(t *testing.T, n *node) {
	tt := n.open(t)
	old := n.account(t, "")
	who := quote(old.Account) + "@'%'"
	n.exec(t, "ALTER USER "+who+" IDENTIFIED VIA unix_socket OR mysql_native_password USING "+quote(mysql.NativeHash(old.Secret)))
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	n.works(t, old, true)
	n.works(t, c.New, true)
	ok(t, func(ctx context.Context) error { return tt.Retire(ctx, c) })
	n.works(t, old, false)
	n.works(t, c.New, true)
	if got := n.query(t, "SELECT JSON_EXTRACT(Priv, '$.auth_or[1].plugin') FROM mysql.global_priv WHERE User = "+quote(old.Account)); got != `"unix_socket"` {
		t.Errorf("the last method is %s", got)
	}
	seen, err := tt.(target.Inspector).Inspect(t.Context(), []target.Credential{c.New, old})
	if err != nil || seen[0] != target.Live || seen[1] != target.Dead {
		t.Errorf("Inspect = %v, %v", seen, err)
	}
}

// testAbandoned begins a rotation where an abandoned one has left its candidate.
func testAbandoned(t *testing.T, n *node) {
	tt := n.open(t)
	old := n.account(t, "")
	lost := target.Change{ID: "1", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, lost) })
	c := target.Change{ID: "2", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	n.works(t, old, true)
	n.works(t, c.New, true)
	n.works(t, lost.New, false)
	single := target.Change{ID: "3", Strategy: target.Single, Old: c.New, New: next(t, tt, old)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, single) })
	n.works(t, old, false)
	n.works(t, c.New, false)
	n.works(t, single.New, true)
}

// testByHand holds that what a person has set is not taken away.
func testByHand(t *testing.T, n *node) {
	tt := n.open(t)
	old := n.account(t, "")
	byHand := next(t, tt, old)
	n.exec(t, "ALTER USER "+quote(old.Account)+"@'%' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(byHand.Secret)))
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	ok(t, func(ctx context.Context) error { return tt.Retire(ctx, c) })
	n.works(t, byHand, true)
	n.works(t, c.New, true)
	// With both places taken by passwords that are not Old, a person has to say which one goes.
	third := target.Change{ID: "y", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	do(t, target.Denied, "neither is the one to be replaced", func(ctx context.Context) error { return tt.Apply(ctx, third) })
	n.works(t, byHand, true)
}

func testHost(t *testing.T, n *node) {
	everywhere := n.account(t, "two-hosts")
	local := everywhere
	local.Secret = n.account(t, "").Secret
	n.exec(t, "CREATE USER 'two-hosts'@'127.0.0.1' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(local.Secret)))
	tt := n.open(t, `"account_host":"127.0.0.1"`)
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: local, New: next(t, tt, local)}
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	n.works(t, c.New, true)
	seen, err := n.open(t).(target.Inspector).Inspect(t.Context(), []target.Credential{everywhere, c.New})
	if err != nil || seen[0] != target.Live || seen[1] != target.Dead {
		t.Errorf("the account of another host was changed: %v, %v", seen, err)
	}
}

func testAdmin(t *testing.T, n *node) {
	reader, blind := n.account(t, "reader"), n.account(t, "blind")
	n.exec(t, "GRANT SELECT ON mysql.global_priv TO 'reader'@'%'", "GRANT CREATE USER ON *.* TO 'blind'@'%'")
	old := n.account(t, "")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, n.open(t), old)}
	for admin, text := range map[*target.Credential]string{&reader: "(1227)", &blind: "mysql.global_priv"} {
		tt := n.harness(*admin).Open(t, n.Addr)
		do(t, target.Denied, text, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	}
	seen, err := n.harness(blind).Open(t, n.Addr).(target.Inspector).Inspect(t.Context(), []target.Credential{old})
	if err != nil || seen[0] != target.NotKnown {
		t.Errorf("Inspect without the right = %v, %v", seen, err)
	}
	n.works(t, old, true)
}

// testValidation comes last: the plugin is for the whole server.
func testValidation(t *testing.T, n *node) {
	n.exec(t, "INSTALL SONAME 'simple_password_check'", "SET GLOBAL strict_password_validation = ON")
	tt := n.open(t)
	old := target.Credential{Account: "validated", Secret: targettest.Value("Valid-pass-0")}
	n.exec(t, "CREATE USER validated IDENTIFIED BY 'Valid-pass-0'")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	do(t, target.Denied, "strict_password_validation=ON", func(ctx context.Context) error { return tt.Apply(ctx, c) })
	n.exec(t, "SET GLOBAL strict_password_validation = OFF")
	ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
	n.works(t, old, true)
	n.works(t, c.New, true)
	n.exec(t, "SET GLOBAL read_only = ON")
	c.New = next(t, tt, old)
	do(t, target.Unreachable, "read-only", func(ctx context.Context) error { return tt.Apply(ctx, c) })
}

func TestGeneralLogHoldsNoPassword(t *testing.T) {
	t.Parallel()
	n := start(t, false)
	tt := n.open(t, `"check_sql":"SELECT 1"`)
	secrets := []target.Credential{n.admin}
	for _, strategy := range mysql.MariaDB().Strategies {
		c := target.Change{ID: "x", Strategy: strategy, Old: n.account(t, "")}
		account := c.Old
		if strategy == target.Double {
			account = n.account(t, "")
		}
		c.New = next(t, tt, account)
		secrets = append(secrets, c.Old, c.New)
		ok(t, func(ctx context.Context) error { return tt.Apply(ctx, c) })
		ok(t, func(ctx context.Context) error { return tt.Verify(ctx, c.New) })
		if strategy != target.Single {
			ok(t, func(ctx context.Context) error { return tt.Retire(ctx, c) })
		}
	}
	log, err := os.ReadFile(n.GeneralLog)
	if err != nil || strings.Count(string(log), "ALTER USER") < 5 {
		t.Fatalf("the general log does not hold the statements: %v", err)
	}
	for _, s := range secrets {
		if strings.Contains(string(log), s.Secret.Reveal()) {
			t.Errorf("the general log holds the password of %s", s.Account)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, kind := range []target.Kind{mysql.MariaDB(), mysql.MySQL()} {
		for config, want := range map[string]string{
			`{"address":"db"}`: "",
			`{"address":"db","admin_address":"x:1","verify":["a"],"database":"d","account_host":"10.%","check_sql":"SELECT 1","password_length":20,"tls":{"off":true}}`: "",
			`{"account_host":"a'b","password_length":1,"verify":["x y"]}`: `address: address is required: host or host:port
verify[0]: address "x y" is not host or host:port
account_host "a'b" is not the part after @ of an account
password_length is 12 to 128`,
			`{"address":"db","host":"%"}`: `there is no setting "host"`,
		} {
			err := kind.Check(json.RawMessage(config))
			if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
				t.Errorf("%s: %v, want %q", config, err, want)
			}
		}
		if _, err := kind.Open(target.Settings{Config: json.RawMessage(`{"address":"db"}`)}); err == nil {
			t.Error("a target without an administrator is opened")
		}
	}
}
