package mysql

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

const defaultPort = "3306"

// config is the configuration; the package comment tells each member.
type config struct {
	target.Endpoints
	Database    string     `json:"database,omitempty"`
	AccountHost string     `json:"account_host,omitempty"`
	TLS         target.TLS `json:"tls,omitzero"`
	CheckSQL    string     `json:"check_sql,omitempty"`
	target.PasswordRule
}

// parse reads a configuration, completes it, and names every mistake.
func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
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
	errs = append(errs, c.TLS.Check(), c.PasswordRule.Check())
	return c, errors.Join(errs...)
}
