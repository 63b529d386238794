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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
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
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("psql is not installed (Debian package postgresql-client, scripts/test-deps)")
	}
	config.HBA = []string{"host all all 127.0.0.1/32 md5"} // takes SCRAM verifiers too
	config.Settings = []string{"max_prepared_transactions=64", "max_connections=200"}
	pg := &postgres{Postgres: servers.StartPostgres(t, config), psql: psql}
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
type postgres struct {
	*sandbox.Postgres
	psql string
}

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
	s.work = func(ctx context.Context, value string) (outcome, error) {
		return pg.work(ctx, t, app, database, value)
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
	statements = append(statements, fmt.Sprintf(`SET ROLE %[1]s;
		CREATE TABLE %[2]s.orders (id serial PRIMARY KEY, item text, made_by name DEFAULT current_user);
		INSERT INTO %[2]s.orders (item) VALUES ('one'), ('two');
		CREATE VIEW %[2]s.latest AS SELECT max(id) AS id FROM %[2]s.orders;
		CREATE FUNCTION %[2]s.acting() RETURNS name LANGUAGE sql AS 'SELECT current_user';
		RESET ROLE`, app, in))
	if s.trait(r, 2, "row level security by current_user") {
		statements = append(statements, fmt.Sprintf(`SET ROLE %[1]s;
			ALTER TABLE %[2]s.orders ENABLE ROW LEVEL SECURITY;
			ALTER TABLE %[2]s.orders FORCE ROW LEVEL SECURITY;
			CREATE POLICY own ON %[2]s.orders USING (made_by = current_user); RESET ROLE`, app, in))
	}
	if s.trait(r, 2, "a table of another owner") {
		statements = append(statements, fmt.Sprintf(`CREATE TABLE %[2]s.lent (id int);
			INSERT INTO %[2]s.lent VALUES (7);
			GRANT SELECT, INSERT ON %[2]s.lent TO %[1]s`, app, in))
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
		s.occupy = func(value string) func() { return pg.occupy(t, database, value, 4) }
	} else {
		add(6, "connection limit", "ALTER ROLE "+app+" CONNECTION LIMIT 40")
	}
	pg.admin(t, "postgres", statements...)
}

