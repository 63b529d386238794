// Package postgresql rotates the passwords of PostgreSQL roles.
//
// The configuration, a JSON object:
//
//	address              host or host:port of the server, or of the pooler that applications use
//	                     (required; port 5432)
//	admin_address        where the administrator logs in; default address. Here it is changed, so
//	                     not a pooler that hands out another server, and not a standby
//	verify               a list of addresses where a new password must work before it is current:
//	                     writer, readers, pooler; default address alone
//	database             the database that everybody logs in to; default postgres
//	tls                  {"ca": PEM, "server_name": name} or {"off": true}; default: on, verified
//	                     against the machine's authorities
//	check_sql            one read-only statement that must succeed with the new password at every
//	                     verify address; it runs in a read-only transaction that is rolled back
//	scram_iterations     of new passwords, 4096 to 1000000; default the server's scram_iterations,
//	                     or 4096 where it has none
//	require_auth         how the server may ask for a password, a list of scram-sha-256, md5,
//	                     password; default scram-sha-256. A server that asks for none is refused:
//	                     nothing could be verified there
//	password_length      12 to 128, default 32
//	password_punctuation characters to use beside letters and digits; default none
//
// The administrator needs at the least CREATEROLE, and since PostgreSQL 16 the ADMIN option on the
// roles that it changes. With
//
//	GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO administrator
//
// it also reads verifiers, and then no login is needed to find out what is live, and Retire takes
// away exactly the old password. The password never leaves this process but in a login: the server
// gets a SCRAM-SHA-256 verifier.
//
// Strategy single runs ALTER ROLE in a prepared transaction where the server allows some
// (max_prepared_transactions above 0) and no pooler hides it. After any crash pg_prepared_xacts
// tells what became of it, and the next Apply of the same change commits what was prepared.
// Strategy double takes turns between two roles; Preparer makes them from one.
package postgresql

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Kind returns the kind "postgresql".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Single, target.Double}
	return target.NewKind("postgresql", strategies, parse, open).WithAdmin()
}

func open(c config, s target.Settings) (target.Target, error) {
	if s.Admin.IsZero() {
		return nil, errors.New("a PostgreSQL target needs an administrator's credential")
	}
	return &pg{
		PasswordRule: c.PasswordRule,
		config:       c,
		admin:        s.Admin,
		dial:         s.Dialer(),
	}, nil
}

// pg is one server.
type pg struct {
	target.PasswordRule
	config config
	admin  target.Credential
	dial   egress.DialFunc
}

// Close has nothing to release: each call closes its own connection.
func (t *pg) Close() error { return nil }

// Apply makes New the password of its role.
func (t *pg) Apply(ctx context.Context, c target.Change) error {
	attempt := "change the password of role " + c.New.Account
	if c.Strategy != target.Single && c.Strategy != target.Double {
		return target.Denied.Errorf("%s: PostgreSQL has no strategy %q", attempt, c.Strategy)
	}
	if err := checkName(c.New.Account); err != nil {
		return target.Denied.Errorf("%s: a role %v", attempt, err)
	}
	secrets := []sensitive.Value{c.New.Secret, c.Old.Secret, t.admin.Secret}
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	a := &attemptAt{
		t:       t,
		conn:    conn,
		what:    attempt,
		secrets: secrets,
	}
	able, err := a.abilities(ctx)
	if err != nil {
		return err
	}
	gid := ""
	if c.Strategy == target.Single && able.prepares {
		gid = transactionName(c.ID)
		if err := a.finishPrepared(ctx, gid, true); err != nil {
			return err
		}
	}
	return a.alter(ctx, c.New, able, gid)
}

// transactionName is that of the prepared transaction of a change.
func transactionName(changeID string) string { return "keyturn-" + changeID }

