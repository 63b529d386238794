package postgresql

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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
			return checkFailed(attempt, err, c.Secret)
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

var _ target.Tester = (*pg)(nil)

// database returns the database that the application opens.
func (t *pg) database() string { return cmp.Or(t.login.Database, t.config.Database) }
