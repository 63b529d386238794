// Package pgxauth opens the connections of a pgx pool with the credential of a secret, and goes on
// over rotations: the application sees no failed login and changes nothing but the configuration of
// its pool.
//
//	config, err := pgxpool.ParseConfig("host=db.example.com dbname=app sslmode=verify-full")
//	err = pgxauth.Configure(config, c, "db_cred", nil)
//	pool, err := pgxpool.NewWithConfig(ctx, config)
//
// What it does:
//
//   - Each connection is opened with the current version. When the server rejects it, the secret is
//     read again once and the login repeated with what is current then, with the candidate of a
//     rotation that is under way, and with the version before, by consumer.Login; its limit of
//     rejected logins holds.
//   - After a promotion the connections of the former version are replaced one by one, when they
//     are not in use: each at its own time between one half and the whole of Options.DrainWithin (5
//     minutes unless set), well before the grace period of the rotation (1 hour unless set) is
//     over. A connection that the application keeps to itself is never taken away.
//   - Every open connection holds its version (consumer.Hold), so the server knows correctly who
//     uses which version.
//
// pgxpool asks for a credential once for each connection, before it logs in, and returns a
// rejection to the caller. So this package logs in by itself, in BeforeConnect, with all of the
// pool's configuration, and hands the open connection over: what pgx then opens is a connection
// that answers its startup at once, from what the server has said. There is one login and no
// further round trip. Do not open connections with the configuration of a pooled connection
// (pgx.Conn.Config); the one of the pool (pgxpool.Pool.Config) and Connect are for that.
package pgxauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Options are what can be set; nil stands for the zero Options.
type Options struct {
	// Format says where in the value the credential is. Zero finds the usual members. Where the
	// value names no account, that of the connection string is used.
	Format credential.Format
	// DrainWithin is when, after a promotion, the last connection of the former version is
	// replaced. 0 means 5 minutes. Keep it below the grace period of the rotation.
	DrainWithin time.Duration
	// Rejected says whether an error of a login means that the credential was not accepted. nil
	// means Rejected.
	Rejected func(error) bool
}

// Rejected reports whether err is how PostgreSQL says that a credential was not accepted: SQLSTATE
// 28P01 or 28000.
func Rejected(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "28P01" || e.Code == "28000")
}

// Configure has a pool open its connections with a secret. Hooks that the configuration has already
// are called too, so set them before. It lowers MaxConnIdleTime to Options.DrainWithin, and
// HealthCheckPeriod to a quarter of that, where they are higher: connections that lie idle hold no
// former version for longer.
func Configure(config *pgxpool.Config, c *consumer.Consumer, secret string, options *Options) error {
	a, err := adapter.New("pgxauth", c, secret, (*adapter.Options)(options), Rejected)
	if err != nil {
		return err
	}
	if config == nil || config.ConnConfig == nil {
		return errors.New("pgxauth: the configuration is missing; pgxpool.ParseConfig makes one")
	}
	within := a.Options.DrainWithin
	config.MaxConnIdleTime = min(config.MaxConnIdleTime, within)
	config.HealthCheckPeriod = min(config.HealthCheckPeriod, max(within/4, time.Millisecond))
	beforeConnect, prepare, afterRelease := config.BeforeConnect, config.PrepareConn, config.AfterRelease
	//lint:ignore SA1019 a hook that is set must go on being called
	beforeAcquire := config.BeforeAcquire
	config.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		if beforeConnect != nil {
			if err := beforeConnect(ctx, cc); err != nil {
				return err
			}
		}
		return login(ctx, a, cc)
	}
	config.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		switch {
		case due(conn):
			return false, nil // the pool takes another, or opens one
		case prepare != nil:
			return prepare(ctx, conn)
		case beforeAcquire != nil:
			return beforeAcquire(ctx, conn), nil
		}
		return true, nil
	}
	config.AfterRelease = func(conn *pgx.Conn) bool {
		return !due(conn) && (afterRelease == nil || afterRelease(conn))
	}
	return nil
}

func due(conn *pgx.Conn) bool {
	h, ok := conn.PgConn().Conn().(*handover)
	return ok && h.held.Due()
}

// Connect opens one connection with a secret. It holds its version until it is closed.
func Connect(ctx context.Context, config *pgx.ConnConfig, c *consumer.Consumer, secret string, options *Options) (*pgx.Conn, error) {
	a, err := adapter.New("pgxauth", c, secret, (*adapter.Options)(options), Rejected)
	if err != nil {
		return nil, err
	}
	if config == nil {
		return nil, errors.New("pgxauth: the configuration is missing; pgx.ParseConfig makes one")
	}
	config = config.Copy()
	if err := login(ctx, a, config); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("pgxauth: take a connection over: %w", err)
	}
	return conn, nil
}

// login opens a connection with whichever version the server accepts, and has cc hand it to the
// next connection that is made with cc.
func login(ctx context.Context, a *adapter.Adapter, cc *pgx.ConnConfig) error {
	var opened *pgconn.PgConn
	var account string
	conn, err := a.Login(ctx, func(ctx context.Context, _ *consumer.Secret, cred credential.Credential) (err error) {
		config := cc.Config.Copy()
		config.AfterConnect = nil // pgx calls it once, after the handover
		account = cmp.Or(cred.Account, config.User)
		config.User, config.Password = account, cred.Secret.Reveal()
		opened, err = pgconn.ConnectConfig(ctx, config)
		return err
	})
	if err != nil {
		return err
	}
	if err := opened.SyncConn(ctx); err != nil {
		conn.Closed()
		_ = opened.Close(ctx) // it is of no use
		return fmt.Errorf("pgxauth: %w", err)
	}
	h, err := newHandover(opened, conn)
	if err != nil {
		return err
	}
	cc.User = account
	h.configure(cc)
	return nil
}
