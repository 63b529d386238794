package messy

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

func TestMariaDB(t *testing.T) {
	t.Parallel()
	db := &mariadb{MariaDB: servers.StartMariaDB(t, nil), kind: "mariadb", plugins: []string{"mysql_native_password"}}
	if db.Exec(t.Context(), "INSTALL SONAME 'auth_ed25519'") == nil {
		db.plugins = append(db.plugins, "ed25519")
	}
	db.play(t)
}

func TestMySQL(t *testing.T) {
	t.Parallel()
	db := &mariadb{MariaDB: servers.StartMySQL(t, nil), kind: "mysql"}
	db.plugins = []string{"caching_sha2_password", "caching_sha2_password", "sha256_password"}
	db.play(t)
}

// mariadb is the server that all scenes of a kind share.
type mariadb struct {
	*servers.MariaDB
	kind    string
	plugins []string // of which an account has one
	client  string   // the program mariadb
}

func (db *mariadb) play(t *testing.T) {
	var err error
	if db.client, err = exec.LookPath("mariadb"); err != nil {
		t.Skip("the client mariadb is not installed (Debian package mariadb-client, scripts/test-deps)")
	}
	good(t, db.Exec(t.Context(),
		"CREATE USER rotator@'%' IDENTIFIED BY 'the-administrators'",
		"GRANT ALL ON *.* TO rotator@'%' WITH GRANT OPTION",
		"CREATE DATABASE shared",
		"CREATE TABLE shared.t (id int PRIMARY KEY, secret int)",
		"INSERT INTO shared.t VALUES (1, 2)",
		"CREATE ROLE readers",
		"GRANT SELECT ON shared.* TO readers",
	))
	p := player{product: start(t, db.kind, compact(pair{"rotator", "the-administrators"})), label: "messy_" + db.kind}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { db.build(t, p.product, s, r) }
	p.play(t)
}

// user is an account of a scene.
type user struct {
	name, password, plugin string
	hosts                  []string
	grants, options        []string
}

// create makes the account at each of its hosts.
func (db *mariadb) create(t *testing.T, u user) {
	t.Helper()
	for _, host := range u.hosts {
		at := fmt.Sprintf("%s@'%s'", u.name, host)
		how := fmt.Sprintf("IDENTIFIED WITH %s BY '%s'", u.plugin, u.password)
		if db.kind == "mariadb" {
			how = fmt.Sprintf("IDENTIFIED VIA %s USING PASSWORD('%s')", u.plugin, u.password)
		}
		statements := []string{fmt.Sprintf("CREATE USER %s %s %s", at, how, strings.Join(u.options, " "))}
		for _, g := range u.grants {
			statements = append(statements, strings.ReplaceAll(g, "{}", at))
		}
		good(t, db.Exec(t.Context(), statements...))
	}
}

func (db *mariadb) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	database := "db_" + s.name
	u := user{name: "app_" + s.name, password: "first-password-of-" + s.name, hosts: []string{"%"}}
	u.plugin = s.one(r, "plugin", db.plugins...)
	good(t, db.Exec(t.Context(), "CREATE DATABASE "+database,
		"CREATE TABLE "+database+".orders (id int PRIMARY KEY, item text)",
		"INSERT INTO "+database+".orders VALUES (1, 'one'), (2, 'two')"))
	t.Cleanup(func() { _ = db.Exec(context.Background(), "DROP DATABASE "+database) })
	u.grants = []string{"GRANT SELECT, INSERT, UPDATE, CREATE, DROP, ALTER, EXECUTE, CREATE ROUTINE, ALTER ROUTINE, " +
		"CREATE TEMPORARY TABLES ON " + database + ".* TO {}"}
	source := db.options(s, r, &u)
	config := map[string]any{"address": db.Addr, "tls": map[string]bool{"off": true}}
	switch s.one(r, "hosts", "%", "%", "127.0.0.%", "% and 127.0.0.2") {
	case "127.0.0.%":
		u.hosts = []string{"127.0.0.%"}
		config["account_host"] = "127.0.0.%"
	case "% and 127.0.0.2":
		u.hosts = append(u.hosts, "127.0.0.2")
		if s.trait(r, 2, "the application comes from 127.0.0.2") {
			source = "127.0.0.2"
		}
	}
	if s.trait(r, 4, "a database that the application opens") {
		config["database"] = database
	}
	db.create(t, u)
	p.register(t, s.name, compact(config))
	s.first = compact(pair{u.name, u.password})
	s.strategy = []target.Strategy{target.Overlap, target.Overlap, target.Single, target.Double}[r.IntN(4)]
	configure := kms.ConfigureRotationRequest{
		TargetName:  s.name,
		Strategy:    string(s.strategy),
		GracePeriod: "1h",
		AccountName: u.name,
	}
	switch s.strategy {
	case target.Single:
		configure.GracePeriod = "0s"
	case target.Double:
		clone := u
		clone.name += "_clone"
		clone.password = "another-password-of-" + s.name
		db.create(t, clone)
		configure.CloneAccountName = clone.name
	}
	s.attach = func() (string, error) { return p.configure(t, s.first, configure) }
	s.work = func(ctx context.Context, value string) (outcome, error) {
		return db.work(ctx, t, database, source, value)
	}
}

