package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/sensitive"
)

// ErrNoPostgres means that the programs of PostgreSQL are not on this machine.
var ErrNoPostgres = errors.New("PostgreSQL (initdb and postgres) is not installed")

const (
	postgresAdmin = "keyturn"
	initTimeout   = 2 * time.Minute
	startTimeout  = 30 * time.Second

	// sqlInvalidPassword and sqlInvalidAuthorization are how PostgreSQL says no to a login.
	sqlInvalidPassword      = "28P01"
	sqlInvalidAuthorization = "28000"
)

// postgres is a throw-away cluster. Its administrator comes in over a Unix socket in a directory that only
// the cluster's account and root can enter; its role comes in over TCP with SCRAM.
type postgres struct {
	dir, sockets string
	port         int
	version      string
	server       *daemon
	close        func() error
}

// postgresCredential is the secret data, in the words of the API for database accounts.
type postgresCredential struct {
	AccountName, AccountPassword string
}

// StartPostgres makes a cluster in a new directory inside dir and starts it. The context bounds the start
// only. As root the cluster runs as the account postgres, or nobody, because PostgreSQL refuses root; when
// that account cannot reach dir, the cluster lives in the temporary directory instead.
func StartPostgres(ctx context.Context, dir string) (_ Target, err error) {
	bin, err := findPostgres(ctx)
	if err != nil {
		return nil, err
	}
	as, err := postgresAccount()
	if err != nil {
		return nil, err
	}
	p := &postgres{}
	p.close = sync.OnceValue(p.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Close())
		}
	}()
	if err := p.makeDirs(dir, as); err != nil {
		return nil, err
	}
	if err := p.initialise(ctx, bin, as); err != nil {
		return nil, err
	}
	if err := p.start(ctx, bin, as); err != nil {
		return nil, err
	}
	if err := p.asAdmin(ctx, "CREATE ROLE "+quoteIdentifier(accountName)+" LOGIN"); err != nil {
		return nil, err
	}
	return p, nil
}

// findPostgres returns the directory that holds both programs.
func findPostgres(ctx context.Context) (string, error) {
	if runtime.GOOS == "windows" {
		return "", ErrNoPostgres
	}
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, realDir(path))
	}
	packaged, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed
	slices.SortFunc(packaged, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
	dirs = append(append(dirs, packaged...), "/usr/local/bin")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, dir := range dirs {
		if executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", ErrNoPostgres
}

// realDir follows links, because initdb looks for its companions next to itself.
func realDir(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return filepath.Dir(path)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// majorVersion reads 15 from /usr/lib/postgresql/15/bin.
func majorVersion(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // another name sorts last
	return n
}

func postgresAccount() (*osAccount, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
		return &osAccount{uid, gid}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither an account postgres nor nobody; run as another account")
}

// makeDirs makes the directory of the cluster and that of its socket, whose path must be short: a Unix
// address holds about 100 bytes.
func (p *postgres) makeDirs(dir string, as *osAccount) (err error) {
	if p.dir, err = makeDir(dir, "postgres-"); err != nil {
		return err
	}
	if as != nil && !reachable(p.dir) {
		_ = os.Remove(p.dir) // it is empty
		if p.dir, err = os.MkdirTemp("", "keyturn-postgres-"); err != nil {
			return err
		}
	}
	short := os.TempDir()
	if len(short) > 50 {
		short = "/tmp"
	}
	if p.sockets, err = os.MkdirTemp(short, "keyturn-pg-"); err != nil {
		return err
	}
	if as == nil {
		return nil
	}
	return errors.Join(os.Chown(p.dir, as.uid, as.gid), os.Chown(p.sockets, as.uid, as.gid))
}

// reachable reports whether every account may pass through the directories above dir.
func reachable(dir string) bool {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if parent == filepath.Dir(parent) {
			return true
		}
	}
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

// initialise makes the cluster and says who may come in: the administrator from the socket's directory,
// the role by password, nobody else.
func (p *postgres) initialise(ctx context.Context, bin string, as *osAccount) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", p.data(), "-U", postgresAdmin,
		"--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-sync")
	log := &tail{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.dir, environment("PG"), log, log, time.Second
	detach(cmd, as, syscall.SIGKILL)
	if err := runLocked(cmd); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, log)
	}
	rules := "local all " + postgresAdmin + " trust\nhost postgres " + accountName + " 127.0.0.1/32 scram-sha-256\n"
	// The file exists and belongs to the cluster's account already; writing in place keeps it so.
	return os.WriteFile(filepath.Join(p.data(), "pg_hba.conf"), []byte(rules), 0o600)
}

// runLocked runs cmd to its end on one thread: see startDaemon.
func runLocked(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

func (p *postgres) start(ctx context.Context, bin string, as *osAccount) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	for range startAttempts {
		if p.port, err = freePort(); err != nil {
			return err
		}
		cmd := exec.Command(filepath.Join(bin, "postgres"), p.arguments()...)
		cmd.Dir, cmd.Env = p.dir, environment("PG")
		if p.server, err = startDaemon(cmd, as, syscall.SIGQUIT); err != nil {
			return err
		}
		if err = p.server.ready(ctx, p.readVersion); err == nil || ctx.Err() != nil {
			return err
		}
		if err := p.server.stop(syscall.SIGINT, syscall.SIGQUIT); err != nil {
			return err
		}
	}
	return err
}

