package mysql

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"math"
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
		"the account logs in by a plugin whose passwords cannot be compared; keyturn rotation check NAME says which, and " +
			"what to change",
	)
	errLast   = errors.New("the account does not have the new password, so the old one is not removed")
	errPlugin = errors.New(
		"the account's plugin takes no password that can be set; keyturn rotation check NAME says which, and what to change",
	)
	errForm = errors.New(
		"with strategy overlap the previous password would be stored for mysql_native_password until it is retired, " +
			"instead of ed25519: keyturn rotation configure NAME --strategy=single avoids that, and --consent " +
			changePlugin + " agrees to it",
	)
	errBoth = errors.New(
		"the password is stored for several plugins, and clients can use one of two passwords for each; use strategy " +
			"single",
	)
	errOther = errors.New(
		"the account has another password of ed25519 than the credential in use, beside which there is no room for " +
			"a new one; run keyturn rotation repair NAME",
	)
)

// changePlugin is the consent to another authentication plugin of an account for a while.
const changePlugin = "change-auth-plugin"

// dialect is how the two servers store and change the passwords of an account. add, replace and
// remove return what follows ALTER USER and the account, in order, to lead from the account's state
// to the wanted one; nothing when it has that state already. They keep the account's plugins.
type dialect interface {
	// stored returns the table that has an account's passwords.
	stored() string
	// columns returns the columns of stored that parse reads.
	columns() string
	// parse reads a row of columns. login is false for a role.
	parse(row []string) (a account, login bool, err error)
	// validates returns an expression that is true when the server refuses hashes because it
	// validates passwords.
	validates() string
	// blocks returns an expression for the number of failed logins in a row after which the server
	// blocks any account, and never for a number that is no limit.
	blocks() (expression string, never uint64)
	// sets reports whether a password can be set for a plugin.
	sets(plugin string) bool
	// supported returns the clause that gives an account such a plugin.
	supported() string
	// add makes the new password work, and keeps the old one. Only with change may it replace the
	// account's plugin.
	add(a account, old, candidate sensitive.Value, change bool) ([]string, error)
	// replace makes the new password the only one.
	replace(a account, old, candidate sensitive.Value) ([]string, error)
	// remove removes exactly the old password. With last it may be the only one; otherwise the
	// account must have the new one.
	remove(a account, old, candidate sensitive.Value, last bool) ([]string, error)
}

// mariaDB lists all methods of an account in one statement.
type mariaDB struct{}

func (mariaDB) sets(plugin string) bool { return plugin == native || plugin == ed25519 }

func (mariaDB) supported() string { return "IDENTIFIED VIA ed25519 USING PASSWORD('…')" }

func (mariaDB) blocks() (string, uint64) { return "@@GLOBAL.max_password_errors", math.MaxUint32 }

func (mariaDB) validates() string {
	return "(SELECT @@GLOBAL.strict_password_validation AND COUNT(*) > 0 FROM information_schema.PLUGINS " +
		"WHERE PLUGIN_TYPE = 'PASSWORD VALIDATION' AND PLUGIN_STATUS = 'ACTIVE')"
}

func (mariaDB) via(methods []method) []string {
	var list []string
	for _, m := range methods {
		item := m.plugin
		if m.hash != "" || !passwordless[m.plugin] {
			item += " USING " + quote(m.hash)
		}
		list = append(list, item)
	}
	return []string{"IDENTIFIED VIA " + strings.Join(list, " OR ")}
}

// add puts the old password first, so that its users notice nothing, and the new one second: the
// server asks clients to switch from one method to the next, and many follow it only once. A client
// begins with mysql_native_password, so any other method costs one switch. Therefore the old
// password of an ed25519 account becomes one of mysql_native_password until it is removed, and the
// new one keeps the account's plugin. A third password can only be left from an abandoned rotation,
// and is removed.
func (d mariaDB) add(a account, old, candidate sensitive.Value, change bool) ([]string, error) {
	at, certain := a.find(candidate)
	if at >= 0 {
		return nil, nil
	}
	keep := a.matching(old)
	known := len(keep) > 0
	switch {
	case known:
	case !certain:
		return nil, errUnsure
	default:
		if keep = a.passwords(); len(keep) >= maxPasswords {
			return nil, errOthers
		}
	}
	keep = slices.DeleteFunc(keep, func(m method) bool { return m.hash == invalid })
	added := method{native, nativeHash(candidate)}
	if hasPlugin(a.methods, ed25519) {
		switch {
		case len(keep) > 1:
			return nil, errBoth
		case !change:
			return nil, errForm
		case !known:
			return nil, errOther
		}
		keep, added = []method{{native, nativeHash(old)}}, method{ed25519, ed25519Hash(candidate)}
	}
	return d.via(append(append(keep, added), a.others()...)), nil
}

// matching returns the methods with a password: a login finds it under each of them.
func (a account) matching(password sensitive.Value) []method {
	var out []method
	for _, m := range a.passwords() {
		if match, _ := matches(m.plugin, m.hash, password); match {
			out = append(out, m)
		}
	}
	return out
}

// others returns the methods without a password.
func (a account) others() []method {
	return slices.DeleteFunc(slices.Clone(a.methods), func(m method) bool { return !passwordless[m.plugin] })
}

