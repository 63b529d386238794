package consumer

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/pgxauth"
	"github.com/keyturn/keyturn/consumer/redisauth"
	"github.com/keyturn/keyturn/consumer/sqlauth"
	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	targetredis "github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

const (
	users = 50
	// connections is the most that one pool opens.
	connections = 6
	// loginLimit is more than all rotations of a full run can have rejected in a minute: neither
	// server here locks accounts.
	loginLimit = 1000
	// queryTimeout is what an application would bear; a login may have to wait while a password is
	// being changed.
	queryTimeout = 15 * time.Second
	// pause is the most that lies between two queries of one goroutine.
	pause = 150 * time.Millisecond
)

type login struct{ AccountName, AccountPassword string }

func first(account string) login { return login{account, "first-password-of-" + account} }

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// field is a Keyturn with a PostgreSQL and a Redis server as targets.
type field struct {
	*keyturntest.Server
	postgres *sandbox.Postgres
	redis    *servers.Redis
}

func startField(t *testing.T) *field {
	t.Helper()
	f := &field{
		postgres: servers.StartPostgres(t, sandbox.PostgresConfig{
			HBA:      []string{"host all all 127.0.0.1/32 scram-sha-256"},
			Settings: []string{"max_connections=300", "max_prepared_transactions=20"},
		}),
		redis: servers.StartRedis(t, servers.WithACLFile),
	}
	f.Server = keyturntest.Start(t, server.Change(func(c *server.Config) {
		c.Kinds = []target.Kind{postgresql.Kind(), targetredis.Kind()}
		c.Rotator = rotator.Config{Lead: 20 * time.Millisecond}
		c.Rotation = api.RotationConfig{
			RequestEvery: time.Millisecond, // many rotations of one secret are requested
			// A change at the target takes longer than the default of 2 s where many other programs run.
			ReadWait: 8 * time.Second,
		}
	}))
	f.exec(t, "CREATE ROLE rotator LOGIN CREATEROLE PASSWORD 'the-administrators'; GRANT SELECT ON pg_authid TO rotator")
	f.register(t, "pg-main", "postgresql", f.postgres.Addr(), login{"rotator", "the-administrators"})
	f.register(t, "cache-main", "redis", f.redis.Addr, login{"default", f.redis.Password})
	return f
}

func (f *field) exec(t *testing.T, statements string) {
	t.Helper()
	good(t, f.postgres.Exec(t.Context(), "postgres", statements))
}

func (f *field) register(t *testing.T, name, kind, addr string, admin login) {
	t.Helper()
	good(t, second(f.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New(compact(admin)),
	})))
	good(t, second(f.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName: name, Kind: kind, AdminSecretName: name, Config: fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, addr),
	})))
}

// roles makes a secret of one or two PostgreSQL roles.
func (f *field) roles(t *testing.T, secret, grace string, accounts ...string) {
	t.Helper()
	var list []login
	for _, name := range accounts {
		l := first(name)
		f.exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", l.AccountName, l.AccountPassword))
		list = append(list, l)
	}
	subType := map[int]string{1: "SingleUser", 2: "DoubleUsers"}[len(list)]
	good(t, second(f.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName:     secret,
		SecretType:     kms.TypeRds,
		VersionID:      "v1",
		SecretData:     sensitive.New(compact(map[string]any{"Accounts": list})),
		ExtendedConfig: compact(map[string]string{"SecretSubType": subType, "DBInstanceId": "pg-main"}),
	})))
	good(t, second(f.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:  secret,
		GracePeriod: grace,
	})))
}

// user makes a secret of one Redis user.
func (f *field) user(t *testing.T, secret, grace string) {
	t.Helper()
	l := first(secret)
	f.redis.Do(t, "ACL", "SETUSER", l.AccountName, "on", "resetpass", ">"+l.AccountPassword, "~*", "+@all", "-@dangerous")
	good(t, second(f.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: secret,
		VersionID:  "v1",
		SecretData: sensitive.New(compact(l)),
	})))
	good(t, second(f.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:  secret,
		TargetName:  "cache-main",
		GracePeriod: grace,
	})))
}

