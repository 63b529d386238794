package rotation_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// verifyAt sets where the target of a secret logs in.
func verifyAt(t *testing.T, s *keyturntest.Server, name string, endpoints ...any) {
	t.Helper()
	known, err := s.Client.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: name})
	must(t, err)
	described, err := s.Client.DescribeTarget(t.Context(), &kms.TargetNameRequest{TargetName: known.TargetName})
	must(t, err)
	config := map[string]any{}
	must(t, json.Unmarshal([]byte(described.Config), &config))
	config["verify"] = endpoints
	changed, err := json.Marshal(config)
	must(t, err)
	must(t, second(s.Client.UpdateTarget(t.Context(), &kms.UpdateTargetRequest{
		TargetName: known.TargetName,
		Config:     string(changed),
	})))
}

// untilStep waits until a rotation has a step with that event.
func untilStep(t *testing.T, s *keyturntest.Server, name, event string) {
	t.Helper()
	support.Until(t, "the event "+event, func() bool {
		r, err := s.Client.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: name})
		must(t, err)
		return slices.ContainsFunc(r.Steps, func(step kms.RotationStep) bool { return step.Event == event })
	})
}

// TestReplicaThatIsLate rotates while a standby has stopped learning of changes. With two accounts
// the new credential becomes current once the standby accepts it. With one it becomes current at
// once, because reads wait for it; the standby is reported, and the secret is not quarantined.
func TestReplicaThatIsLate(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"double", "single"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			d := startDatabase(t, "wal_level=replica", "max_wal_senders=4")
			standby := &database{
				Postgres: servers.StartPostgres(t, sandbox.PostgresConfig{StandbyOf: d.Postgres}),
			}
			x := d.system(strategy)
			s := x.run(t)
			lag := "1m"
			if strategy == "single" {
				lag = "1s"
			}
			verifyAt(t, s, "app", d.Addr(), map[string]string{
				"address": standby.Addr(),
				"role":    "replica",
				"lag":     lag,
			})
			untilLive(t, s, "app")
			standby.run(t, "SELECT pg_wal_replay_pause()")
			rotate(t, s, "app", "v2")
			if strategy == "single" {
				untilRotation(t, s, "app", "v2", "done")
			}
			untilStep(t, s, "app", "copies-late")
			want := map[string]string{"double": "v1", "single": "v2"}[strategy]
			if version, l := current(t, s, "app"); version != want {
				t.Errorf("while the standby is late, version %s is current; want %s", version, want)
			} else {
				x.works(t, "the credential in use", l, true)
			}
			standby.run(t, "SELECT pg_wal_replay_resume()")
			untilVersion(t, s, "app", "v2")
			_, l := current(t, s, "app")
			if strategy == "double" && standby.login(t.Context(), l) != nil {
				t.Error("the new credential is current, and the standby does not accept it")
			}
			r := untilRotation(t, s, "app", "v2", "grace", "done")
			at := func(event string) int {
				return slices.IndexFunc(r.Steps, func(step kms.RotationStep) bool { return step.Event == event })
			}
			if waited := at("copies-late") < at("promoted"); waited != (strategy == "double") {
				t.Errorf("the promotion has waited for the standby: %t; steps %+v", waited, r.Steps)
			}
		})
	}
}
