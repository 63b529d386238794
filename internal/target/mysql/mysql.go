// Package mysql rotates the passwords of MariaDB and MySQL accounts.
//
// It has two kinds, "mariadb" (10.4 and later) and "mysql" (8.0.14 and later), with one
// configuration, a JSON object:
//
//	address              host or host:port of the server or proxy that applications use (required;
//	                     port 3306)
//	admin_address        where the administrator logs in and changes accounts; default address. It
//	                     must not be a replica
//	verify               a list of endpoints where a new password must work before it is current:
//	                     addresses, or objects with address, role (writer, replica, pooler) and lag;
//	                     default address alone
//	database             the database to log in to; default none
//	account_host         the part of accounts after @, a list of them, or "all"; default: of all
//	                     accounts of the name, those that accept the credential in use
//	tls                  {"ca": PEM, "server_name": name} or {"off": true}; default: on, verified
//	                     against the machine's authorities
//	check_sql            one statement that must succeed with the new password at every verify
//	                     address; it runs in a read-only transaction that is rolled back
//	password_length      12 to 128, default 32
//	password_punctuation characters to use besides letters and digits; default none
//
// The administrator needs the rights that docs/targets/mysql.md grants, and in MySQL SYSTEM_USER
// for accounts that have it.
//
// An account is a user name at a host, and one name can have several. A rotation changes together
// all that the credential opens, in one statement. It keeps the plugin of each, and the rounds of
// its hash.
//
// The password leaves this process in a login only: to change it, the server gets a hash, of the
// account's plugin. For mysql_native_password it is twice SHA-1 without a salt. A MariaDB server
// that validates passwords must run with strict_password_validation=OFF, because it cannot judge a
// hash.
//
// With overlap an account has two passwords: in MariaDB two methods (IDENTIFIED VIA … OR …), in
// MySQL the current one and the retained one. The accounts are read first, under a lock of their
// name, so that exactly one password is added or removed.
package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// MariaDB returns the kind "mariadb".
func MariaDB() target.Kind {
	return kind("mariadb", server{
		dialect: mariaDB{},
		grants:  mariaDB{},
		name:    "MariaDB",
		since:   [3]int{10, 4, 0},
	})
}

// MySQL returns the kind "mysql".
func MySQL() target.Kind {
	return kind("mysql", server{
		dialect: mySQL{},
		grants:  mySQL{},
		name:    "MySQL",
		since:   [3]int{8, 0, 14},
	})
}

// server is MariaDB or MySQL.
type server struct {
	dialect
	grants
	name  string
	since [3]int
}

func kind(name string, s server) target.Kind {
	strategies := []target.Strategy{target.Overlap, target.Single, target.Double}
	return target.NewKind(name, strategies, target.Parser((*config).complete), s.open).WithAdmin().Following(
		target.LoginEndpoints, target.LoginDatabase, target.LoginRole, target.LoginCertificate,
	).Consenting(
		leaveHosts, replaceOthers, dropSecond, otherHosts, otherRights, lockAfterFailures, objectsOfOne, notCompared,
		changePlugin,
	).Leaving(target.OpenSessions, "What the account has made stays, too: events, stored routines, views and triggers "+
		"that run with its rights, and accounts that may act as it, can set a password again: docs/targets/mysql.md, "+
		"\"After a leak\", has the statements.")
}

func (s server) open(c config, settings target.Settings) (target.Target, error) {
	return &my{
		PasswordRule: c.PasswordRule,
		server:       s,
		config:       c,
		admin:        settings.Admin,
		application:  settings.Login,
		consent:      settings.Consent,
		dial:         settings.Dialer(),
	}, nil
}

// my is one server.
type my struct {
	target.PasswordRule
	server      server
	config      config
	admin       target.Credential
	application target.Login
	consent     []string
	dial        egress.DialFunc
}

// Close has nothing to release: each call closes its own connection.
func (t *my) Close() error { return nil }

