package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	driverpkg "github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	ioTimeout = 30 * time.Second
	// lockWait is how long a change waits for another change of the same account, in seconds.
	lockWait = 3
	// patience is how long the server waits for the next statement of an administrator, in seconds.
	patience = "10"
)

// conn is one connection. It uses the driver without database/sql, which silently logs in again
// when a connection breaks.
type conn struct{ driver.Conn }

// connect opens a connection, with params set for the session.
func (t *my) connect(
	ctx context.Context, address, database string, c target.Credential, params map[string]string,
) (*conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cfg := driverpkg.NewConfig()
	cfg.Net = "tcp"
	cfg.Addr = address
	cfg.User = c.Account
	cfg.Passwd = c.Secret.Reveal()
	cfg.DBName = database
	cfg.TLS = t.config.TLS.Config(host)
	cfg.Params = params
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

func numberOf(err error) (uint16, string, bool) {
	answer, ok := errors.AsType[*driverpkg.MySQLError](err)
	if !ok {
		return 0, "", false
	}
	return answer.Number, answer.Message, true
}

// loginFailed classifies a failed login.
func (t *my) loginFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	number, message, ok := numberOf(err)
	if ok {
		failed := target.Failed(loginClass(number), strconv.Itoa(int(number)), attempt+": "+message, secrets...)
		if t.config.TLS.Off {
			return failed.Unproven(attempt)
		}
		return failed
	}
	for refusal, text := range map[error]string{
		driverpkg.ErrCleartextPassword: "the account's plugin wants the password in clear, which is not sent",
		driverpkg.ErrOldPassword:       "the account uses the hash of MySQL 4.0, which is not supported",
		driverpkg.ErrUnknownPlugin:     "the account's plugin is not supported",
		driverpkg.ErrMalformPkt:        "the server offers more than two ways to log in, or breaks the protocol",
	} {
		if errors.Is(err, refusal) {
			return target.Failed(target.Denied, "", attempt+": "+text, secrets...)
		}
	}
	return target.NotSent(attempt, err, secrets...)
}

// loginClass returns the class of the server's answer to a login.
func loginClass(number uint16) target.Class {
	switch number {
	case 1045, 1698: // access denied for user
		return target.Rejected
	case 1044, 1049, // no right to the database, no such database
		1130, 1251, 1275, 1524, // host not allowed, plugins
		1820, 1862, // password expired: it is the right one, but the account cannot be used
		3118, 4151, // account locked, MySQL and MariaDB
		3955, 4150, // account blocked after wrong passwords, MySQL and MariaDB
		1142, 1143, 1227, 1231, 1193, // a session setting that the account may not or cannot have
		3159: // only TLS is allowed
		return target.Denied
	}
	// Too many connections (1040, 1203, 1226), host blocked (1129), shutting down (1053), and all
	// other errors: nothing has been asked yet, and a later login may succeed.
	return target.Unreachable
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
