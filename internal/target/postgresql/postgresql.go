// Package postgresql rotates the passwords of PostgreSQL roles.
//
// The configuration, a JSON object:
//
//	address              host or host:port of the server, or of the pooler that applications use
//	                     (required; port 5432)
//	admin_address        where the administrator logs in and changes roles; default address. It must
//	                     not be a standby, or a pooler that leads to another server
//	verify               a list of addresses where a new password must work before it is current;
//	                     default address alone. A standby is {"address": …, "role": "replica",
//	                     "lag": "10s"}, a pooler {"address": …, "role": "pooler"}
//	database             the database of every login; default postgres
//	tls                  {"ca": PEM, "server_name": name} or {"off": true}; default: on, verified
//	                     against the machine's authorities
//	check_sql            one read-only statement that must succeed with the new password at every
//	                     verify address; it runs in a read-only transaction that is rolled back
//	scram_iterations     of new passwords, 4096 to 1000000; default as the password before, or the
//	                     server's scram_iterations
//	require_auth         how the server may ask for a password, a list of scram-sha-256, md5,
//	                     password; default scram-sha-256. A server that asks for none is refused,
//	                     because every password would pass there
//	password_length      12 to 128, default 32
//	password_punctuation characters to use besides letters and digits; default none
//
// The administrator needs at least CREATEROLE, and since PostgreSQL 16 the ADMIN option on the
// roles that it changes. With
//
//	GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO administrator
//
// it also reads verifiers. Then no login is needed to find out which passwords are live, and Retire
// removes exactly the old password. The password leaves this process in a login only: to change it,
// the server gets a verifier, of the form of the one before (SCRAM-SHA-256 or MD5).
//
// Strategy single runs ALTER ROLE in a prepared transaction where the server allows them
// (max_prepared_transactions above 0) and no pooler hides them. After a crash, pg_prepared_xacts
// shows whether the change was prepared, and the next Apply of the same change commits it. Strategy
// double alternates between two roles, which PlanAccounts makes from one.
package postgresql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Kind returns the kind "postgresql".
func Kind() target.Kind {
	strategies := []target.Strategy{target.Single, target.Double}
	return target.NewKind("postgresql", strategies, target.Parser((*config).complete), open).WithAdmin().
		Following(target.LoginEndpoints, target.LoginDatabase, target.LoginRole, target.LoginCertificate).
		Consenting(consentSCRAM, consentUnequal, consentSession, consentUnread, consentReset, consentPooler,
			consentCertificate).
		Leaving(target.OpenSessions, "What the account has made stays, too: functions with SECURITY DEFINER, triggers, "+
			"members of the account, prepared transactions and jobs can set a password again: docs/targets/postgresql.md, "+
			"\"After a leak\", has the queries.")
}

func open(c config, s target.Settings) (target.Target, error) {
	t := &pg{
		PasswordRule: c.PasswordRule,
		config:       c,
		admin:        s.Admin,
		login:        s.Login,
		consent:      s.Consent,
		dial:         s.Dialer(),
	}
	if err := checkLogin(s.Login); err != nil {
		return nil, err
	}
	certificates, err := s.Login.ClientCertificate(c.TLS)
	if err != nil {
		return nil, err
	}
	t.certificates = certificates
	return t, nil
}

// checkLogin returns an error if an application cannot log in this way.
func checkLogin(l target.Login) error {
	for what, name := range map[string]string{"database": l.Database, "role": l.Role} {
		if name == "" {
			continue
		}
		if err := checkName(name); err != nil {
			return fmt.Errorf("the login's %s %w", what, err)
		}
	}
	return nil
}

// pg is one server.
type pg struct {
	target.PasswordRule
	config config
	admin  target.Credential
	// login is how the application connects, certificates its client certificate: none or one.
	login        target.Login
	certificates []tls.Certificate
	consent      []string
	dial         egress.DialFunc
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
	a, err := t.asAdmin(ctx, attempt, c.New.Secret, c.Old.Secret)
	if err != nil {
		return err
	}
	defer a.close()
	gid := ""
	if c.Strategy == target.Single && a.able.prepares {
		gid = transactionName(c.ID)
		if err := a.finishPrepared(ctx, gid, true); err != nil {
			return err
		}
	}
	return a.alter(ctx, c, gid)
}

// transactionName returns the identifier of a change's prepared transaction. It depends on the
// change alone, so that a later attempt finds what an earlier one has prepared.
func transactionName(changeID string) string { return "keyturn-" + changeID }

// alter sets the password unless it is set already, in one transaction under the role's lock. With
// a gid it prepares the transaction before it commits it: then a lost answer to the commit leaves
// either nothing to do or a prepared transaction, and not an open question.
func (a *attempt) alter(ctx context.Context, c target.Change, gid string) error {
	if err := a.begin(ctx, c.New.Account); err != nil {
		return err
	}
	kept, same, err := a.form(ctx, c)
	if err != nil {
		return err
	}
	if same {
		return a.rollback(ctx)
	}
	verifier, err := kept.verifier(c.New)
	if err != nil {
		return target.NotSent(a.what, err)
	}
	a.secrets = append(a.secrets, sensitive.New(verifier))
	if err := a.run(ctx, "ALTER ROLE "+quoteIdentifier(c.New.Account)+" PASSWORD "+quoteLiteral(verifier)); err != nil {
		return err
	}
	if kept.md5 {
		if err := a.keptMD5(ctx, c.New.Account, verifier); err != nil {
			return err
		}
	}
	if gid == "" {
		return a.end(ctx, "COMMIT")
	}
	if err := a.end(ctx, "PREPARE TRANSACTION "+quoteLiteral(gid)); err != nil {
		return err
	}
	if err := a.itself(ctx); err != nil {
		return err
	}
	return a.end(ctx, "COMMIT PREPARED "+quoteLiteral(gid))
}

