package pgxauth_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/pgxauth"
	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
)

func value(account, password string) string {
	return fmt.Sprintf(`{"AccountName":%q,"AccountPassword":%q}`, account, password)
}

// server is a PostgreSQL server whose roles are made by a test.
type server struct{ *sandbox.Postgres }

func start(t *testing.T) server {
	t.Helper()
	authority := servers.NewAuthority(t, t.TempDir())
	certificate, err1 := os.ReadFile(authority.CertFile)
	key, err2 := os.ReadFile(authority.KeyFile)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return server{servers.StartPostgres(t, sandbox.PostgresConfig{
		Certificate: certificate, Key: key,
		HBA: []string{
			"hostssl all tls_a,tls_b 127.0.0.1/32 scram-sha-256", "hostnossl all tls_a,tls_b 127.0.0.1/32 reject",
			"host all all 127.0.0.1/32 scram-sha-256",
		},
	})}
}

func (s server) set(t *testing.T, role, password string) {
	t.Helper()
	err := s.Exec(t.Context(), "postgres", fmt.Sprintf(
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN "+
			"CREATE ROLE %[1]s LOGIN; END IF; END $$; ALTER ROLE %[1]s PASSWORD '%[2]s'", role, password))
	if err != nil {
		t.Fatal(err)
	}
}

func (s server) dsn(sslmode string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=nobody sslmode=%s", s.Port, sslmode)
}

