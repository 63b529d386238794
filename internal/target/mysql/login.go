package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	driverpkg "github.com/go-sql-driver/mysql"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Verify logs in, as the application does, at every endpoint that decides.
func (t *my) Verify(ctx context.Context, c target.Credential) error {
	return t.loginAt(ctx, c, t.endpoints().Deciding())
}

// VerifyCopies logs in, as the application does, at every replica.
func (t *my) VerifyCopies(ctx context.Context, c target.Credential) error {
	return t.loginAt(ctx, c, t.endpoints().Replicas())
}

// Lag returns how long the slowest replica may need to learn of a change.
func (t *my) Lag() time.Duration { return t.endpoints().Lag() }

var _ target.Copied = (*my)(nil)

// endpoints returns where the application logs in.
func (t *my) endpoints() target.EndpointList { return t.application.At(t.config.Verify) }

func (t *my) loginAt(ctx context.Context, c target.Credential, endpoints target.EndpointList) error {
	return target.VerifyEach(ctx, endpoints, func(ctx context.Context, e target.Endpoint) error {
		return t.login(ctx, e, c)
	})
}

// login logs in once, as the application does.
func (t *my) login(ctx context.Context, e target.Endpoint, c target.Credential) error {
	attempt := "log in as " + c.Account + " at " + e.Address
	if strings.ContainsRune(c.Account, 0) || c.Account == "" || c.Secret.IsZero() {
		return target.Rejected.Errorf("%s: the name or the password is empty, or has a zero byte", attempt)
	}
	certificates, err := t.application.ClientCertificate(t.config.TLS)
	if err != nil {
		return target.Denied.Errorf("%s: %v", attempt, err)
	}
	database := t.config.Database
	if t.application.Database != "" {
		database = t.application.Database
	}
	conn, err := t.connect(ctx, dialing{address: e.Address, database: database, certificates: certificates}, c)
	if err != nil {
		failed := t.loginFailed(attempt, err, c.Secret)
		if failed.Class != target.Rejected || e.Role != target.Writer {
			return e.Answer(failed)
		}
		return t.explained(ctx, e, c, failed)
	}
	defer conn.Close()
	if err := t.takeRole(ctx, conn, attempt, c); err != nil {
		return err
	}
	return t.check(ctx, conn, e.Address, c)
}

// takeRole takes the role that the application takes.
func (t *my) takeRole(ctx context.Context, conn *conn, attempt string, c target.Credential) error {
	role := t.application.Role
	if role == "" {
		return nil
	}
	if strings.ContainsAny(role, "\\\x00") {
		return target.Denied.Errorf("%s: a role has a name without backslashes and zero bytes", attempt)
	}
	_, err := conn.row(ctx, "SET ROLE "+quote(role))
	if err == nil {
		return nil
	}
	failed := changeFailed(attempt+": take the role "+role, err, c.Secret)
	if failed.Code != "" {
		failed.Class = target.Denied // an operator must grant the role, or change the settings of the login
		failed = failed.AfterLogin()
	}
	return failed
}

// check runs check_sql.
func (t *my) check(ctx context.Context, conn *conn, address string, c target.Credential) error {
	if t.config.CheckSQL == "" {
		return nil
	}
	attempt := "run check_sql as " + c.Account + " at " + address
	for _, statement := range []string{"START TRANSACTION READ ONLY", t.config.CheckSQL, "ROLLBACK"} {
		if _, err := conn.row(ctx, statement); err != nil {
			failed := changeFailed(attempt, err, c.Secret)
			if failed.Code != "" && failed.Code != "1205" && failed.Code != "1213" {
				// The password was accepted, and no other transaction is in the way: an operator
				// must correct check_sql or the account's rights.
				failed.Class = target.Denied
				failed = failed.AfterLogin()
			}
			return failed
		}
	}
	return nil
}

