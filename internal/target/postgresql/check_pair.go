package postgresql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
)

// partner reads the other login of strategy double, and reports where the two are not equal.
func (k *check) partner(ctx context.Context, current role, name string) error {
	other, err := k.account(ctx, name, double)
	if err != nil || other.oid == 0 {
		return err
	}
	k.withoutEffect(other, current.name, double)
	if err := k.certified(ctx, current, other); err != nil {
		return err
	}
	account, clone := current, other
	if current.acts == other.name || current.stray == other.name {
		account, clone = other, current
	}
	acts := account.acts
	if (current.acts != current.name || other.acts != other.name) && ignoresRole(k.able.release) {
		k.found(target.Finding{
			Code:       "role-ignored",
			Verdict:    target.Impossible,
			Strategies: double,
			Account:    clone.name,
			Text: `This minor release of PostgreSQL ignores a role's setting "role", so ` + clone.name +
				" acts as itself.",
			Fix: "Update the server to the next minor release.",
		})
	}
	if clone.acts == acts && losesRole(k.able.release) {
		k.found(target.Finding{
			Code:       consentReset,
			Verdict:    target.NeedsConsent,
			Strategies: double,
			Account:    clone.name,
			Text:       "Sessions of " + clone.name + " act as " + acts + "; " + noteReset + ".",
			Fix:        "Update the server to its newest minor release.",
			Consent:    consentReset,
		})
	}
	if clone.acts != acts {
		return k.apart(ctx, account, clone)
	}
	if acts == account.name+target.OwnerSuffix {
		k.found(target.Finding{
			Code:       "renamed-owner",
			Verdict:    target.Note,
			Strategies: double,
			Account:    account.name,
			Text: fmt.Sprintf("Both logins act as %q, so what is looked up by the name %q at run time is not found.",
				acts, account.name),
			Fix: "keyturn target prepare-accounts TARGET --account=NAME --clone=CLONE shows how the account becomes " +
				"owner and login again.",
		})
	}
	if err := k.joined(ctx, account, clone, acts); err != nil {
		return err
	}
	if differ := slices.Concat(equalized(clone, account), labelledAlike(clone, account)); len(differ) > 0 {
		k.unequal(clone.name, fmt.Sprintf("%s has other settings, limits or attributes than %s.", clone.name, account.name),
			runTheseAlso(differ, account.name))
	}
	more, err := k.beyond(ctx, clone, account)
	if err != nil {
		return err
	}
	if len(more) > 0 {
		k.unequal(clone.name, fmt.Sprintf("%s is a member of roles that %s is not a member of.", clone.name, account.name),
			runThese(more))
	}
	for _, login := range []role{account, clone} {
		if login.name == acts {
			continue
		}
		if err := k.alone(ctx, login, acts); err != nil {
			return err
		}
	}
	if err := k.named(ctx, account, clone); err != nil {
		return err
	}
	return k.session(ctx, account, clone)
}

func (k *check) unequal(account, text, fix string) {
	k.found(target.Finding{
		Code:       consentUnequal,
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    account,
		Text:       text,
		Fix:        fix,
		Consent:    consentUnequal,
	})
}

// apart reports two logins that act as different roles, and have something that the other lacks.
func (k *check) apart(ctx context.Context, account, clone role) error {
	if clone.stray == account.name && account.acts == account.name {
		return k.joined(ctx, account, clone, account.name)
	}
	has, becomes, err := k.member(ctx, clone.name, account.acts)
	if err != nil {
		return err
	}
	if has && becomes {
		k.unequal(clone.name, fmt.Sprintf("%s acts as %q, not as %q.", clone.name, clone.acts, account.acts),
			runThese([]string{actsAs(clone.name, account.acts)}))
		return nil
	}
	for _, login := range []role{account, clone} {
		own, err := k.belongings(ctx, login)
		if err != nil {
			return err
		}
		if len(own) > 0 {
			k.unequal(login.name, fmt.Sprintf("%s has %s, which the other login lacks.", login.name, own[0]),
				"keyturn target prepare-accounts TARGET --account=NAME --clone=CLONE makes a second login of equal rights.")
		}
	}
	return nil
}

// joined reports a login that cannot act as the role.
func (k *check) joined(ctx context.Context, account, clone role, acts string) error {
	for _, login := range []role{account, clone} {
		if login.name == acts {
			continue
		}
		has, becomes, err := k.member(ctx, login.name, acts)
		if err != nil {
			return err
		}
		if !has || !becomes {
			k.found(target.Finding{
				Code:       "not-a-member",
				Verdict:    target.Impossible,
				Strategies: double,
				Account:    login.name,
				Text:       fmt.Sprintf("%s may not act as %q, or does not have its rights.", login.name, acts),
				Fix:        runThese([]string{join(acts, login.name, k.able.release)}),
			})
		}
	}
	return nil
}

