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
}

func (a *attempt) close() { disconnect(a.conn) }

// abilities says what the server offers to this administrator.
type abilities struct {
	prepares   bool // it allows prepared transactions
	reads      bool // the administrator may read verifiers
	iterations int  // of the server's own verifiers
}

func (a *attempt) abilities(ctx context.Context) (abilities, error) {
	var able abilities
	err := a.conn.QueryRow(ctx, `SELECT
		pg_catalog.current_setting('max_prepared_transactions')::int4 OPERATOR(pg_catalog.>) 0,
		pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')
			AND pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolname', 'SELECT'),
		COALESCE(pg_catalog.current_setting('scram_iterations', true)::int4, 0)`).
		Scan(&able.prepares, &able.reads, &able.iterations)
	if err != nil {
		return able, failed(a.what, err, a.secrets...)
	}
	if able.iterations == 0 {
		able.iterations = defaultIterations
	}
	return able, nil
}

// begin begins a transaction and takes the role's advisory lock, which excludes other engines until
// the transaction ends; a prepared one keeps it until it is committed or rolled back.
func (a *attempt) begin(ctx context.Context, account string) error {
	for _, statement := range []string{
		"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
		"SET LOCAL search_path = pg_catalog", // names must not find objects of another schema
		"SET LOCAL standard_conforming_strings = on",
		"SET LOCAL lock_timeout = '3s'",
		// A connection that has silently broken must not keep the lock.
		"SET LOCAL idle_in_transaction_session_timeout = '10s'",
		// A commit that was answered must survive a crash. Values that wait for standbys stay.
		`SELECT set_config('synchronous_commit', 'on', true)
			WHERE current_setting('synchronous_commit') IN ('off', 'local')`,
	} {
		if err := a.run(ctx, statement); err != nil {
			return err
		}
	}
	_, err := a.conn.Exec(ctx, "SELECT pg_catalog.pg_advisory_xact_lock($1::int8)", oneMessage, lockKey(account))
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok && answer.Code == "55P03" {
		return target.Failed(
			target.Unreachable, answer.Code,
			a.what+": another change of this role is in progress; pg_prepared_xacts shows one that was left",
		)
	}
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	return nil
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
	var found bool
	err := a.conn.QueryRow(ctx, `SELECT EXISTS
		(SELECT FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) $1)`, oneMessage, gid).Scan(&found)
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	if !found {
		return nil
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

// checkFailed classifies an error of a statement after a login. It is never Rejected, because the
// password was accepted. The server may recover from a shutdown (57) and from a lack of resources
// (53).
func checkFailed(what string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return target.NoAnswer(what, err, secrets...)
	case strings.HasPrefix(answer.Code, "57"), strings.HasPrefix(answer.Code, "53"):
		return target.Failed(target.Unreachable, answer.Code, what+": "+answerText(answer), secrets...)
	}
	return target.Failed(target.Denied, answer.Code, what+": "+answerText(answer), secrets...)
}
