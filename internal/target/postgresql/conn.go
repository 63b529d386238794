package postgresql

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const goodbyeTimeout = time.Second

// connect opens a connection.
func (t *pg) connect(ctx context.Context, address, database string, c target.Credential) (*pgx.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, errors.New("the PG* variables of the environment are not well formed; unset them")
	}
	t.ignoreEnvironment(cfg)
	cfg.Host = host
	cfg.Port = uint16(n)
	cfg.Database = database
	cfg.User = c.Account
	cfg.Password = prepare(c.Secret.Reveal())
	cfg.TLSConfig = t.config.TLS.Config(host)
	cfg.ConnectTimeout = target.DialTimeout
	cfg.RequireAuth = strings.Join(t.config.RequireAuth, ",")
	cfg.DialFunc = pgconn.DialFunc(t.dial)
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		return []string{host}, nil // the dialer resolves the name
	}
	// Nothing is prepared under a name: behind a pooler the next statement may reach another session
	// of the server, which does not know the name.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
	return pgx.ConnectConfig(ctx, cfg)
}

// ignoreEnvironment replaces the settings that the driver took from the environment, a service file
// or a password file.
func (t *pg) ignoreEnvironment(cfg *pgx.ConnConfig) {
	cfg.Fallbacks = nil
	cfg.ChannelBinding = "prefer"
	cfg.SSLCertMode = "disable"
	cfg.SSLNegotiation = "postgres"
	cfg.MinProtocolVersion = "3.0"
	cfg.MaxProtocolVersion = "3.0"
	cfg.KerberosSrvName = ""
	cfg.KerberosSpn = ""
	cfg.RuntimeParams = map[string]string{"application_name": "keyturn", "client_encoding": "UTF8"}
	cfg.ValidateConnect = nil
	cfg.AfterConnect = nil
	cfg.OAuthTokenProvider = nil
}

// disconnect ends the session at the server, also after the context of the call has ended, and
// waits for that no longer than goodbyeTimeout.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the server also ends a session whose connection is closed
}

// asAdmin opens a connection of the administrator for an attempt; the caller closes it. what says
// what is attempted, secrets must not appear in errors. No error of it means that the server was
// asked for a change.
func (t *pg) asAdmin(ctx context.Context, what string, secrets ...sensitive.Value) (*attempt, error) {
	return t.asAdminOf(ctx, what, t.config.Database, secrets...)
}

func (t *pg) asAdminOf(ctx context.Context, what, database string, secrets ...sensitive.Value) (*attempt, error) {
	secrets = append(secrets, t.admin.Secret)
	conn, err := t.connect(ctx, t.config.AdminAddress, database, t.admin)
	if err == nil {
		return &attempt{
			t:       t,
			conn:    conn,
			what:    what,
			secrets: secrets,
		}, nil
	}
	failed := t.loginFailed(
		what+": log in as administrator "+t.admin.Account+" at "+t.config.AdminAddress, err, secrets...,
	)
	if failed.Class == target.Rejected {
		failed.Class = target.Denied // it is not the candidate that does not authenticate
	}
	return nil, failed
}

// loginFailed classifies a failed login.
func (t *pg) loginFailed(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok:
		failed := target.Failed(loginClass(answer), answer.Code, what+": "+answerText(answer), secrets...)
		if t.config.TLS.Off {
			return failed.Unproven(what)
		}
		return failed
	case strings.Contains(err.Error(), "require_auth check failed"):
		return target.Failed(
			target.Denied,
			"",
			what+": the server does not ask for the password in a way that the setting require_auth allows; "+
				"see pg_hba.conf",
			secrets...)
	}
	return target.NotSent(what, connectReason(err), secrets...)
}

// loginClass returns the class of the server's answer to a login. Where several answers have one
// code, the name of the server's routine distinguishes them: unlike the message it is not
// translated.
func loginClass(answer *pgconn.PgError) target.Class {
	switch {
	case answer.Code == "28000" &&
		(answer.Routine == "ClientAuthentication" || answer.Routine == "InitializeSessionUserId"):
		// No line of pg_hba.conf permits the login, or the password was right and the role may not
		// log in. Neither says that the password is wrong.
		return target.Denied
	case answer.Code == "28P01", answer.Code == "28000":
		return target.Rejected
	case answer.Code == "3D000",
		answer.Code == "42501",
		strings.HasPrefix(answer.Code, "0A"),
		strings.HasPrefix(answer.Code, "22"):
		return target.Denied // no such database, no right to connect to it, or an unknown parameter
	}
	return target.Unreachable // the server is starting, stopping, full or broken: a later login may succeed
}

// connectReason returns the innermost cause that explains the failure, because the driver's own
// text repeats the configuration.
func connectReason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	if connecting, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return connecting.Unwrap()
	}
	return err
}

func answerText(answer *pgconn.PgError) string {
	if answer.Detail == "" {
		return answer.Message
	}
	return answer.Message + " (" + answer.Detail + ")"
}

// failed classifies an error of a statement before the end of its transaction. Whatever broke, the
// server rolls the transaction back, so nothing has happened.
func failed(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return target.NotSent(what, err, secrets...)
	}
	return target.Failed(statementClass(answer.Code), answer.Code, what+": "+answerText(answer), secrets...)
}

// ended classifies an error of a statement that ends a transaction. Without an answer, or when the
// server was shut down (57P), lost the connection (08) or broke (XX), the change may have happened.
func ended(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok,
		strings.HasPrefix(answer.Code, "57P"),
		strings.HasPrefix(answer.Code, "08"),
		strings.HasPrefix(answer.Code, "XX"):
		return target.NoAnswer(what, err, secrets...)
	}
	return target.Failed(statementClass(answer.Code), answer.Code, what+": "+answerText(answer), secrets...)
}

func statementClass(code string) target.Class {
	switch {
	case code == "42501", code == "42704", code == "0LP01", code == "0A000", code == "28000", code == "42939":
		return target.Denied
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "28"), code == "P0001", code == "23514":
		// passwordcheck and similar modules refuse a password with codes of these classes.
		return target.Refused
	}
	// Locks, conflicts, a read-only standby, no memory, shutdown: a later attempt may succeed.
	return target.Unreachable
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral relies on standard_conforming_strings = on, which begin sets.
func quoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
