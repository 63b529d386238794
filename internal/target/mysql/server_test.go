package mysql_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"encoding/json"
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

// mySQLNode is a real MySQL server, whose accounts log in by caching_sha2_password, over TLS.
type mySQLNode struct {
	*servers.MariaDB
	authority *servers.Authority
	ca        string
	roots     *x509.CertPool
	admin     target.Credential
	count     atomic.Int64
}

func startMySQL(t *testing.T) *mySQLNode {
	t.Helper()
	n := &mySQLNode{authority: servers.NewAuthority(t, t.TempDir()), roots: x509.NewCertPool()}
	n.ca = n.authority.CA
	n.roots.AppendCertsFromPEM([]byte(n.ca))
	n.MariaDB = servers.StartMySQL(t, n.authority, "--caching-sha2-password-digest-rounds=10000")
	n.admin = target.Credential{Account: "rotator", Secret: sensitive.New("The-administrator's-1")}
	n.Administrator(t, n.admin.Secret.Reveal())
	n.exec(t, "CREATE DATABASE app")
	return n
}

func (n *mySQLNode) exec(t *testing.T, statements ...string) {
	t.Helper()
	if err := n.Exec(t.Context(), statements...); err != nil {
		t.Fatal(err)
	}
}

func (n *mySQLNode) account(t *testing.T, name string) target.Credential {
	t.Helper()
	if name == "" {
		name = fmt.Sprintf(`ap'p\ "%d" ä`, n.count.Add(1))
	}
	c, err := target.PasswordRule{
		Punctuation: "!@:/?#%&=+$",
	}.Generate(
		t.Context(),
		name,
		target.Credential{},
		rand.Reader,
	)
	if err != nil {
		t.Fatal(err)
	}
	n.exec(
		t,
		"CREATE USER "+mySQLQuote(name)+"@'%' IDENTIFIED WITH caching_sha2_password BY "+mySQLQuote(c.Secret.Reveal()),
	)
	return c
}

// mySQLQuote is a literal in a session where a backslash escapes.
func mySQLQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// connect logs in without the code under test.
func (n *mySQLNode) connect(ctx context.Context, c target.Credential) (driver.Conn, error) {
	cfg := driverpkg.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd, cfg.Logger = "tcp", n.Addr, c.Account, c.Secret.Reveal(), &driverpkg.NopLogger{}
	cfg.TLS = &tls.Config{RootCAs: n.roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	cfg.DialFunc = dialFrom
	connector, err := driverpkg.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

func (n *mySQLNode) login(ctx context.Context, c target.Credential) (bool, error) {
	return login(n.connect(ctx, c))
}

func (n *mySQLNode) open(t *testing.T, more ...string) target.Target {
	t.Helper()
	return n.harness(more...).Open(t, n.Addr)
}

func (n *mySQLNode) harness(more ...string) targettest.Harness {
	ca, _ := json.Marshal(n.ca) // a string
	settings := strings.Join(append([]string{""}, more...), ",")
	return targettest.Harness{
		Kind: mysql.MySQL(), Addr: n.Addr, Admin: n.admin, Login: n.login,
		Config: func(addr string) string {
			return fmt.Sprintf(`{"address":%q,"tls":{"ca":%s}%s}`, addr, ca, settings)
		},
		Account: func(t *testing.T) target.Credential { return n.account(t, "") },
		Session: session(n.connect),
		ByHand: func(t *testing.T, who target.Credential) {
			n.exec(t, "ALTER USER "+mySQLQuote(who.Account)+"@'%' IDENTIFIED BY "+mySQLQuote(who.Secret.Reveal()))
		},
		Standing: standing(
			n,
			n.GeneralLog,
			"SELECT CONCAT(authentication_string, COALESCE(User_attributes, ''), password_last_changed) FROM mysql.user",
			n.admin,
		),
	}
}

func (n *mySQLNode) query(t *testing.T, query string) string {
	t.Helper()
	return first(t, n, n.admin, query)
}

func (n *mySQLNode) works(t *testing.T, c target.Credential, want bool) {
	t.Helper()
	targettest.Login(n.login).Works(t, "login", c, want)
}

// TestMySQL holds the kind mysql to what every kind promises, and to what is its own, before a real
// server.
func TestMySQL(t *testing.T) {
	t.Parallel()
	n := startMySQL(t)
	t.Run("suite", func(t *testing.T) {
		t.Run("conformance", func(t *testing.T) { t.Parallel(); targettest.Run(t, n.harness()) })
		for name, test := range map[string]func(*testing.T, *mySQLNode){
			"abandoned candidate": mySQLAbandoned, "by hand": mySQLByHand, "inspect": mySQLInspect, "wrong kind": mySQLWrongKind, "general log": mySQLLog,
			"standing":     mySQLStanding,
			"hosts":        func(t *testing.T, n *mySQLNode) { testHosts(t, n, n.open) },
			"plugins":      mySQLPlugins,
			"check":        mySQLCheck,
			"after a leak": func(t *testing.T, n *mySQLNode) { testAfterALeak(t, n, mysql.MySQL(), n.open(t)) },
			"login":        func(t *testing.T, n *mySQLNode) { testLogin(t, n, n.harness(), n.authority) },
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t, n) })
		}
	})
}

