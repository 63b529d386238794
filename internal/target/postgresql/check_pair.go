package postgresql

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// partner reads the other login of strategy double, and reports where the two are not equal.
func (k *check) partner(ctx context.Context, current role, name string) error {
	other, err := k.account(ctx, name, double)
	if err != nil || other.oid == 0 {
		return err
	}
	k.withoutEffect(other, current.name, double)
	if err := k.outOfUse(ctx, other); err != nil {
		return err
	}
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
			Text:       "Sessions of " + clone.name + " act as " + fault.Quoted(acts) + "; " + noteReset + ".",
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
			Text: fmt.Sprintf("Both logins act as %s, so what is looked up by the name %q at run time is not found.",
				fault.Quoted(acts), account.name),
			Fix: "keyturn target prepare-accounts TARGET --account=NAME --clone=CLONE shows how the account becomes " +
				"owner and login again.",
		})
	}
	if err := k.joined(ctx, account, clone, acts); err != nil {
		return err
	}
	k.differing(account, clone)
	if err := k.exceeding(ctx, account, clone); err != nil {
		return err
	}
	if err := k.named(ctx, account, clone); err != nil {
		return err
	}
	k.pair = &pair{account: account, clone: clone, acts: acts}
	for _, login := range []role{account, clone} {
		if login.name != acts {
			k.pair.alone = append(k.pair.alone, login)
		}
	}
	return nil
}

// outOfUse reports a password of the login that the last rotation has left without one.
func (k *check) outOfUse(ctx context.Context, other role) error {
	if !k.retired || !k.able.reads {
		return nil
	}
	stored, err := k.stored(ctx, other.name)
	if err == nil && stored != "" {
		k.found(target.Finding{
			Code:       target.CodeNotOurs,
			Verdict:    target.Note,
			Strategies: double,
			Account:    other.name,
			Text: fmt.Sprintf("Role %s is out of use, and has a password that Keyturn did not set: who knows it can log in.",
				fault.Quoted(other.name)),
			Fix: "If that is a leak, keyturn rotation emergency NAME replaces the credential in use too. To remove it, " +
				"run ALTER ROLE " + quoteIdentifier(other.name) + " PASSWORD NULL. Sessions of either login can set it " +
				"again until they end.",
		})
	}
	return err
}

// differing reports what a login has for itself alone, with the statements after which it has what
// the other one has. more are such statements, too.
func (k *check) differing(account, clone role, more ...string) {
	statements := slices.Concat(equalized(clone, account), labelledAlike(clone, account), more)
	if len(statements) > 0 {
		k.unequal(clone.name, fmt.Sprintf("%s has other settings, limits or attributes than %s.", clone.name, account.name),
			runTheseAlso(statements, account.name))
	}
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

// apart reports two logins that act as different roles, and what one of them has and the other one
// lacks. Objects and grants in databases are compared later.
func (k *check) apart(ctx context.Context, account, clone role) error {
	if clone.stray == account.name && account.acts == account.name {
		return k.joined(ctx, account, clone, account.name)
	}
	has, becomes, err := k.member(ctx, clone.name, account.acts)
	if err != nil {
		return err
	}
	if has && becomes {
		k.unequal(clone.name,
			fmt.Sprintf("%s acts as %s, not as %s.", clone.name, fault.Quoted(clone.acts), fault.Quoted(account.acts)),
			runThese([]string{actsAs(clone.name, account.acts)}))
		k.differing(account, clone)
		return nil
	}
	k.differing(account, clone, attributesLike(clone, account)...)
	lacks, err := k.lacking(ctx, clone, account)
	if err != nil {
		return err
	}
	if len(lacks) > 0 {
		k.unequal(clone.name, fmt.Sprintf("%s is a member of roles that %s is not a member of.", account.name, clone.name),
			runThese(lacks))
	}
	if err := k.exceeding(ctx, account, clone); err != nil {
		return err
	}
	k.pair = &pair{account: account, clone: clone, alone: []role{account, clone}}
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
				Text:       fmt.Sprintf("%s may not act as %s, or does not have its rights.", login.name, fault.Quoted(acts)),
				Fix:        runThese([]string{join(acts, login.name, k.able.release)}),
			})
		}
	}
	return nil
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
