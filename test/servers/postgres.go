package servers

import (
	"errors"
	"testing"

	"github.com/keyturn/keyturn/internal/sandbox"
)

// StartPostgres starts a PostgreSQL cluster; it ends with the test. A configuration without Dir
// gets a directory of the test's.
func StartPostgres(t testing.TB, config sandbox.PostgresConfig) *sandbox.Postgres {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	p, err := sandbox.StartPostgres(t.Context(), config)
	if errors.Is(err, sandbox.ErrNoPostgres) {
		t.Skipf("skipped: %v (Debian package postgresql)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close PostgreSQL: %v", err)
		}
	})
	return p
}
