package mysql

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// invalid is the hash that MariaDB stores for an account that no password opens.
const invalid = "invalid"

// maxPasswords is the number of passwords that an account may have at once: clients follow the
// server to one other method, not to two.
const maxPasswords = 2

var (
	errOthers = errors.New(
		"the account has two passwords, and neither is the one to be replaced; see which is in use, and remove " +
			"the other",
	)
	errUnsure = errors.New(
		"the account logs in by a plugin whose passwords cannot be compared; change it to mysql_native_password " +
			"or caching_sha2_password",
	)
	errLast   = errors.New("the account does not have the new password, so the old one is not removed")
	errPlugin = errors.New(
		"the account's plugin takes no password that can be set; change it to mysql_native_password or " +
			"caching_sha2_password",
	)
)

// dialect is how the two servers store and change the passwords of an account. add, replace and
// remove return the statements that lead from the account's state to the wanted one; none when it
// has that state already.
type dialect interface {
	// stored returns the table that has an account's passwords.
	stored() string
	// columns returns the columns of stored that parse reads.
	columns() string
	// parse reads a row of columns.
	parse(row []string) (account, error)
	// add makes the new password work, and keeps the old one.
	add(who string, a account, old, candidate sensitive.Value) ([]string, error)
	// replace makes the new password the only one.
	replace(who string, a account, candidate sensitive.Value) ([]string, error)
	// remove removes exactly the old password. With last it may be the only one; otherwise the
	// account must have the new one.
	remove(who string, a account, old, candidate sensitive.Value, last bool) ([]string, error)
}

// mariaDB lists all methods of an account in one statement.
type mariaDB struct{}

func (mariaDB) statement(who string, methods []method) []string {
	var list []string
	for _, m := range methods {
		item := m.plugin
		if m.hash != "" || !passwordless[m.plugin] {
			item += " USING " + quote(m.hash)
		}
		list = append(list, item)
	}
	return []string{"ALTER USER " + who + " IDENTIFIED VIA " + strings.Join(list, " OR ")}
}

// add puts the old password first, so that its users notice nothing, and the new one second: the
// server asks clients to switch from one method to the next, and many follow it only once. A third
// password can only be left from an abandoned rotation, and is removed.
func (d mariaDB) add(who string, a account, old, candidate sensitive.Value) ([]string, error) {
	at, certain := a.find(candidate)
	if at >= 0 {
		return nil, nil
	}
	keep := a.passwords()
	oldAt, _ := a.find(old)
	switch {
	case oldAt >= 0:
		keep = []method{a.methods[oldAt]}
	case !certain && len(keep) == 1:
		// Keep the password: its plugin has hashes that only the server can compare.
	case len(keep) >= maxPasswords:
		return nil, errOthers
	}
	keep = slices.DeleteFunc(keep, func(m method) bool { return m.hash == invalid })
	return d.statement(who, append(append(keep, method{native, nativeHash(candidate)}), a.others()...)), nil
}

// others returns the methods without a password.
func (a account) others() []method {
	return slices.DeleteFunc(slices.Clone(a.methods), func(m method) bool { return !passwordless[m.plugin] })
}

func (d mariaDB) replace(who string, a account, candidate sensitive.Value) ([]string, error) {
	if at, _ := a.find(candidate); at >= 0 && len(a.passwords()) == 1 {
		return nil, nil
	}
	return d.statement(who, append([]method{{native, nativeHash(candidate)}}, a.others()...)), nil
}

func (d mariaDB) remove(who string, a account, old, candidate sensitive.Value, last bool) ([]string, error) {
	at, certain := a.find(old)
	if at < 0 {
		return nil, unless(certain)
	}
	rest := slices.Delete(slices.Clone(a.methods), at, at+1)
	if found, _ := (account{methods: rest}).find(candidate); !last && found < 0 {
		return nil, errLast
	}
	if len((account{methods: rest}).passwords()) == 0 && last {
		rest = append([]method{{native, invalid}}, rest...)
	}
	return d.statement(who, rest), nil
}

func unless(certain bool) error {
	if certain {
		return nil
	}
	return errUnsure
}

// mySQL stores one current password and at most one retained password.
type mySQL struct{}

func (mySQL) set(who, plugin string, password sensitive.Value, retain bool) (string, error) {
	hash, err := newHash(plugin, password)
	if err != nil {
		return "", errPlugin
	}
	statement := "ALTER USER " + who + " IDENTIFIED WITH " + plugin + " AS " + quote(hash)
	if retain {
		statement += " RETAIN CURRENT PASSWORD"
	}
	return statement, nil
}

// add retains the current password, unless the old one is retained already: then the current one is
// the candidate of an abandoned rotation.
func (d mySQL) add(who string, a account, old, candidate sensitive.Value) ([]string, error) {
	if at, _ := a.find(candidate); at >= 0 {
		return nil, nil
	}
	at, _ := a.find(old)
	if at < 0 && len(a.methods) >= maxPasswords {
		return nil, errOthers
	}
	statement, err := d.set(who, a.methods[0].plugin, candidate, at <= 0)
	return []string{statement}, err
}

func (d mySQL) replace(who string, a account, candidate sensitive.Value) ([]string, error) {
	var statements []string
	if match, _ := matches(a.methods[0].plugin, a.methods[0].hash, candidate); !match {
		statement, err := d.set(who, a.methods[0].plugin, candidate, false)
		if err != nil {
			return nil, err
		}
		statements = append(statements, statement)
	}
	if len(a.methods) > 1 {
		statements = append(statements, "ALTER USER "+who+" DISCARD OLD PASSWORD")
	}
	return statements, nil
}

func (d mySQL) remove(who string, a account, old, candidate sensitive.Value, last bool) ([]string, error) {
	at, certain := a.find(old)
	if at < 0 {
		return nil, unless(certain)
	}
	if found, _ := a.find(candidate); !last && found < 0 {
		return nil, errLast
	}
	discard := "ALTER USER " + who + " DISCARD OLD PASSWORD"
	switch {
	case at == 1:
		return []string{discard}, nil
	case len(a.methods) == 1:
		// The account must keep a password. This one is random and stored nowhere.
		statement, err := d.set(who, a.methods[0].plugin, sensitive.New(rand.Text()+rand.Text()), false)
		return []string{statement}, err
	case last:
		return nil, errOthers
	}
	// The new one is retained and the old one current: an administrator has set the old one again.
	statement, err := d.set(who, a.methods[0].plugin, candidate, false)
	return []string{statement, discard}, err
}

var _, _ dialect = mariaDB{}, mySQL{}

// statements returns the statements of a change.
func statements(d dialect, who string, a account, c target.Change) ([]string, error) {
	if c.Strategy == target.Overlap {
		return d.add(who, a, c.Old.Secret, c.New.Secret)
	}
	return d.replace(who, a, c.New.Secret)
}
