package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// The consents that findings ask for, besides changePlugin.
const (
	leaveHosts     = "leave-account-hosts"
	replaceOthers  = "replace-other-passwords"
	dropSecond     = "drop-second-password"
	otherHosts     = "different-hosts"
	otherRights    = "different-rights"
	maxDifferences = 5

	lockAfterFailures = "lock-after-failures"
	objectsOfOne      = "objects-of-one-account"
	notCompared       = "not-compared"
)

var (
	_ target.Checker  = (*my)(nil)
	_ target.Windower = (*my)(nil)
)

// Window says how long a credential may be refused.
func (t *my) Window(s target.Strategy) string {
	if s == target.Single {
		return "One statement at the server: a login with the old password is refused after it. Open sessions continue." +
			t.endpoints().Late()
	}
	return "None: the old password works until the grace period ends."
}

// CheckAccount reads what a rotation would meet at the server.
func (t *my) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	attempt := "check the account " + r.Current.Account
	secrets := []sensitive.Value{r.Current.Secret, t.admin.Secret}
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c := &checker{t: t, conn: conn, request: r}
	err = c.check(ctx)
	if number, message, _ := numberOf(err); number == 1142 || number == 1143 {
		var grants []string
		for _, table := range t.server.tables() {
			grants = append(grants, "SELECT ON "+table)
		}
		var fix string
		fix, err = c.toAdministrator(ctx, grants)
		c.report("not-readable", target.Impossible, subject{},
			"The administrator may not read what a rotation must know: "+message+".", fix)
	}
	if err != nil {
		return nil, readFailed(attempt, err, secrets...)
	}
	return c.found, nil
}

// checker checks one account and its partner.
type checker struct {
	t       *my
	conn    *conn
	request target.CheckRequest
	found   []target.Finding
	unread  []unread
}

// subject is what a finding is about: an account, in the form for an operator, or the server, which
// is the zero value.
type subject struct {
	account string
	inUse   bool
}

// own is the account in use, or several of its name.
func own(shown string) subject { return subject{shown, true} }

// other is an account of another name.
func other(shown string) subject { return subject{account: shown} }

// findings begins the findings about a subject.
func (c *checker) findings(of subject) *target.Findings {
	f := c.request.OfPartner()
	if of.inUse {
		f = c.request.OfCurrent()
	}
	f.Account = of.account
	return f
}

// report adds a finding, about all strategies unless some are given.
func (c *checker) report(code string, v target.Verdict, of subject, text, fix string, s ...target.Strategy) {
	f := c.findings(of)
	f.Add(target.Finding{Code: code, Verdict: v, Strategies: s, Text: text, Fix: fix})
	c.found = append(c.found, f.List...)
}

// ask adds a finding that needs a consent, which is its code.
func (c *checker) ask(consent string, of subject, text, fix string, s ...target.Strategy) {
	f := c.findings(of)
	f.NeedsConsent(consent, text, fix, s...)
	c.found = append(c.found, f.List...)
}

// closed adds a finding about an account with which no login succeeds before the fix.
func (c *checker) closed(code string, of subject, text, fix string) {
	f := c.findings(of)
	f.Closed(code, text, fix)
	c.found = append(c.found, f.List...)
}

// drifted adds a finding that the account does not have the credential in use.
func (c *checker) drifted(code string, of subject, text, fix string) {
	f := c.findings(of)
	f.Drifted(code, text, fix)
	c.found = append(c.found, f.List...)
}

func (c *checker) check(ctx context.Context) error {
	if err := c.server(ctx); err != nil {
		return err
	}
	all, err := c.t.accounts(ctx, c.conn, c.request.Current.Account)
	if err != nil {
		return err
	}
	members := c.accounts(all)
	for _, a := range members {
		c.account(a)
	}
	if err := c.anonymous(ctx, members); err != nil {
		return err
	}
	if err := c.proxies(ctx); err != nil {
		return err
	}
	if err := c.events(ctx, all); err != nil {
		return err
	}
	if c.request.Partner == "" || len(members) == 0 {
		return nil
	}
	return c.double(ctx, all, members)
}

