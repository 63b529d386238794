package secretsmanager_test

import (
	"crypto/x509"
	"os"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/agents"
)

// TestBehindAnAgent verifies that the same client, connected to an agent, works through an outage
// of the server, beyond its time to live, even if agent and client start during the outage. It
// also gets the configuration of a managed secret.
func TestBehindAnAgent(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName:     "managed",
		VersionID:      "v1",
		SecretType:     kms.TypeRds,
		SecretData:     sensitive.New(`{"Accounts":[{"AccountName":"app","AccountPassword":"p"}]}`),
		ExtendedConfig: `{"SecretSubType":"SingleUser","DBInstanceId":"pg-main"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	agent := agents.Start(t, s, "app/db", "managed")
	c := at(s, agent.KMS)
	c.TTL = map[string]int64{"app/db": 50, "managed": 50}
	a := start(t, c)
	a.reads("app/db", "value 1")
	rotate(t, s, "app/db", "v2", "value 2")
	a.untilReads("app/db", "value 2", false)
	before := a.do("info", "managed")
	if before.Error != "" || before.Type != kms.TypeRds || before.Config == "" {
		t.Fatalf("the managed secret: type %q, configuration %q, %s", before.Type, before.Config, before.Error)
	}
	ca, err := os.ReadFile(agent.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	own, err := kms.NewClient(kms.Config{Endpoint: agent.KMS, Credentials: s.Credentials, RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := own.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "managed"}); err != nil ||
		got.ExtendedConfig != "" {
		t.Errorf("to who does not ask for the configuration: %q, %v; want none", got.ExtendedConfig, err)
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := a.do("refresh", "app/db"); got.Error != "" {
			t.Fatalf("RefreshNow while the server is away: %s", got.Error)
		}
		a.reads("app/db", "value 2")
	}
	if got := a.do("refresh", "managed"); got.Error != "" {
		t.Errorf("the managed secret while the server is away: %s", got.Error)
	}
	if got := a.do("info", "managed"); got != before {
		t.Errorf("the managed secret while the server is away: version %q, type %q, configuration %q, %s",
			got.Version, got.Type, got.Config, got.Error)
	}
	start(t, c).reads("app/db", "value 2")

	// The agent too may start in the outage: it has the last known values on disk.
	agent.Restart(t)
	c.Endpoints = []string{agent.KMS}
	b := start(t, c)
	b.reads("app/db", "value 2")
	if got := b.do("info", "managed"); got != before {
		t.Errorf("the managed secret from disk: version %q, type %q, configuration %q, %s", got.Version,
			got.Type, got.Config, got.Error)
	}
}
