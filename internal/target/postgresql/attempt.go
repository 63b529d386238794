package postgresql

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// oneMessage sends a statement with parameters in one message, inside a transaction. With several
// messages, a connection that breaks before the last one would leave the server holding a lock and
// waiting for the rest, and no timeout of the server counts that as idle.
const oneMessage = pgx.QueryExecModeSimpleProtocol

// attempt is one connection of the administrator, with what its errors must and must not say.
type attempt struct {
	t       *pg
	conn    *pgx.Conn
	what    string // what is attempted
	secrets []sensitive.Value
	able    abilities
	pins    string // statements that follow pinned
}

func (a *attempt) close() { disconnect(a.conn) }

// begin begins a transaction and takes the role's advisory lock, which excludes other engines until
// the transaction ends; a prepared one keeps it until it is committed or rolled back.
func (a *attempt) begin(ctx context.Context, account string) error {
	if err := a.writing(ctx); err != nil {
		return err
	}
	_, err := a.conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", oneMessage, lockKey(account))
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case err == nil:
		return nil
	case !ok || answer.Code != lockTimedOut:
		return failed(a.what, err, a.secrets...)
	}
	if err := a.rollback(ctx); err != nil {
		return err
	}
	strangers, err := a.heldByStrangers(ctx, account)
	if err != nil {
		return err
	}
	if !strangers {
		return target.Failed(
			target.Unreachable, answer.Code,
			a.what+": another change of this role is in progress; pg_prepared_xacts shows one that was left",
		)
	}
	if err := a.writing(ctx); err != nil {
		return err
	}
	return a.run(ctx, "ALTER ROLE "+quoteIdentifier(account))
}

// lockTimedOut is the code of a lock that was not available within lock_timeout.
const lockTimedOut = "55P03"

// heldByStrangers reports whether only sessions of other roles hold the advisory lock of a role,
// which every account of the server may take. Then begin ignores it, and an ALTER ROLE without
// options excludes other engines: the server locks the role's row until the transaction ends.
func (a *attempt) heldByStrangers(ctx context.Context, account string) (is bool, err error) {
	if err := a.reading(ctx); err != nil {
		return false, err
	}
	key := uint64(lockKey(account))
	err = a.conn.QueryRow(ctx, `SELECT COALESCE(bool_and(COALESCE(
			COALESCE(s.usename, p.owner) NOT IN (session_user, current_user), false)), false)
		FROM pg_locks l LEFT JOIN pg_stat_activity s ON s.pid = l.pid
			LEFT JOIN pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction
		WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND l.classid = $1 AND l.objid = $2`, uint32(key>>32), uint32(key)).Scan(&is)
	if err != nil {
		return false, failed(a.what, err, a.secrets...)
	}
	return is, a.rollback(ctx)
}

// lockKey returns the number of a role's advisory lock.
func lockKey(account string) int64 {
	sum := sha256.Sum256([]byte("keyturn role " + account))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// run runs a statement inside a transaction. It takes no parameters, because ALTER ROLE cannot have
// any.
func (a *attempt) run(ctx context.Context, statement string) error {
	if _, err := a.conn.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
		return failed(a.what, err, a.secrets...)
	}
	return nil
}

// end runs COMMIT, PREPARE TRANSACTION or COMMIT PREPARED. The server answers ROLLBACK, without an
// error, to the end of a transaction in which a statement has failed.
func (a *attempt) end(ctx context.Context, statement string) error {
	results, err := a.conn.PgConn().Exec(ctx, statement).ReadAll()
	if err != nil {
		return ended(a.what, err, a.secrets...)
	}
	if len(results) == 1 && results[0].CommandTag.String() == "ROLLBACK" {
		return target.Unreachable.Errorf("%s: the server has rolled back", a.what)
	}
	return nil
}

func (a *attempt) rollback(ctx context.Context) error { return a.run(ctx, "ROLLBACK") }

// stored returns the verifier of a role; empty when it has none.
func (a *attempt) stored(ctx context.Context, account string) (string, error) {
	var stored *string
	err := a.conn.QueryRow(ctx, "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1", oneMessage, account).
		Scan(&stored)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", target.Failed(target.Denied, "42704", a.what+": the role does not exist")
	case err != nil:
		return "", failed(a.what, err, a.secrets...)
	case stored == nil:
		return "", nil
	}
	return *stored, nil
}

// finishPrepared commits or rolls back the prepared transaction of that name, if there is one.
func (a *attempt) finishPrepared(ctx context.Context, gid string, commit bool) error {
	if err := a.reading(ctx); err != nil {
		return err
	}
	var found bool
	err := a.conn.QueryRow(ctx, `SELECT EXISTS
		(SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) $1)`, oneMessage, gid).Scan(&found)
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	if err := a.rollback(ctx); err != nil {
		return err
	}
	if !found {
		return nil
	}
	if err := a.itself(ctx); err != nil {
		return err
	}
	verb := "ROLLBACK PREPARED "
	if commit {
		verb = "COMMIT PREPARED "
	}
	if _, err := a.conn.PgConn().Exec(ctx, verb+quoteLiteral(gid)).ReadAll(); err != nil {
		if answer, ok := errors.AsType[*pgconn.PgError](err); ok && answer.Code == "42704" {
			return nil // another engine or an administrator has finished it since
		}
		return ended(a.what, err, a.secrets...)
	}
	return nil
}

// checkFailed classifies an error of a statement after a login of the application. It is never
// Rejected, because the password was accepted. The server may recover from a shutdown (57) and from
// a lack of resources (53).
func checkFailed(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return target.NoAnswer(what, err, secrets...)
	case strings.HasPrefix(answer.Code, "57"), strings.HasPrefix(answer.Code, "53"):
		return target.Failed(target.Unreachable, answer.Code, what+": "+answerText(answer), secrets...)
	}
	return target.Failed(target.Denied, answer.Code, what+": "+answerText(answer), secrets...).AfterLogin()
}