// arguments trade durability for speed, as nothing here outlives the demo, and keep statements, and with
// them verifiers, out of the log.
func (p *postgres) arguments() []string {
	args := []string{"-D", p.data(), "-k", p.sockets, "-p", strconv.Itoa(p.port)}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1", "unix_socket_permissions=0700", "password_encryption=scram-sha-256",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "jit=off",
		"wal_level=minimal", "max_wal_senders=0", "shared_buffers=16MB", "max_connections=50",
		"log_statement=none", "log_min_error_statement=panic", "log_min_duration_statement=-1",
	} {
		args = append(args, "-c", setting)
	}
	return args
}

func (p *postgres) readVersion(ctx context.Context) error {
	conn, err := p.admin(ctx)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&p.version); err != nil {
		return sqlReason(ctx, err)
	}
	p.version, _, _ = strings.Cut(p.version, " ") // "15.18 (Debian 15.18-0+deb12u1)"
	return nil
}

func (p *postgres) asAdmin(ctx context.Context, statement string) error {
	conn, err := p.admin(ctx)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return sqlReason(ctx, err)
	}
	return nil
}

func (p *postgres) admin(ctx context.Context) (*pgx.Conn, error) {
	return connect(ctx, p.sockets, p.port, postgresAdmin, "")
}

// connect opens a connection with these settings and none from the environment or a password file.
func connect(ctx context.Context, host string, port int, role, password string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, errors.New("the PG* variables of the environment are not well formed; unset them")
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = host, uint16(port), "postgres", role, password
	cfg.TLSConfig, cfg.Fallbacks, cfg.ConnectTimeout = nil, nil, loginTimeout
	cfg.RuntimeParams = map[string]string{"application_name": "keyturn-demo"}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, sqlReason(ctx, err)
	}
	return conn, nil
}

// disconnect says goodbye even when the context of the call has ended, but does not wait long for an answer.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the goodbye
}

// sqlReason keeps code and text of an answer of the server, and ErrRejected where the answer is no.
func sqlReason(ctx context.Context, err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return safeReason(ctx, err)
	}
	if answer.Code == sqlInvalidPassword || answer.Code == sqlInvalidAuthorization {
		return fmt.Errorf("%w: %s (SQLSTATE %s)", ErrRejected, answer.Message, answer.Code)
	}
	return fmt.Errorf("%s (SQLSTATE %s)", answer.Message, answer.Code)
}

func (p *postgres) Name() string {
	return fmt.Sprintf("PostgreSQL %s, role %s, 127.0.0.1:%d", p.version, accountName, p.port)
}

func (p *postgres) Registration() string {
	return "ALTER ROLE " + accountName + " PASSWORD 'SCRAM-SHA-256$…'"
}

func (p *postgres) NewCredential(password sensitive.Value) (sensitive.Value, error) {
	if err := checkPassword(password.Reveal()); err != nil {
		return sensitive.Value{}, err
	}
	return encodeData(postgresCredential{accountName, password.Reveal()})
}

// Register stores a verifier of the password. Its salt is fresh each time, which no login can tell.
func (p *postgres) Register(ctx context.Context, data sensitive.Value) error {
	c, err := readPostgresCredential(data)
	if err != nil {
		return err
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	verifier, err := scramVerifier(c.AccountPassword, salt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := p.asAdmin(ctx, "ALTER ROLE "+quoteIdentifier(accountName)+" PASSWORD "+quoteLiteral(verifier)); err != nil {
		return fmt.Errorf("register the password of role %s: %w", accountName, err)
	}
	return nil
}

func (p *postgres) Login(ctx context.Context, data sensitive.Value) error {
	c, err := readPostgresCredential(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	conn, err := connect(ctx, "127.0.0.1", p.port, c.AccountName, c.AccountPassword)
	if err != nil {
		return fmt.Errorf("log in to PostgreSQL as %s: %w", accountName, err)
	}
	defer disconnect(conn)
	var one int
	if err := conn.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("SELECT 1 as %s: %w", accountName, sqlReason(ctx, err))
	}
	return nil
}

func readPostgresCredential(data sensitive.Value) (postgresCredential, error) {
	var c postgresCredential
	if err := decodeData(data, &c); err != nil {
		return c, err
	}
	if c.AccountName != accountName {
		return c, fmt.Errorf("the secret data is not for this target: AccountName must be %q", accountName)
	}
	if err := checkPassword(c.AccountPassword); err != nil {
		return c, fmt.Errorf("AccountPassword: %w", err)
	}
	return c, nil
}

func (p *postgres) Close() error { return p.close() }

// shutdown asks for a fast shutdown (SIGINT), then an immediate one (SIGQUIT), and removes the cluster.
func (p *postgres) shutdown() error {
	var errs []error
	if p.server != nil {
		errs = append(errs, p.server.stop(syscall.SIGINT, syscall.SIGQUIT))
	}
	for _, dir := range []string{p.dir, p.sockets} {
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral relies on standard_conforming_strings, the default since PostgreSQL 9.1.
func quoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