// accounts reports which accounts of the name a rotation changes, and returns them.
func (c *checker) accounts(all []account) []account {
	name := c.request.Current.Account
	chosen := c.t.within(all)
	if len(all) == 0 {
		c.report("no-account", target.Impossible, own(shownName(name)), c.t.missing(name, all)+".", "Create the account.")
		(&target.Findings{List: c.found}).LastMissing()
		return nil
	}
	if len(chosen) == 0 {
		c.report("no-account", target.Impossible, own(shownName(name)), c.t.missing(name, all)+".",
			"Set account_host of the target.")
		return nil
	}
	opens := func(a account) bool { return a.accepts(c.request.Current.Secret) }
	leaked := c.request.Leaked.Secret
	foreign := func(a account) bool { return c.foreign(a) != "" }
	members, err := members(c.t.config.AccountHost, chosen, c.request.Current.Secret)
	switch {
	case err != nil:
		c.report("accounts-not-known", target.Impossible, own(whoAll(name, chosen)), sentence(err.Error()),
			"Set account_host of the target.")
		return nil
	case slices.ContainsFunc(members, foreign): // see form
	case !slices.ContainsFunc(members, opens):
		c.drifted("credential-not-stored", own(whoAll(name, members)),
			"The server does not store the credential in use for "+whoAll(name, members)+".",
			"Run keyturn rotation repair NAME.")
	case len(members) > 1:
		c.report("accounts-together", target.Note, subject{}, "A rotation changes together: "+whoAll(name, members)+".", "")
	}
	var left []account
	for _, a := range all {
		isMember := slices.ContainsFunc(members, func(m account) bool { return m.host == a.host })
		switch {
		case isMember && !opens(a) && slices.ContainsFunc(members, opens):
			c.ask(replaceOthers, own(shown(name, a.host)), "account_host of the target includes "+shown(name, a.host)+
				", which accepts another password: an application that uses it is refused after a rotation.",
				"Leave the host out of account_host.", target.Single)
			c.ask(replaceOthers, own(shown(name, a.host)), "account_host of the target includes "+shown(name, a.host)+
				", which accepts another password than the one in use: applications that reach it are refused now. A rotation "+
				"leaves that password, and an emergency removes it.",
				"If it is the same application's, set the password in use there, or run keyturn rotation emergency NAME. "+
					"Otherwise leave the host out of account_host.", target.Overlap, target.Double)
		case !isMember && opens(a):
			c.ask(leaveHosts, own(shown(name, a.host)), shown(name, a.host)+" accepts the same password, and account_host of "+
				"the target leaves it out: applications that reach it are refused with the new password, and the old one stays "+
				"valid there.", "keyturn target update TARGET --set "+accountHost(chosen, []account{a})+" includes it.")
			(&target.Findings{List: c.found}).LastOutlasts()
		case !isMember && !leaked.IsZero() && a.accepts(leaked):
			c.outlasts(leaveHosts, shown(name, a.host)+" accepts the leaked password, and account_host of the target leaves "+
				"it out.", "Set another password for "+shown(name, a.host)+", or drop that account.")
		case !isMember:
			left = append(left, a)
		}
	}
	if len(left) > 0 {
		text := "Another password opens " + whoAll(name, left) + ": a rotation leaves it as it is."
		if !c.t.config.AccountHost.chosen() {
			text += " If the password in use is changed outside of Keyturn, a repair cannot know which account is meant: " +
				"keyturn target update TARGET --set " + accountHost(members) + "."
		}
		c.report("accounts-left", target.Note, subject{}, text, "")
	}
	return members
}

// account reports what a rotation of one account would meet.
func (c *checker) account(a account) {
	self := shown(c.request.Current.Account, a.host)
	c.form(a, self)
	c.terms(a, self)
	var others int
	for _, m := range a.passwords() {
		known := slices.ContainsFunc(c.request.Known(), func(s sensitive.Value) bool {
			match, _ := matches(m.plugin, m.hash, s)
			return match
		})
		if !known && m.hash != "" && m.hash != invalid {
			others++
		}
	}
	if a.accepts(c.request.Current.Secret) && others > 0 {
		c.ask(dropSecond, own(self), self+" has a second password, which a rotation removes: of an earlier version, or "+
			"set by hand.", "Remove the second password once nothing uses it.", target.Overlap, target.Single)
	}
}

// form reports what the account's plugins permit, by what a rotation would do.
func (c *checker) form(a account, self string) {
	if !c.usable(a, c.request.Current.Account, own) {
		return
	}
	candidate := noPassword()
	_, errAdd := c.t.server.add(a, c.request.Current.Secret, candidate, false)
	_, errReplace := c.t.server.replace(a, c.request.Current.Secret, candidate)
	switch {
	case errors.Is(errAdd, errForm):
		c.ask(changePlugin, own(self), self+" logs in by ed25519, of which many clients can use one password at a time: "+
			"with overlap the previous password is stored for mysql_native_password until it is retired. The new one is of "+
			"ed25519.", "Without that: keyturn rotation configure NAME --strategy=single.", target.Overlap)
	case errAdd != nil:
		code := "auth-plugin"
		if errors.Is(errAdd, errOthers) {
			code = "two-passwords"
		}
		c.report(code, target.Impossible, own(self), self+": "+errAdd.Error()+".", fixes[errAdd], target.Overlap)
	}
	if errReplace != nil {
		c.report("auth-plugin", target.Impossible, own(self), self+": "+errReplace.Error()+".", fixes[errReplace],
			target.Single)
	}
}

