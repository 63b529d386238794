package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keyturn/keyturn/internal/target"
)

// Tokens of consents.
const (
	consentUnequal = "unequal-logins"
	consentSession = "session-user"
	consentUnread  = "database-unread"
	consentReset   = "role-reset"
	consentPooler  = "pooler"

	consentCertificate = "certificate-name"
)

// expirySoon is how long before its expiry an account is reported.
const expirySoon = 14 * 24 * time.Hour

var (
	single = []target.Strategy{target.Single}
	double = []target.Strategy{target.Double}
)

// Window says how long a password from Keyturn is refused.
func (t *pg) Window(s target.Strategy) string {
	if s == target.Double {
		return "None: the login before works until the grace period ends."
	}
	return "One commit: a login with the old password is refused after it. Open sessions continue." +
		t.login.At(t.config.Verify).Late()
}

// check collects the findings about a pair of accounts, in the database of the application.
type check struct {
	*attempt
	current   string // the account in use
	other     string // the other login of strategy double; empty for none
	emergency bool
	retired   bool  // [target.CheckRequest.PartnerRetired]
	pair      *pair // the two logins, if their databases are to be read; otherwise nil
	findings  []target.Finding
}

// CheckAccount reads the account and its partner, and what rotations of them would meet.
func (t *pg) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	what := "check role " + r.Current.Account
	a, err := t.asAdmin(ctx, what, r.Current.Secret)
	if err != nil {
		return nil, err
	}
	defer a.close()
	k := &check{
		attempt:   a,
		current:   r.Current.Account,
		other:     r.Partner,
		emergency: r.Emergency,
		retired:   r.PartnerRetired,
	}
	if err := k.reading(ctx); err != nil {
		return nil, err
	}
	if err := k.limited(ctx); err != nil {
		return nil, err
	}
	current, err := k.account(ctx, r.Current.Account, nil)
	if err != nil || current.oid == 0 {
		return k.findings, err
	}
	if err := k.form(ctx, current); err != nil {
		return nil, err
	}
	k.withoutEffect(current, r.Partner, nil)
	if r.Partner != "" {
		if err := k.partner(ctx, current, r.Partner); err != nil {
			return nil, err
		}
	}
	live, err := k.live(ctx, r.Current)
	if err != nil {
		return nil, err
	}
	// Nothing else may wait inside the transaction: the server ends a session that is idle in one.
	if err := k.rollback(ctx); err != nil {
		return nil, err
	}
	if k.pair != nil {
		if err := k.databases(ctx, *k.pair); err != nil {
			return nil, err
		}
	}
	return k.findings, k.endpoints(ctx, r, live)
}

// found adds a finding. Names of roles are compared exactly, and shown as they are.
func (k *check) found(f target.Finding) {
	f.InUse = f.Account == k.current
	f.Fix = conforming(f.Fix)
	k.findings = append(k.findings, f)
}

// account reads one role, and reports what keeps it from logging in.
func (k *check) account(ctx context.Context, name string, only []target.Strategy) (r role, err error) {
	r, found, err := k.role(ctx, name)
	if err != nil {
		return r, err
	}
	f := target.Finding{Verdict: target.Impossible, Strategies: only, Account: name}
	alter := "ALTER ROLE " + quoteIdentifier(name)
	if !found {
		f.Code, f.Text = "no-such-account", fmt.Sprintf("There is no role %q.", name)
		f.Missing = name == k.current
		f.Fix = "Create the role; for a second login, run keyturn target prepare-accounts TARGET --account=NAME " +
			"--clone=CLONE."
		k.found(f)
		return role{}, nil
	}
	f.Closed = true
	if !r.canLogin {
		f.Code, f.Text = "no-login", fmt.Sprintf("Role %q is not allowed to log in (NOLOGIN).", name)
		f.Fix = k.reopening(name, "Run "+alter+" LOGIN.")
		k.found(f)
	}
	if r.expired {
		f.Code = "expired"
		f.Text = fmt.Sprintf("The password of role %q expired at %s.", name, r.validUntil)
		f.Fix = k.reopening(name, k.prolong(name))
		k.found(f)
	}
	if err := k.mayAlter(ctx, r, only); err != nil {
		return r, err
	}
	if err := k.limits(ctx, r, only); err != nil {
		return r, err
	}
	return r, k.mayConnect(ctx, r, only)
}

