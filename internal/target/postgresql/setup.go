package postgresql

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/internal/target"
)

// shownVerifier stands in a plan for the verifier that the login keeps, so that the plan can be
// shown.
const shownVerifier = "'<the verifier it has now>'"

// setup reads the server and collects the statements of a plan.
type setup struct {
	*attempt
	request  target.PlanRequest
	able     abilities
	verifier string              // of Account, when Account is made anew
	shared   []string            // statements on roles
	moves    map[string][]string // REASSIGN OWNED for each database
	notes    []string
}

// PlanAccounts plans two logins: one role owns everything and cannot log in; two members of it act
// as it when they log in, so that the objects that either makes belong to the owner.
//
// An existing login is renamed and becomes the owner. In the same transaction a new login gets its
// old name and password. So its objects, grants and default privileges in every database need no
// change.
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
	if s.able, err = s.abilities(ctx); err != nil {
		return nil, err
	}
	if err := s.begin(ctx, r.Account); err != nil {
		return nil, err
	}
	return s, s.decide(ctx)
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
	case account.super:
		return s.refuse(
			"%q is a superuser, whose rights cannot be shared by membership; use a role without SUPERUSER",
			account.name,
		)
	case account.replicas:
		return s.refuse("%q has REPLICATION, which membership does not give; use a role without it", account.name)
	}
	if s.request.Owner == "" {
		s.request.Owner = account.name
		if account.canLogin {
			s.request.Owner += target.OwnerSuffix
		}
	}
	if err := checkName(s.request.Owner); err != nil {
		return s.refuse("the owner %v", err)
	}
	logins := s.request.Logins
	if logins[0] == logins[1] || slices.Contains(logins[:], s.request.Owner) {
		return s.refuse("the owner and the two logins are three roles")
	}
	if s.request.Owner == account.name && account.canLogin {
		return s.refuse("%q is a login; name another owner", account.name)
	}
	if !account.canLogin && s.request.Owner != account.name {
		return s.refuse("%q cannot log in, so it is the owner; name no other", account.name)
	}
	return s.decideLogins(ctx, account)
}

func (s *setup) decideLogins(ctx context.Context, account role) error {
	owner, exists, err := s.role(ctx, s.request.Owner)
	if err != nil {
		return err
	}
	wanted := s.request.Logins[:]
	if exists {
		if owner.canLogin || owner.super {
			return s.refuse("role %q exists and is a login or a superuser; name another owner", owner.name)
		}
		if account.canLogin && !slices.Contains(wanted, account.name) {
			wanted = append(slices.Clone(wanted), account.name)
		}
	} else {
		if err := s.rename(ctx, account); err != nil {
			return err
		}
		wanted = slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return name == account.name })
	}
	settings, err := s.settings(ctx, account.oid)
	if err != nil {
		return err
	}
	for _, name := range wanted {
		if err := s.login(ctx, name, account, settings); err != nil {
			return err
		}
	}
	s.notes = append(s.notes, "pg_hba.conf and poolers must let each login in that did not exist before")
	return nil
}

// rename makes the account the owner, and a new login in its place.
func (s *setup) rename(ctx context.Context, account role) error {
	verifier, err := s.keep(ctx, account)
	if err != nil {
		return err
	}
	s.verifier = verifier
	settings, err := s.settings(ctx, account.oid)
	if err != nil {
		return err
	}
	owner := quoteIdentifier(s.request.Owner)
	s.shared = append(s.shared,
		"ALTER ROLE "+quoteIdentifier(account.name)+" RENAME TO "+owner,
		"ALTER ROLE "+owner+" NOLOGIN PASSWORD NULL",
		s.create(account.name, account)+" PASSWORD "+shownVerifier)
	s.become(account.name, settings)
	if !slices.Contains(s.request.Logins[:], account.name) {
		s.notes = append(
			s.notes,
			fmt.Sprintf(
				"%q stays as a third login until its users have moved; then DROP ROLE %s", account.name,
				quoteIdentifier(account.name),
			),
		)
	}
	return nil
}

// keep returns the verifier that the account keeps when it is made anew.
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
	if err := s.t.login(ctx, s.t.config.AdminAddress, s.request.Current, ""); err != nil {
		return "", err
	}
	return newVerifier(s.request.Current.Secret, s.able.iterations)
}

func (s *setup) create(name string, like role) string {
	statement := "CREATE ROLE " + quoteIdentifier(name) + " LOGIN INHERIT"
	if like.limit >= 0 {
		statement += fmt.Sprintf(" CONNECTION LIMIT %d", like.limit)
	}
	if like.validUntil != "" {
		statement += " VALID UNTIL " + quoteLiteral(like.validUntil)
	}
	return statement + " IN ROLE " + quoteIdentifier(s.request.Owner)
}

// become makes a login act as the owner, with the settings that the account had.
func (s *setup) become(name string, settings []string) {
	login := "ALTER ROLE " + quoteIdentifier(name)
	for _, setting := range settings {
		s.shared = append(s.shared, login+setting)
	}
	s.shared = append(s.shared, login+" SET role = "+quoteLiteral(s.request.Owner))
}

// login makes one of the logins, or adds to an existing one what it lacks.
func (s *setup) login(ctx context.Context, name string, like role, settings []string) error {
	r, exists, err := s.role(ctx, name)
	switch {
	case err != nil:
		return err
	case !exists:
		s.shared = append(s.shared, s.create(name, like))
		s.become(name, settings)
		return nil
	case !r.canLogin:
		return s.refuse("role %q exists and cannot log in", name)
	case r.super:
		return s.refuse("%q is a superuser; use a role without SUPERUSER", name)
	}
	var member, becomes bool
	err = s.conn.QueryRow(ctx, `SELECT
		EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles o ON o.oid = m.roleid
			WHERE m.member = $1 AND o.rolname = $2),
		EXISTS (SELECT FROM pg_catalog.pg_db_role_setting
			WHERE setrole = $1 AND setdatabase = 0 AND 'role=' || $2 = ANY (setconfig))`,
		r.oid, s.request.Owner).Scan(&member, &becomes)
	if err != nil {
		return failed(s.what, err, s.secrets...)
	}
	if name != like.name {
		s.notes = append(
			s.notes, fmt.Sprintf("%q exists already; when it takes its turn it gets another password", name),
		)
	}
	if !member {
		s.shared = append(s.shared, "GRANT "+quoteIdentifier(s.request.Owner)+" TO "+quoteIdentifier(name))
	}
	if !becomes {
		s.become(name, nil)
	}
	return s.belongings(ctx, r)
}
