package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
)

// allows refuses accounts that rotations at a target must not change for a secret: those outside
// its account policy, and its administrator's under any spelling. The secret with the administrator
// may change the accounts that it names itself.
func (e *Env) allows(tx *store.Tx, t store.Target, name string, accounts []string) error {
	if t.AdminSecret == name {
		return nil
	}
	admins, err := e.adminAccounts(tx, t)
	if err != nil {
		return err
	}
	for _, account := range accounts {
		if slices.ContainsFunc(admins, func(admin string) bool { return target.SameAccount(account, admin) }) {
			return administratorRefused(t, account)
		}
		if !target.AllowsAccount(t.Accounts, account) {
			return fault.New(fault.InUse,
				"The account policy of target %q does not allow account %q; UpdateTarget with Account "+
					"changes it. It allows: %s.",
				t.Name, account, strings.Join(t.Accounts, ", "))
		}
	}
	return nil
}

// admit refuses accounts as allows does, and asks the open target what they are: the administrator
// under another name, or a privileged account that the account policy does not name exactly.
func (e *Env) admit(
	ctx context.Context, tx *store.Tx, t store.Target, system target.Target, name string, accounts []string,
) error {
	if err := e.allows(tx, t, name, accounts); err != nil || t.AdminSecret == name {
		return err
	}
	guarded, ok := system.(target.Guarded)
	if !ok {
		return nil
	}
	for _, account := range accounts {
		standing, err := guarded.Standing(ctx, account)
		switch {
		case err != nil:
			return err
		case standing.Administrator:
			return administratorRefused(t, account)
		case standing.Privileged != "" && !target.NamesAccount(t.Accounts, account):
			return fault.New(fault.InUse,
				"Account %q of target %q is privileged: it %s. Rotations may change it only when "+
					"the account policy names it exactly: keyturn target update %s%s.",
				account, t.Name, standing.Privileged, t.Name, policyWith(t.Accounts, account))
		}
	}
	return nil
}

// policyWith returns the flags that keep an account policy and add an account to it.
func policyWith(patterns []string, account string) string {
	if len(patterns) == 0 {
		patterns = []string{"*"} // as without a policy: every ordinary account
	}
	var flags strings.Builder
	for _, p := range append(slices.Clone(patterns), account) {
		fmt.Fprintf(&flags, " --account %q", p)
	}
	return flags.String()
}

func administratorRefused(t store.Target, account string) error {
	return fault.New(fault.InUse, "Account %q is the administrator of target %q, which only the secret %q may rotate.",
		account, t.Name, t.AdminSecret)
}

// adminAccounts are the accounts that the secret with a target's administrator names: the one in
// use and, of a pair, the other.
func (e *Env) adminAccounts(tx *store.Tx, t store.Target) ([]string, error) {
	if t.AdminSecret == "" {
		return nil, nil
	}
	s, ok, err := tx.Secret(t.Account, t.AdminSecret, e.Now().UTC())
	if err != nil || !ok || s.Deleting() {
		return nil, err // nothing can be changed at the target without its administrator
	}
	var names []string
	for _, stage := range []secret.Stage{secret.Current, secret.Previous} {
		v, ok := s.Versions[s.Stages[stage]]
		if !ok {
			continue
		}
		list, _, err := credentials(e, tx, s, v)
		if kind := fault.KindOf(err); err != nil && kind != fault.Invalid && kind != fault.InUse {
			return nil, err
		}
		for _, c := range list {
			names = append(names, c.Account)
		}
	}
	return names, nil
}

// mayUse refuses a credential of an account that the binding of its secret does not name.
func mayUse(s secret.Secret, c target.Credential) error {
	if s.MayChange(c.Account) {
		return nil
	}
	return fault.New(fault.InUse,
		"Secret %q is not bound to account %q; a principal with %s on it binds it by "+
			"ConfigureRotation or RotateSecret.", s.Name, c.Account, actionRotateAccount)
}