func (s server) pool(
	t *testing.T, c *consumer.Consumer, options *pgxauth.Options, change ...func(*pgxpool.Config),
) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(s.dsn("disable"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(config)
	}
	if err := pgxauth.Configure(config, c, "db", options); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func who(t *testing.T, q interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (name string) {
	t.Helper()
	if err := q.QueryRow(t.Context(), "SELECT session_user").Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, test := range map[string]func(*testing.T, server){
		"rejected":      rejected,
		"nothing works": nothingWorks,
		"drain":         drained,
		"taken":         taken,
		"hooks":         hooks,
		"cancel":        cancel,
		"session":       session,
		"abandoned":     abandoned,
		"tls":           overTLS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// rejected verifies that a caller does not notice that the server no longer accepts a password.
func rejected(t *testing.T, s server) {
	for _, tt := range []struct {
		name   string
		change func(*consumertest.Endpoint, string)
	}{
		{"promoted", func(e *consumertest.Endpoint, v string) { e.Put("db", "v2", v) }},
		{"candidate", func(e *consumertest.Endpoint, v string) { e.SetStage("db", kms.StagePending, "v2", v) }},
		{"previous", func(e *consumertest.Endpoint, v string) { e.SetStage("db", kms.StagePrevious, "v0", v) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			role := "rejected_" + tt.name
			s.set(t, role, "p1")
			e, c := consumertest.New(t, "db", "v1", value(role, "p1"))
			pool := s.pool(t, c, nil)
			first := who(t, pool)
			pool.Reset()
			s.set(t, role, "p2")
			tt.change(e, value(role, "p2"))
			if second := who(t, pool); first != role || second != role || c.Counters().Logins[consumer.LoginRejected] != 1 {
				t.Errorf("logged in as %q and %q, counted %v; want %q with one rejection", first, second, c.Counters().Logins, role)
			}
			tt.change(e, value(role, "p2"))
		})
	}
}

func nothingWorks(t *testing.T, s server) {
	_, c := consumertest.New(t, "db", "v1", value("nobody_here", "marker"))
	err := s.pool(t, c, nil).Ping(t.Context())
	if !pgxauth.Rejected(err) || strings.Contains(err.Error(), "marker") {
		t.Errorf("got %v, want the server's own error", err)
	}
}

// drained verifies that connections of the previous version are replaced one by one, idle ones too,
// and held until then.
func drained(t *testing.T, s server) {
	s.set(t, "drain_a", "p1")
	s.set(t, "drain_b", "p2")
	e, c := consumertest.New(t, "db", "v1", value("drain_a", "p1"))
	var mu sync.Mutex
	var closed []time.Time
	pool := s.pool(t, c, &pgxauth.Options{DrainWithin: 3 * time.Second}, func(config *pgxpool.Config) {
		config.MaxConns = 12
		config.BeforeClose = func(*pgx.Conn) {
			mu.Lock()
			defer mu.Unlock()
			closed = append(closed, time.Now())
		}
	})
	use := func() (names []string) {
		var conns []*pgxpool.Conn
		for range 10 {
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			names = append(names, who(t, conn))
		}
		for _, conn := range conns {
			conn.Release()
		}
		return names
	}
	use()
	kept, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	promoted := time.Now() // at the latest: no check happens during the read of the new version
	e.Put("db", "v2", value("drain_b", "p2"))
	if err := c.Refresh(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	mixed := false
	for names := use(); slices.Contains(names, "drain_a"); names = use() {
		mixed = mixed || slices.Contains(names, "drain_b")
		if time.Since(promoted) > 10*time.Second {
			t.Fatal("connections of the former version are never replaced")
		}
	}
	mu.Lock()
	first, last := closed[0].Sub(promoted), closed[len(closed)-1].Sub(promoted)
	mu.Unlock()
	if first < 1400*time.Millisecond || !mixed {
		t.Errorf("the first of them was replaced after %v, the last after %v, and both were in use at once: %v",
			first, last, mixed)
	}
	if held := consumertest.Held(t, c, "db"); held != "v1" || who(t, kept) != "drain_a" {
		t.Errorf("while a connection of v1 is in use, %q is held", held)
	}
	kept.Release()
	if held := eventually(func() string { return consumertest.Held(t, c, "db") }); held != "" {
		t.Errorf("after its return %q is held", held)
	}
}

// taken verifies that the pool does not hand out a connection that is due, and does not keep one
// that became due while it was in use.
func taken(t *testing.T, s server) {
	s.set(t, "taken_a", "p1")
	s.set(t, "taken_b", "p2")
	e, c := consumertest.New(t, "db", "v1", value("taken_a", "p1"))
	config, err := pgxpool.ParseConfig(s.dsn("disable"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pgxauth.Configure(config, c, "db", &pgxauth.Options{DrainWithin: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	config.MaxConnIdleTime, config.HealthCheckPeriod = time.Hour, time.Hour
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	kept, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := who(t, pool)
	e.Put("db", "v2", value("taken_b", "p2"))
	if err := c.Refresh(t.Context(), "db"); err != nil { // takes longer than DrainWithin after the first read
		t.Fatal(err)
	}
	if second := who(t, pool); first != "taken_a" || second != "taken_b" {
		t.Errorf("queries are answered by connections of %q and %q", first, second)
	}
	kept.Release()
	if held := eventually(func() string { return consumertest.Held(t, c, "db") }); held != "" {
		t.Errorf("after all are back %q is held", held)
	}
}

// eventually waits for a text to become empty: pgxpool closes connections in the background.
func eventually(look func() string) (last string) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if last = look(); last == "" {
			break
		}
	}
	return last
}

// hooks verifies that the hooks of the configuration are called too.
func hooks(t *testing.T, s server) {
	s.set(t, "hooks", "p1")
	_, c := consumertest.New(t, "db", "v1", value("hooks", "p1"))
	var mu sync.Mutex
	calls := map[string]int{}
	note := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		calls[name]++
	}
	pool := s.pool(t, c, nil, func(config *pgxpool.Config) {
		config.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
			note("BeforeConnect")
			cc.RuntimeParams["application_name"] = "from the hook"
			return nil
		}
		config.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { note("PrepareConn"); return true, nil }
		config.AfterRelease = func(*pgx.Conn) bool { note("AfterRelease"); return true }
		config.ConnConfig.AfterConnect = func(context.Context, *pgconn.PgConn) error { note("AfterConnect"); return nil }
		config.ConnConfig.ValidateConnect = func(context.Context, *pgconn.PgConn) error {
			note("ValidateConnect")
			return nil
		}
	})
	var name string
	if err := pool.QueryRow(t.Context(), "SHOW application_name").Scan(&name); err != nil || name != "from the hook" {
		t.Errorf("application_name is %q, %v", name, err)
	}
	pool.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"BeforeConnect", "PrepareConn", "AfterRelease", "AfterConnect", "ValidateConnect"} {
		if calls[want] != 1 {
			t.Errorf("%s was called %d times, want once", want, calls[want])
		}
	}
}

// cancel verifies that a query can be cancelled at the server, as on any connection.
func cancel(t *testing.T, s server) {
	s.set(t, "tls_a", "p1")
	_, c := consumertest.New(t, "db", "v1", value("tls_a", "p1"))
	config, err := pgx.ParseConfig(s.dsn("require"))
	if err != nil {
		t.Fatal(err)
	}
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 10 * time.Second}
	}
	conn, err := pgxauth.Connect(t.Context(), config, c, "db", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	begun := time.Now()
	_, err = conn.Exec(ctx, "SELECT pg_sleep(60)")
	var said *pgconn.PgError
	if !errors.As(err, &said) || said.Code != "57014" || time.Since(begun) > 8*time.Second {
		t.Errorf("after %v: %v, want the server's word that it was cancelled", time.Since(begun), err)
	}
	if got := who(t, conn); got != "tls_a" {
		t.Errorf("afterwards the connection is %q's", got)
	}
	if _, err := pgx.ConnectConfig(t.Context(), conn.Config()); err == nil ||
		!strings.Contains(err.Error(), "opens no other") {
		t.Errorf("another connection with its configuration: %v", err)
	}
}

// session verifies that the parameters that the server reports at the login arrive, and that other
// protocols over the connection work.
func session(t *testing.T, s server) {
	s.set(t, "session_role", "p1")
	_, c := consumertest.New(t, "db", "v1", value("session_role", "p1"))
	config, err := pgx.ParseConfig(s.dsn("disable"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgxauth.Connect(t.Context(), config, c, "db", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var version string
	var pid uint32
	row := conn.QueryRow(t.Context(), "SELECT current_setting('server_version'), pg_backend_pid()")
	if err := row.Scan(&version, &pid); err != nil {
		t.Fatal(err)
	}
	if got := conn.PgConn().ParameterStatus("server_version"); got != version || conn.PgConn().PID() != pid {
		t.Errorf("server_version %q, process %d; want %q, %d", got, conn.PgConn().PID(), version, pid)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TEMPORARY TABLE many (n int)"); err != nil {
		t.Fatal(err)
	}
	copied, err := conn.CopyFrom(t.Context(), pgx.Identifier{"many"}, []string{"n"},
		pgx.CopyFromSlice(20000, func(i int) ([]any, error) { return []any{i}, nil }))
	if err != nil || copied != 20000 {
		t.Errorf("copied %d rows, %v", copied, err)
	}
	if config.User != "nobody" || conn.Config().User != "session_role" || conn.Config().Password != "" {
		t.Errorf("the configuration was changed to user %q; the connection's has %q", config.User, conn.Config().User)
	}
}

// abandoned verifies that a connection that is not taken over is closed.
func abandoned(t *testing.T, s server) {
	s.set(t, "abandoned", "p1")
	_, c := consumertest.New(t, "db", "v1", value("abandoned", "p1"))
	stop := errors.New("not this one")
	config, err := pgxpool.ParseConfig(s.dsn("disable"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pgxauth.Configure(config, c, "db", nil); err != nil {
		t.Fatal(err)
	}
	config.AfterConnect = func(context.Context, *pgx.Conn) error { return stop }
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	left := eventually(func() string {
		var n int
		admin, err := s.Admin(t.Context(), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close(t.Context())
		row := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'abandoned'")
		if err := row.Scan(&n); err != nil {
			t.Fatal(err)
		}
		return strings.Repeat("x", n)
	})
	if left != "" || consumertest.Held(t, c, "db") != "" {
		t.Errorf("%d connections are open", len(left))
	}
}

// overTLS verifies logins at a server that requires TLS and channel binding.
func overTLS(t *testing.T, s server) {
	s.set(t, "tls_b", "p1")
	_, c := consumertest.New(t, "db", "v1", value("tls_b", "p1"))
	config, err := pgx.ParseConfig(s.dsn("require") + " channel_binding=require require_auth=scram-sha-256")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgxauth.Connect(t.Context(), config, c, "db", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var ssl bool
	row := conn.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
	if err := row.Scan(&ssl); err != nil || !ssl {
		t.Errorf("over TLS: %v, %v", ssl, err)
	}
}

func TestConfigureRefuses(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "db", "v1", value("a", "p"))
	config, err := pgxpool.ParseConfig("host=127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for want, err := range map[string]error{
		"consumer is missing":      pgxauth.Configure(config, nil, "db", nil),
		"name of the secret":       pgxauth.Configure(config, c, "", nil),
		"configuration is missing": pgxauth.Configure(nil, c, "db", nil),
		"DrainWithin is -1s":       pgxauth.Configure(config, c, "db", &pgxauth.Options{DrainWithin: -time.Second}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}
