package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
)

// Verify logs in as the application does at every verify address except the standbys. If none of
// them is the administrator's server, that server must not reject the credential either: a pooler
// answers from a list of its own, which may be an old one.
func (t *pg) Verify(ctx context.Context, c target.Credential) error {
	deciding := t.login.At(t.config.Verify).Deciding()
	err := t.verifyAt(ctx, deciding, c)
	if err != nil && target.ClassOf(err) != target.Admitted ||
		slices.Contains(deciding.Addresses(), t.config.AdminAddress) {
		return err
	}
	if e := t.logIn(ctx, t.config.AdminAddress, c, false); target.ClassOf(e) == target.Rejected {
		return e
	}
	return err
}

// Test logs in as the administrator, and reads what each rotation reads. The administrator's
// password goes to admin_address alone: a pooler may not know it, and need not see it.
func (t *pg) Test(ctx context.Context) error {
	_, err := t.Standing(ctx, t.admin.Account)
	return err
}

// VerifyCopies logs in as the application does at every standby of the verify addresses.
func (t *pg) VerifyCopies(ctx context.Context, c target.Credential) error {
	return t.verifyAt(ctx, t.login.At(t.config.Verify).Replicas(), c)
}

// Lag returns how long a standby may need to learn of a change; zero without one.
func (t *pg) Lag() time.Duration { return t.login.At(t.config.Verify).Lag() }

func (t *pg) verifyAt(ctx context.Context, list target.EndpointList, c target.Credential) error {
	return target.VerifyEach(ctx, list.Addresses(), func(ctx context.Context, address string) error {
		return t.logIn(ctx, address, c, true)
	})
}

// logIn logs in once. With works, it also takes the application's role and runs check_sql, if any.
func (t *pg) logIn(ctx context.Context, address string, c target.Credential, works bool) error {
	attempt := "log in as " + c.Account + " at " + address
	if err := checkName(c.Account); err != nil {
		return target.Rejected.Errorf("%s: a role %v", attempt, err)
	}
	conn, err := t.connectAs(ctx, address, t.database(), c)
	if err != nil {
		if e := t.storedAsMD5(ctx, attempt, address, c, err); e != nil {
			return e
		}
		return t.loginFailed(attempt, err, c.Secret)
	}
	defer disconnect(conn)
	if !works || t.login.Role == "" && t.config.CheckSQL == "" {
		return nil
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return checkFailed(attempt, err, c.Secret)
	}
	if t.login.Role != "" {
		attempt := "take role " + t.login.Role + " as " + c.Account + " at " + address
		if _, err := tx.Exec(ctx, "SET LOCAL ROLE "+quoteIdentifier(t.login.Role)); err != nil {
			failed := checkFailed(attempt, err, c.Secret)
			failed.Advice = t.roleAdvice(conn, c.Account, failed)
			return failed
		}
	}
	if t.config.CheckSQL != "" {
		// The extended protocol takes one statement only, so check_sql cannot end the read-only
		// transaction and run another statement after it.
		if _, err := conn.PgConn().ExecParams(ctx, t.config.CheckSQL, nil, nil, nil, nil).Close(); err != nil {
			return checkFailed("run check_sql as "+c.Account+" at "+address, err, c.Secret)
		}
	}
	if err := tx.Rollback(ctx); err != nil {
		return checkFailed(attempt, err, c.Secret)
	}
	return nil
}

// roleAdvice says how the application's login gets its role; empty for another failure.
func (t *pg) roleAdvice(conn *pgx.Conn, account string, failed *target.Error) string {
	another := "If the application takes another role: keyturn rotation configure NAME --login-role=ROLE"
	switch failed.Code {
	case notPermitted:
		major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), ".")
		statement := "GRANT " + quoteIdentifier(t.login.Role) + " TO " + quoteIdentifier(account)
		if n, err := strconv.Atoi(major); err == nil && n >= 16 {
			statement += " WITH SET TRUE"
		}
		return "Run " + statement + ". " + another
	case "22023": // there is no such role
		return "Create role " + quoteIdentifier(t.login.Role) + " and grant it to " + quoteIdentifier(account) + ". " +
			another
	}
	return ""
}

// storedAsMD5 returns the error of a login that the server has rejected although the password is
// right: it is stored as MD5, and the server asks for SCRAM. It returns nil for any other answer,
// where the administrator may not read verifiers, and for a replica or a pooler: their answer need
// not be about the verifier at the administrator's server. If the next password is stored for
// SCRAM, a rotation corrects this, and the verifier proves the present password in place of a
// login.
func (t *pg) storedAsMD5(ctx context.Context, attempt, address string, c target.Credential, err error) error {
	answer, answered := errors.AsType[*pgconn.PgError](err)
	_, scram := errors.AsType[*scramError](err)
	of := slices.IndexFunc(t.config.Verify, func(e target.Endpoint) bool { return e.Address == address })
	if !answered || !scram || answer.Code != wrongPassword || of >= 0 && t.config.Verify[of].Role != target.Writer {
		return nil
	}
	a, err := t.asAdmin(ctx, attempt, c.Secret)
	if err != nil {
		return nil
	}
	defer a.close()
	if !a.able.reads || a.reading(ctx) != nil {
		return nil
	}
	stored, err := a.stored(ctx, c.Account)
	if kept, _ := formOf(stored); err != nil || !kept.md5 {
		return nil
	}
	if is, err := a.liveness(ctx, c); err != nil || is != target.Live {
		return nil
	}
	const text = "%s: the password is right, but it is stored as MD5, and the line of pg_hba.conf that matches asks " +
		"for SCRAM (scram-sha-256)"
	if t.afterMD5(false) == agreedSCRAM {
		return target.Failed(target.Admitted, answer.Code,
			fmt.Sprintf(text+"; the next rotation stores the new one for SCRAM, as agreed", attempt), c.Secret)
	}
	denied := target.Failed(target.Denied, answer.Code, fmt.Sprintf(text, attempt), c.Secret)
	denied.Advice = "Change the method of that line to md5, which also admits SCRAM. Or, if the driver of the " +
		"applications knows SCRAM, have the next rotation store the password for it: keyturn rotation configure NAME " +
		"--consent=" + consentSCRAM + "; then: keyturn rotation rotate NAME"
	return denied
}

// wrongPassword is the code of the answer to a login with a password that the server does not
// accept.
const wrongPassword = "28P01"

var _ target.Tester = (*pg)(nil)

// database returns the database that the application opens.
func (t *pg) database() string { return cmp.Or(t.login.Database, t.config.Database) }