// Apply makes New a password of its account, at every host where Old is one.
func (t *my) Apply(ctx context.Context, c target.Change) error {
	attempt := "change the password of " + c.New.Account
	if c.Strategy == target.Overlap && c.Old.Account != c.New.Account {
		return target.Denied.Errorf("%s: with strategy overlap both credentials are of one account", attempt)
	}
	if c.New.Secret.IsZero() {
		return target.Refused.Errorf("%s: the password is empty", attempt)
	}
	return t.change(ctx, attempt, c, c.New.Account, func(all []account) ([]edit, error) {
		return t.add(t.within(all), c)
	})
}

// Retire removes exactly Old's password from its account.
func (t *my) Retire(ctx context.Context, c target.Change) error {
	return t.RetireOrEvict(ctx, c, target.EvictNothing)
}

// RetireOrEvict leaves an account that has another password the new one alone, or, if the new one
// belongs to another account, gives it one that is stored nowhere. Of several accounts of the name,
// it is not known which are the application's, unless account_host says so.
func (t *my) RetireOrEvict(ctx context.Context, c target.Change, evict target.Evict) error {
	attempt := "retire the password of " + c.Old.Account
	double := c.Strategy == target.Double
	switch {
	case !double && c.Strategy != target.Overlap:
		return target.Denied.Errorf("%s: with strategy %q there is nothing to retire", attempt, c.Strategy)
	case double == (c.Old.Account == c.New.Account):
		return target.Denied.Errorf("%s: the accounts do not fit the strategy", attempt)
	}
	var leftOut error
	err := t.change(ctx, attempt, c, c.Old.Account, func(every []account) ([]edit, error) {
		var all []account
		all, leftOut = t.retiring(every, c)
		taken := foreign(all, c)
		if len(taken) == 0 {
			return t.remove(all, c, double)
		}
		found := t.found(taken, all, c)
		switch remove, err := evict(ctx, found); {
		case err != nil:
			return nil, err
		case !remove:
			return t.remove(all, c, double)
		}
		left := c.New.Secret
		if double {
			left = retired(c.Old.Secret, c.New.Secret)
		}
		todo, err := edits(taken, func(a account) ([]string, error) {
			return t.server.replace(a, sensitive.Value{}, left)
		})
		if err != nil {
			return nil, err
		}
		rest := slices.DeleteFunc(slices.Clone(all), func(a account) bool {
			return slices.ContainsFunc(taken, func(b account) bool { return a.host == b.host })
		})
		more, err := t.remove(rest, c, double)
		return append(todo, more...), err
	})
	if err == nil && leftOut != nil {
		return target.Failed(target.Denied, "", attempt+": "+leftOut.Error(), c.New.Secret, c.Old.Secret)
	}
	return err
}

// found describes a password that some of all accounts of a name have, and that Keyturn did not
// set.
func (t *my) found(taken, all []account, c target.Change) target.Foreign {
	names := whoAll(c.Old.Account, taken)
	switch {
	case len(all) > 1 && !t.config.AccountHost.chosen():
		return target.Foreign{Kind: target.ForeignShared, Text: fmt.Sprintf("%s has another password, which Keyturn did "+
			"not set and has left: it still logs in. It may be another application's. If it is not: keyturn target update "+
			"TARGET --set %s, and then keyturn rotation emergency NAME removes the password.", names, accountHost(all))}
	case c.Strategy == target.Overlap:
		return target.Foreign{Kind: target.ForeignFound, Text: fmt.Sprintf("%s has another password beside the new one, "+
			"which Keyturn did not set and has left: it still logs in. keyturn rotation emergency NAME removes it.", names)}
	}
	return target.Foreign{Kind: target.ForeignFound, Text: fmt.Sprintf("Account %s has a password other than the "+
		"previous credential, which Keyturn did not set and has left: it still logs in. To remove it, give the "+
		"account a random password, and keep the account: the next rotation uses it.", names)}
}

// foreign returns the accounts with a password that is neither Old, nor New with strategy overlap,
// nor what a retirement of Old leaves: also one whose form is not known, and one beside Old.
func foreign(all []account, c target.Change) []account {
	ours := []sensitive.Value{c.Old.Secret, retired(c.Old.Secret, c.New.Secret)}
	if c.Strategy == target.Overlap {
		ours = append(ours, c.New.Secret)
	}
	return slices.DeleteFunc(slices.Clone(all), func(a account) bool {
		return !slices.ContainsFunc(a.passwords(), func(m method) bool {
			return m.hash != invalid && !slices.ContainsFunc(ours, func(p sensitive.Value) bool {
				match, _ := matches(m.plugin, m.hash, p)
				return match
			})
		})
	})
}

