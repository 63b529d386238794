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
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	playPostgres(t, "messy_postgresql", "")
}

// TestPostgreSQLNewest plays on another major version than the system's.
func TestPostgreSQLNewest(t *testing.T) {
	t.Parallel()
	playPostgres(t, "messy_postgresql_newest", servers.PostgresVersions[len(servers.PostgresVersions)-1])
}

// TestPostgreSQLFirstMinor plays on a minor release where DISCARD ALL ends the effect of a role's
// setting "role".
func TestPostgreSQLFirstMinor(t *testing.T) {
	t.Parallel()
	playPostgres(t, "messy_postgresql_17_0", servers.PostgresVersions[0])
}

// postgresHBA says who comes in from where, by groups of roles. The administrators come first: with
// the ADMIN option on an account they are members of its groups, so those lines apply to them, too.
var postgresHBA = []string{
	"host all rotator,reader,blind 127.0.0.1/32 md5",
	"host all +elsewhere 127.0.0.2/32 md5",
	"host all +elsewhere 0.0.0.0/0 reject",
	"hostssl all +encrypted 127.0.0.1/32 md5",
	"host all +encrypted 127.0.0.1/32 reject",
	"hostssl all +certified 127.0.0.1/32 md5 clientcert=verify-ca",
	"host all +certified 127.0.0.1/32 reject",
	"hostssl all +called 127.0.0.1/32 md5 clientcert=verify-full",
	"host all +called 127.0.0.1/32 reject",
	"host samerole +confined 127.0.0.1/32 md5",
	"host all +confined 127.0.0.1/32 reject",
	"host all all 127.0.0.1/32 md5", // takes SCRAM verifiers too
	"local all all md5",
}

// postgresRoles are the administrators, and the groups.
const postgresRoles = `CREATE ROLE rotator SUPERUSER LOGIN PASSWORD 'the-administrators';
	CREATE ROLE reader CREATEROLE LOGIN PASSWORD 'the-readers';
	GRANT SELECT (rolname, rolpassword) ON pg_authid TO reader;
	CREATE ROLE blind CREATEROLE LOGIN PASSWORD 'the-blinds';
	CREATE ROLE elsewhere; CREATE ROLE encrypted; CREATE ROLE certified; CREATE ROLE called; CREATE ROLE confined;
	CREATE ROLE readers;
	CREATE ROLE writers NOINHERIT;
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
	CREATE ROLE visitors;
	GRANT CONNECT ON DATABASE postgres TO visitors, reader, blind`

// playPostgres plays on a server of one version; empty means the system's.
func playPostgres(t *testing.T, label, version string) {
	applications.Require(t, "postgresql")
	config := sandbox.PostgresConfig{
		HBA: postgresHBA,
		Settings: []string{
			"max_prepared_transactions=64", "max_connections=300", "wal_level=replica", "max_wal_senders=4",
		},
	}
	if version != "" {
		config.Programs = servers.PostgresPrograms(t, version)
	}
	pg := &postgres{ca: servers.NewLocalCA(t), dir: t.TempDir(), resets: version == servers.PostgresVersions[0]}
	cert, key := pg.ca.Issue(t, pg.dir, "localhost", "127.0.0.1")
	pg.caFile = cert + ".ca"
	good(t, os.WriteFile(pg.caFile, []byte(pg.ca.PEM), 0o600))
	config.Certificate, config.Key, config.ClientCA = contents(t, cert), contents(t, key), []byte(pg.ca.PEM)
	pg.Postgres = servers.StartPostgres(t, config)
	late := sandbox.PostgresConfig{StandbyOf: pg.Postgres, Settings: []string{"recovery_min_apply_delay=300ms"}}
	late.Certificate, late.Key, late.ClientCA = config.Certificate, config.Key, config.ClientCA
	pg.standby = servers.StartPostgres(t, late)
	good(t, pg.Exec(t.Context(), "postgres", postgresRoles))
	pg.poolers(t)
	p := player{product: start(t, "postgresql", compact(pair{"rotator", "the-administrators"})), label: label}
	p.put(t, "admin-reader", compact(pair{"reader", "the-readers"}))
	p.put(t, "admin-blind", compact(pair{"blind", "the-blinds"}))
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { pg.build(t, p.product, s, r) }
	p.play(t)
}

