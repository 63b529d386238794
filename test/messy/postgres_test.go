package messy

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// TestPostgreSQLNewest plays on another major version than the system's.
func TestPostgreSQLNewest(t *testing.T) {
	t.Parallel()
	version := servers.PostgresVersions[len(servers.PostgresVersions)-1]
	playPostgres(t, "messy_postgresql_newest", sandbox.PostgresConfig{Programs: servers.PostgresPrograms(t, version)})
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	playPostgres(t, "messy_postgresql", sandbox.PostgresConfig{})
}

// playPostgres plays on a server of one version.
func playPostgres(t *testing.T, label string, config sandbox.PostgresConfig) {
	applications.Require(t, "postgresql")
	config.HBA = []string{"host all all 127.0.0.1/32 md5"} // takes SCRAM verifiers too
	config.Settings = []string{"max_prepared_transactions=64", "max_connections=200"}
	pg := &postgres{servers.StartPostgres(t, config)}
	good(t, pg.Exec(t.Context(), "postgres", `
		CREATE ROLE rotator SUPERUSER LOGIN PASSWORD 'the-administrators';
		CREATE ROLE readers;
		CREATE ROLE writers NOINHERIT;
		REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
		CREATE ROLE visitors;
		GRANT CONNECT ON DATABASE postgres TO visitors`))
	p := player{product: start(t, "postgresql", compact(pair{"rotator", "the-administrators"})), label: label}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { pg.build(t, p.product, s, r) }
	p.play(t)
}

// postgres is the server that all scenes of a version share.
type postgres struct{ *sandbox.Postgres }

// admin runs statements, and fails the test when one fails.
func (pg *postgres) admin(t testing.TB, database string, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := pg.Exec(t.Context(), database, s); err != nil {
			first, _, _ := strings.Cut(s, " PASSWORD")
			t.Fatalf("%s: %v", first, err)
		}
	}
}

// build makes a role with a database of its own, and an application that owns what is in it.
func (pg *postgres) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	app, database := "app_"+s.name, "db_"+s.name
	password := "first-password-of-" + s.name
	s.first = compact(pair{app, password})
	pg.admin(t, "postgres", "CREATE ROLE "+app+" LOGIN PASSWORD "+pg.verifier(s, r, app, password))
	pg.admin(t, "postgres", "CREATE DATABASE "+database)
	t.Cleanup(func() {
		_ = pg.Exec(context.Background(), "postgres", "DROP DATABASE "+database+" WITH (FORCE)")
	})
	pg.objects(t, s, r, app, database)
	pg.options(t, s, r, app, database)
	config := map[string]any{"address": pg.Addr(), "tls": map[string]bool{"off": true}, "database": database}
	config["require_auth"] = []string{"scram-sha-256", "md5"}
	if s.trait(r, 4, "target logs in to the database postgres") {
		delete(config, "database")
		if s.trait(r, 2, "which the application may open") {
			pg.admin(t, "postgres", "GRANT visitors TO "+app)
		}
	}
	p.register(t, s.name, compact(config))
	if r.IntN(2) == 0 {
		s.strategy = target.Single
		s.attach = func() (string, error) {
			return p.configure(t, s.first, kms.ConfigureRotationRequest{
				TargetName:  s.name,
				Strategy:    string(target.Single),
				GracePeriod: "0s",
			})
		}
	} else {
		s.strategy = target.Double
		// A session belongs to its login: the acting role may not end one of the second login.
		s.stated = []string{"ends its own sessions"}
		s.attach = func() (string, error) { return prepare(t, p, s.name, app, database, password) }
	}
	s.app = applications.New(applications.Config{
		Kind:     "postgresql",
		Address:  pg.Addr(),
		Database: database,
		Name:     app,
	})
	s.also = func(ctx context.Context, value string, out outcome) (err error) {
		a, err := applications.Parse(value)
		if err == nil {
			out["way of logging in"], err = pg.asks(ctx, a.AccountName, database)
		}
		return err
	}
}

// prepare has the product make a second login.
func prepare(t *testing.T, p *product, name, app, database, password string) (string, error) {
	secret := "of-" + name
	out, err := p.PrepareTargetAccounts(t.Context(), &kms.PrepareTargetAccountsRequest{
		TargetName:       name,
		AccountName:      app,
		CloneAccountName: app + "_clone",
		Databases:        []string{database}, // others come and go with their scenes
		AccountPassword:  sensitive.New(password),
		Apply:            true,
		SecretName:       secret,
		VersionID:        "v1",
	})
	if err != nil {
		return "", err
	}
	if !out.Proven {
		return "", fmt.Errorf("not proven: %s", strings.Join(out.Findings, "; "))
	}
	_, err = p.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:  secret,
		GracePeriod: "1h",
		GraceLimit:  "1h",
	})
	return secret, err
}

// verifier is how the server has stored the password, as a literal.
func (pg *postgres) verifier(s *scene, r *rand.Rand, app, password string) string {
	switch s.one(r, "verifier", "scram", "scram", "md5", "scram with 12000 iterations") {
	case "md5":
		return fmt.Sprintf("'md5%x'", md5.Sum([]byte(password+app)))
	case "scram with 12000 iterations":
		return "'" + scram(password, 12000) + "'"
	}
	return "'" + password + "'"
}

