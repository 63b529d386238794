// Package sqlauth opens the connections of a [database/sql] pool with the credential in a secret,
// also across rotations: no login of the application fails, and it changes nothing but how it
// creates its [sql.DB].
//
//	db, err := sqlauth.OpenDB(c, "db_cred", open, nil)
//
// open returns a [driver.Connector] of any driver for an account and its password ([Open]).
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
// database/sql gets a connection of this package, not of the driver. Code that uses [sql.Conn.Raw]
// reaches the connection of the driver by asserting [Unwrapper]. For pgx there is also package
// pgxauth, whose pool returns pgx's own connections.
package sqlauth

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Open returns a connector of a driver that logs in with a credential. It is called for each login,
// and must not block.
type Open func(credential.Credential) (driver.Connector, error)

// Options change the defaults. nil means the zero Options.
type Options struct {
	// Format says where in the value the credential is. The zero Format finds the usual members.
	Format credential.Format
	// DrainWithin is the time after a promotion by which all connections of the previous version
	// are replaced. 0 means 5 minutes. Keep it below the grace period of the rotation.
	DrainWithin time.Duration
	// Rejected reports whether an error of a login means that the credential was not accepted. nil
	// means the function [Rejected], for PostgreSQL and MySQL.
	Rejected func(error) bool
}

// OpenDB returns a pool. It closes connections that are idle for [Options.DrainWithin], so that an
// unused pool does not hold a previous version either.
func OpenDB(c *consumer.Consumer, secret string, open Open, options *Options) (*sql.DB, error) {
	connector, err := NewConnector(c, secret, open, options)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetConnMaxIdleTime(connector.adapter.Options.DrainWithin)
	return db, nil
}

// Connector is a [driver.Connector] for [sql.OpenDB].
type Connector struct {
	adapter *adapter.Adapter
	open    Open
}

// NewConnector returns a Connector. [OpenDB] is simpler. If you create the [sql.DB] yourself, call
// its SetConnMaxIdleTime: database/sql checks a connection only when it is acquired or released, so
// an idle connection would stay open with a previous version.
func NewConnector(c *consumer.Consumer, secret string, open Open, options *Options) (*Connector, error) {
	a, err := adapter.New("sqlauth", c, secret, (*adapter.Options)(options), Rejected)
	switch {
	case err != nil:
		return nil, err
	case open == nil:
		return nil, errors.New("sqlauth: the function that makes a connector (Open) is missing")
	}
	return &Connector{adapter: a, open: open}, nil
}

// Connect opens a connection with a version that the server accepts.
func (o *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	var inner driver.Conn
	held, err := o.adapter.Login(ctx, func(ctx context.Context, s *consumer.Secret, cred credential.Credential) error {
		connector, err := o.open(cred)
		if err != nil {
			return fmt.Errorf("sqlauth: make a connector for secret %q: %w", s.Name, err)
		}
		inner, err = connector.Connect(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &conn{Conn: inner, held: held}, nil
}

// Driver returns a driver that opens nothing by name: only the Connector opens connections.
func (o *Connector) Driver() driver.Driver { return noDriver{} }

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("sqlauth: use sql.OpenDB with a Connector; there is no data source name")
}

// Rejected reports whether PostgreSQL (SQLSTATE 28P01 or 28000), MySQL or MariaDB (error 1045) has
// answered that it does not accept a credential. It understands the errors of the drivers pgx,
// lib/pq and go-sql-driver/mysql.
func Rejected(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "28P01" || state.SQLState() == "28000"
	}
	return mysqlRejected(err)
}

// mysqlRejected recognizes the error by the beginning of its text, which the driver writes, so that
// this package need not import the driver.
func mysqlRejected(err error) bool {
	for err != nil {
		if strings.HasPrefix(err.Error(), "Error 1045") {
			return true
		}
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range several.Unwrap() {
				if mysqlRejected(e) {
					return true
				}
			}
			return false
		}
		err = errors.Unwrap(err)
	}
	return false
}
