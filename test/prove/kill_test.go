package prove

import (
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/kms"
)

// fastStep is how many points a faster cut passes over.
const fastStep = 6

// kill ends the server by SIGKILL before and after everything that it stores and every call that
// it makes to a target. The end is the same as without.
func (f fixture) kill(t *testing.T) {
	for _, name := range []string{"kill_wrong_ends", "kill_credentials_lost", "kill_runs", "kill_runs_" + f.name} {
		figures.Count(name, 0)
	}
	p := newPlace(t)
	c, secret := f.begin(t, p, order{}, f.addr, "0s")
	c.Stop(t)
	points, n := 0, 2
	for at := 1; ; at, n = at+pick(1, fastStep), n+1 {
		c := p.start(t, f.order(order{Secret: secret, Kill: at}))
		_, err := c.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: secret, VersionID: version(n)})
		point, died := c.dead(t, secret, version(n))
		if died && point == "" {
			t.Fatalf("the server ended without being killed: %s", c.Log.Tail())
		}
		if err != nil && !died {
			t.Fatal(err)
		}
		if !died {
			f.whole(t, c, "kill", secret, n, c.until(t, secret))
			c.Stop(t)
			break
		}
		points++
		figures.Count("kill_runs", 1)
		figures.Count("kill_runs_"+f.name, 1)
		c = p.start(t, f.order(order{}))
		if err != nil { // the call got no answer; its rotation may have begun all the same
			c.rotate(t, secret, version(n))
		}
		if !f.whole(t, c, "kill", secret, n, c.until(t, secret)) {
			t.Fatalf("killed %s", point)
		}
		c.Stop(t)
	}
	if *full && points < f.least() {
		t.Errorf("the server was killed at %d points, want at least %d", points, f.least())
	}
	report, err := audit.Verify(filepath.Join(p.dir, "audit"))
	if err != nil || report.Records == 0 {
		t.Errorf("the audit trail after all that: %d records, %v", report.Records, err)
	}
}
