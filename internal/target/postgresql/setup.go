package postgresql

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
)

// shownVerifier stands in a plan for the verifier that the login keeps, so that the plan can be
// shown.
const shownVerifier = "'<the verifier it has now>'"

// setup reads the server and collects the statements of a plan.
type setup struct {
	*attempt
	request  target.PlanRequest
	verifier string              // of Account, when another role takes its name
	shared   []string            // statements on roles
	moves    map[string][]string // statements in each database, after the shared ones
	first    bool                // the moves come before the shared statements
	renamed  string              // the role that gets the account's name; empty for none
	owner    string              // the role that the logins act as afterwards
	others   []string            // accounts besides the logins that the statements change
	notes    []string
	lacks    missingRight // without which statements fail
}

// PlanAccounts plans two logins. The account stays what it is: the owner of its objects, a login,
// and the role that its sessions act as. The other login is its member, and its sessions act as the
// account; so whatever is looked up by the name of the acting role is found as before, and what
// either login makes belongs to the account.
//
// An account that an earlier release has made a member of a renamed owner gets its place back.
func (t *pg) PlanAccounts(ctx context.Context, r target.PlanRequest) (target.Plan, error) {
	s, err := t.setup(ctx, r)
	if err != nil {
		return target.Plan{}, err
	}
	defer s.close()
	return s.plan(), s.rollback(ctx)
}

