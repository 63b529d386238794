package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// maxAccounts bounds the accounts of one user name: each is read and compared.
const maxAccounts = 200

var (
	errManyAccounts = fmt.Errorf("%w: more than %d accounts have the name", errStored, maxAccounts)
	errSeveral      = errors.New("several accounts have the name, and none accepts the credential in use")
	errLeftOut      = errors.New("account_host leaves out an account that accepts the previous password")
	errUnread       = errors.New(
		"an account of the name at another host logs in by a plugin whose passwords cannot be compared, so it may " +
			"accept the same password",
	)
)

// edit is what follows ALTER USER and an account, in order.
type edit struct {
	account account
	clauses []string
}

// quotedAccount returns an account as a statement names it, for the session of an administrator.
// For a statement that is shown to an operator, use [shown].
func quotedAccount(name, host string) string { return quote(name) + "@" + quote(host) }

// whoAll names accounts for an operator.
func whoAll(name string, accounts []account) string {
	var list []string
	for _, a := range accounts {
		list = append(list, shown(name, a.host))
	}
	return strings.Join(list, ", ")
}

// accounts reads the accounts of a name, in the order of their hosts, without roles.
func (t *my) accounts(ctx context.Context, conn *conn, name string) ([]account, error) {
	rows, err := conn.rows(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE User = %s ORDER BY Host LIMIT %d",
		t.server.columns(), t.server.stored(), quote(name), maxAccounts+1))
	if err != nil {
		return nil, err
	}
	if len(rows) > maxAccounts {
		return nil, errManyAccounts
	}
	var out []account
	for _, row := range rows {
		a, login, err := t.server.parse(row)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errStored, err)
		}
		if login {
			out = append(out, a)
		}
	}
	return out, nil
}

// within returns the accounts at the hosts that the configuration names.
func (t *my) within(all []account) []account {
	return slices.DeleteFunc(slices.Clone(all), func(a account) bool { return !t.config.AccountHost.has(a.host) })
}

// accepting returns the accounts that a password opens.
func accepting(all []account, password sensitive.Value) []account {
	return slices.DeleteFunc(slices.Clone(all), func(a account) bool { return !a.accepts(password) })
}

// changed returns the accounts that a change under way is about: those at the hosts that the
// configuration names, and those that accept all its passwords, at least two. The change was made
// there before the configuration left their hosts out.
func (t *my) changed(all []account, passwords ...sensitive.Value) []account {
	several := len(passwords) > 1 && !passwords[0].Equal(passwords[1])
	return slices.DeleteFunc(slices.Clone(all), func(a account) bool {
		refuses := func(p sensitive.Value) bool { return !a.accepts(p) }
		return !t.config.AccountHost.has(a.host) && (!several || slices.ContainsFunc(passwords, refuses))
	})
}

// retiring returns the accounts from which Old is taken. leftOut is the error of a retirement after
// which Old continues to open another account, unless the operator has agreed to that.
func (t *my) retiring(all []account, c target.Change) (out []account, leftOut error) {
	out = t.changed(all, c.Old.Secret, c.New.Secret)
	if c.Old.Account != c.New.Account {
		out = t.within(all)
	}
	left := slices.DeleteFunc(accepting(all, c.Old.Secret), func(a account) bool {
		return slices.ContainsFunc(out, func(b account) bool { return a.host == b.host })
	})
	if len(left) == 0 || c.Emergency || slices.Contains(t.consent, leaveHosts) {
		return out, nil
	}
	return out, fmt.Errorf("%w: %s; keyturn target update TARGET --set %s includes it, and keyturn rotation configure "+
		"NAME --consent=%s agrees to leave the password there", errLeftOut, whoAll(c.Old.Account, left),
		accountHost(out, left), leaveHosts)
}

// members returns the accounts of a name that one credential opens, which a change must therefore
// change together: those that accept one of the passwords, or all at the hosts that the operator
// has chosen. An account with another password belongs to another application, which would lose it.
func members(h hosts, all []account, passwords ...sensitive.Value) ([]account, error) {
	var accept, unsure []account
	for _, a := range all {
		known := true
		if slices.ContainsFunc(passwords, func(p sensitive.Value) bool {
			_, certain := a.find(p)
			known = known && certain
			return a.accepts(p)
		}) {
			accept = append(accept, a)
		} else if !known {
			unsure = append(unsure, a)
		}
	}
	switch {
	case h.chosen(), len(all) == 1:
		return all, nil
	case len(accept) == 0:
		return nil, choose(errSeveral, all)
	case len(unsure) > 0:
		return nil, choose(errUnread, all)
	}
	return accept, nil
}

