package messy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// shared runs statements about roles, and own statements in the scene's database. Names in them are
// {app}, {owner} and {db}, and {scene} as a part of others.
func (b *postgresScene) shared(statements ...string) { b.run("postgres", statements) }
func (b *postgresScene) own(statements ...string)    { b.run(b.database, statements) }

func (b *postgresScene) run(database string, statements []string) {
	b.t.Helper()
	names := strings.NewReplacer(
		"{app}", identifier(b.app), "{owner}", identifier(b.owner), "{db}", identifier(b.database), "{scene}", b.name,
	)
	for _, s := range statements {
		b.pg.admin(b.t, database, names.Replace(s))
	}
}

// with runs statements if the scene has a trait.
func (b *postgresScene) with(n int, trait string, run func(...string), statements ...string) bool {
	there := b.trait(b.r, n, trait)
	if there {
		run(statements...)
	}
	return there
}

// objects makes what the application works with, found by its search_path.
func (b *postgresScene) objects() {
	if b.trait(b.r, 6, "acts as its team by a setting") {
		b.owner = "team_" + b.name
		b.shared("CREATE ROLE {owner}; GRANT {owner} TO {app}; ALTER ROLE {app} SET role = " + identifier(b.owner))
	} else if b.grouped = b.trait(b.r, 8, "has its rights by a group of its own"); b.grouped {
		b.owner = "team_" + b.name
		b.shared("CREATE ROLE {owner}; GRANT {owner} TO {app}; ALTER ROLE {app} SET search_path = " +
			identifier(b.owner) + ", stuff, public")
	}
	b.schema = identifier(b.owner)
	switch b.one(b.r, "schema", "named like the role", "public", "in a role's setting", "in a database setting",
		"after one that was dropped") {
	case "public":
		b.schema = "public"
	case "in a role's setting":
		b.schema = "stuff"
		b.shared("ALTER ROLE {app} SET search_path = stuff, public")
	case "in a database setting":
		b.schema = "stuff"
		b.shared("ALTER ROLE {app} IN DATABASE {db} SET search_path = stuff")
	case "after one that was dropped":
		b.schema = "stuff"
		b.shared("ALTER ROLE {app} SET search_path = dropped, stuff")
	}
	in := func(statements ...string) {
		b.own("SET search_path = " + b.schema + "; " + strings.Join(statements, ";"))
	}
	b.own("CREATE SCHEMA IF NOT EXISTS " + b.schema + "; ALTER SCHEMA " + b.schema + " OWNER TO {owner}")
	b.own(applications.PostgreSQLObjects(b.schema, identifier(b.owner)))
	b.policies(in)
	b.grants(in)
	b.apart(in)
}

func (b *postgresScene) policies(in func(...string)) {
	list := []string{"none", "none", "current_user", "current_user", "session_user"}
	if b.grouped {
		list = []string{"none", "session_user"}
	}
	switch b.one(b.r, "policy", list...) {
	case "current_user":
		b.own(applications.PostgreSQLRowSecurity(b.schema))
	case "session_user":
		in("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "ALTER TABLE orders FORCE ROW LEVEL SECURITY",
			"CREATE POLICY own ON orders USING (session_user = ANY (ARRAY['"+strings.ReplaceAll(b.app, "'", "''")+"']))")
		b.readsSession("rows", "view", "write", "update", "copy out", "copy in", "function with its owners",
			"prepared", "after DISCARD ALL", "after RESET ALL", "after RESET ROLE", "after SET SESSION AUTHORIZATION",
			"pool 0", "pool 1")
	}
}

// readsSession notes pieces of work that are other ones with another login.
func (b *postgresScene) readsSession(work ...string) {
	for _, consent := range []string{"session-user", "database-unread"} { // an unread database may have the same
		b.changes[consent] = append(b.changes[consent], work...)
	}
}

// grants lends what belongs to another role.
func (b *postgresScene) grants(in func(...string)) {
	const lent = "CREATE TABLE lent (id int); INSERT INTO lent VALUES (7)"
	switch b.one(b.r, "lent", "nothing", "a table", "a table with grant option", "a column", "by default privileges") {
	case "a table":
		in(lent, "GRANT SELECT, INSERT ON lent TO {owner}")
	case "a table with grant option":
		in(lent, "GRANT SELECT ON lent TO {app} WITH GRANT OPTION", "GRANT SELECT ON lent TO {owner} WITH GRANT OPTION")
	case "a column":
		in(lent, "GRANT SELECT (id) ON lent TO {app}")
	case "by default privileges":
		in("CREATE ROLE lender_{scene}", "ALTER DEFAULT PRIVILEGES FOR ROLE lender_{scene} GRANT SELECT ON TABLES TO {app}",
			"ALTER DEFAULT PRIVILEGES FOR ROLE lender_{scene} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC", lent,
			"ALTER TABLE lent OWNER TO lender_{scene}", "GRANT SELECT ON lent TO {app}")
	}
	b.with(3, "default privileges of its own", b.own,
		"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO readers")
	b.with(4, "a publication of its own", in,
		"RESET ROLE", "GRANT CREATE ON DATABASE {db} TO {owner}", "SET ROLE {owner}",
		"CREATE PUBLICATION news FOR TABLE orders")
}

