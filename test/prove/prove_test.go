package prove

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// parts say what is tried with a fixture beside killing the engine.
type parts struct {
	oracle, drift bool
	// brief leaves the network alone in the faster cut.
	brief bool
}

// prove tries everything with one fixture.
func prove(t *testing.T, f fixture, p parts) {
	f.numbers = new(atomic.Int64)
	t.Run(f.name, func(t *testing.T) {
		t.Parallel()
		part := func(name string, wanted bool, run func(fixture, *testing.T)) {
			if wanted {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					run(f, t)
				})
			}
		}
		part("kill", true, fixture.kill)
		part("network", f.addr != "" && (*full || !p.brief), fixture.network)
		part("oracle", p.oracle, fixture.oracle)
		part("hand", p.drift && f.byHand != nil, fixture.driftByHand)
		part("restore", p.drift, fixture.driftByRestore)
	})
}

// register makes the fixture's server known to a running Keyturn, reached at addr.
func (f fixture) register(t testing.TB, c *process, addr string) {
	t.Helper()
	if f.kind == "" {
		return // Keyturn's own users need no registration
	}
	in := &kms.RegisterTargetRequest{TargetName: f.name, Kind: f.kind, Config: f.config(addr)}
	if f.admin != "" {
		in.AdminSecretName = "admin-" + f.name
		good(t, second(c.CreateSecret(t.Context(), &kms.CreateSecretRequest{
			SecretName: in.AdminSecretName,
			VersionID:  "v1",
			SecretData: sensitive.New(f.admin),
		})))
	}
	good(t, second(c.RegisterTarget(t.Context(), in)))
}

func second[T any](_ T, err error) error { return err }

// create makes the fixture's next secret, with this grace period, and returns its name.
func (f fixture) create(t testing.TB, c *process, grace string) string {
	t.Helper()
	in, configure := f.secret(t, c, int(f.numbers.Add(1)))
	out, err := c.CreateSecret(t.Context(), &in)
	good(t, err)
	configure.SecretName, configure.GracePeriod = out.SecretName, grace
	configure.GraceLimit = grace // so the grace period waits for no consumer
	good(t, second(c.ConfigureRotation(t.Context(), &configure)))
	return out.SecretName
}

// begin starts a Keyturn that reaches the fixture's server at addr, with one secret.
func (f fixture) begin(t testing.TB, p place, o order, addr, grace string) (*process, string) {
	t.Helper()
	c := p.start(t, f.order(o))
	f.register(t, c, addr)
	return c, f.create(t, c, grace)
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

func (f fixture) mustLogin(t testing.TB, c *process, what, value string, want bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), support.Patience)
	defer cancel()
	in, err := f.at(c).login(ctx, value)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if in != want {
		t.Errorf("%s: logs in: %v, want %v", what, in, want)
	}
	return in == want
}

// versions are the names of the versions of a secret in the order in which they were made.
func version(n int) string { return fmt.Sprintf("v%d", n) }

// whole checks a rotation to version n that has ended: the current credential works, the former
// one does not, and the labels are as they must be. What is wrong counts for the part of the
// table.
func (f fixture) whole(t testing.TB, c *process, part, secret string, n int, r *kms.DescribeRotationResponse) bool {
	t.Helper()
	if r.State != "done" || r.RotationID != version(n) {
		t.Errorf("%s, version %s: rotation %s ended as %s (%s); steps %+v", secret, version(n), r.RotationID,
			r.State, r.Reason, r.Steps)
		figures.Count(part+"_wrong_ends", 1)
		if r.State == "quarantined" {
			figures.Count(part+"_false_quarantines", 1)
		}
		return false
	}
	out, err := c.ListSecretVersionIds(t.Context(), &kms.ListSecretVersionIdsRequest{
		SecretName:        secret,
		IncludeDeprecated: true,
	})
	good(t, err)
	right := true
	for _, v := range out.VersionIDs {
		var want []string
		switch v.VersionID {
		case version(n):
			want = []string{kms.StageCurrent}
		case version(n - 1):
			want = []string{kms.StagePrevious}
		}
		if !slices.Equal(v.VersionStages, want) && len(v.VersionStages)+len(want) > 0 {
			t.Errorf("version %s of %s has the labels %v, want %v", v.VersionID, secret, v.VersionStages, want)
			figures.Count(part+"_wrong_ends", 1)
			right = false
		}
	}
	live := f.mustLogin(t, c, secret+": current", c.value(t, secret, kms.StageCurrent), true)
	dead := f.mustLogin(t, c, secret+": retired", c.value(t, secret, kms.StagePrevious), false)
	if !live {
		figures.Count(part+"_credentials_lost", 1)
	}
	if !dead {
		figures.Count(part+"_wrong_ends", 1)
	}
	return right && live && dead
}

// least is how many points there are at which an engine can die, or more.
func (f fixture) least() int {
	if f.strategy == target.Single {
		return 10
	}
	return 12
}