// choose adds to an error the command that says which of the accounts are meant.
func choose(err error, all []account) error {
	return fmt.Errorf("%w: keyturn target update TARGET --set %s chooses the accounts to change; leave out hosts of "+
		"other applications", err, accountHost(all))
}

// add returns the edits that give New to all accounts that Old opens. With strategy double, Old is
// of another name, so all accounts of the name that take a password get New.
func (t *my) add(all []account, c target.Change) ([]edit, error) {
	chosen, err := all, error(nil)
	if c.New.Account == c.Old.Account {
		chosen, err = members(t.config.AccountHost, all, c.Old.Secret, c.New.Secret)
	} else if !t.config.AccountHost.chosen() && len(all) > 1 {
		chosen = slices.DeleteFunc(slices.Clone(all), func(a account) bool { return len(a.passwords()) == 0 })
	}
	if err == nil && len(chosen) == 0 {
		err = errPlugin
	}
	if err != nil {
		return nil, err
	}
	return edits(chosen, func(a account) ([]string, error) {
		return change(t.server, a, c, slices.Contains(t.consent, changePlugin))
	})
}

// remove returns the edits that take Old away. With last, it may be an account's only password.
// Otherwise an account that has Old alone gets New instead, if another account has New: an operator
// has added the account since, or has set the old password again.
func (t *my) remove(all []account, c target.Change, last bool) ([]edit, error) {
	elsewhere := slices.ContainsFunc(all, func(a account) bool { return a.accepts(c.New.Secret) })
	return edits(all, func(a account) ([]string, error) {
		clauses, err := t.server.remove(a, c.Old.Secret, c.New.Secret, last)
		if errors.Is(err, errLast) && elsewhere {
			return t.server.replace(a, c.Old.Secret, c.New.Secret)
		}
		if errors.Is(err, errUnsure) && elsewhere && !t.config.AccountHost.chosen() {
			return nil, nil // it did not belong to the change
		}
		return clauses, err
	})
}

func edits(accounts []account, decide func(account) ([]string, error)) ([]edit, error) {
	var out []edit
	for _, a := range accounts {
		clauses, err := decide(a)
		if err != nil {
			return nil, fmt.Errorf("at host %s: %w", shownName(a.host), err)
		}
		if len(clauses) > 0 {
			out = append(out, edit{a, clauses})
		}
	}
	return out, nil
}

// statements returns the statements of edits: each changes all accounts at once, in MySQL
// atomically.
func statements(name string, list []edit) []string {
	var out []string
	for i := 0; ; i++ {
		var changes []string
		for _, e := range list {
			if i < len(e.clauses) {
				changes = append(changes, quotedAccount(name, e.account.host)+" "+e.clauses[i])
			}
		}
		if len(changes) == 0 {
			return out
		}
		out = append(out, "ALTER USER "+strings.Join(changes, ", "))
	}
}

// liveness answers for credentials of one account by what the server stores. Where a change has
// reached only some of the accounts that it must reach, none of its credentials opens all of them:
// then the last one counts as live, which the engine asks about after the candidate, so that it
// sends the candidate again.
func liveness(all []account, passwords []sensitive.Value) []target.Liveness {
	accept := slices.DeleteFunc(slices.Clone(all), func(a account) bool {
		return !slices.ContainsFunc(passwords, a.accepts)
	})
	out := make([]target.Liveness, len(passwords))
	partial := -1
	for i, p := range passwords {
		opens, usable, certain := 0, 0, true
		for _, a := range all {
			_, sure := a.find(p)
			certain = certain && sure
			if a.accepts(p) {
				opens++
				if !a.locked {
					usable++
				}
			}
		}
		switch {
		case opens == 0 && certain:
			out[i] = target.Dead
		case opens == 0:
			// A plugin that this package cannot compute: a login shows it.
		case opens < len(accept):
			out[i] = target.Dead
			if usable > 0 {
				partial = i
			}
		case usable > 0:
			out[i] = target.Live
		}
	}
	if partial >= 0 && !slices.Contains(out, target.Live) {
		out[partial] = target.Live
	}
	return out
}
