package prove

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// register makes the fixture's server known to a running Keyturn, reached at addr.
func (f fixture) register(t testing.TB, c *process, addr string) {
	t.Helper()
	in := &kms.RegisterTargetRequest{TargetName: f.name, Kind: f.kind, Config: f.config(addr)}
	if f.admin != "" {
		in.AdminSecretName = "admin-" + f.name
		good(t, second(c.CreateSecret(t.Context(), &kms.CreateSecretRequest{SecretName: in.AdminSecretName, VersionID: "v1", SecretData: sensitive.New(f.admin)})))
	}
	good(t, second(c.RegisterTarget(t.Context(), in)))
}

func second[T any](_ T, err error) error { return err }

// create makes the fixture's Nth secret, with this grace period, and returns its name.
func (f fixture) create(t testing.TB, c *process, n int, grace string) string {
	t.Helper()
	in, configure := f.secret(t, n)
	good(t, second(c.CreateSecret(t.Context(), &in)))
	if configure == nil {
		configure = &kms.ConfigureRotationRequest{}
	}
	configure.SecretName, configure.GracePeriod = in.SecretName, grace
	good(t, second(c.ConfigureRotation(t.Context(), configure)))
	return in.SecretName
}

// value reads a version by its label.
func (c *process) value(t testing.TB, secret, stage string) string {
	t.Helper()
	out, err := c.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: secret, VersionStage: stage})
	if err != nil {
		t.Fatalf("read %s of %s: %v", stage, secret, err)
	}
	return out.SecretData.Reveal()
}

func (f fixture) mustLogin(t testing.TB, what, value string, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in, err := f.login(ctx, value)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if in != want {
		t.Errorf("%s: logs in: %v, want %v", what, in, want)
	}
}

// whole checks a rotation that has ended: the current credential works, the former one does not, and the labels are as they
// must be.
func (f fixture) whole(t testing.TB, c *process, secret, version string, r *kms.DescribeRotationResponse) bool {
	t.Helper()
	if r.State != "done" {
		t.Errorf("%s ended as %s (%s); steps %+v", secret, r.State, r.Reason, r.Steps)
		count("kill_wrong_ends", 1)
		return false
	}
	out, err := c.ListSecretVersionIds(t.Context(), &kms.ListSecretVersionIdsRequest{SecretName: secret, IncludeDeprecated: true})
	good(t, err)
	for _, v := range out.VersionIDs {
		var want []string
		switch v.VersionID {
		case version:
			want = []string{kms.StageCurrent}
		case "v1":
			want = []string{kms.StagePrevious}
		}
		if !slices.Equal(v.VersionStages, want) && len(v.VersionStages)+len(want) > 0 {
			t.Errorf("version %s of %s has the labels %v, want %v", v.VersionID, secret, v.VersionStages, want)
			count("kill_wrong_ends", 1)
		}
	}
	before := t.Failed()
	f.mustLogin(t, secret+": current", c.value(t, secret, kms.StageCurrent), true)
	f.mustLogin(t, secret+": retired", c.value(t, secret, kms.StagePrevious), false)
	if t.Failed() && !before {
		count("kill_credentials_lost", 1)
	}
	return true
}

// TestKill ends the server by SIGKILL before and after everything that it stores and every call that it makes to a target. The end
// is the same as without.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kill_wrong_ends", "kill_credentials_lost", "kill_runs"} {
		count(name, 0)
	}
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.killAll(t)
		})
	}
}

// step is how many points a faster cut passes over.
const fastStep = 5

func (f fixture) killAll(t *testing.T) {
	p := newPlace(t)
	c := p.start(t, order{})
	f.register(t, c, f.addr)
	c.stop(t)
	points := 0
	for n := 1; ; n++ {
		if !*full && n > 2 {
			n += fastStep - 1
		}
		c := p.start(t, order{})
		secret := f.create(t, c, n, "0s")
		c.stop(t)
		c = p.start(t, order{Secret: secret, Kill: n})
		_, err := c.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: secret, VersionID: "v2"})
		point, died := c.dead(t, secret)
		if died && point == "" {
			t.Fatalf("the server ended by itself: %s", c.log)
		}
		if err != nil && !died {
			t.Fatal(err)
		}
		if !died {
			f.whole(t, c, secret, "v2", c.until(t, secret))
			c.stop(t)
			break
		}
		points++
		count("kill_runs", 1)
		c = p.start(t, order{})
		if err != nil { // the call got no answer; its rotation may have begun all the same
			good(t, second(c.RotateSecret(t.Context(), &kms.RotateSecretRequest{SecretName: secret, VersionID: "v2"})))
		}
		if !f.whole(t, c, secret, "v2", c.until(t, secret)) {
			t.Logf("killed %s", point)
		}
		c.stop(t)
	}
	least := 12
	if f.strategy == target.Single {
		least = 10
	}
	if *full && points < least {
		t.Errorf("the server was killed at %d points, want at least %d", points, least)
	}
	report, err := audit.Verify(filepath.Join(p.dir, "audit"))
	if err != nil || report.Records == 0 {
		t.Errorf("the audit trail after all that: %d records, %v", report.Records, err)
	}
}
