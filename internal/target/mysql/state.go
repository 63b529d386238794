package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// method is one way of an account to log in.
type method struct{ plugin, hash string }

// passwordless has the plugins that take no password of the account's own. A change keeps their
// methods.
var passwordless = map[string]bool{"unix_socket": true, "auth_socket": true, "named_pipe": true, "gssapi": true}

// account is an account as the server stores it: a user name at a host. In MySQL the second method
// is the retained password.
type account struct {
	host    string
	methods []method
	locked  bool
	terms   terms
}

// transport is what an account requires of a connection.
type transport string

// The requirements.
const (
	anyTransport transport = ""
	needsTLS     transport = "SSL"
	needsCert    transport = "X509"
)

// terms are the conditions under which an account logs in, besides its password.
type terms struct {
	transport transport
	// subject and issuer are what the client certificate must have; empty for any.
	subject, issuer string
	// connections and hourly are MAX_USER_CONNECTIONS and MAX_CONNECTIONS_PER_HOUR; 0 for no limit.
	connections, hourly int
	expired             bool
	// lifetime is the number of days until a password expires; -1 for the server's default.
	lifetime int
	// factors says that a login needs more than one method.
	factors bool
	// lockAfter is the number of failed logins in a row that lock the account; 0 for none.
	lockAfter int
	// limits are the account's limits of an hour and of a statement, and revokes what MySQL has
	// partially revoked, in the server's form; for comparisons.
	limits, revokes string
}

// passwords returns the methods that take a password.
func (a account) passwords() []method {
	var out []method
	for _, m := range a.methods {
		if !passwordless[m.plugin] {
			out = append(out, m)
		}
	}
	return out
}

// find returns the index of the method with the password, or -1. certain is false when no method
// matches and one of them has a hash that this package cannot compute.
func (a account) find(password sensitive.Value) (at int, certain bool) {
	certain = true
	for i, m := range a.methods {
		if passwordless[m.plugin] {
			continue
		}
		match, known := matches(m.plugin, m.hash, password)
		if match {
			return i, true
		}
		certain = certain && (known || m.hash == invalid)
	}
	return -1, certain
}

// accepts reports whether the account logs in with the password.
func (a account) accepts(password sensitive.Value) bool {
	at, _ := a.find(password)
	return at >= 0 && !password.IsZero()
}

func (mariaDB) stored() string  { return "mysql.global_priv" }
func (mariaDB) columns() string { return "Host, Priv" }

func (mariaDB) parse(row []string) (account, bool, error) { return parsePriv(row[0], row[1]) }

func (mySQL) stored() string { return "mysql.user" }

func (mySQL) columns() string {
	return "Host, plugin, authentication_string, User_attributes, account_locked, ssl_type, x509_issuer, " +
		"x509_subject, max_user_connections, max_connections, password_expired, password_lifetime, " +
		"CONCAT_WS(' ', max_questions, max_updates, max_connections)"
}

func (mySQL) parse(row []string) (account, bool, error) {
	a, err := parseUser(row[1], row[2], row[3], row[4])
	a.host = row[0]
	a.terms.issuer, a.terms.subject = row[6], row[7]
	switch row[5] {
	case "ANY":
		a.terms.transport = needsTLS
	case "X509", "SPECIFIED":
		a.terms.transport = needsCert
	}
	a.terms.connections, _ = strconv.Atoi(row[8]) // a number column
	a.terms.hourly, _ = strconv.Atoi(row[9])
	a.terms.expired = row[10] == "Y"
	a.terms.lifetime = -1
	if row[11] != "" {
		a.terms.lifetime, _ = strconv.Atoi(row[11])
	}
	a.terms.limits = row[12]
	role := a.locked && a.terms.expired && row[2] == "" // as CREATE ROLE makes it
	return a, !role, err
}

// parsePriv reads mysql.global_priv of MariaDB. In a list of several methods, the empty object
// stands for the method outside the list. login is false for a role.
func parsePriv(host, priv string) (a account, login bool, err error) {
	type stored struct {
		Plugin *string `json:"plugin"`
		Hash   string  `json:"authentication_string"`
	}
	var p struct {
		stored
		Or          []stored `json:"auth_or"`
		Locked      bool     `json:"account_locked"`
		Role        bool     `json:"is_role"`
		TLS         int      `json:"ssl_type"`
		Issuer      string   `json:"x509_issuer"`
		Subject     string   `json:"x509_subject"`
		Connections int      `json:"max_user_connections"`
		Hourly      int      `json:"max_connections"`
		Changed     *int64   `json:"password_last_changed"`
		Lifetime    *int     `json:"password_lifetime"`
		Questions   int      `json:"max_questions"`
		Updates     int      `json:"max_updates"`
		Statement   float64  `json:"max_statement_time"`
	}
	if err := json.Unmarshal([]byte(priv), &p); err != nil {
		return account{}, false, errors.New("mysql.global_priv holds no JSON object")
	}
	a = account{host: host, locked: p.Locked}
	if p.Or == nil {
		p.Or = []stored{{}}
	}
	for _, s := range p.Or {
		if s.Plugin == nil {
			s = p.stored
		}
		m := method{plugin: native, hash: s.Hash}
		if s.Plugin != nil && *s.Plugin != "" {
			m.plugin = *s.Plugin
		}
		a.methods = append(a.methods, m)
	}
	a.terms = terms{subject: p.Subject, issuer: p.Issuer, connections: p.Connections, hourly: p.Hourly, lifetime: -1}
	a.terms.limits = fmt.Sprint(p.Questions, p.Updates, p.Hourly, p.Statement)
	switch p.TLS {
	case 0:
	case 1:
		a.terms.transport = needsTLS
	default:
		a.terms.transport = needsCert
	}
	if p.Lifetime != nil {
		a.terms.lifetime = *p.Lifetime
	}
	a.terms.expired = p.Changed != nil && *p.Changed == 0 && len(a.passwords()) > 0
	return a, !p.Role, nil
}

// parseUser reads the columns of mysql.user of MySQL 8 with the methods of an account.
func parseUser(plugin, hash, attributes, locked string) (account, error) {
	a := account{methods: []method{{plugin, hash}}, locked: locked == "Y"}
	if attributes == "" {
		return a, nil
	}
	var u struct {
		Additional *string           `json:"additional_password"`
		Factors    []json.RawMessage `json:"multi_factor_authentication"`
		Revokes    json.RawMessage   `json:"Restrictions"`
		Locking    struct {
			Attempts int `json:"failed_login_attempts"`
			Days     int `json:"password_lock_time_days"`
		} `json:"Password_locking"`
	}
	if err := json.Unmarshal([]byte(attributes), &u); err != nil {
		return a, errors.New("mysql.user.User_attributes holds no JSON object")
	}
	if u.Additional != nil {
		a.methods = append(a.methods, method{plugin, *u.Additional})
	}
	a.terms.factors = len(u.Factors) > 0
	a.terms.revokes = string(u.Revokes)
	if u.Locking.Days != 0 {
		a.terms.lockAfter = u.Locking.Attempts
	}
	return a, nil
}

// quote returns a string literal for a session with the SQL mode NO_BACKSLASH_ESCAPES, which
// asAdmin sets.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
