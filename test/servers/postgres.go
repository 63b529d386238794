package servers

import (
	"errors"
	"os"
	"path/filepath"
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

// PostgresVersions are the versions that scripts/test-postgres puts beside the system's. Between
// 17.0 and 17.2 a role's setting "role" was ignored.
var PostgresVersions = []string{"17.0", "17.1", "18.4"}

// PostgresPrograms returns the directory of the programs of one of [PostgresVersions]. It skips the
// test where they are not there.
func PostgresPrograms(t testing.TB, version string) string {
	t.Helper()
	var homes []string
	if cache, err := os.UserCacheDir(); err == nil {
		homes = append(homes, filepath.Join(cache, "keyturn-test"))
	}
	for _, home := range append(homes, "/var/cache/keyturn-test") {
		programs := filepath.Join(home, "postgresql-"+version, "bin")
		if _, err := os.Stat(filepath.Join(programs, "postgres")); err == nil {
			return programs
		}
	}
	t.Skipf("skipped: there is no PostgreSQL %s; scripts/test-postgres fetches one", version)
	return ""
}
