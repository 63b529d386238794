package servers

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
)

// StartMySQL starts a MySQL server, which scripts/test-mysql has put beside the system, with
// further arguments; it ends with the test. It is used like a MariaDB server. With an authority
// it speaks TLS.
func StartMySQL(t testing.TB, authority *Authority, arguments ...string) *MariaDB {
	t.Helper()
	home := mySQLHome(t)
	m := &MariaDB{password: rand.Text()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("start MySQL: %v", err)
		}
	}
	var err error
	m.dir, err = os.MkdirTemp("", "keyturn-mysql-")
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(m.dir) })
	m.GeneralLog = m.file("general.log")
	program := filepath.Join(home, "mysqld")
	common := []string{
		"--no-defaults",
		"--basedir=" + filepath.Join(home, "usr"),
		"--lc-messages-dir=" + filepath.Join(home, "usr/share/mysql"),
		"--plugin-dir=" + filepath.Join(home, "usr/lib/mysql/plugin"),
		"--datadir=" + m.file("data"),
		"--tmpdir=" + m.dir,
		"--innodb-buffer-pool-size=16M",
		"--innodb-flush-log-at-trx-commit=0",
		"--skip-log-bin",
		"--mysqlx=OFF",
		"--secure-file-priv=NULL",
	}
	if os.Getuid() == 0 {
		common = append(common, "--user=root")
	}
	must(m.initialise(t.Context(), program, common))
	arguments = append(append(common, "--socket="+m.file("s"), "--pid-file="+m.file("pid"),
		"--bind-address=127.0.0.1", "--skip-name-resolve",
		"--init-file="+m.file("init.sql"), "--general-log", "--general-log-file="+m.GeneralLog), arguments...)
	if authority != nil {
		arguments = append(arguments, "--ssl-ca="+authority.CAFile, "--ssl-cert="+authority.CertFile,
			"--ssl-key="+authority.KeyFile)
	}
	must(m.start(t.Context(), program, arguments))
	t.Cleanup(func() {
		if err := m.daemon.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("stop MySQL: %v", err)
		}
	})
	return m
}

// StartReplicatedMySQL starts a MySQL server without TLS and a read-only replica of it, which
// applies each change after a delay.
func StartReplicatedMySQL(t testing.TB, delay time.Duration) (primary, replica *MariaDB) {
	t.Helper()
	gtid := []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-bin=binlog", manyConnections}
	primary = StartMySQL(t, nil, append(gtid, "--server-id=1")...)
	replica = StartMySQL(t, nil, append(gtid, "--server-id=2", "--read-only")...)
	ctx, cancel := context.WithTimeout(t.Context(), mariaDBTimeout)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("replicate MySQL: %v", err)
		}
	}
	password := rand.Text()
	must(primary.Exec(ctx, "CREATE USER repl@'%' IDENTIFIED BY '"+password+"'",
		"GRANT REPLICATION SLAVE ON *.* TO repl@'%'"))
	done, err := primary.Value(ctx, "SELECT @@GLOBAL.gtid_executed")
	must(err)
	host, port, err := net.SplitHostPort(primary.Addr)
	must(err)
	must(replica.Exec(ctx, "RESET BINARY LOGS AND GTIDS", "SET GLOBAL gtid_purged = '"+done+"'",
		fmt.Sprintf("CHANGE REPLICATION SOURCE TO SOURCE_HOST='%s', SOURCE_PORT=%s, SOURCE_USER='repl', "+
			"SOURCE_PASSWORD='%s', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1, "+
			"SOURCE_DELAY=%d",
			host, port, password, int(delay.Seconds())),
		"START REPLICA"))
	replicates(t, replica, "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status")
	return primary, replica
}

// HasMySQL reports whether there is a MySQL server to start.
func HasMySQL() bool {
	home, err := mySQLDir()
	if err == nil {
		_, err = os.Stat(filepath.Join(home, "mysqld"))
	}
	return err == nil
}

func mySQLDir() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "keyturn-test", "mysql"), err
}

func mySQLHome(t testing.TB) string {
	t.Helper()
	if !HasMySQL() {
		t.Skip("skipped: there is no MySQL server; scripts/test-mysql fetches one")
	}
	home, err := mySQLDir()
	if err != nil {
		t.Fatal(err)
	}
	return home
}

// initialise makes the system tables, and a file that gives the administrator a password before
// any user can connect.
func (m *MariaDB) initialise(ctx context.Context, program string, arguments []string) error {
	init := fmt.Sprintf("ALTER USER root@localhost IDENTIFIED BY '%s';\n", m.password)
	if err := os.WriteFile(m.file("init.sql"), []byte(init), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, mariaDBTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(arguments[:len(arguments):len(arguments)], "--initialize-insecure")...)
	cmd.Env = sandbox.Environment("MYSQL")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initialise: %w: %s", err, out)
	}
	return nil
}