// alone reports what belongs to a login itself, which acts as another role.
func (k *check) alone(ctx context.Context, login role, acts string) error {
	own, err := k.belongings(ctx, login)
	for _, b := range own {
		fix := "Grant it to " + acts + ", and revoke it from " + login.name + "."
		if b.owned && !b.defaults {
			fix = fmt.Sprintf("Run %s %s.", reassign(login.name, acts), inDatabase(cmp.Or(b.database, k.t.config.Database)))
		}
		k.unequal(login.name, fmt.Sprintf("%s has %s, which the other login lacks.", login.name, b), fix)
	}
	return err
}

// named reports lines of pg_hba.conf that name one login and not the other, where the administrator
// may read them.
func (k *check) named(ctx context.Context, account, clone role) error {
	var may bool
	err := k.conn.QueryRow(ctx, `SELECT has_table_privilege('pg_hba_file_rules', 'SELECT')
		AND has_function_privilege('pg_hba_file_rules()', 'EXECUTE')`).Scan(&may)
	if err != nil || !may {
		return asFailed(k.attempt, err)
	}
	rows, err := k.conn.Query(ctx, `SELECT line_number::int4, $1 = ANY (user_name),
		$2 = ANY (user_name) OR 'all' = ANY (user_name) OR EXISTS (SELECT FROM unnest(user_name) u, pg_roles g
			WHERE u = '+' || g.rolname AND pg_has_role($2::name, g.oid, 'MEMBER'))
		FROM pg_hba_file_rules WHERE error IS NULL AND auth_method <> 'reject' ORDER BY 1`, account.name, clone.name)
	if err != nil {
		return asFailed(k.attempt, err)
	}
	var line, at int
	var names, lets, other bool
	_, err = pgx.ForEachRow(rows, []any{&line, &names, &lets}, func() error {
		if names && !lets && at == 0 {
			at = line
		}
		other = other || lets
		return nil
	})
	if err != nil || at == 0 {
		return asFailed(k.attempt, err)
	}
	f := target.Finding{
		Code:       "hba-names-account",
		Verdict:    target.Note,
		Strategies: double,
		Account:    clone.name,
		Text:       fmt.Sprintf("Line %d of pg_hba.conf lets %s in and not %s.", at, account.name, clone.name),
		Fix:        fmt.Sprintf("Name %s there, too.", clone.name),
	}
	if !other {
		f.Verdict = target.Impossible
	}
	k.found(f)
	return nil
}

func asFailed(a *attempt, err error) error {
	if err != nil {
		return failed(a.what, err, a.secrets...)
	}
	return nil
}

// session reports what asks for session_user, which differs between the logins, in the databases
// that the application may open.
func (k *check) session(ctx context.Context, account, clone role) error {
	databases, err := k.sessionDatabases(ctx, account, clone)
	if err != nil {
		return err
	}
	var where, advice []string
	for _, database := range databases {
		found, err := k.readsSession(ctx, database)
		if err != nil {
			if err := k.unreadSession(ctx, clone, database, err); err != nil {
				return err
			}
			continue
		}
		if database == k.t.database() {
			where = append(where, found...)
			continue
		}
		for _, what := range found {
			where = append(where, what+" of "+databaseNamed(database))
			advice = []string{nameIt()}
		}
	}
	if len(where) == 0 {
		return nil
	}
	k.found(target.Finding{
		Code:       consentSession,
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    clone.name,
		Text: "The name of the login (session_user) differs between the two, and is read by " +
			strings.Join(where, ", ") + ".",
		Fix:     strings.Join(append([]string{"Use current_user there, which is the same for both."}, advice...), " "),
		Consent: consentSession,
	})
	return nil
}

// sessionDatabases returns the database that the application names, or, if it names none, all that
// it may open. The owner of any database can grant the account something there. Emergency rotations
// ignore other databases. Any other rotation waits until the operator names the application's
// database.
func (k *check) sessionDatabases(ctx context.Context, account, clone role) ([]string, error) {
	databases := []string{k.t.database()}
	if k.t.login.Database != "" || k.emergency {
		return databases, nil
	}
	more, err := k.usedDatabases(ctx, account.acts, account.name, clone.name)
	if err != nil {
		return nil, err
	}
	databases = append(databases, slices.DeleteFunc(more, func(d string) bool { return d == k.t.database() })...)
	if n := len(databases); n > maxDatabases {
		databases = databases[:maxDatabases]
		k.sessionUnread(clone.name,
			fmt.Sprintf("The account and its groups have rights in %d databases, of which the check reads %d. In the others, "+
				"Keyturn cannot see what uses session_user.", n, maxDatabases),
			"Set the database that the application opens (keyturn rotation configure NAME --login-database=DATABASE).")
	}
	return databases, nil
}

// unreadSession reports a database that could not be read. It returns the error if that is no
// finding: of the application's own database, which did not answer.
func (k *check) unreadSession(ctx context.Context, clone role, database string, err error) error {
	var fix []string
	further := database != k.t.database()
	if further {
		fix = []string{nameIt()}
	}
	switch {
	case isDenied(err):
		grant := fmt.Sprintf("Run GRANT CONNECT ON DATABASE %s TO %s.",
			quoteIdentifier(database), quoteIdentifier(k.t.admin.Account))
		k.sessionUnread(clone.name, fmt.Sprintf("The administrator cannot open %s, so its policies and "+
			"functions that read session_user are not known.", databaseNamed(database)),
			strings.Join(append([]string{grant}, fix...), " "))
	case further && ctx.Err() == nil:
		k.sessionUnread(clone.name, fmt.Sprintf("What reads session_user in %s is not known, because it cannot be "+
			"read: %v.", databaseNamed(database), err), nameIt())
	default:
		return err
	}
	return nil
}

