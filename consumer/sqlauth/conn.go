package sqlauth

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Unwrapper is what the connections of this package are, for code that needs the driver's own in
// sql.Conn.Raw.
type Unwrapper interface {
	// Unwrap returns the driver's connection.
	Unwrap() driver.Conn
}

// conn is a connection of a driver. database/sql asks connections for what they can do beyond the
// least; conn has all of that, and where the driver has not it does, or says, what database/sql
// would do then.
type conn struct {
	driver.Conn
	held *adapter.Conn
}

var (
	_ Unwrapper                 = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
)

func (c *conn) Unwrap() driver.Conn { return c.Conn }

func (c *conn) Close() error {
	defer c.held.Closed()
	return c.Conn.Close()
}

// IsValid is asked when a connection comes back to the pool: one that is due is closed then.
func (c *conn) IsValid() bool {
	if c.held.Due() {
		return false
	}
	if v, ok := c.Conn.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

// ResetSession is called when a connection is taken from the pool: instead of one that is due,
// database/sql takes another or opens one.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.held.Due() {
		return driver.ErrBadConn
	}
	if r, ok := c.Conn.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *conn) Ping(ctx context.Context) error {
	if p, ok := c.Conn.(driver.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.Conn.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	stmt, err := c.Conn.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = stmt.Close() // it was not asked for any more
		return nil, ctx.Err()
	}
	return stmt, err
}

func (c *conn) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	if b, ok := c.Conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, options)
	}
	if options != (driver.TxOptions{}) {
		return nil, errors.New("sqlauth: the driver has no isolation levels and no read-only transactions")
	}
	//lint:ignore SA1019 it is all that such a driver has
	tx, err := c.Conn.Begin()
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback() // it was not asked for any more
		return nil, ctx.Err()
	}
	return tx, err
}

// ExecContext answers driver.ErrSkip for a driver without it, and database/sql then prepares a
// statement.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := c.Conn.(driver.ExecerContext); ok {
		return e.ExecContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := c.Conn.(driver.QueryerContext); ok {
		return q.QueryContext(ctx, query, args)
	}
	return nil, driver.ErrSkip
}

// CheckNamedValue answers driver.ErrSkip for a driver without it, and database/sql then converts by
// its own rules.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