// apart makes what is no table.
func (b *postgresScene) apart(in func(...string)) {
	b.with(4, "a user mapping", in, "CREATE FOREIGN DATA WRAPPER wrapper",
		"CREATE SERVER remote FOREIGN DATA WRAPPER wrapper",
		"GRANT USAGE ON FOREIGN SERVER remote TO {owner}",
		"CREATE USER MAPPING FOR {owner} SERVER remote OPTIONS (\"user\" 'far')")
	b.with(4, "large objects", in, "SET ROLE {owner}", "SELECT lo_from_bytea(0, 'one')", "RESET ROLE",
		"SELECT lo_from_bytea(777, 'two'); GRANT SELECT ON LARGE OBJECT 777 TO {app}")
	b.with(5, "an extension and a type of its own", in, "SET ROLE {owner}", "CREATE DOMAIN small AS int",
		"CREATE COLLATION \"mine\" FROM \"C\"")
	switch b.one(b.r, "event trigger", "none", "none", "none", "that notes", "that asks for the role",
		"that asks for the login") {
	case "that notes":
		b.eventTrigger("INSERT INTO audit.log VALUES (current_user)")
	case "that asks for the role":
		b.eventTrigger("IF current_user NOT IN ({owner's name}, 'keyturn') THEN RAISE EXCEPTION 'no'; END IF")
	case "that asks for the login":
		b.eventTrigger("IF session_user NOT IN ({app's name}, 'keyturn') THEN RAISE EXCEPTION 'no'; END IF")
		b.readsSession("migration", "ownership by name", "default privileges", "grants on", "publication", "temporary",
			"relay")
	}
}

func (b *postgresScene) eventTrigger(does string) {
	literal := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	does = strings.NewReplacer("{owner's name}", literal(b.owner), "{app's name}", literal(b.app)).Replace(does)
	b.own("CREATE SCHEMA audit; CREATE TABLE audit.log (who name); GRANT USAGE ON SCHEMA audit TO PUBLIC; " +
		"GRANT INSERT ON audit.log TO PUBLIC; CREATE FUNCTION audit.note() RETURNS event_trigger LANGUAGE plpgsql AS " +
		"$f$BEGIN " + does + "; END$f$; CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION audit.note()")
}

// options are the settings, limits and memberships of the role.
func (b *postgresScene) options() {
	b.with(4, "statement_timeout", b.shared, "ALTER ROLE {app} SET statement_timeout = '20s'")
	b.with(4, "a setting of its own", b.shared, "ALTER ROLE {app} SET "+ownSetting)
	b.with(6, "a library of its own", b.shared, "ALTER ROLE {app} SET session_preload_libraries = 'auto_explain'")
	switch b.one(b.r, "VALID UNTIL", "none", "none", "none", "far", "infinity", "near") {
	case "far":
		b.shared("ALTER ROLE {app} VALID UNTIL '2099-01-01'")
	case "infinity":
		b.shared("ALTER ROLE {app} VALID UNTIL 'infinity'")
	case "near":
		b.shared("ALTER ROLE {app} VALID UNTIL '" + time.Now().Add(30*time.Hour).Format(time.RFC3339) + "'")
	}
	reads := b.with(4, "member of readers", b.shared, "GRANT readers TO {app}")
	writes := b.with(5, "member of writers, which does not inherit", b.shared, "GRANT writers TO {app}")
	if reads || writes {
		b.connects.LoginDatabase = b.database // these groups have something in the databases of all scenes
	}
	if !b.grouped {
		b.with(6, "NOINHERIT", b.shared, "ALTER ROLE {app} NOINHERIT")
	}
	b.with(6, "CREATEDB", b.shared, "ALTER ROLE {app} CREATEDB")
	b.with(5, "CONNECT by name alone", b.shared,
		"REVOKE CONNECT ON DATABASE {db} FROM PUBLIC; GRANT CONNECT ON DATABASE {db} TO {app}")
	if b.with(6, "connection limit reached by the application's pool", b.shared, "ALTER ROLE {app} CONNECTION LIMIT 4") {
		b.occupy = func(value string) func() { return b.pg.occupy(b.t, b.scene, value, 4) }
	} else {
		b.with(6, "connection limit", b.shared, "ALTER ROLE {app} CONNECTION LIMIT 40")
	}
}

