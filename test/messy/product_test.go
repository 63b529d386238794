package messy

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/nodes"
	"github.com/keyturn/keyturn/test/support"
)

// hold is how long the server blocks reads while the only credential of a secret changes.
const hold = 2 * time.Second

// product is a running Keyturn with a server of one kind registered as often as scenes want.
type product struct {
	*kms.Client
	// kind is the target's, and admin the name of the administrator's secret.
	kind, admin string
}

// start runs Keyturn in this process until the test ends. adminValue is what the administrator's
// secret holds.
func start(t *testing.T, kind, adminValue string) *product {
	t.Helper()
	dir, log := filepath.Join(t.TempDir(), "data"), &support.Log{}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	node, err := server.New(ctx, server.Config{
		DataDir:    dir,
		ListenHTTP: "127.0.0.1:0",
		Kinds:      cli.TargetKinds(command.Config{}),
		Logger:     slog.New(slog.NewTextHandler(log, nil)),
		Rotation: api.RotationConfig{
			ProbeEvery:    24 * time.Hour,
			LeastInterval: time.Second,
			RequestEvery:  time.Microsecond,
			ReadWait:      hold,
		},
		Rotator: rotator.Config{Lead: 5 * time.Millisecond, Rate: 1000, Burst: 1000},
	})
	good(t, err)
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server: %v", err)
		}
		if t.Failed() && testing.Verbose() {
			t.Logf("log of the server: %s", log.Tail())
		}
	})
	select {
	case <-node.Ready():
	case <-time.After(support.Patience):
		t.Fatalf("the server did not start in time: %s", log.Tail())
	}
	p := &product{kind: kind, admin: "admin"}
	p.Client, err = kms.NewClient(kms.Config{
		Endpoint:    "http://" + node.HTTPEndpoint(),
		Credentials: nodes.Credentials(nodes.ReadAdmin(t, dir)),
		HTTPClient:  &http.Client{Timeout: 30 * time.Second},
	})
	good(t, err)
	p.put(t, p.admin, adminValue)
	return p
}

// put creates a secret.
func (p *product) put(t testing.TB, name, value string) {
	t.Helper()
	good(t, second(p.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: name,
		VersionID:  "v1",
		SecretData: sensitive.New(value),
	})))
}

// register makes the server known under a name of the scene's.
func (p *product) register(t testing.TB, name, config string) {
	t.Helper()
	good(t, second(p.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      name,
		Kind:            p.kind,
		Config:          config,
		AdminSecretName: p.admin,
	})))
}

// configure creates a Generic secret of an account, and has it rotated. The error is the product's
// refusal.
func (p *product) configure(t testing.TB, value string, in kms.ConfigureRotationRequest) (string, error) {
	t.Helper()
	in.SecretName = "of-" + in.TargetName
	p.put(t, in.SecretName, value)
	in.GraceLimit = in.GracePeriod
	_, err := p.ConfigureRotation(t.Context(), &in)
	return in.SecretName, err
}
