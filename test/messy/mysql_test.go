package messy

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestMariaDB(t *testing.T) {
	t.Parallel()
	playMySQL(t, &mysqlKind{
		name:    "mariadb",
		plugins: []string{"mysql_native_password", "mysql_native_password", "ed25519"},
		start: func(a *servers.Authority, arguments ...string) *servers.MariaDB {
			return servers.StartMariaDB(t, a, append(arguments, "--plugin-load-add=auth_ed25519")...)
		},
		replicated: func() (primary, replica *servers.MariaDB) {
			primary, replica = servers.StartReplicated(t, replicaDelay)
			good(t, primary.Exec(t.Context(), "INSTALL SONAME 'auth_ed25519'"))
			good(t, replica.Exec(t.Context(), "INSTALL SONAME 'auth_ed25519'"))
			return primary, replica
		},
		hardening: []string{
			"INSTALL SONAME 'simple_password_check'",
			"SET GLOBAL strict_password_validation = OFF",
			"SET GLOBAL max_password_errors = 50",
		},
	})
}

func TestMySQL(t *testing.T) {
	t.Parallel()
	playMySQL(t, &mysqlKind{
		name:    "mysql",
		plugins: []string{"caching_sha2_password", "caching_sha2_password", "sha256_password"},
		start: func(a *servers.Authority, arguments ...string) *servers.MariaDB {
			return servers.StartMySQL(t, a, arguments...)
		},
		replicated: func() (primary, replica *servers.MariaDB) {
			return servers.StartReplicatedMySQL(t, replicaDelay)
		},
		hardening: []string{
			"INSTALL COMPONENT 'file://component_validate_password'",
			"SET GLOBAL partial_revokes = ON",
			"SET GLOBAL password_history = 5",
			"SET GLOBAL password_reuse_interval = 30",
			"SET GLOBAL default_password_lifetime = 90",
			"SET GLOBAL require_secure_transport = ON",
		},
	})
}

// replicaDelay is what a replica is late, and crowd the number of connections of a full server.
const (
	replicaDelay = time.Second
	crowd        = 10
)

// mysqlKind is MariaDB or MySQL.
type mysqlKind struct {
	name       string
	plugins    []string // of which an account has one
	start      func(a *servers.Authority, arguments ...string) *servers.MariaDB
	replicated func() (primary, replica *servers.MariaDB)
	hardening  []string
	product    *product
	// worlds are the servers of scenes; each starts when the first scene needs it.
	worlds map[string]func() *mysqlWorld
}

// mysqlWorld is a server that scenes share.
type mysqlWorld struct {
	*servers.MariaDB
	kind    *mysqlKind
	replica *servers.MariaDB
	// authority is set when the server speaks TLS.
	authority *servers.Authority
	// turn is of the scenes that need the server for themselves.
	turn sync.Mutex
}

func playMySQL(t *testing.T, k *mysqlKind) {
	applications.Require(t, k.name)
	if k.name == "mysql" && !servers.HasMySQL() {
		t.Skip("there is no MySQL server; scripts/test-mysql fetches one")
	}
	k.product = start(t, k.name, compact(pair{"rotator", "The-administrator's-1"}))
	k.worlds = map[string]func() *mysqlWorld{
		"as installed": sync.OnceValue(func() *mysqlWorld {
			return k.prepare(t, &mysqlWorld{MariaDB: k.start(nil)}, "CREATE USER ''@'%'", "CREATE USER ''@'localhost'")
		}),
		"hardened": sync.OnceValue(func() *mysqlWorld {
			a := servers.NewAuthority(t, t.TempDir())
			return k.prepare(t, &mysqlWorld{MariaDB: k.start(a), authority: a}, k.hardening...)
		}),
		"replicated": sync.OnceValue(func() *mysqlWorld {
			primary, replica := k.replicated()
			return k.prepare(t, &mysqlWorld{MariaDB: primary, replica: replica})
		}),
		"full": sync.OnceValue(func() *mysqlWorld {
			return k.prepare(t, &mysqlWorld{MariaDB: k.start(nil, fmt.Sprintf("--max-connections=%d", crowd))})
		}),
	}
	p := player{product: k.product, label: "messy_" + k.name}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { k.build(t, s, r) }
	p.play(t)
}

