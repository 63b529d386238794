package mysql_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/mysql"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// as opens a target for an application with settings of its own for its logins.
func as(t *testing.T, k target.Kind, config string, admin target.Credential, l target.Login) target.Target {
	t.Helper()
	if err := k.CheckLogin(l); err != nil {
		t.Fatal(err)
	}
	tt, err := k.Open(target.Settings{Config: []byte(config), Admin: admin, Login: l})
	targettest.Must(t, err)
	return tt
}

// testLogin verifies that Verify logs in as the application does, and what each refusal means.
func testLogin(t *testing.T, f fixture, h targettest.Harness, authority *servers.Authority) {
	verify := func(c target.Credential, l target.Login, class target.Class, text string) {
		t.Helper()
		err := as(t, h.Kind, h.Config(h.Addr), h.Admin, l).Verify(targettest.Within(t), c)
		targettest.Result(t, err, class, text)
	}
	alter := func(c target.Credential, clause string) { f.exec(t, "ALTER USER "+quote(c.Account)+"@'%' "+clause) }
	plain := f.account(t, "login-plain")
	wrong := plain
	wrong.Secret = f.account(t, "login-other").Secret

	cert, err := os.ReadFile(authority.CertFile)
	targettest.Must(t, err)
	key, err := os.ReadFile(authority.KeyFile)
	targettest.Must(t, err)
	certified := target.Login{CertificateSecret: "s", Certificate: targettest.Value(string(cert) + string(key))}
	x509 := f.account(t, "login-x509")
	alter(x509, "REQUIRE X509")
	verify(x509, target.Login{}, target.Denied, "--login-certificate-secret")
	verify(x509, certified, 0, "")
	verify(target.Credential{Account: x509.Account, Secret: plain.Secret}, certified, target.Rejected, "1045")
	broken := certified
	broken.Certificate = targettest.Value(string(cert))
	verify(x509, broken, target.Denied, "a client certificate and its key")
	subject := f.account(t, "login-subject")
	alter(subject, "REQUIRE SUBJECT '/CN=another'")
	verify(subject, certified, target.Denied, "another subject")

	f.exec(t, "CREATE DATABASE IF NOT EXISTS login_db")
	verify(plain, target.Login{Database: "login_db"}, target.Admitted, "1044")
	verify(wrong, target.Login{Database: "login_db"}, target.Rejected, "1045")
	f.exec(t, "GRANT SELECT ON login_db.* TO "+quote(plain.Account)+"@'%'")
	verify(plain, target.Login{Database: "login_db"}, 0, "")
	verify(plain, target.Login{Role: "login_role"}, target.Denied, "take the role login_role")
	f.exec(t, "CREATE ROLE login_role", "GRANT login_role TO "+quote(plain.Account)+"@'%'")
	verify(plain, target.Login{Role: "login_role"}, 0, "")

	expired := f.account(t, "login-locked")
	alter(expired, "ACCOUNT LOCK")
	verify(expired, target.Login{}, target.Denied, "locked")

	// Another account of the name comes first for this host.
	hidden := f.account(t, "login-hidden")
	f.exec(t, "CREATE USER "+quote(hidden.Account)+"@'127.0.0.1' IDENTIFIED BY 'Another-password-1'")
	verify(hidden, target.Login{}, target.Denied, "can reach 'login-hidden'@'127.0.0.1' instead; if that is the same "+
		"application's: keyturn rotation cancel NAME, keyturn target update TARGET --set "+
		`'account_host=["%","127.0.0.1"]', and then the rotation or keyturn rotation emergency NAME again`)

	// Each of these is the only account of its name.
	n := 0
	for host, from := range map[string][2]bool{
		"%":                         {true, true},
		"127.0.0.1":                 {true, false},
		"127.0.0._":                 {true, true},
		"127.%.2":                   {false, true},
		"127.0.0.0/255.255.255.0":   {true, true},
		"127.0.0.2/255.255.255.255": {false, true},
		"10.0.0.0/255.0.0.0":        {false, false},
		"127.0.0.0/255.255.255.254": {true, false},
		"db.example.test":           {false, false},
	} {
		n++
		only := f.account(t, fmt.Sprint("login-only-", n))
		f.exec(t, "RENAME USER "+quote(only.Account)+"@'%' TO 'login-only'@'%'",
			"RENAME USER 'login-only'@'%' TO "+quote(only.Account)+"@"+quote(host))
		for i, ip := range []string{"127.0.0.1", "127.0.0.2"} {
			if in := loggedIn(t, f, ip, only) != ""; in != from[i] || mysql.MatchesHost(h.Kind.Name, host, ip) != in {
				t.Errorf("an account at %s and a client at %s: the server says %v", host, ip, in)
			}
		}
		if from[0] {
			verify(only, target.Login{}, 0, "")
		} else {
			verify(only, target.Login{}, target.Denied, "create "+quote(only.Account)+"@'127.0.0.1' with the same password")
		}
	}
}

