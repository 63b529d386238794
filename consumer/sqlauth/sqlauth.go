// Package sqlauth opens the connections of a database/sql pool with the credential of a secret, and
// goes on over rotations: the application sees no failed login and changes nothing but how it makes
// its sql.DB.
//
//	db, err := sqlauth.OpenDB(c, "db_cred", open, nil)
//
// where open makes a driver.Connector of any driver from an account and its password.
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
// database/sql sees a connection of this package, not of the driver. Code that uses sql.Conn.Raw
// gets at the driver's by asserting Unwrapper. With pgx there is also package pgxauth, whose pool
// hands out pgx's own connections.
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

// Open makes a connector of a driver that logs in with a credential. It is called for each login,
// and must not wait.
type Open func(credential.Credential) (driver.Connector, error)

// Options are what can be set; nil stands for the zero Options.
type Options struct {
	// Format says where in the value the credential is. Zero finds the usual members.
	Format credential.Format
	// DrainWithin is when, after a promotion, the last connection of the former version is
	// replaced. 0 means 5 minutes. Keep it below the grace period of the rotation.
	DrainWithin time.Duration
	// Rejected says whether an error of a login means that the credential was not accepted. nil
	// means Rejected, which knows PostgreSQL and MySQL.
	Rejected func(error) bool
}

// OpenDB returns a pool. Connections that lie idle for as long as Options.DrainWithin are closed,
// so that a pool which is not used holds no former version either.
func OpenDB(c *consumer.Consumer, secret string, open Open, options *Options) (*sql.DB, error) {
	connector, err := NewConnector(c, secret, open, options)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetConnMaxIdleTime(connector.adapter.Options.DrainWithin)
	return db, nil
}

// Connector is a driver.Connector for sql.OpenDB.
type Connector struct {
	adapter *adapter.Adapter
	open    Open
}

// NewConnector returns a Connector. Call SetConnMaxIdleTime on the sql.DB that is made with it, or
// use OpenDB: database/sql looks at the age of a connection when it takes or returns it, and an
// idle one would stay open with a former version.
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

// Connect opens a connection with whichever version the server accepts.
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

// Driver returns a driver that cannot open anything by a name: connections come from the Connector
// alone.
func (o *Connector) Driver() driver.Driver { return noDriver{} }

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) {
	return nil, errors.New("sqlauth: use sql.OpenDB with a Connector; there is no data source name")
}

// Rejected reports whether err is how PostgreSQL (SQLSTATE 28P01, 28000) or MySQL and MariaDB
// (error 1045) say that a credential was not accepted, with the drivers pgx, lib/pq and
// go-sql-driver/mysql.
func Rejected(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "28P01" || state.SQLState() == "28000"
	}
	return mysqlRejected(err)
}

// mysqlRejected knows MySQL's error by its text, of which the driver writes the beginning, so as
// not to import the driver.
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
