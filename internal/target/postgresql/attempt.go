package postgresql

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// oneMessage is how a statement with parameters is sent inside a transaction. In several messages,
// one that was cut off before the last would leave the server with a lock and waiting for the rest,
// which no timeout of the server counts as idle.
const oneMessage = pgx.QueryExecModeSimpleProtocol

// attemptAt is one connection of the administrator, and how to speak of what it is for.
type attemptAt struct {
	t       *pg
	conn    *pgx.Conn
	what    string
	secrets []sensitive.Value
}

// abilities are what the server offers to this administrator.
type abilities struct {
	prepares   bool // transactions can be prepared
	reads      bool // verifiers can be read
	iterations int
}

func (a *attemptAt) abilities(ctx context.Context) (abilities, error) {
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

// begin begins a transaction and takes the role's lock, which keeps other engines out until it
// ends, prepared or not. Names in statements cannot be captured by objects in another schema, and
// no wait is for long.
func (a *attemptAt) begin(ctx context.Context, account string) error {
	for _, statement := range []string{
		"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
		"SET LOCAL search_path = pg_catalog",
		"SET LOCAL standard_conforming_strings = on",
		"SET LOCAL lock_timeout = '3s'",
		"SET LOCAL idle_in_transaction_session_timeout = '10s'", // a connection that has silently broken keeps no lock
		// A setting that waits for standbys stays.
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

// lockKey is the number of a role's advisory lock.
func lockKey(account string) int64 {
	sum := sha256.Sum256([]byte("keyturn role " + account))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// run runs a statement inside a transaction. It takes no parameters, because ALTER ROLE cannot have
// any.
func (a *attemptAt) run(ctx context.Context, statement string) error {
	if _, err := a.conn.PgConn().Exec(ctx, statement).ReadAll(); err != nil {
		return failed(a.what, err, a.secrets...)
	}
	return nil
}

// end runs a statement that makes a transaction last.
func (a *attemptAt) end(ctx context.Context, statement string) error {
	results, err := a.conn.PgConn().Exec(ctx, statement).ReadAll()
	if err != nil {
		return ended(a.what, err, a.secrets...)
	}
	if len(results) == 1 && results[0].CommandTag.String() == "ROLLBACK" {
		return target.Unreachable.Errorf("%s: the server has rolled back", a.what)
	}
	return nil
}

func (a *attemptAt) rollback(ctx context.Context) error { return a.run(ctx, "ROLLBACK") }

// stored is the verifier of a role; empty when it has none.
func (a *attemptAt) stored(ctx context.Context, account string) (string, error) {
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
func (a *attemptAt) finishPrepared(ctx context.Context, gid string, commit bool) error {
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
			return nil // somebody else has finished it since
		}
		return ended(a.what, err, a.secrets...)
	}
	return nil
}

// checkFailed classifies an error after a login: it says nothing against the password.
func checkFailed(attempt string, err error, secrets ...sensitive.Value) *target.Error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
		return target.NoAnswer(attempt, err, secrets...)
	case len(answer.Code) > 2 && (answer.Code[:2] == "57" || answer.Code[:2] == "53"):
		return target.Failed(target.Unreachable, answer.Code, attempt+": "+answerText(answer), secrets...)
	}
	return target.Failed(target.Denied, answer.Code, attempt+": "+answerText(answer), secrets...)
}