// reopening completes the fix of a role that is closed. In an emergency the leaked password is
// removed first: with it, the holder could log in again until the role has another one.
func (k *check) reopening(name, fix string) string {
	if !k.emergency || name != k.current {
		return fix
	}
	return "The leaked password would open the role again. So first run ALTER ROLE " + quoteIdentifier(name) +
		" PASSWORD NULL. " + fix
}

// mayAlter reports a role whose password the administrator may not change.
func (k *check) mayAlter(ctx context.Context, r role, only []target.Strategy) error {
	var may bool
	var admin string
	err := k.conn.QueryRow(ctx, `SELECT rolname::text, rolsuper OR rolcreaterole AND NOT $2::bool AND
			($3::int4 < 160000 OR pg_has_role(oid, $1::oid, 'MEMBER WITH ADMIN OPTION'))
		FROM pg_roles WHERE rolname = current_user`, r.oid, r.super, k.able.release).Scan(&admin, &may)
	if err != nil || may {
		return asFailed(k.attempt, err)
	}
	fix := "ALTER ROLE " + quoteIdentifier(admin) + " CREATEROLE"
	if k.able.release >= 160000 {
		fix += "; GRANT " + quoteIdentifier(r.name) + " TO " + quoteIdentifier(admin) +
			" WITH ADMIN OPTION, INHERIT FALSE, SET FALSE"
	}
	if r.super {
		fix = "ALTER ROLE " + quoteIdentifier(r.name) + " NOSUPERUSER"
	}
	k.found(target.Finding{
		Code:       "may-not-alter",
		Verdict:    target.Impossible,
		Strategies: only,
		Account:    r.name,
		Text:       fmt.Sprintf("The administrator %q may not change the password of role %q.", admin, r.name),
		Fix:        "Run " + fix + ".",
	})
	return nil
}

// withoutEffect reports a setting "role" that the server ignores. One that names the other login is
// reported with the membership that is missing.
func (k *check) withoutEffect(r role, other string, only []target.Strategy) {
	if r.stray == "" || r.stray == other {
		return
	}
	k.found(target.Finding{
		Code:       "role-without-effect",
		Verdict:    target.Note,
		Strategies: only,
		Account:    r.name,
		Text: fmt.Sprintf("Role %q has a setting role, and may not act as the role there, so it acts as itself.",
			r.name),
		Fix: "Run ALTER ROLE " + quoteIdentifier(r.name) + " RESET role.",
	})
}

