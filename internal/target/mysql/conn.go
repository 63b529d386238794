package mysql

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	driverpkg "github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	ioTimeout = 30 * time.Second
	// lockWait is how long a change waits for another change of the same account, in seconds.
	lockWait = 3
	// patience is how long the server waits for the next statement of an administrator, in seconds.
	patience = "10"
	// tooManyConnections is the server's number for having no free connection.
	tooManyConnections = 1040
	// fullTries is how often an administrator's login is tried at a server without a free connection,
	// within about a second: after fullWait, then after twice as long, at most fullWaitMax. Up to as
	// much again is added to each wait.
	fullTries   = 8
	fullWait    = 20 * time.Millisecond
	fullWaitMax = 150 * time.Millisecond
)

// conn is one connection. It uses the driver without database/sql, which silently logs in again
// when a connection breaks.
type conn struct{ driver.Conn }

// dialing says where and how a connection is opened.
type dialing struct {
	address, database string
	// certificates are the client's: none or one.
	certificates []tls.Certificate
	// params are set for the session.
	params map[string]string
}

// connectAsAdmin opens a connection for the administrator. A server whose connections are all in
// use (1040) refuses it before it asks for the password, so another try locks no account. Sessions
// that have just ended still count for a moment, also the ones of this process.
func (t *my) connectAsAdmin(ctx context.Context, to dialing) (*conn, error) {
	wait := fullWait
	for tries := fullTries; ; tries-- {
		conn, err := t.connect(ctx, to, t.admin)
		if number, _, _ := numberOf(err); number != tooManyConnections || tries == 1 {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait + rand.N(wait)):
		}
		wait = min(2*wait, fullWaitMax)
	}
}

// connect opens a connection.
func (t *my) connect(ctx context.Context, to dialing, c target.Credential) (*conn, error) {
	host, _, err := net.SplitHostPort(to.address)
	if err != nil {
		return nil, err
	}
	cfg := driverpkg.NewConfig()
	cfg.Net = "tcp"
	cfg.Addr = to.address
	cfg.User = c.Account
	cfg.Passwd = c.Secret.Reveal()
	cfg.DBName = to.database
	cfg.TLS = t.config.TLS.Config(host)
	if cfg.TLS != nil {
		cfg.TLS.Certificates = to.certificates
	}
	cfg.Params = to.params
	cfg.Logger = &driverpkg.NopLogger{}
	cfg.DialFunc = t.dial
	cfg.Timeout = target.DialTimeout
	cfg.ReadTimeout = ioTimeout // for closing, which has no context
	cfg.WriteTimeout = ioTimeout
	connector, err := driverpkg.NewConnector(cfg)
	if err != nil {
		return nil, errors.New("the connection's settings are not accepted")
	}
	opened, err := connector.Connect(ctx)
	if errors.Is(err, driverpkg.ErrMalformPkt) {
		// The driver cuts a challenge of ed25519 short that ends in a zero byte, one in 256: no login
		// was tried, and the next challenge is another.
		opened, err = connector.Connect(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return &conn{opened}, nil
}

func (c *conn) exec(ctx context.Context, statement string) error {
	_, err := c.Conn.(driver.ExecerContext).ExecContext(ctx, statement, nil)
	return err
}

// row returns the first row as strings; nil when there is none.
func (c *conn) row(ctx context.Context, query string) (out []string, err error) {
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			out = append(out, string(v))
		case nil:
			out = append(out, "")
		default:
			out = append(out, fmt.Sprint(v))
		}
	}
	// Read all rows: Close would read the rest too, but without the deadline of ctx.
	for err == nil {
		err = rows.Next(values)
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return out, nil
}

// numberOf returns the number and the message of a server's answer.
func numberOf(err error) (uint16, string, bool) {
	answer, ok := errors.AsType[*driverpkg.MySQLError](err)
	if !ok {
		return 0, "", false
	}
	return answer.Number, fault.Foreign(answer.Message), true
}

// readFailed classifies an error of a statement that changes nothing.
func readFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	number, message, ok := numberOf(err)
	if !ok {
		return target.NotSent(attempt, err, secrets...)
	}
	class := target.Unreachable
	switch number {
	case 1044, 1045, 1049, 1054, 1142, 1143, 1146, 1227, 1370, 1064:
		class = target.Denied
	}
	return target.Failed(class, strconv.Itoa(int(number)), attempt+": "+message, secrets...)
}

// changeFailed classifies an error of a statement that changes an account.
func changeFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	number, message, ok := numberOf(err)
	switch {
	case errors.Is(err, driver.ErrBadConn):
		return target.NotSent(attempt, err, secrets...) // nothing has been written
	case !ok:
		return target.NoAnswer(attempt, err, secrets...)
	}
	return target.Failed(changeClass(number, message), strconv.Itoa(int(number)), attempt+": "+message, secrets...)
}

func changeClass(number uint16, message string) target.Class {
	switch number {
	case 1819, 3638, 4165: // password validation and history
		return target.Refused
	case 1044, 1045, 1064, 1131, 1142, 1143, 1227, 1370, 1372, 1396, 1470, 1524, 1698, 1827, 3878, 3894, 3895:
		return target.Denied
	case 1205, 1213, 1223, 1792, 1836:
		return target.Unreachable // locks, and a server that is read-only for now
	case 1290:
		// An option of the server forbids the statement. The message is translated, but names the
		// option.
		if strings.Contains(message, "read-only") || strings.Contains(message, "read_only") {
			return target.Unreachable
		}
		return target.Denied
	}
	return target.Unknown
}