// usable reports whether the account logs in with one factor, of a plugin whose passwords can be
// made here, and what to change where it does not.
func (c *checker) usable(a account, name string, whose func(string) subject, s ...target.Strategy) bool {
	self := shown(name, a.host)
	of := whose(self)
	if a.terms.factors {
		c.report("several-factors", target.Impossible, of, self+" logs in with several factors, and Keyturn with one.",
			statement("ALTER USER "+self+" DROP 2 FACTOR;", name, a.host)+" Or use an account with one factor.", s...)
	}
	plugin := fault.Foreign(c.foreign(a))
	if plugin != "" {
		c.report("auth-plugin", target.Impossible, of, self+" logs in by "+plugin+
			", of which Keyturn makes no passwords.", statement("ALTER USER "+self+" "+c.t.server.supported()+
			"; with the present password.", name, a.host)+" Or rotate the password where "+plugin+" has it.", s...)
	}
	return plugin == ""
}

// fixes says what to do about the errors of a dialect.
var fixes = map[error]string{
	errOthers: "Remove the password that nothing uses.",
	errUnsure: "Set the password anew: the server stores it in a form that is not known.",
	errPlugin: "Give the account a password.",
	errBoth:   "Use strategy single.",
	errOther:  "Run keyturn rotation repair NAME.",
}

// foreign returns the first plugin of an account with passwords that cannot be made here; empty
// without one.
func (c *checker) foreign(a account) string {
	for _, m := range a.passwords() {
		if !c.t.server.sets(m.plugin) {
			return m.plugin
		}
	}
	return ""
}

// terms reports the conditions of an account's logins.
func (c *checker) terms(a account, self string) {
	if fix := c.t.unmet(a.terms); fix != "" && a.terms.subject+a.terms.issuer == "" {
		c.report("login-terms", target.Impossible, own(self), self+" cannot log in as this secret connects.", sentence(fix))
	}
	if a.locked {
		c.closed("account-locked", own(self), self+" is locked.",
			statement("ALTER USER "+self+" ACCOUNT UNLOCK;", c.request.Current.Account, a.host))
	}
	if a.terms.expired {
		c.report("password-expired", target.Note, own(self),
			"The password of "+self+" has expired; a rotation ends that.", "")
	}
	if a.terms.lifetime > 0 {
		c.report("password-lifetime", target.Note, own(self), fmt.Sprintf(
			"The password of %s expires %d days after each change: rotate more often.", self, a.terms.lifetime), "")
	}
	if a.terms.connections < 0 {
		c.noLogins(own(self), c.request.Current.Account, a.host)
	}
	if n := a.terms.connections; n > 0 {
		c.report("connection-limit", target.Note, own(self), fmt.Sprintf("%s may have %d connections. Keyturn needs one "+
			"for a moment; where it is refused because of the limit, that proves the password.", self, n), "")
	}
	if n := a.terms.hourly; n > 0 {
		c.report("connection-limit", target.Note, own(self), fmt.Sprintf("%s may connect %d times in an hour, and Keyturn's "+
			"logins count.", self, n), "")
	}
	if a.terms.lockAfter > 0 {
		c.locks(own(self), fmt.Sprintf("%d failed logins in a row lock %s", a.terms.lockAfter, self))
	}
}

// noLogins reports an account that MariaDB lets no client use.
func (c *checker) noLogins(of subject, name, host string, s ...target.Strategy) {
	c.report("connection-limit", target.Impossible, of,
		of.account+" may have no connections (MAX_USER_CONNECTIONS -1), so no login is possible.",
		statement("ALTER USER "+of.account+" WITH MAX_USER_CONNECTIONS 0;", name, host), s...)
}

// locks reports that failed logins lock an account: an application that still uses the previous
// password locks out those that use the new one.
func (c *checker) locks(of subject, how string) {
	c.ask(lockAfterFailures, of, how+": with single, an application that retries with the previous password locks "+
		"out all others.", "Use strategy overlap.", target.Single)
	c.report("failed-logins", target.Note, of, how+": move all applications before the previous password is retired.",
		"", target.Overlap, target.Double)
}

