package postgresql

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
)

// Verify logs in at every verify address except the standbys.
func (t *pg) Verify(ctx context.Context, c target.Credential) error {
	return t.verifyAt(ctx, t.config.Verify.Deciding(), c)
}

// VerifyCopies logs in at every standby of the verify addresses.
func (t *pg) VerifyCopies(ctx context.Context, c target.Credential) error {
	return t.verifyAt(ctx, t.config.Verify.Replicas(), c)
}

// Lag returns how long a standby may need to learn of a change; zero without one.
func (t *pg) Lag() time.Duration { return t.config.Verify.Lag() }

func (t *pg) verifyAt(ctx context.Context, list target.EndpointList, c target.Credential) error {
	return target.VerifyEach(ctx, list.Addresses(), func(ctx context.Context, address string) error {
		return t.login(ctx, address, c, t.config.CheckSQL)
	})
}

// login logs in once and runs checkSQL unless it is empty.
func (t *pg) login(ctx context.Context, address string, c target.Credential, checkSQL string) error {
	attempt := "log in as " + c.Account + " at " + address
	if err := checkName(c.Account); err != nil {
		return target.Rejected.Errorf("%s: a role %v", attempt, err)
	}
	conn, err := t.connect(ctx, address, t.config.Database, c)
	if err != nil {
		return t.loginFailed(attempt, err, c.Secret)
	}
	defer disconnect(conn)
	if checkSQL == "" {
		return nil
	}
	attempt = "run check_sql as " + c.Account + " at " + address
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return checkFailed(attempt, err, c.Secret)
	}
	// The extended protocol takes one statement only, so check_sql cannot end the read-only
	// transaction and run another statement after it.
	if result := conn.PgConn().ExecParams(ctx, checkSQL, nil, nil, nil, nil).Read(); result.Err != nil {
		return checkFailed(attempt, result.Err, c.Secret)
	}
	if err := tx.Rollback(ctx); err != nil {
		return checkFailed(attempt, err, c.Secret)
	}
	return nil
}