// work is what the application does: first with psql, then with a pool of pgx. The probes change
// nothing that lasts.
func (pg *postgres) work(ctx context.Context, t *testing.T, app, database, value string) (outcome, error) {
	a, err := parse(value)
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "copied"), []byte("-5\tcopied\n"), 0o600); err != nil {
		return nil, err
	}
	pass := filepath.Join(dir, "pgpass")
	if err := os.WriteFile(pass, []byte("*:*:*:*:"+a.AccountPassword+"\n"), 0o600); err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(pg.Addr())
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, pg.psql, "-X", "-q", "-A", "-t", "-h", host, "-p", port, "-U", a.AccountName,
		"-d", database, "-v", "app="+app, "-v", "VERBOSITY=terse")
	cmd.Env = append(sandbox.Environment("PG"), "PGPASSFILE="+pass, "PGCONNECT_TIMEOUT=10", "HOME="+dir)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(postgresScript())
	text := &strings.Builder{}
	cmd.Stderr = text
	answers, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if cmd.ProcessState == nil {
		return nil, err
	}
	if cmd.ProcessState.ExitCode() == 2 { // the connection failed
		return outcome{"login": "psql: " + strings.TrimSpace(text.String())}, nil
	}
	out := sections(string(answers))
	out["login"] = loggedIn
	if out["way of logging in"], err = pg.asks(ctx, a.AccountName, database); err != nil {
		return nil, err
	}
	return out, pg.pool(ctx, a, database, out)
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
func (pg *postgres) occupy(t *testing.T, database, value string, n int) (release func()) {
	a, err := parse(value)
	good(t, err)
	config, err := pgx.ParseConfig("postgres://" + pg.Addr() + "/" + database + "?sslmode=disable")
	good(t, err)
	config.User, config.Password = a.AccountName, a.AccountPassword
	var open []*pgx.Conn
	for range n {
		var conn *pgx.Conn
		// The server counts a session a little longer than its client does.
		support.Retry(t, func() (err error) { conn, err = pgx.ConnectConfig(t.Context(), config); return err })
		open = append(open, conn)
	}
	return func() {
		for _, conn := range open {
			_ = conn.Close(context.Background()) // nothing depends on the goodbye
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

// postgresProbes are pieces of work of an application, with its statements for psql, one in a line.
var postgresProbes = []struct{ name, script string }{
	{"acting role", `SELECT current_user;`},
	{"schemas", `SELECT current_schemas(false);`},
	{"rows", `SELECT id, item FROM orders ORDER BY id;`},
	{"view", `SELECT id FROM latest;`},
	{"function", `SELECT acting();`},
	{"write", `BEGIN;
		INSERT INTO orders (id, item) VALUES (-1, 'x') RETURNING made_by;
		SELECT id FROM orders WHERE id < 0;
		ROLLBACK;`},
	{"update", `BEGIN;
		UPDATE orders SET item = item RETURNING id;
		ROLLBACK;`},
	{"migration", `BEGIN;
		CREATE TABLE m (id int);
		ALTER TABLE orders ADD COLUMN c int;
		DROP VIEW latest;
		SELECT schemaname, tableowner FROM pg_tables WHERE tablename = 'm';
		DROP TABLE m;
		ROLLBACK;`},
	{"ownership by name", `BEGIN;
		CREATE TABLE m (id int);
		ALTER TABLE m OWNER TO :app;
		ROLLBACK;`},
	{"default privileges", `BEGIN;
		ALTER DEFAULT PRIVILEGES FOR ROLE :app GRANT SELECT ON TABLES TO readers;
		CREATE TABLE m (id int);
		SELECT has_table_privilege('readers', 'm', 'SELECT');
		ROLLBACK;`},
	{"copy out", `COPY (SELECT count(*) FROM orders) TO STDOUT;`},
	{"copy in", `BEGIN;
		\copy orders (id, item) FROM copied
		SELECT made_by FROM orders WHERE id = -5;
		ROLLBACK;`},
	{"lent", `SELECT * FROM lent;`},
	{"groups", `SELECT pg_has_role('readers', 'usage'), pg_has_role('writers', 'usage');`},
	{"set role readers", `BEGIN;
		SET LOCAL ROLE readers;
		SELECT current_user;
		ROLLBACK;`},
	{"set role writers", `BEGIN;
		SET LOCAL ROLE writers;
		SELECT current_user;
		ROLLBACK;`},
	{"settings", `SELECT current_setting('statement_timeout'), current_setting('app.tenant', true);`},
	{"attributes", `SELECT rolcreatedb, rolcreaterole, rolsuper FROM pg_roles WHERE rolname = current_user;`},
	{"publication", `BEGIN;
		ALTER PUBLICATION news SET (publish = 'insert');
		ROLLBACK;`},
	{"prepared", `PREPARE q AS SELECT count(*) FROM orders;
		EXECUTE q;`},
	{"temporary", `CREATE TEMPORARY TABLE tmp (id int);
		SELECT count(*) FROM tmp;`},
	{"after DISCARD ALL", `DISCARD ALL;
		SELECT current_user, count(*) FROM orders;`},
	{"after RESET ALL", `RESET ALL;
		SELECT current_user, current_setting('statement_timeout'), count(*) FROM orders;`},
	{"after RESET ROLE", `RESET ROLE;
		SELECT current_user, count(*) FROM orders;`},
	{"after SET SESSION AUTHORIZATION", `SET SESSION AUTHORIZATION DEFAULT;
		SELECT current_user, count(*) FROM orders;`},
}

// sectionMark begins a line that names the probe whose answers follow.
const sectionMark = "=== "

func postgresScript() string {
	var b strings.Builder
	for _, p := range postgresProbes {
		fmt.Fprintf(&b, "\\echo '%s%s'\n", sectionMark, p.name)
		for line := range strings.Lines(p.script) {
			// psql sets SQLSTATE after each statement.
			fmt.Fprintf(&b, "%s\n\\echo :SQLSTATE\n", strings.TrimSpace(line))
		}
	}
	return b.String()
}

// sections splits what a client printed by the marks of the script.
func sections(text string) outcome {
	out, name := outcome{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if now, ok := strings.CutPrefix(line, sectionMark); ok {
			name = now
			out[name] = ""
			continue
		}
		if name != "" && line != "" && line != "00000" {
			out[name] = strings.TrimSpace(out[name] + " " + line)
		}
	}
	return out
}

// pool works with pgx as an application does: connections that are reset when they go back to the
// pool, statements that are prepared, and one session that ends another of its own.
func (pg *postgres) pool(ctx context.Context, a pair, database string, out outcome) error {
	config, err := pgxpool.ParseConfig("postgres://" + pg.Addr() + "/" + database + "?sslmode=disable&pool_max_conns=2")
	if err != nil {
		return err
	}
	config.ConnConfig.User, config.ConnConfig.Password = a.AccountName, a.AccountPassword
	config.ConnConfig.ConnectTimeout = 10 * time.Second
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	for i := range 2 {
		name := fmt.Sprintf("pool %d", i)
		var n int
		if err := pool.QueryRow(ctx, "SELECT count(*) FROM orders WHERE id > $1", 0).Scan(&n); err != nil {
			out[name] = "error: " + code(err)
			continue
		}
		out[name] = fmt.Sprint(n)
	}
	out["ends its own sessions"] = code(endOther(ctx, pool))
	return nil
}

// endOther has one session cancel another of the same application.
func endOther(ctx context.Context, pool *pgxpool.Pool) error {
	one, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer one.Release()
	two, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer two.Release()
	_, err = two.Exec(ctx, "SELECT pg_cancel_backend($1)", one.Conn().PgConn().PID())
	return err
}