// way is how the application reaches the server, and what the product knows of it.
func (b *postgresScene) way() {
	ways := []string{
		"straight", "straight", "straight", "straight", "with a standby", "by TLS alone", "by a client certificate",
		"by a certificate with its name", "to its database alone", "from another host", "by a pooler that asks the server",
		"by a pooler with a list", "taking a role", "past an address that is closed",
	}
	way := b.one(b.r, "way", ways...)
	if b.occupy != nil && way != "with a standby" { // one difficulty at a time
		return
	}
	switch way {
	case "with a standby":
		b.verify(b.pg.Addr(), map[string]string{"address": b.pg.standby.Addr(), "role": "replica", "lag": "8s"})
	case "by TLS alone":
		b.secure("encrypted")
	case "by a client certificate":
		b.secure("certified")
		b.certificate("any name")
	case "by a certificate with its name":
		if strings.ContainsFunc(b.app, func(r rune) bool { return r > unicode.MaxASCII }) {
			return // names of hosts, which the test's certificates have, are ASCII
		}
		b.secure("called")
		b.certificate(b.app)
	case "to its database alone":
		b.shared("CREATE ROLE {db}", "GRANT {db}, confined TO {app}")
	case "from another host":
		b.shared("GRANT elsewhere TO {app}")
		b.client.Source = "127.0.0.2"
	case "by a pooler that asks the server", "by a pooler with a list":
		b.pooled(way)
	case "taking a role":
		b.shared("CREATE ROLE taken_{scene}; GRANT taken_{scene} TO {app}")
		b.own("GRANT USAGE ON SCHEMA "+b.schema+" TO taken_{scene}",
			"GRANT ALL ON ALL TABLES IN SCHEMA "+b.schema+" TO taken_{scene}")
		b.client.Role = "taken_" + b.name
		b.connects.LoginRole = b.client.Role
	case "past an address that is closed":
		b.verify(b.pg.Addr(), "127.0.0.1:1")
		if b.trait(b.r, 2, "which the application does not use") {
			b.connects.LoginEndpoints = []string{b.pg.Addr()}
		}
	}
}

func (b *postgresScene) verify(endpoints ...any) { b.config["verify"] = endpoints }

// secure lets the application in over TLS alone.
func (b *postgresScene) secure(group string) {
	b.shared("GRANT " + group + " TO {app}")
	b.config["tls"] = map[string]string{"ca": b.pg.ca.PEM}
	b.client.CA = b.pg.caFile
}

// certificate gives the application a client certificate, and the product the same in a secret if
// the operator has thought of it.
func (b *postgresScene) certificate(name string) {
	b.client.Certificate, b.client.Key = b.pg.ca.Issue(b.t, b.t.TempDir(), name)
	if b.trait(b.r, 4, "of which the product does not know") {
		return
	}
	secret := "certificate-of-" + b.name
	b.p.put(b.t, secret, string(contents(b.t, b.client.Certificate))+string(contents(b.t, b.client.Key)))
	b.connects.LoginCertificateSecret = secret
}

// pooled puts a pooler between the application and the server.
func (b *postgresScene) pooled(way string) {
	if b.pg.resets && b.owner != b.app {
		return // a pooler's DISCARD ALL between two clients ends the role of the application, too
	}
	pooler := b.pg.asking
	if way == "by a pooler with a list" {
		pooler = b.pg.listed
		pooler.Add(b.t, servers.User(b.app, b.password))
	} else {
		b.changes["pooler"] = nil // a consent to one with a list misleads the check
	}
	b.client.Address = pooler.Addr
	b.stated = append(b.stated, "ends its own sessions") // a pooler's numbers of sessions are its own
	b.config["admin_address"] = b.pg.Addr()
	switch b.one(b.r, "pooler", "declared", "declared and agreed to", "declared and agreed to", "as a writer",
		"not declared") {
	case "declared":
		b.verify(b.pg.Addr(), map[string]string{"address": pooler.Addr, "role": "pooler"})
	case "declared and agreed to":
		b.verify(b.pg.Addr(), map[string]string{"address": pooler.Addr, "role": "pooler"})
		b.connects.Consents = []string{"pooler"}
		b.misled = pooler == b.pg.listed
	case "as a writer":
		b.verify(pooler.Addr)
	case "not declared":
		b.config["address"] = pooler.Addr
	}
}