// replace keeps the plugin of each method with the old or the new password, in order. Where there
// is none, it keeps the plugins of all methods with a password.
func (d mariaDB) replace(a account, old, candidate sensitive.Value) ([]string, error) {
	form := append(a.matching(old), a.matching(candidate)...)
	if len(form) == 0 {
		form = a.passwords()
	}
	var methods []method
	for _, m := range a.methods {
		switch {
		case passwordless[m.plugin]:
		case !slices.Contains(form, m), hasPlugin(methods, m.plugin):
			continue
		default:
			hash, err := d.hash(m, candidate)
			if err != nil {
				return nil, err
			}
			m.hash = hash
		}
		methods = append(methods, m)
	}
	if len(form) == 0 {
		return nil, errPlugin
	}
	if slices.Equal(methods, a.methods) {
		return nil, nil
	}
	return d.via(methods), nil
}

func hasPlugin(methods []method, plugin string) bool {
	return slices.ContainsFunc(methods, func(m method) bool { return m.plugin == plugin })
}

func (d mariaDB) hash(like method, password sensitive.Value) (string, error) {
	if !d.sets(like.plugin) {
		return "", errPlugin
	}
	return newHash(like, password)
}

func (d mariaDB) remove(a account, old, candidate sensitive.Value, last bool) ([]string, error) {
	gone := a.matching(old)
	if len(gone) == 0 {
		_, certain := a.find(old)
		return nil, unless(certain)
	}
	rest := slices.DeleteFunc(slices.Clone(a.methods), func(m method) bool { return slices.Contains(gone, m) })
	found, _ := (account{methods: rest}).find(candidate)
	if !last && found < 0 {
		return nil, errLast
	}
	if found >= 0 && hasPlugin(gone, ed25519) && !hasPlugin(rest, ed25519) {
		rest[found] = method{ed25519, ed25519Hash(candidate)} // its plugin before add
	}
	if len((account{methods: rest}).passwords()) == 0 && last {
		none := method{gone[0].plugin, invalid}
		if none.plugin != native { // only native has a hash that no password has
			hash, err := d.hash(none, retired(old, candidate))
			if err != nil {
				return nil, err
			}
			none.hash = hash
		}
		rest = append([]method{none}, rest...)
	}
	return d.via(rest), nil
}

// noPassword returns a password that is stored nowhere.
func noPassword() sensitive.Value { return sensitive.New(rand.Text() + rand.Text()) }

// retired returns the password of an account whose only one, old, was removed, because it must keep
// one. It is stored nowhere, and follows only from both secrets of the change, so that an account
// that has it is known to be retired.
func retired(old, candidate sensitive.Value) sensitive.Value {
	mac := hmac.New(sha256.New, []byte(candidate.Reveal()))
	mac.Write([]byte("keyturn retired password\x00" + old.Reveal()))
	return sensitive.New(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(mac.Sum(nil)))
}

func unless(certain bool) error {
	if certain {
		return nil
	}
	return errUnsure
}

// mySQL stores one current password and at most one retained password.
type mySQL struct{}

const discard = "DISCARD OLD PASSWORD"

func (mySQL) sets(plugin string) bool {
	return plugin == cachingSHA2 || plugin == sha256Crypt || plugin == native
}

func (mySQL) supported() string { return "IDENTIFIED WITH caching_sha2_password BY '…'" }

func (mySQL) blocks() (string, uint64) { return "0", 0 }

func (mySQL) validates() string { return "0" }

func (d mySQL) set(like method, password sensitive.Value, retain bool) (string, error) {
	if !d.sets(like.plugin) {
		return "", errPlugin
	}
	hash, err := newHash(like, password)
	if err != nil {
		return "", err
	}
	clause := "IDENTIFIED WITH " + like.plugin + " AS " + quote(hash)
	if retain {
		clause += " RETAIN CURRENT PASSWORD"
	}
	return clause, nil
}

// add retains the current password, unless the old one is retained already: then the current one is
// the candidate of an abandoned rotation. The plugin always stays.
func (d mySQL) add(a account, old, candidate sensitive.Value, _ bool) ([]string, error) {
	if at, _ := a.find(candidate); at >= 0 {
		return nil, nil
	}
	at, _ := a.find(old)
	if at < 0 && len(a.methods) >= maxPasswords {
		return nil, errOthers
	}
	clause, err := d.set(a.methods[0], candidate, at <= 0)
	return []string{clause}, err
}

func (d mySQL) replace(a account, _, candidate sensitive.Value) ([]string, error) {
	var clauses []string
	if match, _ := matches(a.methods[0].plugin, a.methods[0].hash, candidate); !match {
		clause, err := d.set(a.methods[0], candidate, false)
		if err != nil {
			return nil, err
		}
		clauses = append(clauses, clause)
	}
	if len(a.methods) > 1 {
		clauses = append(clauses, discard)
	}
	return clauses, nil
}

func (d mySQL) remove(a account, old, candidate sensitive.Value, last bool) ([]string, error) {
	at, certain := a.find(old)
	if at < 0 {
		return nil, unless(certain)
	}
	if found, _ := a.find(candidate); !last && found < 0 {
		return nil, errLast
	}
	switch {
	case at == 1:
		return []string{discard}, nil
	case len(a.methods) == 1:
		// The account must keep a password.
		clause, err := d.set(a.methods[0], retired(old, candidate), false)
		return []string{clause}, err
	case last:
		return nil, errOthers
	}
	// The new one is retained and the old one current: an administrator has set the old one again.
	clause, err := d.set(a.methods[0], candidate, false)
	return []string{clause, discard}, err
}

var _, _ dialect = mariaDB{}, mySQL{}

// change returns the clauses of a change of one account.
func change(d dialect, a account, c target.Change, changePlugin bool) ([]string, error) {
	if c.Strategy == target.Overlap {
		return d.add(a, c.Old.Secret, c.New.Secret, changePlugin)
	}
	old := c.Old.Secret
	if c.Old.Account != c.New.Account {
		old = sensitive.Value{}
	}
	return d.replace(a, old, c.New.Secret)
}
