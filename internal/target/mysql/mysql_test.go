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
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// node is a MariaDB server with an administrator.
type node struct {
	*servers.MariaDB
	authority *servers.Authority // nil without TLS
	ca        string
	admin     target.Credential
	count     atomic.Int64
}

func start(t *testing.T, tls bool, arguments ...string) *node {
	t.Helper()
	n := &node{}
	if tls {
		n.authority = servers.NewAuthority(t, t.TempDir())
		n.ca = n.authority.CA
	}
	n.MariaDB = servers.StartMariaDB(t, n.authority, arguments...)
	n.admin = target.Credential{Account: "rotator", Secret: sensitive.New("The-administrator's-1")}
	n.Administrator(t, n.admin.Secret.Reveal())
	n.exec(t, "CREATE DATABASE app")
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
	password, err := target.PasswordRule{Punctuation: "!@:/?#%&=+$"}.New(rand.Reader)
	targettest.Must(t, err)
	n.exec(t, "CREATE USER "+quote(name)+"@'%' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(password)))
	return target.Credential{Account: name, Secret: password}
}

// alter runs ALTER USER.
func (n *node) alter(t *testing.T, who target.Credential, change string) {
	t.Helper()
	n.exec(t, "ALTER USER "+quote(who.Account)+"@'%' "+change)
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
	cfg.Net, cfg.Addr, cfg.Logger = "tcp", n.Addr, &driverpkg.NopLogger{}
	cfg.User, cfg.Passwd = c.Account, c.Secret.Reveal()
	cfg.DialFunc = dialFrom
	connector, err := driverpkg.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

func (n *node) login(ctx context.Context, c target.Credential) (bool, error) {
	conn, err := n.connect(ctx, c)
	if errors.Is(err, driverpkg.ErrMalformPkt) { // see connect in conn.go
		conn, err = n.connect(ctx, c)
	}
	return login(conn, err)
}

// login reports whether the server accepted a login, and closes its connection. A login without an
// answer gives an error.
func login(conn driver.Conn, err error) (bool, error) {
	answer, ok := errors.AsType[*driverpkg.MySQLError](err)
	if ok && (answer.Number == 1045 || answer.Number == 1698) {
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
		Kind:    mysql.MariaDB(),
		Addr:    n.Addr,
		Admin:   admin,
		Login:   n.login,
		Config:  func(addr string) string { return n.config(addr, more...) },
		Account: func(t *testing.T) target.Credential { return n.account(t, "") },
		Session: session(n.connect),
		ByHand: func(t *testing.T, who target.Credential) {
			n.alter(t, who, "IDENTIFIED BY '"+who.Secret.Reveal()+"'")
		},
		Standing: standing(n, n.GeneralLog, "SELECT Priv FROM mysql.global_priv", n.admin),
	}
}

func (n *node) open(t *testing.T, more ...string) target.Target {
	t.Helper()
	return n.harness(n.admin, more...).Open(t, n.Addr)
}

// agreed opens the target of a secret whose operator has agreed to something.
func (n *node) agreed(t *testing.T, consent ...string) target.Target {
	t.Helper()
	tt, err := mysql.MariaDB().Open(target.Settings{
		Config:  []byte(n.config(n.Addr)),
		Admin:   n.admin,
		Consent: consent,
	})
	targettest.Must(t, err)
	return tt
}

func (n *node) works(t *testing.T, c target.Credential, want bool) {
	t.Helper()
	targettest.Login(n.login).Works(t, "login", c, want)
}

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
	n := start(t, true, "--max-connections=100", "--plugin-load-add=auth_ed25519")
	t.Run("suite", func(t *testing.T) {
		t.Run("conformance", func(t *testing.T) { t.Parallel(); targettest.Run(t, n.harness(n.admin)) })
		for name, test := range map[string]func(*testing.T, *node){
			"classes":             testClasses,
			"tls":                 testTLS,
			"check_sql":           testCheckSQL,
			"inspect":             testInspect,
			"other methods":       testOtherMethods,
			"abandoned candidate": testAbandoned,
			"by hand":             testByHand,
			"host":                testHost,
			"hosts":               func(t *testing.T, n *node) { testHosts(t, n, n.open) },
			"plugins":             testPlugins,
			"login":               mariaLogin,
			"check":               mariaCheck,
			"after a leak":        func(t *testing.T, n *node) { testAfterALeak(t, n, mysql.MariaDB(), n.open(t)) },
			"administrator":       testAdmin,
			"standing":            testStanding,
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
		targettest.Expect(t, n.open(t, more...).Verify(targettest.Within(t), c), class, text)
	}
	locked, full, expired := n.account(t, ""), n.account(t, ""), n.account(t, "")
	n.alter(t, locked, "ACCOUNT LOCK")
	n.alter(t, full, "WITH MAX_USER_CONNECTIONS 1")
	verify(target.Denied, "(4151)", locked)
	conn, err := n.connect(t.Context(), full)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	verify(target.Admitted, "(1226)", full)
	wrong := full
	wrong.Secret = locked.Secret
	verify(target.Rejected, "(1045)", wrong)
	verify(target.Admitted, "(1044)", expired, `"database":"app"`)
	verify(target.Admitted, "1044", expired, `"database":"none"`)
	old := n.account(t, "")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	missing := c
	missing.Old.Account, missing.New.Account = "none", "none"
	targettest.Expect(t, tt.Apply(targettest.Within(t), missing), target.Denied, "no account 'none'")
	targettest.Expect(
		t,
		tt.Retire(targettest.Within(t), c),
		target.Denied,
		"does not have the new password, so the old one is not removed",
	)
	single, mixed := c, c
	single.Strategy = target.Single
	targettest.Expect(t, tt.Retire(targettest.Within(t), single), target.Denied, "nothing to retire")
	mixed.Strategy = target.Double
	targettest.Expect(t, tt.Retire(targettest.Within(t), mixed), target.Denied, "do not fit")
	empty := c
	empty.New.Secret = targettest.Value("")
	targettest.Expect(t, tt.Apply(targettest.Within(t), empty), target.Refused, "empty")
	other, err := mysql.MySQL().Open(target.Settings{Config: []byte(n.config(n.Addr)), Admin: n.admin})
	if err != nil {
		t.Fatal(err)
	}
	targettest.Expect(t, other.Apply(targettest.Within(t), c), target.Denied, "register it as kind mariadb")
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
		targettest.Result(t, tt.Verify(targettest.Within(t), who), target.Unreachable, text)
	}
}

func testCheckSQL(t *testing.T, n *node) {
	who := n.account(t, "")
	n.exec(t,
		"CREATE TABLE app.seen (n int)",
		"CREATE TABLE app.hidden (n int)",
		"GRANT SELECT, INSERT ON app.seen TO "+quote(who.Account)+"@'%'")
	for check, text := range map[string]string{
		"SELECT count(*) FROM app.seen":             "",
		"SELECT * FROM app.hidden":                  "(1142)",
		"INSERT INTO app.seen VALUES (1)":           "(1792)",
		"ROLLBACK; INSERT INTO app.seen VALUES (1)": "(1064)",
		"SELECT this is not SQL":                    "check_sql",
	} {
		setting, _ := json.Marshal(check)
		err := n.open(t, `"check_sql":`+string(setting)).Verify(targettest.Within(t), who)
		targettest.Result(t, err, target.Denied, text)
		if err != nil && !target.IsAuthenticated(err) {
			t.Errorf("the password was accepted before %v", err)
		}
	}
}

func testInspect(t *testing.T, n *node) {
	live, locked, invalid, missing := n.account(t, ""), n.account(t, ""), n.account(t, ""), n.account(t, "")
	n.alter(t, locked, "ACCOUNT LOCK")
	n.alter(t, invalid, "IDENTIFIED VIA mysql_native_password USING 'invalid'")
	wrong := live
	wrong.Secret, missing.Account = locked.Secret, "none"
	lockedWrong := locked
	lockedWrong.Secret = live.Secret
	all := []target.Credential{live, wrong, locked, lockedWrong, invalid, missing}
	got, err := n.open(t).(target.Inspector).Inspect(t.Context(), all)
	want := []target.Liveness{target.Live, target.Dead, target.NotKnown, target.Dead, target.Dead, target.Dead}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Inspect = %v, %v; want %v", got, err, want)
	}
}

// query reads one value as the administrator of the tests.
func (n *node) query(t *testing.T, query string) string {
	t.Helper()
	return first(t, n, n.admin, query)
}

func first(t *testing.T, f fixture, admin target.Credential, query string) string {
	t.Helper()
	conn, err := f.connect(t.Context(), admin)
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

// testOtherMethods verifies that a rotation keeps a method without a password.
func testOtherMethods(t *testing.T, n *node) {
	tt := n.open(t)
	old := n.account(t, "")
	hash := quote(mysql.NativeHash(old.Secret))
	n.alter(t, old, "IDENTIFIED VIA unix_socket OR mysql_native_password USING "+hash)
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, old, true)
	n.works(t, c.New, true)
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	n.works(t, old, false)
	n.works(t, c.New, true)
	last := "SELECT JSON_EXTRACT(Priv, '$.auth_or[1].plugin') FROM mysql.global_priv WHERE User = " + quote(old.Account)
	if got := n.query(t, last); got != `"unix_socket"` {
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
	targettest.Must(t, tt.Apply(targettest.Within(t), lost))
	c := target.Change{ID: "2", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, old, true)
	n.works(t, c.New, true)
	n.works(t, lost.New, false)
	single := target.Change{ID: "3", Strategy: target.Single, Old: c.New, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), single))
	n.works(t, old, false)
	n.works(t, c.New, false)
	n.works(t, single.New, true)
}

