package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/test/support"
)

// PgBouncer is a pooler before a PostgreSQL server.
type PgBouncer struct {
	Addr   string
	dir    string
	as     *sandbox.Account
	daemon *sandbox.Daemon

	mu    sync.Mutex
	users []string
}

// console is the user of the admin console.
const console = "console"

// StartPgBouncer starts a pooler with TLS off before a server; it ends with the test. users are the
// lines of userlist.txt, settings further lines of the section [pgbouncer].
func StartPgBouncer(t testing.TB, p *sandbox.Postgres, users []string, settings ...string) *PgBouncer {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program = "/usr/sbin/pgbouncer"; !exists(program) {
			t.Skip("skipped: PgBouncer is not installed (Debian package pgbouncer)")
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("start PgBouncer: %v", err)
		}
	}
	b := &PgBouncer{}
	b.as, err = sandbox.ServiceAccount("postgres")
	must(err)
	b.dir, err = os.MkdirTemp("", "keyturn-pgbouncer-")
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(b.dir) })
	must(b.as.Own(b.dir))
	port := support.FreePorts(t, 1)[0]
	b.Addr = net.JoinHostPort("127.0.0.1", port)
	b.users = append([]string{User(console, console)}, users...)
	must(b.write("userlist.txt", b.users))
	must(b.write("pgbouncer.ini", append([]string{
		"[databases]",
		fmt.Sprintf("* = host=%s port=%d", p.Sockets, p.Port),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1",
		"listen_port = " + port,
		"unix_socket_dir = " + b.dir,
		"auth_type = scram-sha-256",
		"auth_file = " + filepath.Join(b.dir, "userlist.txt"),
		"admin_users = " + console,
	}, settings...)))
	cmd := exec.Command(program, filepath.Join(b.dir, "pgbouncer.ini"))
	cmd.Env = sandbox.Environment("PG")
	b.daemon, err = sandbox.StartDaemon(cmd, b.as, syscall.SIGTERM, nil)
	must(err)
	t.Cleanup(func() {
		if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
			t.Errorf("stop PgBouncer: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(b.daemon.Ready(ctx, func(context.Context) error {
		c, err := net.DialTimeout("tcp", b.Addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}))
	return b
}

// Add adds a line to userlist.txt, as an operator would.
func (b *PgBouncer) Add(t testing.TB, user string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users = append(b.users, user)
	err := b.write("userlist.txt", b.users)
	if err == nil {
		err = b.command(t.Context(), "RELOAD")
	}
	if err != nil {
		t.Fatalf("add a user to PgBouncer: %v", err)
	}
}

// command gives a command to the admin console.
func (b *PgBouncer) command(ctx context.Context, text string) error {
	config, err := pgconn.ParseConfig("postgres://" + b.Addr + "/pgbouncer?sslmode=disable")
	if err != nil {
		return err
	}
	config.User, config.Password = console, console
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, text).ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (b *PgBouncer) write(name string, lines []string) error {
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return b.as.Own(path)
}

// User is a line of userlist.txt: an account with its password or verifier.
func User(account, password string) string {
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return quote(account) + " " + quote(password)
}