// mySQLAbandoned begins a rotation where an abandoned one has left its candidate, which is the
// current password then.
func mySQLAbandoned(t *testing.T, n *mySQLNode) {
	tt := n.harness().Open(t, n.Addr)
	old := n.account(t, "")
	lost := target.Change{ID: "1", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), lost))
	n.works(t, old, true)
	n.works(t, lost.New, true)
	c := target.Change{ID: "2", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, old, true)
	n.works(t, c.New, true)
	n.works(t, lost.New, false)
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	n.works(t, old, false)
	n.works(t, c.New, true)
}

// mySQLByHand verifies that a rotation keeps a password that an operator has set.
func mySQLByHand(t *testing.T, n *mySQLNode) {
	tt := n.harness().Open(t, n.Addr)
	old := n.account(t, "")
	byHand := next(t, tt, old)
	n.exec(t, "ALTER USER "+mySQLQuote(old.Account)+"@'%' IDENTIFIED BY "+mySQLQuote(byHand.Secret.Reveal()))
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	n.works(t, byHand, true)
	n.works(t, c.New, true)
	third := target.Change{ID: "y", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Expect(t, tt.Apply(targettest.Within(t), third), target.Denied, "neither is the one to be replaced")
	n.works(t, byHand, true)
}

func mySQLInspect(t *testing.T, n *mySQLNode) {
	tt := n.harness().Open(t, n.Addr)
	live, locked := n.account(t, ""), n.account(t, "")
	n.exec(t, "ALTER USER "+mySQLQuote(locked.Account)+"@'%' ACCOUNT LOCK")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: live, New: next(t, tt, live)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	wrong, nobody := live, live
	wrong.Secret, nobody.Account = locked.Secret, "none"
	got, err := tt.(target.Inspector).Inspect(t.Context(), []target.Credential{live, c.New, wrong, locked, nobody})
	want := []target.Liveness{target.Live, target.Live, target.Dead, target.NotKnown, target.Dead}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Inspect = %v, %v; want %v", got, err, want)
	}
}

// mySQLWrongKind verifies that a server of the other kind is named, and left as it is.
func mySQLWrongKind(t *testing.T, n *mySQLNode) {
	old := n.account(t, "")
	h := n.harness()
	other, err := mysql.MariaDB().Open(target.Settings{Config: []byte(h.Config(n.Addr)), Admin: n.admin})
	if err != nil {
		t.Fatal(err)
	}
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, other, old)}
	targettest.Expect(t, other.Apply(targettest.Within(t), c), target.Denied, "register it as kind mysql")
	n.works(t, old, true)
}

// mySQLLog verifies that no password is in the log of statements.
func mySQLLog(t *testing.T, n *mySQLNode) {
	tt := n.harness().Open(t, n.Addr)
	old := n.account(t, "")
	c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Must(t, tt.Retire(targettest.Within(t), c))
	log, err := os.ReadFile(n.GeneralLog)
	if err != nil || !strings.Contains(string(log), "RETAIN CURRENT PASSWORD") {
		t.Fatalf("the general log does not hold the statements: %v", err)
	}
	for _, s := range []target.Credential{n.admin, c.Old, c.New} {
		if strings.Contains(string(log), s.Secret.Reveal()) {
			t.Errorf("the general log holds the password of %s", s.Account)
		}
	}
}