func contents(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	good(t, err)
	return text
}

// postgres is the servers that all scenes of a version share.
type postgres struct {
	*sandbox.Postgres
	standby *sandbox.Postgres
	// asking takes passwords from the server, and listed from its own list.
	asking, listed *servers.PgBouncer
	ca             *servers.LocalCA
	dir, caFile    string
	// resets is set where DISCARD ALL ends the effect of a role's setting "role".
	resets bool
}

// poolers starts the poolers. Their sessions at the server end soon, because scenes come and go.
func (pg *postgres) poolers(t *testing.T) {
	t.Helper()
	settings := []string{"auth_type = md5", "pool_mode = session", "server_idle_timeout = 2", "max_client_conn = 400"}
	pg.asking = servers.StartPgBouncer(t, pg.Postgres, nil, append(settings, "auth_user = "+sandbox.PostgresAdmin,
		"auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1")...)
	pg.listed = servers.StartPgBouncer(t, pg.Postgres, nil, settings...)
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

// identifier is a name as an identifier.
func identifier(name string) string { return pgx.Identifier{name}.Sanitize() }

// postgresScene is a scene while it is made.
type postgresScene struct {
	*scene
	pg *postgres
	p  *product
	t  *testing.T
	r  *rand.Rand
	// app is the account, owner the role that its objects belong to.
	app, owner, database, password string
	// schema is quoted; admin is the secret with the target's administrator.
	schema, admin string
	// config is of the target, connects how the product learns that the application connects.
	config   map[string]any
	connects kms.ConfigureRotationRequest
	client   applications.Config
	// grouped is set where the account has its rights in its database by the group owner alone.
	grouped bool
	// overlooks is set where the operator runs the statements of a plan without those in comments.
	overlooks bool
}

// ownSetting is of the application alone, so a plan does not show its value.
const ownSetting = "app.tenant = 'a b''c'"

// build makes a role with a database of its own, and an application that owns what is in it.
func (pg *postgres) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	b := &postgresScene{scene: s, pg: pg, p: p, t: t, r: r}
	b.app, b.database, b.password = "app_"+s.name, "db_"+s.name, "first-password-of-"+s.name
	if s.trait(r, 6, "names that need quoting") {
		b.app, b.database = `App "`+s.name+`" é'`, "DB of "+s.name
	}
	b.owner = b.app
	s.first = compact(pair{b.app, b.password})
	pg.admin(t, "postgres", b.create(), "CREATE DATABASE "+identifier(b.database))
	t.Cleanup(func() {
		_ = pg.Exec(context.Background(), "postgres", "DROP DATABASE "+identifier(b.database)+" WITH (FORCE)")
	})
	b.client = applications.Config{Kind: "postgresql", Address: pg.Addr(), Database: b.database, Name: b.app}
	b.config = map[string]any{"address": pg.Addr(), "tls": map[string]bool{"off": true}, "database": b.database}
	b.config["require_auth"] = []string{"scram-sha-256", "md5"}
	s.changes = map[string][]string{
		"form-changes":    {"way of logging in"},
		"unequal-logins":  {"settings"}, // the operator overlooks one that a plan does not show
		"session-user":    nil,
		"database-unread": nil, // work that reads session_user is added by readsSession
	}
	b.objects()
	b.options()
	b.way()
	b.administrator()
	b.register()
	b.strategies()
	s.app = applications.New(b.client)
	s.also = b.witness
}