// rotate rotates a secret some times, each to its end.
func (f *field) rotate(t *testing.T, secret string, times int) (done int) {
	for n := range times {
		version := fmt.Sprintf("v%d", n+2)
		if _, err := f.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
			SecretName: secret,
			VersionID:  version,
		}); err != nil {
			t.Errorf("rotate %s: %v", secret, err)
			return done
		}
		var last *kms.DescribeRotationResponse
		ended := support.Eventually(func() bool {
			out, err := f.Client.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
			if err != nil {
				t.Errorf("describe the rotation of %s: %v", secret, err)
				return true
			}
			last = out
			return out.RotationID == version && (out.State == "done" || out.State == "abandoned" || out.State == "quarantined")
		})
		if !ended || last == nil || last.State != "done" {
			t.Errorf("the rotation of %s to %s: %+v", secret, version, last)
			return done
		}
		done++
	}
	return done
}

// consumer is the application's.
func (f *field) consumer(t *testing.T, secrets ...string) *consumer.Consumer {
	t.Helper()
	client, err := consumer.NewClient(kms.Config{Endpoint: f.Endpoint, Credentials: f.Credentials, RootCAs: f.RootCAs})
	good(t, err)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	c, err := consumer.New(t.Context(),
		consumer.Config{Client: client, Secrets: secrets, LoginLimit: loginLimit, Logger: log})
	good(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), support.Patience)
	defer cancel()
	good(t, c.WaitReady(ctx))
	return c
}

// query is one thing that an application does.
type query func(ctx context.Context) error

// postgresql returns queries of a pgx pool, of a database/sql pool, and over a new connection
// each time.
func (f *field) queries(
	t *testing.T,
	c *consumer.Consumer,
	secret string,
	within time.Duration,
) (pool, db, fresh query) {
	t.Helper()
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres sslmode=disable", f.postgres.Port)
	config, err := pgxpool.ParseConfig(dsn)
	good(t, err)
	config.MaxConns = connections
	good(t, pgxauth.Configure(config, c, secret, &pgxauth.Options{DrainWithin: within}))
	p, err := pgxpool.NewWithConfig(t.Context(), config)
	good(t, err)
	t.Cleanup(p.Close)
	base, err := pgx.ParseConfig(dsn)
	good(t, err)
	d, err := sqlauth.OpenDB(c, secret, func(cred credential.Credential) (driver.Connector, error) {
		config := base.Copy()
		config.User, config.Password = cred.Account, cred.Secret.Reveal()
		return stdlib.GetConnector(*config), nil
	}, &sqlauth.Options{DrainWithin: within})
	good(t, err)
	d.SetMaxOpenConns(connections)
	d.SetMaxIdleConns(connections)
	t.Cleanup(func() { _ = d.Close() })
	return func(ctx context.Context) error { return one(p.QueryRow(ctx, "SELECT 1")) },
		func(ctx context.Context) error { return inTransaction(ctx, d) },
		func(ctx context.Context) error {
			conn, err := pgxauth.Connect(ctx, base, c, secret, nil)
			if err != nil {
				return err
			}
			return errors.Join(one(conn.QueryRow(ctx, "SELECT 1")), conn.Close(ctx))
		}
}

func one(row interface{ Scan(...any) error }) error {
	var n int
	if err := row.Scan(&n); err != nil || n != 1 {
		return fmt.Errorf("SELECT 1 gives %d, %w", n, err)
	}
	return nil
}

func inTransaction(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(one(tx.QueryRowContext(ctx, "SELECT $1::int", 1)), tx.Commit())
}

// cache returns queries of a Redis client that does not retry.
func (f *field) cache(t *testing.T, c *consumer.Consumer, secret string, within time.Duration) query {
	t.Helper()
	o := &redis.Options{Addr: f.redis.Addr, PoolSize: connections, MaxRetries: -1, DialerRetries: 1}
	good(t, redisauth.Configure(o, c, secret, &redisauth.Options{DrainWithin: within}))
	r := redis.NewClient(o)
	t.Cleanup(func() { _ = r.Close() })
	return func(ctx context.Context) error {
		if err := r.Get(ctx, "nothing").Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		return nil
	}
}