// options are the rights and limits of an account. It returns where the application comes from.
func (db *mariadb) options(s *scene, r *rand.Rand, u *user) (source string) {
	if s.trait(r, 3, "a right on columns") {
		u.grants = append(u.grants, "GRANT SELECT (id) ON shared.t TO {}")
	}
	if s.trait(r, 3, "a default role") {
		u.grants = append(u.grants, "GRANT readers TO {}")
		if db.kind == "mariadb" {
			u.grants = append(u.grants, "SET DEFAULT ROLE readers FOR {}")
		} else {
			u.grants = append(u.grants, "ALTER USER {} DEFAULT ROLE readers")
		}
	}
	if s.trait(r, 4, "limits that are far") {
		u.options = append(u.options, "WITH MAX_QUERIES_PER_HOUR 100000 MAX_USER_CONNECTIONS 50")
	} else if s.trait(r, 4, "connections reached by the application's pool") {
		u.options = append(u.options, "WITH MAX_USER_CONNECTIONS 2")
		s.occupy = func(value string) func() { return db.occupy(value, 2) }
	}
	if s.trait(r, 5, "an expiry that is far") {
		u.options = append(u.options, "PASSWORD EXPIRE INTERVAL 1000 DAY")
	}
	if db.kind == "mysql" && s.trait(r, 4, "an attribute") {
		u.options = append(u.options, `ATTRIBUTE '{"team": "blue"}'`)
	}
	return "127.0.0.1"
}

// config is of go-sql-driver, from an address of loopback.
func (db *mariadb) config(a pair, source string) *mysql.Config {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.Logger = "tcp", db.Addr, a.AccountName, a.AccountPassword, &mysql.NopLogger{}
	c.AllowCleartextPasswords = false
	c.Timeout = 10 * time.Second
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		return d.DialContext(ctx, network, address)
	}
	return c
}

// occupy keeps sessions open.
func (db *mariadb) occupy(value string, n int) (release func()) {
	a, err := parse(value)
	if err != nil {
		return func() {}
	}
	connector, err := mysql.NewConnector(db.config(a, "127.0.0.1"))
	if err != nil {
		return func() {}
	}
	var open []driver.Conn
	for range n {
		if conn, err := connector.Connect(context.Background()); err == nil {
			open = append(open, conn)
		}
	}
	return func() {
		for _, conn := range open {
			_ = conn.Close() // nothing depends on the goodbye
		}
		// The server counts a session a little longer than its client does.
		support.Eventually(func() bool {
			conn, err := connector.Connect(context.Background())
			if err == nil {
				err = conn.Close()
			}
			return err == nil || code(err) != tooManyOfUser
		})
	}
}

const tooManyOfUser = "1226"

// mariadbProbes are pieces of work of an application, with its statements for the client mariadb.
var mariadbProbes = []struct{ name, script string }{
	{"role", "SELECT CURRENT_ROLE();"},
	{"rows", "SELECT * FROM orders;"},
	{"write", "BEGIN; INSERT INTO orders VALUES (-1, 'x'); SELECT count(*) FROM orders; ROLLBACK;"},
	{"migration", "CREATE TABLE m (id int); ALTER TABLE m ADD COLUMN c int; DROP TABLE m;"},
	{"procedure", "CREATE PROCEDURE p() SELECT 1; CALL p(); DROP PROCEDURE p;"},
	{"prepared", "PREPARE q FROM 'SELECT count(*) FROM orders'; EXECUTE q;"},
	{"temporary", "CREATE TEMPORARY TABLE tmp (id int); SELECT count(*) FROM tmp;"},
	{"column", "SELECT id FROM shared.t;"},
	{"whole table", "SELECT * FROM shared.t;"},
	{"delete", "DELETE FROM orders WHERE id = -1;"},
	{"others", "SELECT count(*) > 0 FROM mysql.user;"},
	{"databases", "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'shared';"},
}

