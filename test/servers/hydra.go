package servers

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// Hydra is an Ory Hydra with an SQLite file: its store in memory is lost with the first request
// that is broken off.
type Hydra struct {
	// Public and Admin are host:port of its two APIs, without TLS and without authentication.
	Public, Admin string
}

// StartHydra starts one. It is built by scripts/test-hydra.
func StartHydra(t testing.TB) *Hydra {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(cache, "keyturn-test", "hydra-v*[0-9]"))
	if len(found) == 0 {
		t.Skip("Ory Hydra has not been built (scripts/test-hydra)")
	}
	for attempt := 1; ; attempt++ {
		h, err := startHydra(t, found[len(found)-1])
		if err == nil {
			return h
		}
		if attempt == 3 { // a free port may be taken by another process before the child binds it
			t.Fatal(err)
		}
		t.Logf("start Hydra again: %v", err)
	}
}

func startHydra(t testing.TB, program string) (*Hydra, error) {
	t.Helper()
	ports := support.FreePorts(t, 2)
	public, admin := ports[0], ports[1]
	dir := t.TempDir()
	config := filepath.Join(dir, "hydra.yml")
	text := fmt.Sprintf(`dsn: "sqlite://%s?_fk=true&mode=rwc&_busy_timeout=5000"
serve:
  public: {host: 127.0.0.1, port: %s}
  admin: {host: 127.0.0.1, port: %s}
urls:
  self: {issuer: "http://127.0.0.1:%s"}
secrets:
  system: [a-secret-of-a-throw-away-server]
oauth2:
  hashers: {algorithm: bcrypt, bcrypt: {cost: 8}}
log: {level: warn}
`, filepath.Join(dir, "hydra.sqlite"), public, admin, public)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "migrate", "sql", "-e", "--yes", "-c", config).CombinedOutput(); err != nil {
		t.Fatalf("set up Hydra's database: %v: %s", err, out)
	}
	k := startKept(t, exec.Command(program, "serve", "all", "--dev", "--sqa-opt-out", "-c", config), nil)
	h := &Hydra{Public: "127.0.0.1:" + public, Admin: "127.0.0.1:" + admin}
	return h, k.ready(t, 30*time.Second, func() error {
		resp, err := http.Get("http://" + h.Admin + "/health/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
}
