package applications

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// mysqlClients work in a database with the table orders (id, item), and with the table shared.t
// (id, secret).
var mysqlClients = []client{
	{name: "mariadb", program: "mariadb", debian: "mariadb-client", work: mariadbProgram},
	{name: "go-sql-driver", anywhere: true, work: goSQLDriver},
}

// MySQLShared makes what all applications of a server share.
var MySQLShared = []string{
	"CREATE DATABASE shared",
	"CREATE TABLE shared.t (id int PRIMARY KEY, secret int)",
	"INSERT INTO shared.t VALUES (1, 2)",
}

// MySQLObjects returns statements that make a database with the table orders.
func MySQLObjects(database string) []string {
	return []string{
		"CREATE DATABASE " + database,
		"CREATE TABLE " + database + ".orders (id int PRIMARY KEY, item text)",
		"INSERT INTO " + database + ".orders VALUES (1, 'one'), (2, 'two')",
	}
}

// MySQLGrant returns the grant of an application on its database, to an account such as a@'%'.
func MySQLGrant(database, account string) string {
	return "GRANT SELECT, INSERT, UPDATE, CREATE, DROP, ALTER, EXECUTE, CREATE ROUTINE, ALTER ROUTINE, " +
		"CREATE TEMPORARY TABLES ON " + database + ".* TO " + account
}

var mysqlProbes = []probe{
	{"role", "SELECT CURRENT_ROLE();"},
	{"rows", "SELECT * FROM orders;"},
	{"write", "BEGIN; INSERT INTO orders VALUES (-1, 'x'); SELECT count(*) FROM orders; ROLLBACK;"},
	{"migration", "CREATE TABLE m (id int); ALTER TABLE m ADD COLUMN c int; DROP TABLE m;"},
	{"procedure", "CREATE PROCEDURE m() SELECT 1; CALL m(); DROP PROCEDURE m;"},
	{"prepared", "PREPARE q FROM 'SELECT count(*) FROM orders'; EXECUTE q;"},
	{"temporary", "CREATE TEMPORARY TABLE tmp (id int); SELECT count(*) FROM tmp;"},
	{"column", "SELECT id FROM shared.t;"},
	{"whole table", "SELECT * FROM shared.t;"},
	{"delete", "DELETE FROM orders WHERE id = -1;"},
	{"others", "SELECT count(*) > 0 FROM mysql.user;"},
	{"view", "SELECT count(*) FROM v; ALTER VIEW v AS SELECT id FROM orders;"},
	{"definer", "CALL definer(); SELECT definer_of();"},
	{"trigger", "BEGIN; INSERT INTO audited VALUES (-1); SELECT count(*) FROM log; ROLLBACK;"},
	{"databases", "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'shared';"},
}

var mysqlErrors = regexp.MustCompile(`ERROR [0-9]+ \([0-9A-Z]+\) at line [0-9]+`)

// mariadbProgram does the work of the script. The password comes from a file of options.
func mariadbProgram(ctx context.Context, c Config, v Value) (Outcome, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("[client]\nuser=%s\npassword=\"%s\"\n", v.AccountName, v.AccountPassword)
	if c.CA != "" {
		options += "ssl-ca=" + c.CA + "\nssl-verify-server-cert\n"
	}
	if c.Certificate != "" {
		options += "ssl-cert=" + c.Certificate + "\nssl-key=" + c.Key + "\n"
	}
	if c.Role != "" {
		options += "[mariadb-client]\ninit-command=SET ROLE " + c.Role + "\n"
	}
	var script strings.Builder
	for _, p := range mysqlProbes {
		fmt.Fprintf(&script, "SELECT '%s%s';\n%s\n", sectionMark, p.name, p.script)
	}
	answer, err := program{
		name: "mariadb",
		args: []string{
			"--defaults-extra-file={dir}/my.cnf", "--force", "-N", "-B", "-h", host, "-P", port, "--protocol=tcp", c.Database,
		},
		input: script.String(),
		files: map[string]string{"my.cnf": options},
	}.run(ctx)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(answer.out, sectionMark) {
		return Outcome{Login: line(answer.errors, v.AccountName)}, nil
	}
	out := sections(answer.out)
	out["failures"] = strings.Join(mysqlErrors.FindAllString(answer.errors, -1), ", ")
	out[Login] = In
	return out, nil
}

// mysql returns a connector of go-sql-driver.
func (c Config) mysql(v Value) (driver.Connector, error) {
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	to := mysql.NewConfig()
	to.Net, to.Addr, to.User, to.Passwd, to.DBName = "tcp", c.Address, v.AccountName, v.AccountPassword, c.Database
	to.Logger, to.TLS, to.Timeout, to.DialFunc = &mysql.NopLogger{}, secure, patience, c.dialer().DialContext
	connector, err := mysql.NewConnector(to)
	return again{connector}, err
}

// again connects once more when the driver has cut a challenge of ed25519 that ends in a zero byte,
// one in 256. An application would try again, too.
type again struct{ driver.Connector }

func (a again) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := a.Connector.Connect(ctx)
	for range 3 {
		if !errors.Is(err, mysql.ErrMalformPkt) {
			break
		}
		conn, err = a.Connector.Connect(ctx)
	}
	return conn, err
}

// goSQLDriver works with a pool, whose second statement has the session of the first.
func goSQLDriver(ctx context.Context, c Config, v Value) (Outcome, error) {
	connector, err := c.mysql(v)
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	err = pool.PingContext(ctx)
	if errors.Is(err, mysql.ErrMalformPkt) {
		// The driver cuts a challenge of ed25519 short that ends in a zero byte, one in 256.
		err = pool.PingContext(ctx)
	}
	switch {
	case code(err) == failed:
		return nil, err
	case err != nil:
		return Outcome{Login: code(err)}, nil
	}
	if c.Role != "" {
		if _, err := pool.ExecContext(ctx, "SET ROLE "+c.Role); err != nil {
			return Outcome{Login: In, "pool": "error: " + code(err)}, nil
		}
	}
	out := Outcome{Login: In}
	for i := range 2 {
		name := fmt.Sprintf("pool %d", i)
		var n int
		if err := pool.QueryRowContext(ctx, "SELECT count(*) FROM orders WHERE id > ?", 0).Scan(&n); err != nil {
			out[name] = "error: " + code(err)
			continue
		}
		out[name] = fmt.Sprint(n)
	}
	return out, nil
}

// mysqlRejected are the answers to a credential that is not the account's.
var mysqlRejected = map[string]bool{"1045": true, "1698": true}

func openMySQL(ctx context.Context, c Config, v Value) (func() error, error) {
	connector, err := c.mysql(v)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if errors.Is(err, mysql.ErrMalformPkt) { // as in goSQLDriver
		conn, err = connector.Connect(ctx)
	}
	if mysqlRejected[code(err)] {
		return nil, ErrRejected
	}
	if err != nil {
		return nil, fmt.Errorf("the server did not let in: %s", code(err))
	}
	return conn.Close, nil
}
