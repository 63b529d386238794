package postgresql

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

const (
	defaultPort     = "5432"
	defaultDatabase = "postgres"
	// maxName is the length of a role's or database's name in bytes. The server cuts a longer one,
	// and would then change another role.
	maxName = 63
)

// authMethods are the ways of logging in that a configuration may allow. "none" is not one: with it
// every password works, and nothing can be verified.
var authMethods = []string{"scram-sha-256", "md5", "password"}

// config is the configuration; the package comment tells each member.
type config struct {
	target.Endpoints
	Database        string     `json:"database,omitempty"`
	TLS             target.TLS `json:"tls,omitzero"`
	CheckSQL        string     `json:"check_sql,omitempty"`
	ScramIterations int        `json:"scram_iterations,omitempty"`
	RequireAuth     []string   `json:"require_auth,omitempty"`
	target.PasswordRule
}

// parse reads a configuration, completes it, and names every mistake.
func parse(raw json.RawMessage) (config, error) {
	var c config
	if err := target.Decode(raw, &c); err != nil {
		return c, err
	}
	errs := c.Complete(defaultPort)
	if c.Database == "" {
		c.Database = defaultDatabase
	}
	if err := checkName(c.Database); err != nil {
		errs = append(errs, fmt.Errorf("database %w", err))
	}
	if c.ScramIterations != 0 && (c.ScramIterations < defaultIterations || c.ScramIterations > maxIterations) {
		errs = append(errs, fmt.Errorf("scram_iterations is %d to %d", defaultIterations, maxIterations))
	}
	if strings.ContainsRune(c.CheckSQL, 0) {
		errs = append(errs, errors.New("check_sql holds a zero byte"))
	}
	for _, method := range c.RequireAuth {
		if !slices.Contains(authMethods, method) {
			errs = append(
				errs,
				fmt.Errorf("require_auth has no %q; it is a list of %s", method, strings.Join(authMethods, ", ")),
			)
		}
	}
	if len(c.RequireAuth) == 0 {
		c.RequireAuth = authMethods[:1]
	}
	errs = append(errs, c.TLS.Check(), c.PasswordRule.Check())
	return c, errors.Join(errs...)
}

// checkName refuses a name that the server would take for another.
func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("has a name of 1 to %d bytes without zero bytes", maxName)
	}
	return nil
}
