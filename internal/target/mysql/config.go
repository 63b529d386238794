package mysql

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

const defaultPort = "3306"

// config is the configuration; the package comment explains each member.
type config struct {
	target.Endpoints
	Database    string     `json:"database,omitempty"`
	AccountHost string     `json:"account_host,omitempty"`
	TLS         target.TLS `json:"tls,omitzero"`
	CheckSQL    string     `json:"check_sql,omitempty"`
	target.PasswordRule
}

// complete fills in defaults and returns every mistake.
func (c *config) complete() error {
	errs := c.Complete(defaultPort)
	if c.AccountHost == "" {
		c.AccountHost = "%"
	}
	if len(c.AccountHost) > 255 || strings.ContainsAny(c.AccountHost, "'`\"\\@ \x00") {
		errs = append(errs, fmt.Errorf("account_host %q is not the part after @ of an account", c.AccountHost))
	}
	if len(c.Database) > 64*4 || strings.ContainsRune(c.Database, 0) {
		errs = append(errs, errors.New("database is a name of at most 64 characters"))
	}
	return errors.Join(append(errs, c.TLS.Check(), c.PasswordRule.Check())...)
}
