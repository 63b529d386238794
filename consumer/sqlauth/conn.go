package sqlauth

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Unwrapper is implemented by the connections of this package, for code that needs the connection
// of the driver in [sql.Conn.Raw].
type Unwrapper interface {
	// Unwrap returns the connection of the driver.
	Unwrap() driver.Conn
}

// conn is a connection of a driver. It implements all optional interfaces of database/sql. If the
// driver lacks one, conn does what database/sql would do without it.
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

// IsValid is called when a connection is released to the pool, which closes one that is not valid.
func (c *conn) IsValid() bool {
	if c.held.Due() {
		return false
	}
	if v, ok := c.Conn.(driver.Validator); ok {
		return v.IsValid()
	}
	return true
}

// ResetSession is called when a connection is acquired. After ErrBadConn, database/sql acquires
// another one or opens one.
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
		_ = stmt.Close() // the caller has given up
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
	//lint:ignore SA1019 such a driver has nothing else
	tx, err := c.Conn.Begin()
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback() // the caller has given up
		return nil, ctx.Err()
	}
	return tx, err
}

// ExecContext returns [driver.ErrSkip] for a driver without it. database/sql then prepares a
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

// CheckNamedValue returns [driver.ErrSkip] for a driver without it. database/sql then converts the
// value by its own rules.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if n, ok := c.Conn.(driver.NamedValueChecker); ok {
		return n.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