func scram(password string, iterations int) string {
	salt := []byte("salt-of-the-test")
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		panic(err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored, b64 := sha256.Sum256(mac("Client Key")), base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key")))
}

// objects makes what the application works with, found by its search_path.
func (pg *postgres) objects(t *testing.T, s *scene, r *rand.Rand, app, database string) {
	schema := map[string]string{
		"named like the login":  app,
		"public":                "public",
		"in a role's setting":   "stuff",
		"in a database setting": "stuff",
	}
	where := s.one(r, "schema", "named like the login", "public", "in a role's setting", "in a database setting")
	in := schema[where]
	statements := []string{fmt.Sprintf("CREATE SCHEMA IF NOT EXISTS %[1]s; ALTER SCHEMA %[1]s OWNER TO %[2]s", in, app)}
	switch where {
	case "in a role's setting":
		statements = append(statements, "ALTER ROLE "+app+" SET search_path = stuff, public")
	case "in a database setting":
		statements = append(statements, "ALTER ROLE "+app+" IN DATABASE "+database+" SET search_path = stuff")
	}
	statements = append(statements, applications.PostgreSQLObjects(in, app))
	if s.trait(r, 2, "row level security by current_user") {
		statements = append(statements, applications.PostgreSQLRowSecurity(in))
	}
	if s.trait(r, 2, "a table of another owner") {
		statements = append(statements, applications.PostgreSQLLent(in, app))
	}
	if s.trait(r, 3, "default privileges of its own") {
		statements = append(statements, "ALTER DEFAULT PRIVILEGES FOR ROLE "+app+" GRANT SELECT ON TABLES TO readers")
	}
	if s.trait(r, 3, "a publication of its own") {
		statements = append(statements, "GRANT CREATE ON DATABASE "+database+" TO "+app,
			fmt.Sprintf("SET ROLE %s; CREATE PUBLICATION news FOR TABLE %s.orders; RESET ROLE", app, in))
	}
	pg.admin(t, database, statements...)
}

// options are the settings, limits and memberships of the role.
func (pg *postgres) options(t *testing.T, s *scene, r *rand.Rand, app, database string) {
	var statements []string
	add := func(n int, trait, statement string) bool {
		there := s.trait(r, n, trait)
		if there {
			statements = append(statements, statement)
		}
		return there
	}
	add(4, "statement_timeout", "ALTER ROLE "+app+" SET statement_timeout = '20s'")
	add(4, "a setting of its own", "ALTER ROLE "+app+" SET app.tenant = 'a b''c'")
	add(5, "VALID UNTIL", "ALTER ROLE "+app+" VALID UNTIL '2099-01-01'")
	add(5, "VALID UNTIL infinity", "ALTER ROLE "+app+" VALID UNTIL 'infinity'")
	add(4, "member of readers", "GRANT readers TO "+app)
	add(5, "member of writers, which does not inherit", "GRANT writers TO "+app)
	add(6, "NOINHERIT", "ALTER ROLE "+app+" NOINHERIT")
	add(6, "CREATEDB", "ALTER ROLE "+app+" CREATEDB")
	add(5, "CONNECT by name alone", fmt.Sprintf(
		"REVOKE CONNECT ON DATABASE %[1]s FROM PUBLIC; GRANT CONNECT ON DATABASE %[1]s TO %[2]s", database, app))
	if s.trait(r, 5, "connection limit reached by the application's pool") {
		statements = append(statements, "ALTER ROLE "+app+" CONNECTION LIMIT 4")
		s.occupy = func(value string) func() { return pg.occupy(t, s, value, 4) }
	} else {
		add(6, "connection limit", "ALTER ROLE "+app+" CONNECTION LIMIT 40")
	}
	pg.admin(t, "postgres", statements...)
}

// asks returns how the server asks a role for its password: a driver without SCRAM cannot answer
// every way.
func (pg *postgres) asks(ctx context.Context, role, database string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", pg.Addr())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	body := "\x00\x03\x00\x00user\x00" + role + "\x00database\x00" + database + "\x00\x00"
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
		return "", err
	}
	answer := make([]byte, 9) // R, the length, the way
	if _, err := io.ReadFull(conn, answer); err != nil {
		return "", err
	}
	return fmt.Sprintf("%c%d", answer[0], answer[8]), nil
}

// occupy keeps as many sessions open as a role may have.
func (pg *postgres) occupy(t *testing.T, s *scene, value string, n int) (release func()) {
	a, err := applications.Parse(value)
	good(t, err)
	var open []func() error
	for range n {
		var end func() error
		// The server counts a session a little longer than its client does.
		support.Retry(t, func() (err error) { end, err = s.app.Open(t.Context(), value); return err })
		open = append(open, end)
	}
	return func() {
		for _, end := range open {
			_ = end() // nothing depends on the goodbye
		}
		support.Until(t, "the end of the sessions", func() bool {
			var n int
			admin, err := pg.Admin(t.Context(), "postgres")
			good(t, err)
			defer admin.Close(t.Context())
			good(t, admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = $1",
				a.AccountName).Scan(&n))
			return n == 0
		})
	}
}
