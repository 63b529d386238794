package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"database/sql/driver"

	"github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/sandbox"
)

const (
	mariaDBAttempts = 3
	mariaDBTimeout  = 60 * time.Second
)

// MariaDB is a throw-away server. Everything it writes, its general log too, is in its directory.
type MariaDB struct {
	// Addr is host:port.
	Addr string
	// GeneralLog is the file of all statements.
	GeneralLog string

	dir, password string
	as            *sandbox.Account
	daemon        *sandbox.Daemon
}

// StartMariaDB starts a server with further arguments, such as --max-connections=9; it ends with
// the test. With an authority it speaks TLS.
func StartMariaDB(t testing.TB, authority *Authority, arguments ...string) *MariaDB {
	t.Helper()
	server, install := mariaDBProgram(t, "mariadbd"), mariaDBProgram(t, "mariadb-install-db")
	m := &MariaDB{password: rand.Text()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("start MariaDB: %v", err)
		}
	}
	var err error
	m.as, err = sandbox.ServiceAccount("mysql", "nobody")
	must(err)
	m.dir, err = os.MkdirTemp("", "keyturn-mariadb-")
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(m.dir) })
	must(m.as.Own(m.dir))
	m.GeneralLog = m.file("general.log")
	must(m.install(t.Context(), install))
	arguments = append([]string{
		"--no-defaults", "--datadir=" + m.file("data"), "--socket=" + m.file("s"), "--pid-file=" + m.file("pid"),
		"--bind-address=127.0.0.1",
		"--skip-name-resolve", "--init-file=" + m.file("init.sql"), "--general-log", "--general-log-file=" + m.GeneralLog,
		"--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--tmpdir=" + m.dir,
	}, arguments...)
	if authority != nil {
		for option, from := range map[string]string{
			"ssl-ca": authority.CAFile, "ssl-cert": authority.CertFile, "ssl-key": authority.KeyFile,
		} {
			content, err := os.ReadFile(from)
			must(err)
			must(os.WriteFile(m.file(option), content, 0o600))
			must(m.as.Own(m.file(option)))
			arguments = append(arguments, "--"+option+"="+m.file(option))
		}
	}
	must(m.start(t.Context(), server, arguments))
	t.Cleanup(func() {
		if err := m.daemon.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("stop MariaDB: %v", err)
		}
	})
	return m
}

func mariaDBProgram(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Skipf("skipped: %s is not installed (Debian package mariadb-server)", name)
	return ""
}

func (m *MariaDB) file(name string) string { return filepath.Join(m.dir, name) }

// install makes the system tables, and a file that gives the administrator a password before
// any user can connect.
func (m *MariaDB) install(ctx context.Context, program string) error {
	one := sha1.Sum([]byte(m.password))
	two := sha1.Sum(one[:])
	init := fmt.Sprintf("ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING '*%X';\n", two)
	if err := os.WriteFile(m.file("init.sql"), []byte(init), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, mariaDBTimeout)
	defer cancel()
	arguments := []string{
		"--no-defaults",
		"--datadir=" + m.file("data"),
		"--auth-root-authentication-method=normal",
		"--skip-test-db",
		"--skip-name-resolve",
	}
	if m.as != nil {
		arguments = append(arguments, "--user=mysql")
	}
	cmd := exec.CommandContext(ctx, program, arguments...)
	// Two installations at once would take each other's temporary tables.
	cmd.Env = append(sandbox.Environment("MYSQL"), "TMPDIR="+m.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, out)
	}
	return m.as.Own(m.file("init.sql"))
}

func (m *MariaDB) start(ctx context.Context, program string, arguments []string) error {
	ctx, cancel := context.WithTimeout(ctx, mariaDBTimeout)
	defer cancel()
	var err error
	for range mariaDBAttempts {
		port, err1 := sandbox.FreePort()
		if err1 != nil {
			return err1
		}
		m.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		cmd := exec.Command(program, append(arguments[:len(arguments):len(arguments)], "--port="+strconv.Itoa(port))...)
		cmd.Dir, cmd.Env = m.dir, sandbox.Environment("MYSQL")
		if m.daemon, err = sandbox.StartDaemon(cmd, m.as, syscall.SIGKILL, nil); err != nil {
			return err
		}
		if err = m.daemon.Ready(ctx, func(ctx context.Context) error { return m.Exec(ctx, "SELECT 1") }); err == nil {
			return nil
		}
		err = errors.Join(err, m.daemon.Kill())
	}
	return err
}