// administrator picks the one of the target, and what it may do.
func (b *postgresScene) administrator() {
	b.admin = "admin"
	switch b.one(b.r, "administrator", "superuser", "superuser", "that reads verifiers", "that does not read verifiers") {
	case "that reads verifiers":
		b.admin = "admin-reader"
	case "that does not read verifiers":
		b.admin = "admin-blind"
	default:
		return
	}
	option := " WITH ADMIN OPTION"
	if !strings.HasPrefix(b.pg.Version, "15") {
		option += ", INHERIT FALSE, SET FALSE"
		b.shared("GRANT {app} TO " + strings.TrimPrefix(b.admin, "admin-") + option)
	}
}

// register makes the server known with what the operator has thought of.
func (b *postgresScene) register() {
	if b.grouped {
		delete(b.config, "database") // nothing names the one that the application opens
		b.shared("GRANT visitors TO {app}")
	} else if b.trait(b.r, 5, "target logs in to the database postgres") {
		delete(b.config, "database")
		switch b.one(b.r, "which", "the application may open", "the application may not open", "its login does not name") {
		case "the application may open":
			b.shared("GRANT visitors TO {app}")
		case "its login does not name":
			b.connects.LoginDatabase = b.database
		}
	}
	if b.trait(b.r, 8, "target that allows SCRAM alone") {
		delete(b.config, "require_auth")
	}
	if slices.ContainsFunc(b.traits, func(s string) bool { return strings.HasPrefix(s, "verifier md5") }) &&
		b.trait(b.r, 4, "agrees to SCRAM") {
		b.connects.Consents = append(b.connects.Consents, "form-changes")
		b.stated = append(b.stated, "way of logging in")
	}
	good(b.t, second(b.p.RegisterTarget(b.t.Context(), &kms.RegisterTargetRequest{
		TargetName:      b.name,
		Kind:            b.p.kind,
		Config:          compact(b.config),
		AdminSecretName: b.admin,
	})))
}

// witness adds what the server asks for, and leaves a table that the next login must be able to
// drop. A standby must know the credential soon.
func (b *postgresScene) witness(ctx context.Context, value string, out outcome) error {
	a, err := applications.Parse(value)
	if err != nil {
		return err
	}
	if out["way of logging in"], err = b.pg.asks(ctx, a.AccountName, b.database); err != nil || b.occupy != nil {
		return err
	}
	if !b.grouped { // in whose database nothing belongs to the login
		out["relay"] = b.relay(ctx, a)
	}
	if slices.Contains(b.traits, "way with a standby") {
		out["at the standby"] = "refused"
		support.Until(b.t, "the standby lets the application in", func() bool {
			conn, err := b.open(ctx, b.pg.standby.Addr(), a)
			if err != nil {
				return false
			}
			defer conn.Close(ctx)
			out["at the standby"] = "in"
			return true
		})
	}
	return nil
}

// relay replaces a table that the login before has left.
func (b *postgresScene) relay(ctx context.Context, a applications.Value) string {
	conn, err := b.open(ctx, b.client.Address, a)
	if err != nil {
		return "refused"
	}
	defer conn.Close(ctx)
	for _, s := range []string{"DROP TABLE IF EXISTS relay", "CREATE TABLE relay (n int)"} {
		if _, err := conn.Exec(ctx, s); err != nil {
			return sqlstate(err)
		}
	}
	var owner string
	if err := conn.QueryRow(ctx, "SELECT tableowner FROM pg_tables WHERE tablename = 'relay'").Scan(&owner); err != nil {
		return sqlstate(err)
	}
	return owner
}

// open logs in as the application does.
func (b *postgresScene) open(ctx context.Context, address string, a applications.Value) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s/?sslmode=disable", address))
	if err != nil {
		return nil, err
	}
	config.Database, config.User, config.Password = b.database, a.AccountName, a.AccountPassword
	config.ConnectTimeout, config.DefaultQueryExecMode = 10*time.Second, pgx.QueryExecModeExec
	if b.client.Role != "" {
		config.RuntimeParams["role"] = b.client.Role
	}
	if b.client.CA != "" {
		config.TLSConfig = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}
		config.TLSConfig.RootCAs.AppendCertsFromPEM([]byte(b.pg.ca.PEM))
	}
	if b.client.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(b.client.Certificate, b.client.Key)
		if err != nil {
			return nil, err
		}
		config.TLSConfig.Certificates = []tls.Certificate{pair}
	}
	return pgx.ConnectConfig(ctx, config)
}

// sqlstate returns what the server answered, without words.
func sqlstate(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	return "failed"
}
