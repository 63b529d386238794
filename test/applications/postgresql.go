package applications

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresqlClients work on what their search_path finds: the tables orders (id, item, made_by) and
// lent (id), the view latest, the functions acting and vault, and the publication news. Groups
// of the server are the roles readers and writers.
var postgresqlClients = []client{
	{name: "psql", program: "psql", debian: "postgresql-client", work: psql},
	{name: "pgx", anywhere: true, work: pgxPool},
}

// PostgreSQLObjects returns statements for a superuser that make the tables, the view and the
// functions in a schema. An owner, who has the schema, has them too.
func PostgreSQLObjects(schema, owner string) string {
	return fmt.Sprintf(`SET ROLE %[2]s;
		CREATE TABLE %[1]s.orders (id serial PRIMARY KEY, item text, made_by name DEFAULT current_user);
		INSERT INTO %[1]s.orders (item) VALUES ('one'), ('two');
		CREATE VIEW %[1]s.latest AS SELECT max(id) AS id FROM %[1]s.orders;
		CREATE FUNCTION %[1]s.acting() RETURNS name LANGUAGE sql AS 'SELECT current_user';
		CREATE FUNCTION %[1]s.vault() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = %[1]s
			AS 'SELECT count(*) FROM orders';
		RESET ROLE`, schema, owner)
}

// PostgreSQLRowSecurity lets only the role that has made a row see it.
func PostgreSQLRowSecurity(schema string) string {
	return fmt.Sprintf(`ALTER TABLE %[1]s.orders ENABLE ROW LEVEL SECURITY;
		ALTER TABLE %[1]s.orders FORCE ROW LEVEL SECURITY;
		CREATE POLICY own ON %[1]s.orders USING (made_by = current_user)`, schema)
}

// PostgreSQLLent makes the table of another owner.
func PostgreSQLLent(schema, owner string) string {
	return fmt.Sprintf(`CREATE TABLE %[1]s.lent (id int);
		INSERT INTO %[1]s.lent VALUES (7);
		GRANT SELECT, INSERT ON %[1]s.lent TO %[2]s`, schema, owner)
}

var postgresqlProbes = []probe{
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
		ALTER TABLE m OWNER TO :"app";
		ROLLBACK;`},
	{"default privileges", `BEGIN;
		ALTER DEFAULT PRIVILEGES FOR ROLE :"app" GRANT SELECT ON TABLES TO readers;
		CREATE TABLE m (id int);
		SELECT has_table_privilege('readers', 'm', 'SELECT');
		ROLLBACK;`},
	{"copy out", `COPY (SELECT count(*) FROM orders) TO STDOUT;`},
	{"copy in", `BEGIN;
		\copy orders (id, item) FROM copied
		SELECT made_by FROM orders WHERE id = -5;
		ROLLBACK;`},
	{"lent", `SELECT * FROM lent;`},
	{"grants on", `BEGIN;
		GRANT SELECT ON lent TO readers;
		SELECT has_table_privilege('readers', 'lent', 'SELECT');
		ROLLBACK;`},
	{"function with its owner's rights", `SELECT vault();`},
	{"user mapping", `SELECT srvname, umoptions FROM pg_user_mappings WHERE srvname ~ '^remote' AND umuser <> 0;`},
	{"large objects", `SELECT count(*), sum(length(lo_get(oid))) FROM pg_largeobject_metadata;`},
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

var postgresqlScript = func() string {
	var b strings.Builder
	for _, p := range postgresqlProbes {
		fmt.Fprintf(&b, "\\echo '%s%s'\n", sectionMark, p.name)
		for line := range strings.Lines(p.script) {
			// psql sets SQLSTATE after each statement.
			fmt.Fprintf(&b, "%s\n\\echo :SQLSTATE\n", strings.TrimSpace(line))
		}
	}
	return b.String()
}()

// noConnection is how psql exits when it has no connection.
const noConnection = 2

// psql does the work of the script. The password comes from a file, as libpq reads it.
func psql(ctx context.Context, c Config, v Value) (Outcome, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, err
	}
	answer, err := program{
		name: "psql",
		args: []string{
			"-X", "-q", "-A", "-t", "-h", host, "-p", port, "-U", v.AccountName, "-d", c.Database,
			"-v", "app=" + c.Name, "-v", "VERBOSITY=terse",
		},
		env:   append([]string{"PGPASSFILE={dir}/pgpass", "PGCONNECT_TIMEOUT=10"}, c.libpq()...),
		input: postgresqlScript,
		files: map[string]string{"pgpass": "*:*:*:*:" + v.AccountPassword + "\n", "copied": "-5\tcopied\n"},
	}.run(ctx)
	if err != nil {
		return nil, err
	}
	if answer.exit == noConnection {
		return Outcome{Login: line(answer.errors, v.AccountName)}, nil
	}
	out := sections(answer.out)
	out[Login] = In
	return out, nil
}

// libpq returns the variables of TLS and of the role.
func (c Config) libpq() (env []string) {
	if c.CA != "" {
		env = append(env, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+c.CA)
	}
	if c.Certificate != "" {
		env = append(env, "PGSSLCERT="+c.Certificate, "PGSSLKEY="+c.Key)
	}
	if c.Role != "" {
		env = append(env, "PGOPTIONS=-c role="+c.Role)
	}
	return env
}

// pgx returns the settings of a pool.
func (c Config) pgx(v Value) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig("postgres://" + c.Address + "/?sslmode=disable&pool_max_conns=2")
	if err != nil {
		return nil, err
	}
	to := config.ConnConfig
	if to.TLSConfig, err = c.tls(); err != nil {
		return nil, err
	}
	to.Database, to.User, to.Password = c.Database, v.AccountName, v.AccountPassword
	to.ConnectTimeout, to.DialFunc = patience, c.dialer().DialContext
	if c.Role != "" {
		to.RuntimeParams["role"] = c.Role
	}
	return config, nil
}

// pgxPool works with a pool that resets a connection when it comes back, with prepared statements,
// and with one session that ends the work of another.
func pgxPool(ctx context.Context, c Config, v Value) (Outcome, error) {
	config, err := c.pgx(v)
	if err != nil {
		return nil, err
	}
	config.AfterRelease = func(conn *pgx.Conn) bool {
		_, err := conn.Exec(context.WithoutCancel(ctx), "DISCARD ALL")
		return errors.Join(err, conn.DeallocateAll(context.WithoutCancel(ctx))) == nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	out := Outcome{Login: In}
	for i := range 2 {
		var n int
		err := pool.QueryRow(ctx, "SELECT count(*) FROM orders WHERE id > $1", 0).Scan(&n)
		switch connect, ok := errors.AsType[*pgconn.ConnectError](err); {
		case ok && code(err) != failed:
			return Outcome{Login: code(err)}, nil
		case ok:
			return nil, connect
		case err != nil:
			out[fmt.Sprintf("pool %d", i)] = "error: " + code(err)
		default:
			out[fmt.Sprintf("pool %d", i)] = fmt.Sprint(n)
		}
	}
	out["ends its own sessions"] = code(endOther(ctx, pool))
	return out, nil
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

func openPostgreSQL(ctx context.Context, c Config, v Value) (func() error, error) {
	config, err := c.pgx(v)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil && code(err) == "28P01" {
		return nil, ErrRejected
	}
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL did not let in: %s", code(err))
	}
	return func() error { return conn.Close(context.WithoutCancel(ctx)) }, nil
}