// Revert takes New back where an attempt has reached only some of the accounts of its name.
func (t *my) Revert(ctx context.Context, c target.Change) error {
	if c.New.Account == c.Old.Account && c.New.Secret.Reveal() == c.Old.Secret.Reveal() {
		return nil // a repair
	}
	attempt := "take back the password of " + c.New.Account
	back := target.Change{ID: c.ID, Strategy: c.Strategy, New: c.Old, Old: c.New}
	err := t.change(ctx, attempt, c, c.New.Account, func(all []account) ([]edit, error) {
		has := accepting(t.changed(all, c.New.Secret, c.Old.Secret), c.New.Secret)
		switch {
		case len(has) == 0:
			return nil, nil
		case c.Strategy == target.Single:
			return edits(has, func(a account) ([]string, error) {
				return t.server.replace(a, c.New.Secret, c.Old.Secret)
			})
		}
		return t.remove(has, back, c.Strategy == target.Double)
	})
	if e := (*target.Error)(nil); errors.As(err, &e) && e.Code == codeNoAccount {
		return nil // an account that does not exist has nothing to take back
	}
	return err
}

// wrongAccount is what an operator checks after 1045.
const wrongAccount = "check the password, and whether another account matches the host first, such as an " +
	"anonymous one (SELECT User, Host FROM mysql.user)"

// codeNoAccount is the server's code for an account that does not exist.
const codeNoAccount = "1396"

// change reads the accounts of a name under its lock, at all hosts, and makes the edits that decide
// returns.
func (t *my) change(
	ctx context.Context,
	attempt string,
	c target.Change,
	name string,
	decide func([]account) ([]edit, error),
) error {
	secrets := []sensitive.Value{c.New.Secret, c.Old.Secret, t.admin.Secret}
	if strings.ContainsRune(name, 0) || name == "" {
		return target.Denied.Errorf("%s: an account has a name without zero bytes", attempt)
	}
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return err
	}
	defer conn.Close()
	locked, err := conn.row(ctx, fmt.Sprintf("SELECT GET_LOCK(%s, %d)", quote(lockName(name)), lockWait))
	if err != nil {
		return readFailed(attempt, err, secrets...)
	}
	if len(locked) != 1 || locked[0] != "1" {
		return target.Unreachable.Errorf("%s: another change of this account is in progress", attempt)
	}
	all, err := t.accounts(ctx, conn, name)
	if err != nil {
		return readFailed(attempt+": read "+t.server.stored(), err, secrets...)
	}
	if len(t.within(all)) == 0 {
		return target.Failed(target.Denied, codeNoAccount, attempt+": "+t.missing(name, all))
	}
	todo, err := decide(all)
	if err != nil {
		return target.Failed(target.Denied, "", attempt+": "+err.Error(), secrets...)
	}
	return t.run(ctx, conn, attempt, name, todo, secrets)
}

// missing says that a name has no account, or none at the hosts that the operator has chosen.
func (t *my) missing(name string, all []account) string {
	if len(all) == 0 {
		return "there is no account " + shownName(name)
	}
	return "account_host leaves no account of the name; there are " + whoAll(name, all)
}

// run makes edits.
func (t *my) run(
	ctx context.Context, conn *conn, attempt, name string, todo []edit, secrets []sensitive.Value,
) error {
	for i, statement := range statements(name, todo) {
		err := conn.exec(ctx, statement)
		if err == nil {
			continue
		}
		if number, _, _ := numberOf(err); number == 1396 && t.server.name == "MariaDB" {
			attempt += ": the account exists, so see whether the server has a password validation plugin and " +
				"strict_password_validation=ON"
		}
		failed := changeFailed(attempt, err, secrets...)
		if i > 0 || failed.Class != target.Unknown && t.isChanged(ctx, conn, name, todo) {
			failed.Class = target.Unknown // some of it has been done
		}
		return failed
	}
	return nil
}

