package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

const defaultPort = "3306"

// config is the configuration; the package comment explains each member.
type config struct {
	target.Endpoints
	Database    string     `json:"database,omitempty"`
	AccountHost hosts      `json:"account_host,omitempty"`
	TLS         target.TLS `json:"tls,omitzero"`
	CheckSQL    string     `json:"check_sql,omitempty"`
	target.PasswordRule
}

// allHosts is the setting account_host that stands for every account of a name.
const allHosts = "all"

// hosts are the parts after @ of the accounts of one name that a rotation changes together; none
// means those that accept the credential in use.
type hosts []string

// UnmarshalJSON reads a string or a list of strings.
func (h *hosts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		if *h = nil; one != "" {
			*h = hosts{one}
		}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return errors.New("account_host must be the part after @ of an account, a list of them, or " + allHosts)
	}
	*h = list
	return nil
}

// chosen reports whether the operator has said which hosts count.
func (h hosts) chosen() bool { return len(h) > 0 }

// accountHost returns the argument of --set that names the hosts of accounts, as a shell takes it.
func accountHost(accounts ...[]account) string {
	var at []string
	for _, a := range slices.Concat(accounts...) {
		at = append(at, a.host)
	}
	list, _ := json.Marshal(at) // strings
	return fault.ShellWord("account_host=" + string(list))
}

// has reports whether accounts at a host count.
func (h hosts) has(host string) bool {
	return !h.chosen() || slices.Equal(h, hosts{allHosts}) ||
		slices.ContainsFunc(h, func(s string) bool { return strings.EqualFold(s, host) })
}

// complete fills in defaults and returns every mistake.
func (c *config) complete() error {
	errs := c.Complete(defaultPort)
	for _, host := range c.AccountHost {
		if host == "" || len(host) > 255 || strings.ContainsAny(host, "'`\"\\@ \x00") {
			errs = append(errs, fmt.Errorf("account_host %q is not the part after @ of an account", host))
		}
	}
	if len(c.Database) > 64*4 || strings.ContainsRune(c.Database, 0) {
		errs = append(errs, errors.New("database is a name of at most 64 characters"))
	}
	return errors.Join(append(errs, c.TLS.Check(), c.PasswordRule.Check())...)
}

// CanonicalAccount returns the name that the server reads in a login: it takes one pair of single
// quotes around a name away.
func (c config) CanonicalAccount(account string) string {
	if inner, ok := strings.CutPrefix(account, "'"); ok && strings.HasSuffix(inner, "'") {
		return strings.TrimSuffix(inner, "'")
	}
	return account
}