// strategies picks one, and how the product gets the application's credential.
func (b *postgresScene) strategies() {
	in := b.connects
	in.TargetName = b.name
	if b.r.IntN(2) == 0 {
		b.strategy = target.Single
		b.attach = func() (string, error) {
			in.Strategy, in.GracePeriod = string(target.Single), "0s"
			return b.p.configure(b.t, b.first, in)
		}
		return
	}
	b.strategy = target.Double
	// A session belongs to its login: the acting role may not end one of the second login.
	b.stated = append(b.stated, "ends its own sessions")
	if b.pg.resets && b.client.Address == b.pg.Addr() {
		b.changes["role-reset"] = []string{
			"after DISCARD ALL", "after RESET ALL", "after RESET ROLE", "after SET SESSION AUTHORIZATION", "pool 0", "pool 1",
		}
		if b.trait(b.r, 2, "agrees that DISCARD ALL ends a role") {
			in.Consents = append(in.Consents, "role-reset")
			b.stated = append(b.stated, b.changes["role-reset"]...)
		}
	}
	b.overlooks = b.trait(b.r, 4, "overlooks comments in a plan")
	in.GracePeriod, in.GraceLimit = "1h", "1h"
	b.attach = func() (string, error) {
		in.SecretName, in.TargetName = "of-"+b.name, ""
		if in.LoginDatabase+in.LoginRole+in.LoginCertificateSecret == "" && in.LoginEndpoints == nil {
			if err := b.prepare(in.SecretName); err != nil {
				return "", err
			}
		} else if err := b.byHand(in.SecretName); err != nil {
			return "", err
		}
		_, err := b.p.ConfigureRotation(b.t.Context(), &in)
		return in.SecretName, err
	}
}

// prepare has the product make a second login.
func (b *postgresScene) prepare(secret string) error {
	out, err := b.p.PrepareTargetAccounts(b.t.Context(), &kms.PrepareTargetAccountsRequest{
		TargetName:       b.name,
		AccountName:      b.app,
		CloneAccountName: b.app + "_clone",
		Databases:        []string{b.database}, // others come and go with their scenes
		AccountPassword:  sensitive.New(b.password),
		Apply:            true,
		SecretName:       secret,
		VersionID:        "v1",
	})
	if err == nil && !out.Proven {
		err = fmt.Errorf("not proven: %s", strings.Join(out.Findings, "; "))
	}
	return err
}

// byHand makes the second login as an operator does whose application connects in a way of its own:
// with the statements that the product shows.
func (b *postgresScene) byHand(secret string) error {
	out, err := b.p.PrepareTargetAccounts(b.t.Context(), &kms.PrepareTargetAccountsRequest{
		TargetName:       b.name,
		AccountName:      b.app,
		CloneAccountName: b.app + "_clone",
		AccountPassword:  sensitive.New(b.password),
	})
	if err != nil {
		return err
	}
	for _, s := range out.Statements {
		if strings.HasPrefix(s.Statement, "-- ") && !b.overlooks {
			s.Statement = "ALTER ROLE " + identifier(b.app+"_clone") + " SET " + ownSetting
		}
		b.pg.admin(b.t, s.DatabaseName, s.Statement)
	}
	second := pair{b.app + "_clone", "second-password-of-" + b.name}
	b.pg.admin(b.t, "postgres", "ALTER ROLE "+identifier(second.AccountName)+" PASSWORD '"+second.AccountPassword+"'")
	_, err = b.p.CreateSecret(b.t.Context(), &kms.CreateSecretRequest{
		SecretName:     secret,
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		SecretData:     sensitive.New(compact(map[string]any{"Accounts": []pair{{b.app, b.password}, second}})),
		ExtendedConfig: compact(map[string]string{"SecretSubType": "DoubleUsers", "DBInstanceId": b.name}),
	})
	return err
}

// create makes the account, with a password in one of the forms that servers store.
func (b *postgresScene) create() string {
	role := "CREATE ROLE " + identifier(b.app) + " LOGIN PASSWORD "
	switch b.one(b.r, "verifier", "scram", "scram", "md5", "md5 by password_encryption", "scram with 12000 iterations") {
	case "md5":
		return role + fmt.Sprintf("'md5%x'", md5.Sum([]byte(b.password+b.app)))
	case "md5 by password_encryption":
		return "SET password_encryption = 'md5'; " + role + "'" + b.password + "'"
	case "scram with 12000 iterations":
		return role + "'" + scram(b.password, 12000) + "'"
	}
	return role + "'" + b.password + "'"
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
