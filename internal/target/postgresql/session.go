package postgresql

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// pinned is the beginning of every transaction in which Keyturn reads or changes something. The
// owner of a database, or the holder of an account, chooses the settings of sessions
// (ALTER DATABASE … SET): with a search_path of theirs, a name, a type or an operator could stand
// for a function of theirs. The statements look up no name themselves, and hold for the transaction
// alone, because behind a pooler the session may be another client's afterwards.
const pinned = `SET LOCAL statement_timeout = 0;
	SET LOCAL search_path = pg_catalog, pg_temp;
	SET LOCAL row_security = off;
	SET LOCAL standard_conforming_strings = on;
	SET LOCAL quote_all_identifiers = off;
	SET LOCAL array_nulls = on;
	SET LOCAL transform_null_equals = off;
	SET LOCAL datestyle = 'ISO, YMD';
	SET LOCAL timezone = 'UTC';
	SET LOCAL lock_timeout = '3s';
	SET LOCAL idle_in_transaction_session_timeout = '10s';`

// pinnedLater are settings that only later servers have. A role that is made must not become the
// administrator's because a database says so (createrole_self_grant).
const pinnedLater = `SELECT pg_catalog.set_config('transaction_timeout', '0', true)
		WHERE pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL;
	SELECT pg_catalog.set_config('createrole_self_grant', '', true)
		WHERE pg_catalog.current_setting('createrole_self_grant', true) IS NOT NULL;`

const (
	beginReading = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;"
	beginWriting = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
)

// abilities says what the server offers to this administrator.
type abilities struct {
	prepares   bool // it allows prepared transactions
	reads      bool // the administrator may read verifiers
	iterations int  // of the server's own verifiers
	release    int  // the server's version, such as 170001 for 17.1
}

// learn finds out what the server offers, and what the transactions of this session begin with.
func (a *attempt) learn(ctx context.Context) error {
	if err := a.reading(ctx); err != nil {
		return err
	}
	var changed bool
	var session, own string
	err := a.conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase,
			unnest(s.setconfig) c WHERE s.setrole = 0 AND d.datname = pg_catalog.current_database()
			AND (c LIKE 'role=%' OR c LIKE 'session_authorization=%')),
		session_user::text,
		COALESCE((SELECT substr(c, 6) FROM pg_catalog.pg_db_role_setting s
			JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
			WHERE r.rolname = $1::text::name AND c LIKE 'role=%' AND s.setdatabase IN
				(0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
			ORDER BY s.setdatabase DESC LIMIT 1), 'none')`, a.t.admin.Account).Scan(&changed, &session, &own)
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	if changed {
		a.pins = asItself(session, a.t.admin.Account, own)
		if err := a.rollback(ctx); err != nil {
			return err
		}
		if err := a.reading(ctx); err != nil {
			return err
		}
	}
	if err := a.readAbilities(ctx); err != nil {
		return err
	}
	return a.rollback(ctx)
}

// asItself returns the statements after which a session acts as the administrator and its own
// setting "role" say, where the database has another role for every session.
func asItself(session, admin, role string) string {
	pins := ""
	if session != admin {
		pins = "SET LOCAL SESSION AUTHORIZATION " + quoteIdentifier(admin) + ";"
	}
	if strings.EqualFold(role, "none") {
		return pins + "SET LOCAL ROLE NONE;"
	}
	return pins + "SET LOCAL ROLE " + quoteIdentifier(role) + ";"
}

// itself makes the session act as the administrator outside of transactions, where the database has
// another role for every session: COMMIT PREPARED is for the role that has prepared.
func (a *attempt) itself(ctx context.Context) error {
	if a.pins == "" {
		return nil
	}
	return a.run(ctx, strings.ReplaceAll(a.pins, "SET LOCAL ", "SET "))
}

func (a *attempt) readAbilities(ctx context.Context) error {
	able := &a.able
	err := a.conn.QueryRow(ctx, `SELECT
		pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int4 OPERATOR(pg_catalog.>) 0,
		pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT')
			AND pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolname', 'SELECT'),
		COALESCE(pg_catalog.current_setting('scram_iterations', true)::pg_catalog.int4, 0),
		pg_catalog.current_setting('server_version_num')::pg_catalog.int4`).
		Scan(&able.prepares, &able.reads, &able.iterations, &able.release)
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	if able.iterations == 0 {
		able.iterations = defaultIterations
	}
	return nil
}

// reading begins a transaction that changes nothing.
func (a *attempt) reading(ctx context.Context) error { return a.run(ctx, beginReading+pinned+a.pins) }

// writing begins a transaction that may change something. A commit that was answered must survive a
// crash; values of synchronous_commit that wait for standbys stay.
func (a *attempt) writing(ctx context.Context) error {
	return a.run(ctx, beginWriting+pinned+pinnedLater+a.pins+`
		SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
			WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')`)
}

// observing begins a transaction in the session of an account that changes nothing, and in which
// names are found in pg_catalog alone. It returns the schemas that the account's own search_path
// finds.
func observing(ctx context.Context, conn *pgx.Conn) (path string, err error) {
	if _, err := conn.PgConn().Exec(ctx, beginReading).ReadAll(); err != nil {
		return "", err
	}
	// These names are qualified, because the path is still the account's.
	err = conn.QueryRow(ctx, "SELECT pg_catalog.array_to_json(pg_catalog.current_schemas(true))").Scan(&path)
	if err != nil {
		return "", err
	}
	_, err = conn.PgConn().Exec(ctx, pinned).ReadAll()
	return path, err
}