// testByHand verifies that a rotation keeps a password that an administrator has set.
func testByHand(t *testing.T, n *node) {
	tt := n.open(t)
	old := n.account(t, "")
	byHand := next(t, tt, old)
	n.exec(t, "ALTER USER "+quote(old.Account)+"@'%' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(byHand.Secret)))
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	n.works(t, byHand, true)
	n.works(t, c.New, true)
	// When the account has two passwords and neither is Old, an operator must decide which one to
	// remove.
	third := target.Change{ID: "y", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Expect(t, tt.Apply(targettest.Within(t), third), target.Denied, "neither is the one to be replaced")
	n.works(t, byHand, true)
}

func testHost(t *testing.T, n *node) {
	everywhere := n.account(t, "two-hosts")
	local := everywhere
	local.Secret = n.account(t, "").Secret
	n.exec(t, "CREATE USER 'two-hosts'@'127.0.0.1' IDENTIFIED BY PASSWORD "+quote(mysql.NativeHash(local.Secret)))
	tt := n.open(t, `"account_host":"127.0.0.1"`)
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: local, New: next(t, tt, local)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, c.New, true)
	seen, err := n.open(t, `"account_host":"%"`).(target.Inspector).Inspect(
		t.Context(), []target.Credential{everywhere, c.New})
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
		targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, text)
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
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Denied, "strict_password_validation=ON")
	n.exec(t, "SET GLOBAL strict_password_validation = OFF")
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, old, true)
	n.works(t, c.New, true)
	n.exec(t, "SET GLOBAL read_only = ON")
	c.New = next(t, tt, old)
	targettest.Expect(t, tt.Apply(targettest.Within(t), c), target.Unreachable, "read-only")
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
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
		if strategy != target.Single {
			targettest.Must(t, tt.Retire(targettest.Within(t), c))
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
