// Package pgxauth opens the connections of a pgx pool with the credential in a secret, also across
// rotations: no login of the application fails, and it changes nothing but the configuration of its
// pool.
//
//	config, err := pgxpool.ParseConfig("host=db.example.com dbname=app sslmode=verify-full")
//	err = pgxauth.Configure(config, c, "db_cred", nil)
//	pool, err := pgxpool.NewWithConfig(ctx, config)
//
// # Behavior
//
//   - Each connection is opened with the current version. If the server rejects it, the package
//     reads the secret again and repeats the login with the version that is current then, the
//     candidate of a rotation under way, and the previous version ([consumer.Consumer.Login]),
//     within [consumer.Config.LoginLimit].
//   - After a promotion, connections of the previous version are replaced one by one while they are
//     idle: each at a random time between one half and the whole of [Options.DrainWithin] (by
//     default 5 minutes), well before the grace period of the rotation (by default 1 hour) ends. A
//     connection that the application has acquired is never taken away.
//   - Every open connection holds its version ([consumer.Consumer.Hold]), so the server knows which
//     versions are in use.
//
// # How it works
//
// pgxpool asks for a credential once for each connection, before the login, and returns a rejection
// to the caller. This package therefore logs in itself, in BeforeConnect, with the whole
// configuration of the pool, and hands over the open connection: what pgx then opens is a
// connection that answers the startup message at once, with what the server answered. There is one
// login and no additional round trip. Do not open connections with the configuration of a pooled
// connection ([pgx.Conn.Config]); use the configuration of the pool ([pgxpool.Pool.Config]) or
// [Connect].
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

// Options change the defaults. nil means the zero Options.
type Options struct {
	// Format says where in the value the credential is. The zero Format finds the usual members. If
	// the value names no account, the account of the connection string is used.
	Format credential.Format
	// DrainWithin is the time after a promotion by which all connections of the previous version
	// are replaced. 0 means 5 minutes. Keep it below the grace period of the rotation.
	DrainWithin time.Duration
	// Rejected reports whether an error of a login means that the credential was not accepted. nil
	// means the function [Rejected].
	Rejected func(error) bool
}

// Rejected reports whether PostgreSQL has answered that it does not accept a credential, with
// SQLSTATE 28P01 or 28000.
func Rejected(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "28P01" || e.Code == "28000")
}

// Configure makes a pool open its connections with a secret. Set other hooks of the configuration
// before; they are still called. Configure lowers MaxConnIdleTime to [Options.DrainWithin] and
// HealthCheckPeriod to a quarter of it, if they are higher, so that idle connections do not hold
// the previous version for longer.
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
	//lint:ignore SA1019 an application may still set the old hook
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
			return false, nil // the pool acquires another connection, or opens one
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

// Connect opens one connection with a secret. The connection holds its version until it is closed.
func Connect(
	ctx context.Context, config *pgx.ConnConfig, c *consumer.Consumer, secret string, options *Options,
) (*pgx.Conn, error) {
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
		return nil, fmt.Errorf("pgxauth: hand a connection over: %w", err)
	}
	return conn, nil
}

// login opens a connection with a version that the server accepts. It changes cc so that the next
// connection that is made with cc takes this one over.
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
		_ = opened.Close(ctx)
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