// explained returns a rejection as it is, unless the server stores the password: then the rejection
// is not about the password, and an operator must act. The servers answer in the same way to a
// wrong password, a missing client certificate, and a login that reaches another account.
func (t *my) explained(
	ctx context.Context, e target.Endpoint, c target.Credential, rejected *target.Error,
) error {
	conn, err := t.asAdmin(ctx, "explain a rejection", c.Secret)
	if err != nil {
		return rejected
	}
	defer conn.Close()
	all, err := t.accounts(ctx, conn, c.Account)
	if err != nil {
		return rejected
	}
	opens := slices.DeleteFunc(slices.Clone(all), func(a account) bool { return !a.accepts(c.Secret) })
	if len(opens) == 0 {
		return rejected
	}
	return target.Failed(target.Denied, rejected.Code, fmt.Sprintf("%s; the server stores this password for %s: %s",
		rejected.Text, whoAll(c.Account, opens), t.whyRejected(ctx, conn, e, c, all, opens)), c.Secret)
}

// unmet says which requirement of an account the application's connection does not meet; empty when
// it meets all that are known here.
func (t *my) unmet(have terms) string {
	switch {
	case have.transport == needsCert && t.application.CertificateSecret == "":
		return "the account requires a client certificate; keyturn rotation configure NAME " +
			"--login-certificate-secret=SECRET names its secret"
	case have.transport != anyTransport && t.config.TLS.Off:
		return "the account requires TLS, which is off for this target"
	case have.transport == needsCert && have.subject+have.issuer != "":
		return "the account requires a client certificate with another subject or issuer"
	}
	return ""
}

// loginFailed classifies a failed login.
func (t *my) loginFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	number, message, ok := numberOf(err)
	if ok {
		failed := target.Failed(
			loginClass(number, message), strconv.Itoa(int(number)), attempt+": "+message, secrets...)
		if t.config.TLS.Off {
			return failed.Unproven(attempt)
		}
		return failed
	}
	for refusal, text := range map[error]string{
		driverpkg.ErrCleartextPassword: "the account's plugin wants the password in clear, which is not sent",
		driverpkg.ErrOldPassword:       "the account uses the hash of MySQL 4.0, which is not supported",
		driverpkg.ErrUnknownPlugin:     "the account's plugin is not supported",
	} {
		if errors.Is(err, refusal) {
			return target.Failed(target.Denied, "", attempt+": "+text, secrets...)
		}
	}
	if errors.Is(err, driverpkg.ErrMalformPkt) {
		return target.Failed(target.Unclear, "", attempt+
			": the server asks for more than two ways to log in, or breaks the protocol", secrets...)
	}
	return target.NotSent(attempt, err, secrets...)
}

// byProxySQL reports whether a message is of ProxySQL, which knows users and passwords by a list of
// its own, and answers 1045 also when it reaches no server.
func byProxySQL(message string) bool {
	return strings.HasPrefix(message, "ProxySQL Error") || strings.Contains(message, " hostgroup ")
}

// loginClass returns the class of the server's answer to a login. Which answers come after the
// password was accepted was measured with MariaDB 10.11 and MySQL 9.7.
func loginClass(number uint16, message string) target.Class {
	switch number {
	case 1045, 1698: // access denied for user
		if byProxySQL(message) {
			return target.Unclear
		}
		return target.Rejected
	case 1044, 1049, // no right to the database, no such database
		1203, 1226, // too many connections of the account, or too many in this hour
		1820, 1862, // password expired
		3159: // only TLS is allowed (MySQL)
		return target.Admitted
	case 3118, 4151, // account locked, MySQL and MariaDB: the right password, but an operator must act
		1130, 1251, 1275, 1524, // host not allowed, plugins
		3955, 4150, // account blocked after wrong passwords, MySQL and MariaDB
		1142, 1143, 1227, 1231, 1193: // a session setting that the account may not or cannot have
		return target.Denied
	case 1040, 1129, 1053, 1042, 1152, 1158, 1159, 1160, 1161, 1205, 1290, 1836, 3032:
		// Too many connections, host blocked, shutting down, the network, offline mode: nothing has
		// been asked yet, and a later login may succeed.
		return target.Unreachable
	}
	return target.Unclear
}
