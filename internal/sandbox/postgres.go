package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoPostgres means that the programs of PostgreSQL are not on this machine.
var ErrNoPostgres = errors.New("PostgreSQL (initdb and postgres) is not installed")

const (
	// PostgresAdmin is the superuser of every cluster.
	PostgresAdmin = "keyturn"
	initTimeout   = 2 * time.Minute
	adminTimeout  = 10 * time.Second
)

// PostgresConfig says what cluster to start. Only Dir is required.
type PostgresConfig struct {
	// Dir is where the directory of the cluster is made.
	Dir string
	// HBA are lines of pg_hba.conf, which come after the administrator's: it comes in over the
	// socket alone.
	HBA []string
	// Settings such as "max_prepared_transactions=10" go before the ones that a throw-away cluster
	// has.
	Settings []string
	// Certificate and Key in PEM turn TLS on. ClientCA lists in PEM the authorities of client
	// certificates.
	Certificate, Key, ClientCA []byte
	// Programs is the directory of initdb and postgres; empty means the newest on this machine.
	Programs string
	// StandbyOf is a server whose wal_level is replica: the new one becomes its hot standby. The
	// server is stopped for the time of the copy.
	StandbyOf *Postgres
	// Log gets what the server writes.
	Log io.Writer
}

// Postgres is a throw-away cluster on loopback. Its administrator comes in over a Unix socket in a
// directory that only the cluster's account and root can enter; who else may is for
// PostgresConfig.HBA to say.
type Postgres struct {
	Dir, Sockets string
	Port         int
	// Version is the server's, such as 15.18.
	Version string

	config PostgresConfig
	bin    string
	as     *Account
	server *Daemon
	close  func() error
}

// StartPostgres makes a cluster and starts it. The context bounds the start only. As root the
// cluster runs as the account postgres, or nobody, because PostgreSQL refuses root; when that
// account cannot reach the directory, the cluster lives among the temporary files instead. The
// error is ErrNoPostgres where PostgreSQL is not installed.
func StartPostgres(ctx context.Context, config PostgresConfig) (_ *Postgres, err error) {
	p := &Postgres{config: config}
	if p.bin, err = findPostgres(ctx, config); err != nil {
		return nil, err
	}
	if p.as, err = ServiceAccount("postgres", "nobody"); err != nil {
		return nil, err
	}
	p.close = sync.OnceValue(p.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Close())
		}
	}()
	if p.Dir, err = makeDirFor(p.as, config.Dir, "postgres"); err != nil {
		return nil, err
	}
	if p.Sockets, err = makeSocketDirFor(p.as, "keyturn-pg-"); err != nil {
		return nil, err
	}
	prepare := p.initialise
	if config.StandbyOf != nil {
		prepare = p.copyOf
	}
	if err := prepare(ctx); err != nil {
		return nil, err
	}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// findPostgres returns the directory that holds both programs.
func findPostgres(ctx context.Context, config PostgresConfig) (string, error) {
	switch {
	case config.StandbyOf != nil:
		return config.StandbyOf.bin, nil
	case config.Programs != "":
		return config.Programs, nil
	}
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

// majorVersion reads 15 from /usr/lib/postgresql/15/bin.
func majorVersion(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // another name sorts last
	return n
}

// Data is the data directory.
func (p *Postgres) Data() string { return filepath.Join(p.Dir, "data") }

// Addr is host:port.
func (p *Postgres) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)) }

// initialise makes the cluster and says who may come in: the administrator from the socket's
// directory, and those that the configuration names.
func (p *Postgres) initialise(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "-D", p.Data(), "-U", PostgresAdmin,
		"--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-sync")
	log := &tail{}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.Dir, Environment("PG"), log, log, time.Second
	detach(cmd, p.as, syscall.SIGKILL)
	if err := runLocked(cmd); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, log)
	}
	if err := p.writeCertificate(); err != nil {
		return err
	}
	rules := append([]string{
		"local all " + PostgresAdmin + " trust",
		"local replication " + PostgresAdmin + " trust",
	}, p.config.HBA...)
	// The file exists and belongs to the cluster's account already; writing in place keeps it so.
	return os.WriteFile(filepath.Join(p.Data(), "pg_hba.conf"), []byte(strings.Join(rules, "\n")+"\n"), 0o600)
}

// clientCA is the file of the authorities of client certificates, in the data directory.
const clientCA = "clients.crt"