// server reports settings of the server where accounts are changed.
func (c *checker) server(ctx context.Context) error {
	blocks, never := c.t.server.blocks()
	row, err := c.conn.row(ctx, "SELECT @@GLOBAL.read_only, "+c.t.server.validates()+
		", @@GLOBAL.default_password_lifetime, @@GLOBAL.max_user_connections, "+blocks)
	if err != nil || len(row) != 5 {
		return err
	}
	if isOn(row[0]) {
		c.report("read-only", target.Impossible, subject{}, c.t.config.AdminAddress+" is read-only: it is a replica, or "+
			"in maintenance.", "Set admin_address of the target to the writer.")
	}
	if isOn(row[1]) {
		c.report("password-validation", target.Impossible, subject{}, "The server refuses hashes, because "+
			"strict_password_validation is on and it cannot judge them.", "SET GLOBAL strict_password_validation = OFF;")
	}
	if row[2] != "0" && row[2] != "" {
		c.report("password-lifetime", target.Note, subject{}, "By the server's default_password_lifetime a password expires "+
			fault.Foreign(row[2])+" days after each change, unless its account says otherwise: rotate more often.", "")
	}
	if row[3] != "0" && row[3] != "" {
		c.report("connection-limit", target.Note, subject{}, "By the server's max_user_connections each account may have "+
			fault.Foreign(row[3])+" connections, and Keyturn needs one for a moment.", "")
	}
	if n, err := strconv.ParseUint(row[4], 10, 64); err == nil && n != never {
		c.locks(subject{}, fmt.Sprintf("By the server's max_password_errors, %d failed logins in a row block an account "+
			"until FLUSH PRIVILEGES", n))
	}
	return nil
}

func isOn(v string) bool { return v != "" && v != "0" && !strings.EqualFold(v, "OFF") }

// anonymous reports accounts of the anonymous user: from their hosts a login reaches them before an
// account of the name at a wider host.
func (c *checker) anonymous(ctx context.Context, members []account) error {
	all, err := c.t.accounts(ctx, c.conn, "")
	if err != nil {
		return err
	}
	for _, a := range all {
		self := shown("", a.host)
		switch {
		case slices.ContainsFunc(members, func(m account) bool { return m.host == a.host }):
		case a.accepts(c.request.Current.Secret):
			c.report("anonymous-account", target.Impossible, other(self), "The anonymous account "+self+" accepts the same "+
				"password, and logins from there reach it: they would be refused with the new one.",
				statement("DROP USER "+self+";", a.host))
		default:
			c.report("anonymous-account", target.Note, other(self), "Logins from hosts that match "+self+" can reach the "+
				"anonymous account instead of "+shownName(c.request.Current.Account)+".", "")
		}
	}
	return nil
}

// proxies reports the accounts that may act as one of the two names with their own credentials.
func (c *checker) proxies(ctx context.Context) error {
	var literals []string
	plain := true
	for _, name := range c.names() {
		literals = append(literals, quote(name))
		plain = plain && fault.IsShown(name) && !strings.Contains(name, `\`) // see shownName
	}
	query := "SELECT User, Host, Proxied_user, Proxied_host FROM mysql.proxies_priv WHERE Proxied_user IN (" +
		strings.Join(literals, ", ") + ")"
	rows, err := c.conn.rows(ctx, fmt.Sprintf("%s ORDER BY 1, 2, 3, 4 LIMIT %d", query, maxListed+1))
	if err != nil || len(rows) == 0 {
		return err
	}
	query += ";"
	if !plain {
		query = ""
	}
	var list, statements []string
	for _, r := range rows[:min(len(rows), maxListed)] {
		list = append(list, shown(r[0], r[1]))
		if fault.IsShown(strings.Join(r, " ")) {
			statements = append(statements, "REVOKE PROXY ON "+shown(r[2], r[3])+" FROM "+shown(r[0], r[1])+";")
		}
	}
	text := count(len(rows), "proxy grant lets another account", "proxy grants let other accounts") + " act as " +
		strings.Join(shownNames(c.names()), " or ") +
		" with credentials of their own, which rotations and emergencies leave as they are: "
	c.outlasts("proxy-users", listing(text, list, len(rows)),
		c.advice("If the application does not need them:", statements, len(rows), query))
	return nil
}

// sentence makes a whole sentence of an error's text.
func sentence(text string) string { return fault.Capital(text) + "." }