func mariaLogin(t *testing.T, n *node) {
	testLogin(t, n, n.harness(n.admin), n.authority)
	ssl := n.account(t, "login-ssl")
	n.alter(t, ssl, "REQUIRE SSL")
	open := func(config string, l target.Login) target.Target { return as(t, mysql.MariaDB(), config, n.admin, l) }
	off := open(fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, n.Addr), target.Login{})
	targettest.Expect(t, off.Verify(targettest.Within(t), ssl), target.Denied, "requires TLS")

	pooler := open(fmt.Sprintf(`{"address":%q,"tls":{"off":true},"verify":[{"address":%q,"role":"pooler"}]}`,
		n.Addr, n.Addr), target.Login{})
	wrong := n.account(t, "login-pooled")
	targettest.Must(t, pooler.Verify(targettest.Within(t), wrong))
	wrong.Secret = ssl.Secret
	targettest.Expect(t, pooler.Verify(targettest.Within(t), wrong), target.Unclear, "1045")

	two := fmt.Sprintf(`{"address":%q,"tls":{"off":true},"verify":[%q,"127.0.0.1:1"]}`, n.Addr, n.Addr)
	plain := n.account(t, "login-endpoints")
	targettest.Must(t, open(two, target.Login{Endpoints: []string{n.Addr}}).Verify(targettest.Within(t), plain))
	err := open(two, target.Login{}).Verify(targettest.Within(t), plain)
	targettest.Expect(t, err, target.Unreachable, "127.0.0.1:1")
}

// TestReplica rotates with a replica that applies each change two seconds late: it must neither
// hold up the writer's proof nor pass for the writer.
func TestReplica(t *testing.T) {
	t.Parallel()
	const delay = 2 * time.Second
	primary, replica := servers.StartReplicated(t, delay)
	n := &node{MariaDB: primary}
	n.admin = n.account(t, "rotator")
	n.exec(t, "GRANT CREATE USER ON *.* TO 'rotator'@'%'", "GRANT SELECT ON mysql.* TO 'rotator'@'%'")
	open := func(role string) target.Target {
		verify := fmt.Sprintf(`{"address":%q,"role":%q}`, replica.Addr, role)
		return targettest.Open(t, mysql.MariaDB(),
			fmt.Sprintf(`{"address":%q,"tls":{"off":true},"verify":[%q,%s]}`, n.Addr, n.Addr, verify), n.admin)
	}
	tt := open("replica")
	copied := tt.(target.Copied)
	old := n.account(t, "app")
	eventually := func(c target.Credential) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			err := copied.VerifyCopies(targettest.Within(t), c)
			if err == nil {
				return
			}
			if time.Since(began) > copied.Lag() {
				t.Fatalf("the replica has not followed within %v: %v", copied.Lag(), err)
			}
		}
	}
	eventually(old)
	c := target.Change{ID: "x", Strategy: target.Single, Old: old, New: next(t, tt, old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), c))
	targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	targettest.Expect(t, copied.VerifyCopies(targettest.Within(t), c.New), target.Rejected)
	// A replica that is configured as a writer does not reject what the writer stores.
	err := open("writer").Verify(targettest.Within(t), c.New)
	targettest.Expect(t, err, target.Denied, "its role is replica")
	eventually(c.New)
	if copied.Lag() != target.DefaultLag {
		t.Errorf("Lag = %v", copied.Lag())
	}
}