// copyOf makes the cluster a copy of its primary, which follows it over the primary's socket.
func (p *Postgres) copyOf(ctx context.Context) error {
	primary := p.config.StandbyOf
	if err := primary.Stop(); err != nil {
		return err
	}
	copied := os.CopyFS(p.Data(), os.DirFS(primary.Data()))
	if err := errors.Join(copied, primary.Start(ctx)); err != nil {
		return err
	}
	signal := filepath.Join(p.Data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	p.config.Settings = append(slices.Concat(primary.config.Settings, p.config.Settings), fmt.Sprintf(
		"primary_conninfo=host=%s port=%d user=%s", primary.Sockets, primary.Port, PostgresAdmin,
	))
	// The server accepts its data directory with these rights alone.
	return filepath.WalkDir(p.Data(), func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600)
		if entry.IsDir() {
			mode = 0o700
		}
		return errors.Join(os.Chmod(path, mode), p.as.Own(path))
	})
}

func (p *Postgres) writeCertificate() error {
	if p.config.Certificate == nil {
		return nil
	}
	var errs []error
	files := map[string][]byte{"server.crt": p.config.Certificate, "server.key": p.config.Key}
	if p.config.ClientCA != nil {
		files[clientCA] = p.config.ClientCA
	}
	for name, content := range files {
		path := filepath.Join(p.Data(), name)
		errs = append(errs, os.WriteFile(path, content, 0o600), p.as.Own(path))
	}
	return errors.Join(errs...)
}

// Start starts the server again after Stop or Kill, at the address it had.
func (p *Postgres) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return startOnPort(ctx, &p.Port, func() (err error) {
		cmd := exec.Command(filepath.Join(p.bin, "postgres"), p.arguments()...)
		cmd.Dir, cmd.Env = p.Dir, Environment("PG")
		if p.server, err = StartDaemon(cmd, p.as, syscall.SIGQUIT, p.config.Log); err != nil {
			return err
		}
		if err = p.server.Ready(ctx, p.readVersion); err == nil || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, p.Stop())
	})
}

// Stop asks for a fast shutdown (SIGINT), then an immediate one (SIGQUIT).
func (p *Postgres) Stop() error { return p.server.Stop(syscall.SIGINT, syscall.SIGQUIT) }

// Kill is kill -9 of the server; its sessions end as soon as they notice.
func (p *Postgres) Kill() error { return p.server.Kill() }

// arguments trade durability for speed, as nothing here outlives the demo or the test, and keep
// statements, and with them verifiers, out of the log. The last one of a name counts. A test that
// kills the server sets synchronous_commit=on, or commits of the last moments are lost; fsync
// matters only to a machine that loses its memory.
func (p *Postgres) arguments() []string {
	settings := []string{
		"listen_addresses=127.0.0.1", "unix_socket_permissions=0700", "password_encryption=scram-sha-256",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "jit=off",
		"wal_level=minimal", "max_wal_senders=0", "shared_buffers=16MB", "max_connections=50",
		"log_statement=none", "log_min_error_statement=panic", "log_min_duration_statement=-1",
	}
	if p.config.Certificate != nil {
		settings = append(settings, "ssl=on")
	}
	if p.config.ClientCA != nil {
		settings = append(settings, "ssl_ca_file="+clientCA)
	}
	args := []string{"-D", p.Data(), "-k", p.Sockets, "-p", strconv.Itoa(p.Port)}
	for _, setting := range append(settings, p.config.Settings...) {
		args = append(args, "-c", setting)
	}
	return args
}

func (p *Postgres) readVersion(ctx context.Context) error {
	conn, err := p.Admin(ctx, "postgres")
	if err != nil {
		return err
	}
	defer disconnect(conn)
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&p.Version); err != nil {
		return err
	}
	p.Version, _, _ = strings.Cut(p.Version, " ") // "15.18 (Debian 15.18-0+deb12u1)"
	return nil
}

// Admin opens a connection of the administrator to a database, with no setting from the
// environment. The caller closes it.
func (p *Postgres) Admin(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, errors.New("the PG* variables of the environment are not well formed; unset them")
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = p.Sockets, uint16(p.Port), database, PostgresAdmin, ""
	cfg.TLSConfig, cfg.Fallbacks, cfg.ConnectTimeout = nil, nil, adminTimeout
	cfg.RuntimeParams = map[string]string{"application_name": "keyturn-sandbox"}
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	return pgx.ConnectConfig(ctx, cfg)
}

// Exec runs statements as the administrator, in one transaction.
func (p *Postgres) Exec(ctx context.Context, database, statements string) error {
	conn, err := p.Admin(ctx, database)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	return err
}

// disconnect says goodbye even when the context of the call has ended, but does not wait long for
// an answer.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the goodbye
}

// Close stops the server and removes the cluster. A second call does nothing.
func (p *Postgres) Close() error { return p.close() }

func (p *Postgres) shutdown() error {
	var errs []error
	if p.server != nil {
		errs = append(errs, p.Stop())
	}
	for _, dir := range []string{p.Dir, p.Sockets} {
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}
