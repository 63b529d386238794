package messy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
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
}

func (db *mariadb) play(t *testing.T) {
	applications.Require(t, db.kind)
	good(t, db.Exec(t.Context(), applications.MySQLShared...))
	good(t, db.Exec(t.Context(),
		"CREATE USER rotator@'%' IDENTIFIED BY 'the-administrators'",
		"GRANT ALL ON *.* TO rotator@'%' WITH GRANT OPTION",
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
	good(t, db.Exec(t.Context(), applications.MySQLObjects(database)...))
	t.Cleanup(func() { _ = db.Exec(context.Background(), "DROP DATABASE "+database) })
	u.grants = []string{applications.MySQLGrant(database, "{}")}
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
	s.app = applications.New(applications.Config{Kind: db.kind, Address: db.Addr, Database: database, Source: source})
	s.also = func(ctx context.Context, value string, out outcome) error {
		a, err := applications.Parse(value)
		if err == nil {
			out["account"], err = db.account(ctx, a.AccountName)
		}
		return err
	}
}

// options are the rights and limits of an account. It returns where the application comes from;
// empty for any address.
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
		s.occupy = func(value string) func() { return db.occupy(s, value, 2) }
	}
	if s.trait(r, 5, "an expiry that is far") {
		u.options = append(u.options, "PASSWORD EXPIRE INTERVAL 1000 DAY")
	}
	if db.kind == "mysql" && s.trait(r, 4, "an attribute") {
		u.options = append(u.options, `ATTRIBUTE '{"team": "blue"}'`)
	}
	return ""
}

// occupy keeps sessions open.
func (db *mariadb) occupy(s *scene, value string, n int) (release func()) {
	var open []func() error
	for range n {
		if end, err := s.app.Open(context.Background(), value); err == nil {
			open = append(open, end)
		}
	}
	return func() {
		for _, end := range open {
			_ = end() // nothing depends on the goodbye
		}
		// The server counts a session a little longer than its client does.
		support.Eventually(func() bool {
			in, err := s.app.Login(context.Background(), value)
			return in || err == nil
		})
	}
}

var (
	// identified is how an account logs in, with its hashes, up to what follows.
	identified = regexp.MustCompile(`(?s) IDENTIFIED .*?( DEFAULT ROLE| REQUIRE| WITH MAX| PASSWORD EXPIRE|$)`)
)

// waysToLogIn are the plug-ins of an account; the hashes of one plug-in count as one.
var waysToLogIn = map[string]string{
	"mariadb": "SELECT JSON_EXTRACT(Priv, '$.plugin', '$.auth_or[*].plugin') FROM mysql.global_priv WHERE user = '%s'",
	"mysql":   "SELECT plugin FROM mysql.user WHERE user = '%s'",
}

// admin is a pool of the administrator's sessions.
func (db *mariadb) admin() (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.Logger = "tcp", db.Addr, "rotator", "the-administrators", &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// account is what the server's administrator sees of an account: its plug-in, limits, expiry,
// attributes and rights, without hashes.
func (db *mariadb) account(ctx context.Context, name string) (string, error) {
	pool, err := db.admin()
	if err != nil {
		return "", err
	}
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