// nameIt is the advice about a database that the application may not open at all.
func nameIt() string {
	return "If the application opens another database, name it: keyturn rotation configure NAME " +
		"--login-database=DATABASE."
}

func (k *check) sessionUnread(account, text, fix string) {
	k.found(target.Finding{
		Code:       "database-unread",
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    account,
		Text:       text,
		Fix:        fix,
		Consent:    consentSession,
	})
}

// readsSession returns what asks for session_user in a database.
func (k *check) readsSession(ctx context.Context, database string) ([]string, error) {
	a := k.attempt
	if database != k.t.config.Database {
		other, err := k.t.asAdminOf(ctx, k.what, database)
		if err != nil {
			return nil, err
		}
		defer other.close()
		if err := other.reading(ctx); err != nil {
			return nil, err
		}
		a = other
	}
	rows, err := a.conn.Query(ctx, readsSessionAt(k.able.release))
	if err != nil {
		return nil, asFailed(a, err)
	}
	where, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return where, asFailed(a, err)
}

// certified reports a client certificate that names one login: a line of pg_hba.conf that compares
// the name refuses the other.
func (k *check) certified(ctx context.Context, account, clone role) error {
	if len(k.t.certificates) == 0 || k.t.certificates[0].Leaf.Subject.CommonName != account.name {
		return nil
	}
	readable, compared := false, true
	err := k.conn.QueryRow(ctx, `SELECT pg_catalog.has_table_privilege('pg_catalog.pg_hba_file_rules', 'SELECT')
		AND pg_catalog.has_function_privilege('pg_catalog.pg_hba_file_rules()', 'EXECUTE')`).Scan(&readable)
	if err == nil && readable {
		err = k.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_hba_file_rules
			WHERE auth_method OPERATOR(pg_catalog.=) 'cert'
				OR 'clientcert=verify-full' OPERATOR(pg_catalog.=) ANY (options))`).Scan(&compared)
	}
	if err != nil || !compared {
		return asFailed(k.attempt, err)
	}
	k.found(target.Finding{
		Code:       consentCertificate,
		Verdict:    target.NeedsConsent,
		Strategies: double,
		Account:    clone.name,
		Text: fmt.Sprintf("The client certificate of the application names %s. A line of pg_hba.conf that compares the name "+
			"(clientcert=verify-full, cert) refuses %s with it.", account.name, clone.name),
		Fix:     "Use clientcert=verify-ca for these logins, or --strategy single.",
		Consent: consentCertificate,
	})
	return nil
}

// isDenied reports whether a login was refused for good: by a missing right, or because the
// database takes no sessions.
func isDenied(err error) bool {
	const takesNone = "55000"
	e, ok := errors.AsType[*target.Error](err)
	return ok && (e.Class == target.Denied || e.Code == takesNone)
}

// loginNames matches the ways in which SQL reads the name of the login. The text of system_user
// (PostgreSQL 16) ends with it.
const loginNames = "'session_user|system_user|session_authorization'"

// readsSession lists policies, views, functions and defaults that read the name of the login.
const readsSession = `SELECT 'policy ' || polname || ' on ' || polrelid::pg_catalog.regclass::text
		FROM pg_catalog.pg_policy WHERE pg_catalog.concat(pg_catalog.pg_get_expr(polqual, polrelid),
			pg_catalog.pg_get_expr(polwithcheck, polrelid)) OPERATOR(pg_catalog.~*) %[1]s
	UNION ALL SELECT 'default of a column of ' || adrelid::pg_catalog.regclass::text
		FROM pg_catalog.pg_attrdef
		WHERE pg_catalog.pg_get_expr(adbin, adrelid) OPERATOR(pg_catalog.~*) %[1]s
	UNION ALL SELECT 'rule or view ' || ev_class::pg_catalog.regclass::text FROM pg_catalog.pg_rewrite
		WHERE pg_catalog.pg_get_ruledef(oid) OPERATOR(pg_catalog.~*) %[1]s AND ev_class OPERATOR(pg_catalog.>=) 16384
	UNION ALL SELECT 'function ' || oid::pg_catalog.regprocedure::pg_catalog.text FROM pg_catalog.pg_proc
		WHERE (prosrc OPERATOR(pg_catalog.~*) %[1]s %[2]s) AND pronamespace NOT IN
			('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)
	ORDER BY 1 LIMIT 20`

// readsSessionAt returns the query for a version of the server: since PostgreSQL 14 the body of a
// function may be stored as it was understood.
func readsSessionAt(release int) string {
	understood := ""
	if release >= 140000 {
		understood = "OR pg_catalog.pg_get_function_sqlbody(oid) OPERATOR(pg_catalog.~*) " + loginNames
	}
	return fmt.Sprintf(readsSession, loginNames, understood)
}