// alter sets the password unless it is set already, in one transaction under the role's lock. With
// a name the transaction is prepared before it is committed.
func (a *attemptAt) alter(ctx context.Context, c target.Credential, able abilities, gid string) error {
	if err := a.begin(ctx, c.Account); err != nil {
		return err
	}
	if able.reads {
		stored, err := a.stored(ctx, c.Account)
		if err != nil {
			return err
		}
		if match, _ := matches(stored, c.Account, c.Secret); match {
			return a.rollback(ctx)
		}
	}
	iterations := a.t.config.ScramIterations
	if iterations == 0 {
		iterations = able.iterations
	}
	verifier, err := newVerifier(c.Secret, iterations)
	if err != nil {
		return target.NotSent(a.what, err)
	}
	a.secrets = append(a.secrets, sensitive.New(verifier))
	if err := a.run(ctx, "ALTER ROLE "+quoteIdentifier(c.Account)+" PASSWORD "+quoteLiteral(verifier)); err != nil {
		return err
	}
	if gid == "" {
		return a.end(ctx, "COMMIT")
	}
	if err := a.end(ctx, "PREPARE TRANSACTION "+quoteLiteral(gid)); err != nil {
		return err
	}
	return a.end(ctx, "COMMIT PREPARED "+quoteLiteral(gid))
}

// Revert rolls back what a lost attempt has prepared.
func (t *pg) Revert(ctx context.Context, c target.Change) error {
	attempt := "take back the change of role " + c.New.Account
	secrets := []sensitive.Value{c.New.Secret, t.admin.Secret}
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	a := &attemptAt{
		t:       t,
		conn:    conn,
		what:    attempt,
		secrets: secrets,
	}
	gid := transactionName(c.ID)
	if err := a.finishPrepared(ctx, gid, false); err != nil {
		return err
	}
	// An attempt that is still running holds the lock, and may prepare yet.
	if err := a.begin(ctx, c.New.Account); err != nil {
		return err
	}
	if err := a.rollback(ctx); err != nil {
		return err
	}
	return a.finishPrepared(ctx, gid, false)
}

// Retire takes the password away from Old's role if it is still Old's.
func (t *pg) Retire(ctx context.Context, c target.Change) error {
	attempt := "retire the password of role " + c.Old.Account
	switch {
	case c.Strategy != target.Double:
		return target.Denied.Errorf("%s: with strategy %q there is nothing to retire", attempt, c.Strategy)
	case c.Old.Account == c.New.Account:
		return target.Denied.Errorf("%s: the new credential is of the same role", attempt)
	}
	if err := checkName(c.Old.Account); err != nil {
		return target.Denied.Errorf("%s: a role %v", attempt, err)
	}
	secrets := []sensitive.Value{c.New.Secret, c.Old.Secret, t.admin.Secret}
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	a := &attemptAt{
		t:       t,
		conn:    conn,
		what:    attempt,
		secrets: secrets,
	}
	able, err := a.abilities(ctx)
	if err != nil {
		return err
	}
	if err := a.begin(ctx, c.Old.Account); err != nil {
		return err
	}
	still, err := a.stillOld(ctx, c.Old, able)
	if err != nil {
		return err
	}
	if !still {
		return a.rollback(ctx)
	}
	if err := a.run(ctx, "ALTER ROLE "+quoteIdentifier(c.Old.Account)+" PASSWORD NULL"); err != nil {
		return err
	}
	return a.end(ctx, "COMMIT")
}

// stillOld tells whether the role's password is still the old one: by the verifier, or by one login
// where that cannot be read.
func (a *attemptAt) stillOld(ctx context.Context, old target.Credential, able abilities) (bool, error) {
	if able.reads {
		stored, err := a.stored(ctx, old.Account)
		if err != nil {
			return false, err
		}
		if match, known := matches(stored, old.Account, old.Secret); known || stored == "" {
			return match, nil
		}
	}
	err := a.t.login(ctx, a.t.config.AdminAddress, old, "")
	if target.ClassOf(err) == target.Rejected {
		return false, nil
	}
	if e, ok := errors.AsType[*target.Error](err); ok && e.Class == target.Unknown {
		e.Class = target.Unreachable // the login may have happened; the change was not asked for
	}
	return err == nil, err
}

// Verify logs in at every verify address.
func (t *pg) Verify(ctx context.Context, c target.Credential) error {
	return target.VerifyEach(ctx, t.config.VerifyAddresses, func(ctx context.Context, address string) error {
		return t.login(ctx, address, c, t.config.CheckSQL)
	})
}

// login logs in once and runs a statement, if there is one.
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
	// By the protocol for one statement, so that it cannot end the transaction and go on.
	if result := conn.PgConn().ExecParams(ctx, checkSQL, nil, nil, nil, nil).Read(); result.Err != nil {
		return checkFailed(attempt, result.Err, c.Secret)
	}
	if err := tx.Rollback(ctx); err != nil {
		return checkFailed(attempt, err, c.Secret)
	}
	return nil
}