// limits reports limits that a login meets after it has proven its password.
func (k *check) limits(ctx context.Context, r role, only []target.Strategy) error {
	var sessions int
	var soon bool
	err := k.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid),
			COALESCE(rolvaliduntil < now() + $2::interval AND rolvaliduntil >= now(), false)
		FROM pg_roles r WHERE r.oid = $1`,
		r.oid, expirySoon).Scan(&sessions, &soon)
	if err != nil {
		return failed(k.what, err, k.secrets...)
	}
	if r.limit == 0 && !r.super {
		k.noSessions(r, only)
	}
	f := target.Finding{Verdict: target.Note, Strategies: only, Account: r.name}
	if r.limit > 0 && sessions >= r.limit && !r.super {
		f.Code = "connection-limit"
		f.Text = fmt.Sprintf(
			"Role %q has %d sessions and may have %d, so no login succeeds now; that refusal proves the password.",
			r.name, sessions, r.limit,
		)
		f.Fix = "Raise CONNECTION LIMIT, or close sessions."
		k.found(f)
	}
	if i := slices.IndexFunc(k.findings, isExpiry); soon && i >= 0 {
		// The statements of that finding are about both logins.
		k.findings[i].Text += fmt.Sprintf(" The one of role %q expires at %s.", r.name, r.validUntil)
		return nil
	}
	if soon {
		f.Code = codeExpiry
		f.Text = fmt.Sprintf("The password of role %q expires at %s; rotations do not change that.", r.name,
			r.validUntil)
		f.Fix = k.prolong(r.name)
		k.found(f)
	}
	return nil
}

const codeExpiry = "expires-soon"

func isExpiry(f target.Finding) bool { return f.Code == codeExpiry }

// noSessions reports a role that may have no session at all. With two logins, only a session shows
// that applications can use the other one. No login can set its own limit.
func (k *check) noSessions(r role, only []target.Strategy) {
	f := target.Finding{
		Code:       "connection-limit",
		Verdict:    target.Impossible,
		Strategies: double,
		Account:    r.name,
		Text: fmt.Sprintf("Role %q may have no session (CONNECTION LIMIT 0), so no application can use it.",
			r.name),
		Fix: runThese([]string{"ALTER ROLE " + quoteIdentifier(r.name) + " CONNECTION LIMIT -1"}),
	}
	k.found(f)
	if only != nil {
		return
	}
	f.Verdict, f.Strategies = target.Note, single
	f.Text = fmt.Sprintf("Role %q may have no session (CONNECTION LIMIT 0), so no login succeeds; that refusal proves "+
		"the password.", r.name)
	k.found(f)
}

// prolong returns the advice about the expiry of a role. With two logins, it is about both, which
// must be equal in it.
func (k *check) prolong(name string) string {
	logins := []string{name}
	for _, other := range []string{k.current, k.other} {
		if other != "" && other != name {
			logins = append(logins, other)
		}
	}
	later := "a later date instead of 'infinity' also works."
	if len(logins) > 1 {
		slices.Sort(logins)
		later = "the same later date in both instead of 'infinity' also works."
	}
	for i, login := range logins {
		logins[i] = "ALTER ROLE " + quoteIdentifier(login) + " VALID UNTIL 'infinity'"
	}
	return "Run " + strings.Join(logins, "; ") + "; " + later
}

// mayConnect reports a database that the application cannot open. With two logins, only a session
// shows that applications can use the other one.
func (k *check) mayConnect(ctx context.Context, r role, only []target.Strategy) error {
	database := k.t.database()
	var open, permitted bool
	err := k.conn.QueryRow(ctx, `SELECT datallowconn, has_database_privilege($1::oid, oid, 'CONNECT')
		FROM pg_database WHERE datname = $2`, r.oid, database).Scan(&open, &permitted)
	f := target.Finding{Strategies: only, Account: r.name}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		f.Code, f.Verdict = "no-such-database", target.Impossible
		f.Text = fmt.Sprintf("There is no database %q.", database)
		f.Fix = "Set the database that the application opens (keyturn rotation configure NAME --login-database=DATABASE)."
	case err != nil:
		return failed(k.what, err, k.secrets...)
	case !open, !permitted:
		f.Code, f.Verdict, f.Strategies = "database-denied", target.Impossible, double
		f.Text = fmt.Sprintf("Role %q may not connect to database %q, so no session there shows that the other login works.",
			r.name, database)
		f.Fix = opening(database, r.name, open, permitted) + " " + nameIt
		k.found(f)
		if only != nil {
			return nil
		}
		f.Verdict, f.Strategies = target.Note, single
		f.Text = fmt.Sprintf(
			"Role %q may not connect to database %q, so no session can open it; the refusal proves the password.",
			r.name, database,
		)
	default:
		return nil
	}
	k.found(f)
	return nil
}

// opening returns the advice to let a role into a database.
func opening(database, login string, open, permitted bool) string {
	var statements []string
	if !open {
		statements = append(statements, "ALTER DATABASE "+quoteIdentifier(database)+" ALLOW_CONNECTIONS true")
	}
	if !permitted {
		statements = append(statements, "GRANT CONNECT ON DATABASE "+quoteIdentifier(database)+" TO "+quoteIdentifier(login))
	}
	return runThese(statements)
}

// form reports the form of the password, which stays.
func (k *check) form(ctx context.Context, r role) error {
	f := target.Finding{Account: r.name}
	if !k.able.reads {
		if slices.Equal(k.t.config.RequireAuth, authMethods[:1]) {
			return nil // a login by SCRAM alone has shown the form
		}
		f.Code, f.Verdict, f.Consent = consentSCRAM, target.NeedsConsent, consentSCRAM
		f.Text = fmt.Sprintf(
			"The administrator cannot read how the password of %q is stored; the new one is stored for SCRAM, "+
				"which a driver without SCRAM cannot use.", r.name,
		)
		f.Fix = "Run GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO " +
			quoteIdentifier(k.t.admin.Account) + "."
		k.found(f)
		return nil
	}
	stored, err := k.stored(ctx, r.name)
	if err != nil {
		return err
	}
	kept, known := formOf(stored)
	after := k.t.afterMD5(k.emergency)
	switch {
	case stored == "":
		f.Code, f.Verdict, f.Drift = "no-password", target.Impossible, true
		f.Text = fmt.Sprintf("Role %q has no password.", r.name)
		f.Fix = "Give the role the password that the secret holds (keyturn rotation repair NAME)."
	case !known:
		f.Code, f.Verdict, f.Consent = consentSCRAM, target.NeedsConsent, consentSCRAM
		f.Text = fmt.Sprintf("The password of %q is stored in a form that is not known; the new one is stored for SCRAM.",
			r.name)
	case !kept.md5:
		return nil
	case after == agreedSCRAM:
		f.Code, f.Verdict, f.Consent = consentSCRAM, target.NeedsConsent, consentSCRAM
		f.Text = fmt.Sprintf("The password of %q is stored as MD5; the new one is stored for SCRAM, as agreed.", r.name)
	case after == forcedSCRAM:
		f.Code, f.Verdict, f.Consent = consentSCRAM, target.NeedsConsent, consentSCRAM
		f.Text = fmt.Sprintf("The password of %q is stored as MD5, and the setting require_auth does not allow it: the new "+
			"one is stored for SCRAM, which a driver without SCRAM cannot use.", r.name)
	case after == refusedMD5:
		f.Code, f.Verdict = "md5-not-allowed", target.Impossible
		f.Text = fmt.Sprintf("The password of %q is stored as MD5, and the setting require_auth does not allow it.", r.name)
		f.Fix = `Allow it (keyturn target update TARGET --set='require_auth=["scram-sha-256","md5"]'), or, if the driver ` +
			"of the applications knows SCRAM: keyturn rotation configure NAME --consent=" + consentSCRAM + "."
	default:
		f.Code, f.Verdict = "md5", target.Note
		f.Text = fmt.Sprintf("The password of %q is stored as MD5, and the new one will be.", r.name)
	}
	k.found(f)
	return nil
}

// live reports whether the password in use is known to be right.
func (k *check) live(ctx context.Context, current target.Credential) (bool, error) {
	if !k.able.reads {
		return false, nil
	}
	is, err := k.liveness(ctx, current)
	return is == target.Live, err
}

// endpoints reports standbys that the configuration takes for writers, and poolers. The error says
// that an answer which a rotation needs is missing.
func (k *check) endpoints(ctx context.Context, r target.CheckRequest, live bool) (missing error) {
	for _, e := range k.t.login.At(k.t.config.Verify) {
		pooler, err := k.t.pooled(ctx, e, r.Current.Account)
		switch {
		case e.Role == target.Pooler:
			k.pooler(k.calledPooler(ctx, e, r))
		case pooler:
			k.pooler("A pooler answers at " + e.Address + ".")
		case err != nil:
			missing = cmp.Or(missing, k.poolerNotKnown(e, err, r.Emergency))
		default:
			standby, known := k.standby(ctx, e.Address, r.Current, live)
			if known && standby != (e.Role == target.Replica) {
				k.misnamed(e, standby)
			}
		}
	}
	return missing
}

// calledPooler says what is known of an endpoint that verify calls a pooler. It asks only while the
// operator has not agreed to poolers: the answer changes nothing but the text.
func (k *check) calledPooler(ctx context.Context, e target.Endpoint, r target.CheckRequest) string {
	called := "verify of the target calls " + e.Address + " a pooler"
	if r.Emergency || slices.Contains(k.t.consent, consentPooler) {
		return called + "."
	}
	e.Role = target.Writer
	switch pooler, err := k.t.pooled(ctx, e, r.Current.Account); {
	case pooler:
		return "A pooler answers at " + e.Address + "."
	case err != nil:
		return called + ", and no pooler or PostgreSQL server has answered there."
	}
	return called + "."
}

// pooler reports a pooler, which may have a list of passwords of its own: no login shows that.
func (k *check) pooler(known string) {
	k.found(target.Finding{
		Code:    consentPooler,
		Verdict: target.NeedsConsent,
		Text: known + " With a list of its own (userlist.txt) a pooler refuses a new password until the list has it, and a " +
			"rotation is taken back.",
		Fix:     "Have it take passwords from the server (auth_query), and consent.",
		Consent: consentPooler,
	})
}

// poolerNotKnown reports an endpoint whose answer leaves open whether it is a pooler. It returns
// err as an error unless a rotation begins without knowing: an operator has agreed to poolers, a
// replica that is down keeps no rotation waiting, and neither does anything in an emergency.
func (k *check) poolerNotKnown(e target.Endpoint, err error, emergency bool) error {
	k.found(target.Finding{
		Code:    "pooler-not-known",
		Verdict: target.Note,
		Text:    "Keyturn cannot see whether a pooler answers at " + e.Address + ": no PostgreSQL server has answered there.",
	})
	if emergency || e.Role == target.Replica || slices.Contains(k.t.consent, consentPooler) {
		return nil
	}
	return target.NotSent(k.what+": find out whether "+e.Address+" is a pooler", err, k.secrets...)
}

// unusual is a parameter that every server has, and PgBouncer refuses before it asks for a password
// unless its settings ignore it.
const unusual = "backslash_quote"

// pooled reports whether an endpoint is a pooler. The connection ends when the other side asks for
// a password: none is sent. The error says why neither a pooler nor a server has answered: only the
// errors of a server name a routine.
func (t *pg) pooled(ctx context.Context, e target.Endpoint, account string) (is bool, err error) {
	if e.Role == target.Pooler {
		return true, nil
	}
	conn, err := t.connectWith(ctx, e.Address, t.database(), target.Credential{Account: account}, t.certificates, unusual)
	if err == nil {
		disconnect(conn)
		return false, nil
	}
	answer, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case answered && answer.Code == "08P01" && strings.Contains(answer.Message, unusual):
		return true, nil
	case answered && answer.Routine != "", asksOtherwise(err):
		return false, nil
	}
	return false, connectReason(err)
}

// misnamed reports an endpoint whose role is not the one in the configuration.
func (k *check) misnamed(e target.Endpoint, standby bool) {
	if !standby {
		k.found(target.Finding{
			Code:    "no-replica",
			Verdict: target.Note,
			Text:    "The server at " + e.Address + " is a writer, and verify calls it a replica.",
			Fix:     "Give it the role writer in verify of the target.",
		})
		return
	}
	f := target.Finding{
		Code:       "replica-as-writer",
		Verdict:    target.Impossible,
		Strategies: single,
		Text: "The server at " + e.Address + " is a standby, and verify calls it a writer: while it is behind, it " +
			"rejects the new password.",
		Fix: `Write it as {"address": "` + e.Address + `", "role": "replica", "lag": "10s"} in verify of the target.`,
	}
	k.found(f)
	f.Verdict, f.Strategies = target.Note, double
	k.found(f)
}

// standby reports whether the server at an address is one. Only the server at admin_address sees
// the administrator: whatever answers at another address could use the session itself. Elsewhere
// the application's own session asks, if its password is known to be right.
func (k *check) standby(ctx context.Context, address string, current target.Credential, live bool) (is, known bool) {
	conn := k.conn
	if address != k.t.config.AdminAddress {
		if !live {
			return false, false
		}
		var err error
		if conn, err = k.t.connectAs(ctx, address, k.t.database(), current); err != nil {
			return false, false // the application's login says more
		}
		defer disconnect(conn)
	}
	err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&is)
	return is, err == nil
}

var (
	_ target.Checker  = (*pg)(nil)
	_ target.Windower = (*pg)(nil)
)

// runThese returns the advice to run statements.
func runThese(statements []string) string { return running("Run ", statements, 0, "") }

// running returns the advice to run statements: those for which there is space, each in full. The
// next check has the others, and the unread ones that are not among them.
func running(lead string, statements []string, unread int, after string) string {
	const more = ". These are not all: check again after them."
	shown, left := target.WholeStatements(statements, "; ", lead+more+after)
	if shown == "" {
		shown, left = strings.Join(statements, "; "), 0
	}
	if left+unread > 0 {
		return lead + shown + more + after
	}
	return lead + shown + "." + after
}

// runIn returns the advice to run statements in a database.
func runIn(database string, statements ...string) string {
	return running("In "+databaseNamed(database)+", run ", statements, 0, "")
}

// runTheseAlso is runThese for statements after which a login has the settings of another one. Last
// come those with a value that is not shown, each as a sentence that no client can run.
func runTheseAlso(statements []string, like string) string {
	var shown, advice []string
	for _, s := range statements {
		if head, withheld := withheldFrom(s); withheld {
			advice = append(advice, fmt.Sprintf("Run %s with the value that %s has. %s", head, like, readSettings(like)))
		} else {
			shown = append(shown, s)
		}
	}
	if len(shown) > 0 {
		rest := strings.Join(advice, " ")
		if rest != "" {
			rest = " " + rest
		}
		return running("Run ", shown, 0, rest)
	}
	return strings.Join(advice, " ")
}