// setup makes a plan in a transaction that it leaves open. The caller closes the connection.
func (t *pg) setup(ctx context.Context, r target.PlanRequest) (_ *setup, err error) {
	what := "plan two logins from " + r.Account
	for _, name := range []string{r.Account, r.Logins[0], r.Logins[1], cmp.Or(r.Owner, "x")} {
		if err := checkName(name); err != nil {
			return nil, target.Denied.Errorf("%s: a role %v", what, err)
		}
	}
	a, err := t.asAdmin(ctx, what, r.Current.Secret)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	s := &setup{attempt: a, request: r, moves: map[string][]string{}}
	if err := s.begin(ctx, r.Account); err != nil {
		return nil, err
	}
	if err := s.decide(ctx); err != nil {
		return nil, err
	}
	if s.lacks, err = s.missingRight(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *setup) refuse(format string, args ...any) error {
	return target.Failed(target.Denied, "", s.what+": "+fmt.Sprintf(format, args...), s.secrets...)
}

// decide checks the request against the server's roles and collects the statements.
func (s *setup) decide(ctx context.Context) error {
	account, found, err := s.role(ctx, s.request.Account)
	switch {
	case err != nil:
		return err
	case !found:
		return s.refuse("there is no role %q", s.request.Account)
	case !account.canLogin:
		return s.refuse("%q cannot log in", account.name)
	}
	if err := s.checkShareable(account); err != nil {
		return err
	}
	if ignoresRole(s.able.release) {
		return s.refuse("this minor release of PostgreSQL ignores a role's setting \"role\"; update the server first")
	}
	name := s.request.Logins[0]
	if name == account.name {
		name = s.request.Logins[1]
	} else if s.request.Logins[1] != account.name {
		return s.refuse("%q must be one of the two logins", account.name)
	}
	if name == account.name || name == account.acts {
		return s.refuse("the account and its clone are two roles")
	}
	clone, exists, err := s.role(ctx, name)
	if err != nil {
		return err
	}
	if long := cmp.Or(account.longSetting(), clone.longSetting()); long != "" {
		return s.refuse("setting %q of the logins has more than %d bytes; reset it", long, maxSetting)
	}
	legacy, err := s.hasOwner(ctx, account)
	switch {
	case err != nil:
		return err
	case s.request.Undo:
		return s.undo(ctx, account, clone, exists)
	case legacy && s.wanted() == "":
		return s.migrate(ctx, account, clone, exists)
	case s.wanted() != "" && s.wanted() != account.acts:
		return s.refuse(
			"%q does not act as %q, and would find other objects if it did; name no owner, and it stays the owner",
			account.name, s.request.Owner,
		)
	}
	group := account.name
	if legacy {
		group = account.acts
	}
	s.owner = account.acts
	if exists {
		return s.joinClone(ctx, account, clone, group)
	}
	s.makeClone(account, name, group)
	return nil
}

// checkShareable refuses a login whose rights a member of it would not have.
func (s *setup) checkShareable(r role) error {
	switch {
	case r.super:
		return s.refuse("%q is a superuser, whose rights cannot be shared by membership; use a role without SUPERUSER",
			r.name)
	case r.replicas:
		return s.refuse("%q has REPLICATION, which membership does not give; use a role without it", r.name)
	}
	return nil
}

// hasOwner reports whether the account is a member of the owner that earlier releases made of it.
func (s *setup) hasOwner(ctx context.Context, account role) (bool, error) {
	if account.acts == account.name || account.acts != cmp.Or(s.wanted(), account.name+target.OwnerSuffix) {
		return false, nil
	}
	owner, found, err := s.role(ctx, account.acts)
	return found && !owner.canLogin && !owner.super, err
}

// wanted returns the owner that the request names; empty when it names the account itself.
func (s *setup) wanted() string {
	if s.request.Owner == s.request.Account {
		return ""
	}
	return s.request.Owner
}

// makeClone plans a new login.
func (s *setup) makeClone(account role, name, group string) {
	s.alsoChanges(group)
	statement := "CREATE ROLE " + quoteIdentifier(name) + " LOGIN INHERIT"
	if account.limit >= 0 {
		statement += fmt.Sprintf(" CONNECTION LIMIT %d", account.limit)
	}
	if account.validUntil != "" {
		statement += " VALID UNTIL " + quoteLiteral(account.validUntil)
	}
	s.shared = append(s.shared, statement+" IN ROLE "+quoteIdentifier(group))
	made := role{name: name, limit: account.limit, validUntil: account.validUntil}
	s.shared = slices.Concat(s.shared, equalized(made, account), labelledAlike(made, account))
	s.shared = append(s.shared, actsAs(name, account.acts))
	s.notes = append(
		s.notes,
		"pg_hba.conf and poolers must let the new login in",
		noteSession(account.name, name),
	)
	if losesRole(s.able.release) {
		s.notes = append(s.notes, noteReset)
	}
	if account.limit >= 0 {
		s.notes = append(s.notes, fmt.Sprintf("each login has a connection limit of %d of its own", account.limit))
	}
}

// noteSession says what the server looks up by the name of the login, which no setting changes.
func noteSession(account, clone string) string {
	return fmt.Sprintf(
		"session_user is %s in sessions of %s; they see and cancel sessions of one another only if %s has "+
			"pg_signal_backend and pg_read_all_stats",
		clone, clone, account,
	)
}

// noteReset says what breaks the scheme at old minor releases.
const noteReset = "at this minor release, DISCARD ALL and SET SESSION AUTHORIZATION DEFAULT, which some poolers and " +
	"drivers send between two clients, end the effect of a role's setting \"role\""

// joinClone adds to a login that exists what it lacks.
func (s *setup) joinClone(ctx context.Context, account, clone role, group string) error {
	if !clone.canLogin {
		return s.refuse("role %q exists and cannot log in", clone.name)
	}
	if err := s.checkShareable(clone); err != nil {
		return err
	}
	has, becomes, err := s.member(ctx, clone.name, group)
	if err != nil {
		return err
	}
	if clone.acts != account.acts {
		if err := s.checkUnused(ctx, clone, group); err != nil {
			return err
		}
		s.notes = append(
			s.notes,
			fmt.Sprintf("%q exists already and gets another password", clone.name),
			noteSession(account.name, clone.name),
		)
	}
	if !has || !becomes {
		s.alsoChanges(group)
		s.shared = append(s.shared, join(group, clone.name, s.able.release))
	}
	s.shared = slices.Concat(s.shared, equalized(clone, account), labelledAlike(clone, account))
	more, err := s.beyond(ctx, clone, account)
	if err != nil {
		return err
	}
	s.shared = append(s.shared, more...)
	if clone.acts != account.acts {
		s.shared = append(s.shared, actsAs(clone.name, account.acts))
	}
	return s.move(ctx, clone, account.acts)
}

// checkUnused refuses a role that is something of its own: it would be another one afterwards.
func (s *setup) checkUnused(ctx context.Context, clone role, group string) error {
	own, err := s.belongings(ctx, clone)
	if err != nil {
		return err
	}
	var others int
	err = s.conn.QueryRow(ctx, `SELECT count(*) FROM pg_catalog.pg_auth_members m
		JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = $1 AND g.rolname <> $2`, clone.oid, group).
		Scan(&others)
	switch {
	case err != nil:
		return failed(s.what, err, s.secrets...)
	case len(own) > 0:
		return s.refuse("role %q exists and has %s; name another clone", clone.name, own[0])
	case others+len(clone.settings)+len(clone.attributes)+len(clone.labels) > 0,
		clone.acts != clone.name,
		clone.stray != "":
		return s.refuse("role %q exists and has memberships, attributes or settings of its own; name another clone",
			clone.name)
	}
	return nil
}

// move plans to give a login's objects to the role that it acts as, and refuses a login with
// something that cannot be moved.
func (s *setup) move(ctx context.Context, r role, to string) error {
	own, err := s.belongings(ctx, r)
	if len(own) > 0 {
		s.alsoChanges(to)
	}
	for _, b := range own {
		if b.defaults || !b.owned {
			return s.refuse(
				"%q has %s, which the other login lacks; give them to %q, and REVOKE them", r.name, b, to,
			)
		}
		if !b.connectable {
			return s.refuse("%q has %s, which permits no connections", r.name, b)
		}
		s.moveIn(b.database, reassign(r.name, to))
	}
	return err
}

// alsoChanges notes a role that the request may not name, and that gets objects or members.
func (s *setup) alsoChanges(name string) {
	if !slices.Contains(s.request.Logins[:], name) && !slices.Contains(s.others, name) {
		s.others = append(s.others, name)
	}
}

func (s *setup) moveIn(database, statement string) {
	database = cmp.Or(database, s.t.config.Database)
	if !slices.Contains(s.moves[database], statement) {
		s.moves[database] = append(s.moves[database], statement)
	}
}

// migrate plans to leave the scheme of earlier releases: the owner gets the account's name,
// password and settings back, and is the login again.
func (s *setup) migrate(ctx context.Context, account, clone role, exists bool) error {
	owner, _, err := s.role(ctx, account.acts)
	if err != nil {
		return err
	}
	s.renamed = owner.name
	s.others = append(s.others, owner.name)
	if s.verifier, err = s.keep(ctx, account); err != nil {
		return err
	}
	old := role{name: account.name + "_login"}
	if _, taken, err := s.role(ctx, old.name); err != nil || taken {
		return cmp.Or(err, s.refuse("there is a role %q; drop or rename it first", old.name))
	}
	login := quoteIdentifier(account.name)
	s.shared = append(s.shared,
		"ALTER ROLE "+login+" RENAME TO "+quoteIdentifier(old.name),
		"ALTER ROLE "+quoteIdentifier(old.name)+" NOLOGIN PASSWORD NULL",
		"ALTER ROLE "+quoteIdentifier(owner.name)+" RENAME TO "+login,
		"ALTER ROLE "+login+" LOGIN PASSWORD "+shownVerifier)
	acting, err := s.actingAs(ctx, owner.name)
	if err != nil {
		return err
	}
	before := owner
	owner.name = account.name
	s.shared = append(s.shared, equalized(owner, account)...)
	if before.acts != before.name {
		s.shared = append(s.shared, actsAs(owner.name, owner.name))
	}
	for _, name := range acting {
		if name != account.name {
			s.shared = append(s.shared, actsAs(name, account.name))
			if name != s.clone() {
				s.others = append(s.others, name)
			}
		}
	}
	s.notes = append(s.notes, fmt.Sprintf(
		"%s acts as itself again; %s stays for its open sessions, then DROP ROLE %s",
		account.name, old.name, quoteIdentifier(old.name),
	))
	if err := s.move(ctx, role{oid: account.oid, name: old.name}, account.name); err != nil {
		return err
	}
	account.acts = account.name
	s.owner = account.name
	if !exists {
		s.makeClone(account, s.clone(), account.name)
		return nil
	}
	if clone.acts != before.name {
		return s.refuse("role %q exists and does not act as %q; name another clone", clone.name, before.name)
	}
	s.shared = append(s.shared, equalized(clone, account)...)
	return s.move(ctx, clone, account.name)
}

// clone returns the login that is not the account.
func (s *setup) clone() string {
	if s.request.Logins[0] == s.request.Account {
		return s.request.Logins[1]
	}
	return s.request.Logins[0]
}

// actingAs returns the roles whose sessions act as a role. A role that only names it in its setting
// is not one of them.
func (s *setup) actingAs(ctx context.Context, name string) ([]string, error) {
	rows, err := s.conn.Query(ctx, `SELECT r.rolname::text FROM pg_catalog.pg_db_role_setting s
		JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
		WHERE s.setdatabase = 0 AND 'role=' || $1 = ANY (s.setconfig) AND pg_has_role(r.oid, $1::text::name, $2)
		ORDER BY 1`, name, s.able.becoming())
	if err != nil {
		return nil, failed(s.what, err, s.secrets...)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, failed(s.what, err, s.secrets...)
	}
	return names, nil
}

// keep returns the verifier that the account keeps when another role takes its name.
func (s *setup) keep(ctx context.Context, account role) (string, error) {
	if s.able.reads {
		stored, err := s.stored(ctx, account.name)
		if err == nil && stored == "" {
			return "", s.refuse("%q has no password to keep", account.name)
		}
		return stored, err
	}
	if s.request.Current.Account != account.name || s.request.Current.Secret.IsZero() {
		return "", s.refuse(
			"the password of %q is needed, or the right to read verifiers: "+
				"GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid",
			account.name,
		)
	}
	if err := s.t.logIn(ctx, s.t.config.AdminAddress, s.request.Current, false); err != nil {
		return "", err
	}
	return newVerifier(s.request.Current.Secret, s.able.iterations)
}

// undo plans to remove the clone.
func (s *setup) undo(ctx context.Context, account, clone role, exists bool) error {
	s.owner = account.acts
	if !exists {
		return nil
	}
	_, becomes, err := s.member(ctx, clone.name, account.acts)
	if err != nil {
		return err
	}
	if clone.acts != account.acts || !becomes {
		return s.refuse("role %q does not act as %q, so it is not its clone", clone.name, account.acts)
	}
	if s.able.reads {
		if stored, err := s.stored(ctx, account.name); err != nil || stored == "" {
			return cmp.Or(err, s.refuse("%q has no password, because the one in use is of %q: give the applications one of %q "+
				"first (ALTER ROLE %s PASSWORD '…'), and repeat the call when they use it",
				account.name, clone.name, account.name, quoteIdentifier(account.name)))
		}
	}
	var sessions int
	err = s.conn.QueryRow(ctx, "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1", clone.oid).
		Scan(&sessions)
	if err != nil {
		return failed(s.what, err, s.secrets...)
	}
	if sessions > 0 {
		return s.refuse("%q has open sessions (%d): end them first", clone.name, sessions)
	}
	own, err := s.belongings(ctx, clone)
	if err != nil {
		return err
	}
	for _, b := range own {
		if !b.connectable {
			return s.refuse("%q has %s, which permits no connections", clone.name, b)
		}
		s.moveIn(b.database, reassign(clone.name, account.acts))
		s.moveIn(b.database, "DROP OWNED BY "+quoteIdentifier(clone.name))
	}
	if account.acts != account.name && len(own) > 0 {
		s.others = append(s.others, account.acts) // which gets objects
	}
	s.first = true
	s.shared = append(s.shared, "DROP ROLE "+quoteIdentifier(clone.name))
	return nil
}