// prepare makes what all scenes of a server share.
func (k *mysqlKind) prepare(t *testing.T, w *mysqlWorld, more ...string) *mysqlWorld {
	t.Helper()
	w.kind = k
	good(t, w.Exec(t.Context(), applications.MySQLShared...))
	good(t, w.Exec(t.Context(), append([]string{
		"CREATE USER rotator@'%' IDENTIFIED BY 'The-administrator''s-1'",
		"GRANT ALL ON *.* TO rotator@'%' WITH GRANT OPTION",
		"CREATE ROLE readers",
		"GRANT SELECT ON shared.* TO readers",
	}, more...)...))
	return w
}

// user is an account of a scene.
type user struct {
	name, password string
	rows           []row
	// options follow how it logs in, and limits follow WITH. In grants and after, {} is the account
	// at a host.
	options, limits, grants, after []string
}

// row is an account at a host.
type row struct{ host, plugin string }

// create makes the account at each of its hosts.
func (w *mysqlWorld) create(t *testing.T, u user) {
	t.Helper()
	for _, row := range u.rows {
		at := sqlText(u.name) + "@" + sqlText(row.host)
		how := " IDENTIFIED WITH " + row.plugin + " BY " + sqlText(u.password)
		if w.kind.name == "mariadb" {
			how = " IDENTIFIED VIA " + row.plugin + " USING PASSWORD(" + sqlText(u.password) + ")"
		}
		options := slices.Clone(u.options)
		if len(u.limits) > 0 { // between REQUIRE and all others
			at := slices.IndexFunc(options, func(o string) bool { return !strings.HasPrefix(o, "REQUIRE") })
			if at < 0 {
				at = len(options)
			}
			options = slices.Insert(options, at, "WITH "+strings.Join(u.limits, " "))
		}
		statements := []string{"CREATE USER " + at + how + " " + strings.Join(options, " ")}
		for _, g := range append(slices.Clone(u.grants), u.after...) {
			statements = append(statements, strings.ReplaceAll(g, "{}", at))
		}
		good(t, w.Exec(t.Context(), statements...))
	}
}