// work is what the application does: with the client mariadb when it comes from 127.0.0.1, and with
// go-sql-driver.
func (db *mariadb) work(ctx context.Context, t *testing.T, database, source, value string) (outcome, error) {
	a, err := parse(value)
	if err != nil {
		return nil, err
	}
	out := outcome{}
	if source == "127.0.0.1" {
		if out, err = db.run(ctx, t, a, database); err != nil || out["login"] != loggedIn {
			return out, err
		}
	}
	config := db.config(a, source)
	config.DBName = database
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	defer pool.Close()
	for i := range 2 { // the second one has the session of the first, which the driver has reset
		var n int
		switch err := pool.QueryRowContext(ctx, "SELECT count(*) FROM orders WHERE id > ?", 0).Scan(&n); {
		case err != nil:
			return outcome{"login": "go-sql-driver: " + code(err)}, nil
		default:
			out[fmt.Sprintf("pool %d", i)] = fmt.Sprint(n)
		}
	}
	out["login"] = loggedIn
	out["account"], err = db.account(ctx, a.AccountName)
	return out, err
}

func (db *mariadb) run(ctx context.Context, t *testing.T, a pair, database string) (outcome, error) {
	host, port, err := net.SplitHostPort(db.Addr)
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "my.cnf")
	text := fmt.Sprintf("[client]\nuser=%s\npassword=\"%s\"\n", a.AccountName, a.AccountPassword)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var script strings.Builder
	for _, p := range mariadbProbes {
		fmt.Fprintf(&script, "SELECT '%s%s';\n%s\n", sectionMark, p.name, p.script)
	}
	cmd := exec.CommandContext(ctx, db.client, "--defaults-extra-file="+file, "--force", "-N", "-B",
		"-h", host, "-P", port, "--protocol=tcp", database)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(script.String())
	var failures strings.Builder
	cmd.Stderr = &failures
	answers, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if cmd.ProcessState == nil {
		return nil, err
	}
	said := failures.String()
	if !strings.Contains(string(answers), sectionMark) {
		return outcome{"login": "mariadb: " + strings.TrimSpace(said)}, nil
	}
	out := sections(string(answers))
	out["failures"] = strings.Join(mariadbErrors.FindAllString(said, -1), ", ")
	out["login"] = loggedIn
	return out, nil
}

var (
	mariadbErrors = regexp.MustCompile(`ERROR [0-9]+ \([0-9A-Z]+\) at line [0-9]+`)
	// identified is how an account logs in, with its hashes, up to what follows.
	identified = regexp.MustCompile(`(?s) IDENTIFIED .*?( DEFAULT ROLE| REQUIRE| WITH MAX| PASSWORD EXPIRE|$)`)
)

// waysToLogIn are the plug-ins of an account; the hashes of one plug-in count as one.
var waysToLogIn = map[string]string{
	"mariadb": "SELECT JSON_EXTRACT(Priv, '$.plugin', '$.auth_or[*].plugin') FROM mysql.global_priv WHERE user = '%s'",
	"mysql":   "SELECT plugin FROM mysql.user WHERE user = '%s'",
}

// account is what the server's administrator sees of an account: its plug-in, limits, expiry,
// attributes and rights, without hashes.
func (db *mariadb) account(ctx context.Context, name string) (string, error) {
	connector, err := mysql.NewConnector(db.config(pair{"rotator", "the-administrators"}, "127.0.0.1"))
	if err != nil {
		return "", err
	}
	pool := sql.OpenDB(connector)
	defer pool.Close()
	hosts, err := column(ctx, pool, fmt.Sprintf("SELECT host FROM mysql.user WHERE user = '%s'", name))
	if err != nil {
		return "", err
	}
	var lines []string
	for _, host := range hosts {
		for _, statement := range []string{"SHOW CREATE USER", "SHOW GRANTS FOR"} {
			said, err := column(ctx, pool, fmt.Sprintf("%s '%s'@'%s'", statement, name, host))
			if err != nil {
				return "", err
			}
			for _, line := range said {
				lines = append(lines, identified.ReplaceAllString(strings.ReplaceAll(line, name, "app"), "$1"))
			}
		}
	}
	ways, err := column(ctx, pool, fmt.Sprintf(waysToLogIn[db.kind], name))
	if err != nil {
		return "", err
	}
	for _, way := range ways {
		plugins := pluginNames.FindAllString(way, -1)
		slices.Sort(plugins)
		lines = append(lines, strings.Join(slices.Compact(plugins), " or "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; "), nil
}

var pluginNames = regexp.MustCompile(`\w+`)

// column reads the only column of a statement.
func column(ctx context.Context, pool *sql.DB, statement string) (list []string, err error) {
	rows, err := pool.QueryContext(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, errors.Join(err, rows.Err())
}
