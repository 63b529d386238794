package mysql

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// method is one way of an account to log in.
type method struct{ plugin, hash string }

// passwordless has the plugins that take no password of the account's own. A change keeps their
// methods.
var passwordless = map[string]bool{"unix_socket": true, "auth_socket": true, "named_pipe": true, "gssapi": true}

// account is an account as the server stores it. In MySQL the second method is the retained
// password.
type account struct {
	methods []method
	locked  bool
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

func (mariaDB) stored() string  { return "mysql.global_priv" }
func (mariaDB) columns() string { return "Priv" }

func (mariaDB) parse(row []string) (account, error) { return parsePriv(row[0]) }

func (mySQL) stored() string { return "mysql.user" }

func (mySQL) columns() string {
	return "plugin, authentication_string, User_attributes, account_locked"
}

func (mySQL) parse(row []string) (account, error) { return parseUser(row[0], row[1], row[2], row[3]) }

// parsePriv reads mysql.global_priv of MariaDB. In a list of several methods, the empty object
// stands for the method outside the list.
func parsePriv(priv string) (account, error) {
	type stored struct {
		Plugin *string `json:"plugin"`
		Hash   string  `json:"authentication_string"`
	}
	var p struct {
		stored
		Or     []stored `json:"auth_or"`
		Locked bool     `json:"account_locked"`
	}
	if err := json.Unmarshal([]byte(priv), &p); err != nil {
		return account{}, errors.New("mysql.global_priv holds no JSON object")
	}
	a := account{locked: p.Locked}
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
	return a, nil
}

// parseUser reads the columns of mysql.user of MySQL 8.
func parseUser(plugin, hash, attributes, locked string) (account, error) {
	a := account{methods: []method{{plugin, hash}}, locked: locked == "Y"}
	if attributes == "" {
		return a, nil
	}
	var u struct {
		Additional *string `json:"additional_password"`
	}
	if err := json.Unmarshal([]byte(attributes), &u); err != nil {
		return a, errors.New("mysql.user.User_attributes holds no JSON object")
	}
	if u.Additional != nil {
		a.methods = append(a.methods, method{plugin, *u.Additional})
	}
	return a, nil
}

// quote returns a string literal for a session with the SQL mode NO_BACKSLASH_ESCAPES, which
// asAdmin sets.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