// sqlText is a literal.
func sqlText(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

// mysqlScene is a scene while it is made.
type mysqlScene struct {
	*scene
	*mysqlWorld
	t         *testing.T
	r         *rand.Rand
	database  string
	user      user
	config    map[string]any
	configure kms.ConfigureRotationRequest
	app       applications.Config
}

func (k *mysqlKind) build(t *testing.T, s *scene, r *rand.Rand) {
	worlds := []string{"as installed", "as installed", "as installed", "hardened", "hardened", "replicated"}
	world := s.one(r, "server", worlds...)
	if s.trait(r, 50, "a server whose connections are all in use") {
		world = "full"
	}
	w := k.worlds[world]()
	b := &mysqlScene{scene: s, mysqlWorld: w, t: t, r: r, database: "db_" + s.name}
	b.user = user{name: "app_" + s.name, password: "First-password-1-of-" + s.name}
	b.user.rows = []row{{"%", s.one(r, "plugin", k.plugins...)}}
	b.user.grants = []string{
		applications.MySQLGrant(b.database, "{}"),
		"GRANT CREATE VIEW, SHOW VIEW ON " + b.database + ".* TO {}",
	}
	b.config = map[string]any{"address": w.Addr, "tls": map[string]any{"off": true}}
	b.app = applications.Config{Kind: k.name, Address: w.Addr, Database: b.database}
	b.strategy = []target.Strategy{target.Overlap, target.Overlap, target.Single, target.Double}[r.IntN(4)]
	b.connections(world)
	for _, trait := range mysqlTraits {
		if (trait.kind == "" || trait.kind == k.name) && s.trait(r, trait.odds, trait.name) {
			trait.apply(b)
		}
	}
	b.objects()
	b.bind()
}

// connections follows the server: TLS, a replica, sessions that fill it.
func (b *mysqlScene) connections(world string) {
	switch world {
	case "hardened":
		b.config["tls"] = map[string]any{"ca": b.authority.CA}
		b.app.CA = b.authority.CAFile
	case "replicated":
		b.config["verify"] = []any{b.Addr, map[string]any{"address": b.replica.Addr, "role": "replica"}}
	case "full":
		b.turn.Lock()
		b.t.Cleanup(b.turn.Unlock)
		b.occupy = func(value string) func() { return b.occupies(value, crowd) }
	}
}

// objects makes the tables of the application, and what runs with the rights of its account.
func (b *mysqlScene) objects() {
	b.create(b.t, b.user)
	db := b.database
	statements := applications.MySQLObjects(db)
	if b.trait(b.r, 3, "objects that run as the account") {
		as := " DEFINER = " + sqlText(b.user.name) + "@" + sqlText(b.user.rows[0].host) + " "
		statements = append(statements,
			"CREATE TABLE "+db+".audited (id int)",
			"CREATE TABLE "+db+".log (id int)",
			"CREATE"+as+"VIEW "+db+".v AS SELECT id FROM "+db+".orders",
			"CREATE"+as+"PROCEDURE "+db+".definer() SELECT count(*) FROM "+db+".orders",
			"CREATE"+as+"FUNCTION "+db+".definer_of() RETURNS int READS SQL DATA RETURN (SELECT count(*) FROM "+db+".orders)",
			"CREATE"+as+"EVENT "+db+".e ON SCHEDULE EVERY 1 DAY DO DELETE FROM "+db+".log",
		)
	}
	good(b.t, b.Exec(b.t.Context(), statements...))
	b.t.Cleanup(func() { _ = b.Exec(context.Background(), "DROP DATABASE "+db) })
}

// bind makes the secret, its rotation and the application.
func (b *mysqlScene) bind() {
	s, p := b.scene, b.kind.product
	p.register(b.t, s.name, compact(b.config))
	s.first = compact(pair{b.user.name, b.user.password})
	b.configure.TargetName, b.configure.Strategy = s.name, string(s.strategy)
	b.configure.AccountName, b.configure.GracePeriod = b.user.name, "1h"
	switch s.strategy {
	case target.Single:
		b.configure.GracePeriod = "0s"
	case target.Double:
		clone := b.user
		clone.name, clone.password = "app_"+s.name+"_clone", "Another-password-1-of-"+s.name
		b.create(b.t, clone)
		b.configure.CloneAccountName = clone.name
	}
	s.attach = func() (string, error) { return p.configure(b.t, s.first, b.configure) }
	s.changes = map[string][]string{
		"change-auth-plugin": {"account"},
		"objects-of-one":     {"failures"}, // only its definer may alter a view
	}
	s.app = applications.New(b.app)
	s.also = func(ctx context.Context, value string, out outcome) error {
		v, err := applications.Parse(value)
		if err != nil {
			return err
		}
		seen, err := b.seen(ctx, v.AccountName)
		maps.Copy(out, seen)
		return err
	}
}

// certify gives the application a client certificate, and the product its secret.
func (b *mysqlScene) certify() {
	var both []byte
	for _, file := range []string{b.authority.CertFile, b.authority.KeyFile} {
		part, err := os.ReadFile(file)
		good(b.t, err)
		both = append(both, part...)
	}
	b.app.Certificate, b.app.Key = b.authority.CertFile, b.authority.KeyFile
	b.configure.LoginCertificateSecret = "certificate-of-" + b.name
	b.kind.product.put(b.t, b.configure.LoginCertificateSecret, string(both))
}
