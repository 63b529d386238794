package postgresql

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const goodbyeTimeout = time.Second

// maxMessage bounds one message of a server, which is read into memory as a whole, also before the
// server has proven who it is. [target.MaxReceived] bounds a connection.
const maxMessage = 4 << 20

// connect opens a connection with a password alone.
func (t *pg) connect(ctx context.Context, address, database string, c target.Credential) (*pgx.Conn, error) {
	return t.connectWith(ctx, address, database, c, nil)
}

// connectAs opens a connection as the application does, whose account c is of.
func (t *pg) connectAs(ctx context.Context, address, database string, c target.Credential) (*pgx.Conn, error) {
	return t.connectWith(ctx, address, database, c, t.certificates)
}

func (t *pg) connectWith(
	ctx context.Context, address, database string, c target.Credential, certificates []tls.Certificate,
	parameters ...string,
) (*pgx.Conn, error) {
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
	for _, name := range parameters {
		cfg.RuntimeParams[name] = "safe_encoding"
	}
	cfg.Host = host
	cfg.Port = uint16(n)
	cfg.Database = database
	cfg.User = c.Account
	cfg.Password = prepare(c.Secret.Reveal())
	cfg.TLSConfig = t.config.TLS.Config(host)
	if len(certificates) > 0 && cfg.TLSConfig != nil {
		cfg.SSLCertMode = "allow"
		cfg.TLSConfig.Certificates = certificates
	}
	cfg.ConnectTimeout = target.DialTimeout
	cfg.RequireAuth = t.mayAsk(c)
	cfg.DialFunc = pgconn.DialFunc(t.dial)
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		return []string{host}, nil // the dialer resolves the name
	}
	prepareNothing(cfg)
	cfg.MaxProtocolMessageBodyLen = maxMessage
	seen := &admission{}
	cfg.BuildFrontend = seen.frontend
	conn, err := pgx.ConnectConfig(ctx, cfg)
	switch {
	case err != nil && seen.accepted:
		err = &admittedError{err}
	case err != nil && seen.scram:
		err = &scramError{err}
	}
	return conn, err
}

// prepareNothing makes the driver prepare nothing under a name: behind a pooler the next statement
// may reach another session of the server, which does not know the name.
func prepareNothing(cfg *pgx.ConnConfig) {
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
}

// mayAsk lists the ways in which the server may ask for a password: none without one.
func (t *pg) mayAsk(c target.Credential) string {
	if c.Secret.IsZero() {
		return "none"
	}
	return strings.Join(t.config.RequireAuth, ",")
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
		a := &attempt{
			t:       t,
			conn:    conn,
			what:    what,
			secrets: secrets,
		}
		if err := a.learn(ctx); err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
	return nil, target.AsAdmin(t.loginFailed(
		what+": log in as administrator "+t.admin.Account+" at "+t.config.AdminAddress+setDatabase(err, database),
		err, secrets...,
	))
}

// setDatabase names the setting that helps if the server or a pooler does not have a database.
func setDatabase(err error, database string) string {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || answer.Code != "3D000" && !strings.Contains(answer.Message, "no such database") {
		return ""
	}
	return fmt.Sprintf(" (it has no database %q: keyturn target update TARGET --set=database=NAME)", database)
}

// loginFailed classifies a failed login.
func (t *pg) loginFailed(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case ok:
		failed := target.Failed(loginClass(answer, isAdmitted(err)), answer.Code, what+": "+answerText(answer), secrets...)
		if t.config.TLS.Off {
			return failed.Unproven(target.Scrub(what, secrets...))
		}
		return failed
	case asksOtherwise(err):
		denied := target.Failed(
			target.Denied,
			"",
			what+": the server does not ask for the password in a way that the setting require_auth allows; "+
				"see pg_hba.conf",
			secrets...)
		denied.Setting = t.allowing(err)
		return denied
	}
	return target.NotSent(what, connectReason(err), secrets...)
}

// asksOtherwise reports whether a server asked for a password in a way that it may not.
func asksOtherwise(err error) bool { return strings.Contains(err.Error(), "require_auth check failed") }

// allowing returns the setting with which the way is allowed that a server has asked in; empty for
// one that no target may allow, and for a password in clear without TLS.
func (t *pg) allowing(err error) string {
	for _, method := range authMethods {
		if !strings.Contains(err.Error(), "server requested "+method+" authentication") ||
			method == "password" && t.config.TLS.Off {
			continue
		}
		if methods, err := json.Marshal(append(slices.Clone(t.config.RequireAuth), method)); err == nil {
			return "require_auth=" + string(methods)
		}
	}
	return ""
}

func isAdmitted(err error) bool {
	_, ok := errors.AsType[*admittedError](err)
	return ok
}

// loginClass returns the class of an answer to a login. Where several answers have one code, the
// name of the server's routine distinguishes them: unlike the message it is not translated. Poolers
// send none.
func loginClass(answer *pgconn.PgError, admitted bool) target.Class {
	ofServer := answer.Routine != "InitializeSessionUserId" && answer.Routine != "CheckMyDatabase"
	switch class := answer.Code[:min(2, len(answer.Code))]; {
	case class == "08":
		return target.Unclear // of a pooler that hides why: its list, its server, or a protocol that it does not speak
	case admitted && answer.Code == wrongPassword:
		return target.Unclear // accepted and rejected: of a pooler, whose own list is not its server's
	case admitted && answer.Routine != "" && (class == "58" || class == "XX"):
		return target.Admitted // such as a library that the account has set, and that does not exist
	case class == "57", class == "58", class == "XX", class == "53" && (ofServer || !admitted):
		return target.Unreachable // the server is starting, stopping, full or broken: a later login may succeed
	case admitted:
		return target.Admitted
	case answer.Code == wrongPassword:
		return target.Rejected
	case class == "28" && answer.Routine != "",
		class == "3D",
		answer.Code == "42501",
		class == "0A",
		class == "22":
		// No line of pg_hba.conf permits the login, or it asks for something besides a password; there is
		// no such database, or a parameter is unknown. None says that the password is wrong.
		return target.Denied
	case class == "55":
		return target.Unreachable
	}
	return target.Unclear
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
		return fault.Foreign(answer.Message)
	}
	return fault.Foreign(answer.Message + " (" + answer.Detail + ")")
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
