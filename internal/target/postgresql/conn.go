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

const (
	dialTimeout    = 5 * time.Second
	goodbyeTimeout = time.Second
)

// connect opens a connection with these settings and none from the environment, a service or a
// password file.
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
	cfg.Host = host
	cfg.Port = uint16(n)
	cfg.Database = database
	cfg.User = c.Account
	cfg.Password = prepare(c.Secret.Reveal())
	cfg.TLSConfig = t.config.TLS.Config(host)
	cfg.Fallbacks = nil
	cfg.ConnectTimeout = dialTimeout
	cfg.RequireAuth = strings.Join(t.config.RequireAuth, ",")
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
	cfg.DialFunc = pgconn.DialFunc(t.dial)
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		return []string{host}, nil // the dialer resolves the name
	}
	// Nothing is prepared under a name, so that a pooler between Keyturn and the server does no harm.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
	return pgx.ConnectConfig(ctx, cfg)
}

// disconnect says goodbye even when the context of the call has ended, but does not wait long for
// an answer.
func disconnect(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on the goodbye
}

// asAdmin opens a connection of the administrator. Whatever goes wrong, nothing has been asked yet.
func (t *pg) asAdmin(ctx context.Context, attempt string, secrets ...sensitive.Value) (*pgx.Conn, error) {
	return t.asAdminOf(ctx, attempt, t.config.Database, secrets...)
}

func (t *pg) asAdminOf(ctx context.Context, attempt, database string, secrets ...sensitive.Value) (*pgx.Conn, error) {
	conn, err := t.connect(ctx, t.config.AdminAddress, database, t.admin)
	if err == nil {
		return conn, nil
	}
	failed := t.loginFailed(
		attempt+": log in as administrator "+t.admin.Account+" at "+t.config.AdminAddress, err,
		append(secrets, t.admin.Secret)...,
	)
	if failed.Class == target.Rejected {
		failed.Class = target.Denied
	}
	return nil, failed
}

// loginFailed classifies a failed login.
func (t *pg) loginFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok:
		failed := target.Failed(loginClass(answer), answer.Code, attempt+": "+answerText(answer), secrets...)
		if t.config.TLS.Off {
			return failed.Unproven(attempt)
		}
		return failed
	case strings.Contains(err.Error(), "require_auth check failed"):
		return target.Failed(
			target.Denied,
			"",
			attempt+": the server does not ask for the password in a way that the setting require_auth allows; "+
				"see pg_hba.conf",
			secrets...)
	}
	return target.NotSent(attempt, connectReason(err), secrets...)
}

// loginClass is what the server's answer to a login says of the credential. The routine tells apart
// what has one code, and is the same in every language that the server speaks.
func loginClass(answer *pgconn.PgError) target.Class {
	switch {
	case answer.Code == "28000" &&
		(answer.Routine == "ClientAuthentication" || answer.Routine == "InitializeSessionUserId"):
		// pg_hba.conf lets nobody in so, or the password was right and the role may not log in.
		// Neither is about the password.
		return target.Denied
	case answer.Code == "28P01", answer.Code == "28000":
		return target.Rejected
	case answer.Code == "3D000",
		answer.Code == "42501",
		strings.HasPrefix(answer.Code, "0A"),
		strings.HasPrefix(answer.Code, "22"):
		return target.Denied // no such database, or no right to connect to it, or a parameter it does not have
	}
	return target.Unreachable // starting, stopping, full, or broken before anything was asked
}

// connectReason is the innermost cause that says something: the driver's own text repeats the
// configuration.
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

// failed classifies an error of a statement inside a transaction whose end has not been asked for:
// whatever broke, the server rolls back, so nothing has happened.
func failed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return target.NotSent(attempt, err, secrets...)
	}
	return target.Failed(statementClass(answer.Code), answer.Code, attempt+": "+answerText(answer), secrets...)
}

// ended classifies an error of the end of a transaction: without an answer it is open what
// happened.
func ended(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok,
		strings.HasPrefix(answer.Code, "57P"),
		strings.HasPrefix(answer.Code, "08"),
		strings.HasPrefix(answer.Code, "XX"):
		return target.NoAnswer(attempt, err, secrets...)
	}
	return target.Failed(statementClass(answer.Code), answer.Code, attempt+": "+answerText(answer), secrets...)
}

func statementClass(code string) target.Class {
	switch {
	case code == "42501", code == "42704", code == "0LP01", code == "0A000", code == "28000", code == "42939":
		return target.Denied
	case strings.HasPrefix(code, "22"), strings.HasPrefix(code, "28"), code == "P0001", code == "23514":
		// passwordcheck and its relatives refuse a password with codes of these classes.
		return target.Refused
	}
	// Locks, conflicts, a read-only standby, no memory, shutdown: it may pass.
	return target.Unreachable
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral relies on standard_conforming_strings, which begin sets.
func quoteLiteral(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
