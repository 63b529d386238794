package rotation_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/mysql"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// statement carries one out as an account, and ends its session.
func statement(ctx context.Context, address string, l login, text string) error {
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = l.AccountName, l.AccountPassword, "tcp", address
	connector, err := driver.NewConnector(c)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	_, err = db.ExecContext(ctx, text)
	return err
}

// TestEmergencyEvictsBeside changes the password of an account that can have two, as the holder of
// the leaked one may. An emergency leaves no password but the new one, and names what it removed.
func TestEmergencyEvictsBeside(t *testing.T) {
	t.Parallel()
	for kind, database := range map[string]struct {
		start func(testing.TB, *servers.Authority, ...string) *servers.MariaDB
		set   string // the statement of the holder
	}{
		"mariadb": {servers.StartMariaDB, "SET PASSWORD = PASSWORD('set-by-the-holder')"},
		"mysql":   {servers.StartMySQL, "SET PASSWORD = 'set-by-the-holder'"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := database.start(t, nil)
			m.Administrator(t, "the-administrators-password")
			first := login{"app", "first-password-of-app"}
			must(t, m.Exec(t.Context(),
				fmt.Sprintf("CREATE USER app@'%%' IDENTIFIED BY '%s'", first.AccountPassword)))
			s := start(t, server.Change(func(c *server.Config) {
				c.Kinds = []target.Kind{mysql.MariaDB(), mysql.MySQL()}
			}), briefly)
			store(t, s, "admin", login{"rotator", "the-administrators-password"})
			store(t, s, "app", first)
			attach(t, s, "app", "shop", kind, fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, m.Addr))
			evicted(t, s, m.Addr, database.set)
			elsewhere(t, s, m, kind)
		})
	}
}

// store creates a Generic secret with an account.
func store(t *testing.T, s *keyturntest.Server, name string, l login) {
	t.Helper()
	must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New(l.json()),
	})))
}

// attach registers a target with the administrator in the secret "admin", and attaches a secret.
func attach(t *testing.T, s *keyturntest.Server, name, targetName, kind, config string) {
	t.Helper()
	must(t, second(s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      targetName,
		Kind:            kind,
		AdminSecretName: "admin",
		Config:          config,
	})))
	must(t, second(s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName: name,
		TargetName: targetName,
	})))
}

// elsewhere leaves the leaked password at a host that account_host does not list. The emergency
// names that account until the next rotation.
func elsewhere(t *testing.T, s *keyturntest.Server, m *servers.MariaDB, kind string) {
	t.Helper()
	leaked := login{"two", "first-password-of-two"}
	for _, host := range []string{"%", "127.0.0.9"} {
		must(t, m.Exec(t.Context(), fmt.Sprintf("CREATE USER two@'%s' IDENTIFIED BY '%s'", host, leaked.AccountPassword)))
	}
	store(t, s, "two", leaked)
	attach(t, s, "two", "narrow", kind, fmt.Sprintf(`{"address":%q,"account_host":"%%","tls":{"off":true}}`, m.Addr))
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName:      "two",
		VersionID:       "v2",
		AgreeToFindings: true,
	})))
	if r := untilRotation(t, s, "two", "v2", "done"); !strings.Contains(r.Reason, "'two'@'127.0.0.9' accepts the leaked") {
		t.Errorf("the emergency leaves an account with the leaked password: %q", r.Reason)
	}
}