// Revert rolls back the prepared transaction that a lost attempt may have left.
func (t *pg) Revert(ctx context.Context, c target.Change) error {
	a, err := t.asAdmin(ctx, "revert the change of role "+c.New.Account, c.New.Secret)
	if err != nil {
		return err
	}
	defer a.close()
	gid := transactionName(c.ID)
	if err := a.finishPrepared(ctx, gid, false); err != nil {
		return err
	}
	// An attempt that is still running has the lock and may prepare its transaction now. So wait for
	// the lock and roll back a second time.
	if err := a.begin(ctx, c.New.Account); err != nil {
		return err
	}
	if err := a.rollback(ctx); err != nil {
		return err
	}
	return a.finishPrepared(ctx, gid, false)
}

// Retire removes the password of Old's role if it is still the old one.
func (t *pg) Retire(ctx context.Context, c target.Change) error {
	return t.RetireOrEvict(ctx, c, target.EvictNothing)
}

// RetireOrEvict decides and removes in one transaction under the role's lock.
func (t *pg) RetireOrEvict(ctx context.Context, c target.Change, evict target.Evict) error {
	what := "retire the password of role " + c.Old.Account
	switch {
	case c.Strategy != target.Double:
		return target.Denied.Errorf("%s: with strategy %q there is nothing to retire", what, c.Strategy)
	case c.Old.Account == c.New.Account:
		return target.Denied.Errorf("%s: the new credential is of the same role", what)
	}
	if err := checkName(c.Old.Account); err != nil {
		return target.Denied.Errorf("%s: a role %v", what, err)
	}
	a, err := t.asAdmin(ctx, what, c.New.Secret, c.Old.Secret)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.begin(ctx, c.Old.Account); err != nil {
		return err
	}
	remove, found, err := a.stillOld(ctx, c)
	if err == nil && found.Kind != target.NoForeign {
		remove, err = evict(ctx, found)
		if err == nil && !remove && found.Kind == target.ForeignNotCompared {
			remove, err = a.admits(ctx, c.Old)
		}
	}
	switch {
	case err != nil:
		return err
	case !remove:
		return a.rollback(ctx)
	}
	if err := a.run(ctx, "ALTER ROLE "+quoteIdentifier(c.Old.Account)+" PASSWORD NULL"); err != nil {
		return err
	}
	return a.end(ctx, "COMMIT")
}

// stillOld reports whether the role's password is still the old one: by the verifier, or by one
// login where that cannot be read. found is the password that it has instead. Any verifier is one,
// whatever its form: the role's owner chooses that, and how long a login with it takes.
func (a *attempt) stillOld(ctx context.Context, c target.Change) (still bool, found target.Foreign, err error) {
	old := c.Old
	remove := fmt.Sprintf("To remove it, run ALTER ROLE %s PASSWORD NULL. A session of either login can set it again: to "+
		"end them, run SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN (%s, %s).",
		quoteIdentifier(old.Account), quoteLiteral(old.Account), quoteLiteral(c.New.Account))
	if !a.able.reads {
		found = target.Foreign{Kind: target.ForeignUnknown, Text: fmt.Sprintf("Whether role %q has a password other than "+
			"the previous credential is not known, because administrator %q does not read pg_authid. %s", old.Account,
			a.t.admin.Account, remove)}
		if still, err = a.admits(ctx, old); still || err != nil {
			found = target.Foreign{}
		}
		return still, found, err
	}
	stored, err := a.stored(ctx, old.Account)
	if err != nil || stored == "" {
		return false, found, err
	}
	switch match, known := matches(stored, old.Account, old.Secret); {
	case match:
		return true, found, nil
	case known:
		return false, target.Foreign{Kind: target.ForeignFound, Text: fmt.Sprintf("Role %q has a password other than the "+
			"previous credential, which Keyturn did not set and has left: it still logs in. %s", old.Account, remove)}, nil
	}
	return false, target.Foreign{Kind: target.ForeignNotCompared, Text: fmt.Sprintf("Role %q has a password in a form "+
		"that Keyturn does not compare. Unless it is the previous credential, which is refused now, it still logs in. %s",
		old.Account, remove)}, nil
}

// admits reports whether the server lets a credential in.
func (a *attempt) admits(ctx context.Context, c target.Credential) (bool, error) {
	err := a.t.logIn(ctx, a.t.config.AdminAddress, c, false)
	switch target.ClassOf(err) {
	case target.Rejected:
		return false, nil
	case target.Admitted:
		return true, nil
	}
	if e, ok := errors.AsType[*target.Error](err); ok && e.Class == target.Unknown {
		e.Class = target.Unreachable // the server may have seen the login, but was asked for no change
	}
	return err == nil, err
}
