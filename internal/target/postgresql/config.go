package postgresql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

const (
	defaultPort     = "5432"
	defaultDatabase = "postgres"
	// maxName is the length of the longest name of a role or database, in bytes. The server
	// truncates a longer one, and would then change another role.
	maxName = 63
)

// authMethods lists the methods of authentication that a configuration may allow. "none" is not one
// of them: with it every password passes, and no login verifies anything.
var authMethods = []string{"scram-sha-256", "md5", "password"}

// config is the configuration; the package comment explains each member.
type config struct {
	target.Endpoints
	Database        string     `json:"database,omitempty"`
	TLS             target.TLS `json:"tls,omitzero"`
	CheckSQL        string     `json:"check_sql,omitempty"`
	ScramIterations int        `json:"scram_iterations,omitempty"`
	RequireAuth     []string   `json:"require_auth,omitempty"`
	target.PasswordRule
}

// complete fills in defaults and returns every mistake.
func (c *config) complete() error {
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
	return errors.Join(append(errs, c.TLS.Check(), c.PasswordRule.Check())...)
}

// checkName returns an error for a name that the server would take for another one.
func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("has a name of 1 to %d bytes without zero bytes", maxName)
	}
	return nil
}