// under runs something while many goroutines ask, and counts what they see under figures of a name.
func under(t *testing.T, figure string, queries []query, run func()) {
	t.Helper()
	for _, name := range []string{"_queries", "_failures"} {
		figures.Count(figure+name, 0)
	}
	var mu sync.Mutex
	asked, failed, slowest := 0, 0, time.Duration(0)
	note := func(err error, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		slowest = max(slowest, took)
		if err != nil {
			if failed++; failed <= 5 {
				t.Errorf("a query failed after %v: %v", took, err)
			}
		}
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	for i := range users {
		ask := queries[i%len(queries)]
		work.Go(func() {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
				begun := time.Now()
				err := ask(ctx)
				cancel()
				note(err, time.Since(begun))
				select {
				case <-stop:
					return
				case <-time.After(rand.N(pause)):
				}
			}
		})
	}
	run()
	close(stop)
	work.Wait()
	figures.Count(figure+"_queries", asked)
	figures.Count(figure+"_failures", failed)
	figures.Most(figure+"_slowest_ms", int(slowest.Milliseconds()))
	t.Logf("%s: %d queries, %d failures, the slowest took %v", figure, asked, failed, slowest)
	if failed > 0 || asked < 10*users {
		t.Errorf("%d of %d queries failed, want none of at least %d", failed, asked, 10*users)
	}
}

// letGo verifies that, after a rotation, everything that was opened with a former version is
// replaced while the application continues, and that the server learns of it.
func (f *field) letGo(t *testing.T, c *consumer.Consumer, secrets ...string) {
	t.Helper()
	done := support.Eventually(func() bool {
		for _, s := range c.Status() {
			if s.OldestVersionID != "" {
				return false
			}
		}
		return true
	})
	if !done {
		t.Errorf("former versions are held on and on: %+v", c.Status())
		return
	}
	for _, secret := range secrets {
		var behind []kms.SecretConsumer
		told := support.Eventually(func() bool {
			out, err := f.Client.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{SecretName: secret})
			good(t, err)
			behind = nil
			current := false
			for _, s := range out.Consumers {
				if s.Evidence == kms.EvidenceAcknowledged && s.Behind {
					behind = append(behind, s)
				}
				current = current || s.Evidence == kms.EvidenceAcknowledged && !s.Behind
			}
			return current && len(behind) == 0
		})
		if !told {
			t.Errorf("the server sees behind at %s: %+v", secret, behind)
		}
	}
}

// TestStorm rotates again and again while an application works with pools of the adapters.
func TestStorm(t *testing.T) {
	t.Parallel()
	f := startField(t)
	t.Run("two accounts", func(t *testing.T) {
		t.Parallel()
		f.stormOfTwo(t)
	})
	t.Run("one account", func(t *testing.T) {
		t.Parallel()
		f.stormOfOne(t)
	})
}

// stormOfTwo is with targets where the old credential goes on for a grace period: no connection
// is ever refused.
func (f *field) stormOfTwo(t *testing.T) {
	pairs, times := pick(1, 2), pick(200, 3)
	grace, within := pick("2s", "1s"), pick(1200*time.Millisecond, 600*time.Millisecond)
	var secrets []string
	var roles, caches []string
	for i := range pairs {
		roles = append(roles, fmt.Sprintf("pair%d", i))
		caches = append(caches, fmt.Sprintf("cache%d", i))
		f.roles(t, roles[i], grace, roles[i], roles[i]+"_clone")
		f.user(t, caches[i], grace)
	}
	secrets = append(append(secrets, roles...), caches...)
	c := f.consumer(t, secrets...)
	var queries []query
	for i := range pairs {
		pool, db, fresh := f.queries(t, c, roles[i], within)
		cache := f.cache(t, c, caches[i], within)
		queries = append(queries, pool, db, cache, pool, db, cache, pool, db, cache, fresh)
	}
	under(t, "storm", queries, func() {
		var work sync.WaitGroup
		for _, secret := range secrets {
			work.Go(func() { figures.Count("storm_rotations", f.rotate(t, secret, times)) })
		}
		work.Wait()
		f.letGo(t, c, secrets...)
	})
}

// stormOfOne is with one account, whose old password ends at the change.
func (f *field) stormOfOne(t *testing.T) {
	f.roles(t, "single", "0s", "single")
	c := f.consumer(t, "single")
	pool, db, fresh := f.queries(t, c, "single", pick(1200*time.Millisecond, 600*time.Millisecond))
	under(t, "storm_single", []query{pool, db, pool, db, pool, db, pool, db, pool, fresh}, func() {
		figures.Count("storm_single_rotations", f.rotate(t, "single", pick(200, 6)))
		f.letGo(t, c, "single")
	})
	t.Logf("logins by outcome: %v", c.Counters().Logins)
}