// Exec runs statements as the administrator, who comes in over the socket.
func (m *MariaDB) Exec(ctx context.Context, statements ...string) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, statement := range statements {
		if _, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(statement, " IDENTIFIED", 2)[0], err)
		}
	}
	return nil
}

// Administrator creates the account rotator with the statements of docs/targets/mysql.md.
func (m *MariaDB) Administrator(t testing.TB, password string) {
	t.Helper()
	product := "MySQL"
	version, err := m.Value(t.Context(), "SELECT VERSION()")
	if strings.Contains(version, "MariaDB") {
		product = "MariaDB"
	}
	var page string
	if err == nil {
		page, err = document("docs/targets/mysql.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(page, "```sql\n-- "+product+"\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatalf("docs/targets/mysql.md has no statements for %s", product)
	}
	block = regexp.MustCompile(`(?m)^--.*\n`).ReplaceAllString(block, "")
	for statement := range strings.SplitSeq(strings.TrimSpace(strings.TrimSuffix(block, ";\n")), ";\n") {
		statement = strings.Replace(statement, "…", strings.ReplaceAll(password, "'", "''"), 1)
		if err := m.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// document reads a file of the repository, in which the test runs.
func document(path string) (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		text, missing := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if missing == nil {
			return string(text), nil
		}
		if filepath.Dir(dir) == dir {
			return "", missing
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// Value returns the first value of a query's first row, as the administrator reads it.
func (m *MariaDB) Value(ctx context.Context, query string) (string, error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); err != nil {
		return "", fmt.Errorf("%s: %w", query, err)
	}
	return fmt.Sprintf("%s", values[0]), nil
}

// Column returns the first column of a query, as the administrator reads it.
func (m *MariaDB) Column(ctx context.Context, query string) (list []string, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for values := make([]driver.Value, len(rows.Columns())); ; {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, fmt.Sprintf("%s", values[0]))
	}
}

func (m *MariaDB) connect(ctx context.Context) (driver.Conn, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.User, cfg.Passwd, cfg.Logger = "unix", m.file("s"), "root", m.password, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return connector.Connect(ctx)
}

// manyConnections is enough for applications of many scenes on one server and its replica.
const manyConnections = "--max-connections=500"

// StartReplicated starts a MariaDB server without TLS and a read-only replica of it, which applies
// each change after a delay.
func StartReplicated(t testing.TB, delay time.Duration) (primary, replica *MariaDB) {
	t.Helper()
	primary = StartMariaDB(t, nil, "--log-bin=binlog", "--server-id=1", manyConnections)
	replica = StartMariaDB(t, nil, "--server-id=2", "--read-only", manyConnections)
	ctx, cancel := context.WithTimeout(t.Context(), mariaDBTimeout)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("replicate MariaDB: %v", err)
		}
	}
	password := rand.Text()
	must(primary.Exec(ctx, "CREATE USER repl@'%' IDENTIFIED BY '"+password+"'",
		"GRANT REPLICATION SLAVE ON *.* TO repl@'%'"))
	position, err := primary.Value(ctx, "SELECT @@GLOBAL.gtid_binlog_pos")
	must(err)
	host, port, err := net.SplitHostPort(primary.Addr)
	must(err)
	must(replica.Exec(ctx, "SET GLOBAL gtid_slave_pos = '"+position+"'",
		fmt.Sprintf("CHANGE MASTER TO MASTER_HOST='%s', MASTER_PORT=%s, MASTER_USER='repl', MASTER_PASSWORD='%s', "+
			"MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_DELAY=%d", host, port, password, int(delay.Seconds())),
		"START SLAVE"))
	replicates(t, replica,
		"SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'SLAVE_RUNNING'")
	return primary, replica
}

// replicates has the test fail if its replica has stopped: a change of the test that the replica
// cannot apply would make every later one late. state asks for ON.
func replicates(t testing.TB, replica *MariaDB, state string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), mariaDBTimeout)
		defer cancel()
		if got, err := replica.Value(ctx, state); err != nil || got != "ON" {
			t.Errorf("the replica has stopped: %q, %v; %s shows the last change that it has applied", got, err,
				replica.GeneralLog)
		}
	})
}