// isChanged reports whether a statement for several accounts has changed one of them although it
// failed, or may have: MariaDB carries out the others.
func (t *my) isChanged(ctx context.Context, conn *conn, name string, todo []edit) bool {
	if len(todo) == 1 {
		return false
	}
	now, err := t.accounts(ctx, conn, name)
	return err != nil || slices.ContainsFunc(todo, func(e edit) bool {
		return !slices.ContainsFunc(now, func(a account) bool {
			return a.host == e.account.host && slices.Equal(a.methods, e.account.methods)
		})
	})
}

// lockName returns the name of the lock of a name's accounts. It is a hash because the server
// permits at most 64 characters.
func lockName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "keyturn-" + hex.EncodeToString(sum[:20])
}

func (t *my) asAdmin(ctx context.Context, attempt string, secrets ...sensitive.Value) (*conn, error) {
	attempt += ": log in as administrator " + t.admin.Account + " at " + t.config.AdminAddress
	secrets = append(secrets, t.admin.Secret)
	conn, err := t.connectAsAdmin(ctx, dialing{address: t.config.AdminAddress, params: map[string]string{
		"sql_mode": "'NO_BACKSLASH_ESCAPES'",
		// A connection that has silently broken keeps its lock for this long; by default that is
		// eight hours.
		"wait_timeout":     patience,
		"net_read_timeout": patience,
	}})
	if err != nil {
		failed := target.AsAdmin(t.loginFailed(attempt, err, secrets...))
		if number, _, _ := numberOf(err); number == 1045 {
			failed = target.WithAdvice(failed, wrongAccount, secrets...)
		}
		return nil, failed
	}
	version, err := conn.row(ctx, "SELECT VERSION()")
	if err == nil {
		err = t.server.fits(version)
		if err != nil {
			err = target.Denied.Errorf("%s: %v", attempt, err)
		}
	} else {
		err = readFailed(attempt, err, secrets...)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// fits returns an error for a server of the other kind, and for one that is too old.
func (s server) fits(row []string) error {
	if len(row) != 1 {
		return errors.New("the server does not report its version")
	}
	name := "MySQL"
	version := row[0]
	if strings.Contains(version, "MariaDB") {
		name = "MariaDB"
		version = strings.TrimPrefix(version, "5.5.5-")
	}
	if name != s.name {
		return fmt.Errorf("this is %s %s; register it as kind %s", name, fault.Foreign(row[0]), strings.ToLower(name))
	}
	var v [3]int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2]); n != 3 {
		return fmt.Errorf("the server's version %s cannot be read", fault.Quoted(row[0]))
	}
	for i := range v {
		if v[i] != s.since[i] {
			if v[i] < s.since[i] {
				return fmt.Errorf(
					"%s %s is too old; %d.%d.%d or later is needed", name, fault.Foreign(row[0]), s.since[0], s.since[1],
					s.since[2],
				)
			}
			break
		}
	}
	return nil
}

// Inspect compares each credential with the hashes that the server stores for all accounts of its
// name. The right password of a locked account is NotKnown: an operator must decide about that
// account.
func (t *my) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	attempt := "read the state of accounts"
	secrets := []sensitive.Value{t.admin.Secret}
	byName := map[string][]int{}
	for i, c := range credentials {
		secrets = append(secrets, c.Secret)
		byName[c.Account] = append(byName[c.Account], i)
	}
	out := make([]target.Liveness, len(credentials))
	conn, err := t.asAdmin(ctx, attempt, secrets...)
	if err != nil {
		return out, err
	}
	defer conn.Close()
	for name, which := range byName {
		all, err := t.accounts(ctx, conn, name)
		if number, _, ok := numberOf(err); ok && (number == 1142 || number == 1143) {
			return make([]target.Liveness, len(credentials)), nil
		}
		if err != nil {
			return make([]target.Liveness, len(credentials)), readFailed(attempt, err, secrets...)
		}
		var passwords []sensitive.Value
		for _, i := range which {
			passwords = append(passwords, credentials[i].Secret)
		}
		for k, live := range liveness(t.changed(all, passwords...), passwords) {
			out[which[k]] = live
		}
	}
	return out, nil
}