// TestEmergencyAtAnotherHost replaces a leaked password where account_host leaves out the account
// that the application reaches. The target is then corrected, and the candidate is sent to that
// account, too.
func TestEmergencyAtAnotherHost(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t, nil)
	m.Administrator(t, "the-administrators-password")
	var ahead atomic.Int64
	s := start(t, server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{mysql.MariaDB()}
	}), keyturntest.WithTime(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }))
	store(t, s, "admin", login{"rotator", "the-administrators-password"})
	leaked := login{"app", "first-password-of-app"}
	for _, host := range []string{"%", "127.0.0.1"} {
		must(t, m.Exec(t.Context(), fmt.Sprintf("CREATE USER app@'%s' IDENTIFIED BY '%s'", host, leaked.AccountPassword)))
	}
	store(t, s, "app", leaked)
	config := func(hosts string) string {
		return fmt.Sprintf(`{"address":%q,"account_host":%s,"tls":{"off":true}}`, m.Addr, hosts)
	}
	attach(t, s, "app", "shop", "mariadb", config(`["%"]`))
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName:      "app",
		VersionID:       "v2",
		AgreeToFindings: true,
	})))
	support.Retry(t, func() error {
		r := untilRotation(t, s, "app", "v2", "applied")
		if !strings.Contains(r.Reason, "1045") {
			return fmt.Errorf("the rotation waits: %q", r.Reason)
		}
		return nil
	})
	must(t, second(s.Client.UpdateTarget(t.Context(), &kms.UpdateTargetRequest{
		TargetName: "shop",
		Config:     config(`["%","127.0.0.1"]`),
	})))
	for range 5 { // each failed login is followed by a wait of a minute
		ahead.Add(int64(2 * time.Minute))
		time.Sleep(time.Second)
	}
	untilRotation(t, s, "app", "v2", "done")
	if statement(t.Context(), m.Addr, leaked, "SELECT 1") == nil {
		t.Error("the leaked password still logs in")
	}
	must(t, statement(t.Context(), m.Addr, read(t, s, "app", "", ""), "SELECT 1"))
}

// TestEmergencyBehindARetirement begins an emergency while the retirement of an ordinary rotation
// fails, because an account that account_host leaves out has the previous password: the emergency
// does not wait for its operator.
func TestEmergencyBehindARetirement(t *testing.T) {
	t.Parallel()
	m := servers.StartMariaDB(t, nil)
	m.Administrator(t, "the-administrators-password")
	s := start(t, server.Change(func(c *server.Config) { c.Kinds = []target.Kind{mysql.MariaDB()} }))
	store(t, s, "admin", login{"rotator", "the-administrators-password"})
	first := login{"app", "first-password-of-app"}
	at := func(host string) {
		must(t, m.Exec(t.Context(), fmt.Sprintf("CREATE USER app@'%s' IDENTIFIED BY '%s'", host, first.AccountPassword)))
	}
	at("%")
	store(t, s, "app", first)
	attach(t, s, "app", "shop", "mariadb", fmt.Sprintf(`{"address":%q,"account_host":["%%"],"tls":{"off":true}}`, m.Addr))
	must(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: "app", VersionID: "v2"})))
	untilRotation(t, s, "app", "v2", "grace")
	leaked := read(t, s, "app", "", "")
	at("127.0.0.9")
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName:      "app",
		VersionID:       "v3",
		AgreeToFindings: true,
	})))
	untilRotation(t, s, "app", "v3", "done")
	for what, l := range map[string]login{"the leaked password": leaked, "the password before": first} {
		if statement(t.Context(), m.Addr, l, "SELECT 1") == nil {
			t.Errorf("%s still logs in", what)
		}
	}
}

func evicted(t *testing.T, s *keyturntest.Server, address, set string) {
	t.Helper()
	const asks = "SELECT 1"
	leaked := read(t, s, "app", "", "")
	must(t, statement(t.Context(), address, leaked, set))
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName:      "app",
		VersionID:       "v2",
		AgreeToFindings: true,
	})))
	r := untilRotation(t, s, "app", "v2", "done")
	if !strings.Contains(r.Reason, "password") || !r.PreviousRetired {
		t.Errorf("the emergency has removed a password, retired %t: %q", r.PreviousRetired, r.Reason)
	}
	for what, l := range map[string]login{
		"the leaked password":        leaked,
		"the password of its holder": {"app", "set-by-the-holder"},
		"no password":                {"app", ""},
	} {
		if err := statement(t.Context(), address, l, asks); err == nil {
			t.Errorf("%s still logs in", what)
		}
	}
	must(t, statement(t.Context(), address, read(t, s, "app", "", ""), asks))
}
