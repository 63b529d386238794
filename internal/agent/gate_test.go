package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// oneServer is a server with one managed secret, which can be away.
type oneServer struct {
	away  atomic.Bool
	calls atomic.Int64
}

func (s *oneServer) Endpoint() string { return "https://kms.example.test/" }

func (s *oneServer) Do(_ context.Context, call kms.Call) ([]byte, error) {
	s.calls.Add(1)
	if s.away.Load() {
		return nil, errors.New("connection refused")
	}
	name, _ := call.Params.Get("SecretName")
	if name != "db" {
		return nil, &kms.Error{HTTPStatus: 404, Code: kms.CodeResourceNotFound}
	}
	if _, signed := call.Params.Get("Signature"); signed {
		return nil, errors.New("the caller's signature was passed on")
	}
	extended := ""
	if want, _ := call.Params.Get("FetchExtendedConfig"); want == "true" {
		extended = `,"ExtendedConfig":"{\"DBName\":\"orders\"}"`
	}
	return []byte(`{"SecretName":"db","SecretType":"Rds","SecretData":"marker","SecretDataType":"text",` +
		`"VersionId":"v1","VersionStages":{"VersionStage":["ACSCurrent","blue"]}` + extended +
		`,"RequestId":"theirs"}`), nil
}

// GetSecretValue and WatchSecrets make it a server for a consumer too.
func (s *oneServer) GetSecretValue(
	_ context.Context, in *kms.GetSecretValueRequest,
) (*kms.GetSecretValueResponse, error) {
	if s.away.Load() {
		return nil, errors.New("connection refused")
	}
	if in.SecretName != "db" {
		return nil, &kms.Error{HTTPStatus: 404, Code: kms.CodeResourceNotFound}
	}
	out := &kms.GetSecretValueResponse{
		SecretName:     "db",
		SecretType:     kms.TypeRds,
		SecretData:     value("", "", "marker").Data,
		SecretDataType: kms.DataText,
		VersionID:      "v1",
		VersionStages:  []string{"ACSCurrent", "blue"},
	}
	if in.FetchExtendedConfig {
		out.ExtendedConfig = `{"DBName":"orders"}`
	}
	return out, nil
}

func (s *oneServer) WatchSecrets(context.Context, *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	return nil, &kms.Error{HTTPStatus: 404, Code: kms.CodeActionNotFound}
}

// everything is the scope of an agent with any_secret.
type everything struct{}

func (everything) anySecret() bool    { return true }
func (everything) serves(string) bool { return false }

// TestGateOutage asks as real clients do, while the server is there and while it is away. The cache
// clients of the cloud always send VersionStage and FetchExtendedConfig.
func TestGateOutage(t *testing.T) {
	t.Parallel()
	server := &oneServer{}
	c, err := consumer.New(t.Context(), consumer.Config{
		Client:  server,
		Secrets: []string{"db"},
		Logger:  slog.New(slog.DiscardHandler),
		NoPush:  true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g := &Gate{held: c, server: server, scope: everything{}, log: slog.New(slog.DiscardHandler)}
	ask := func(pairs ...string) string {
		p := sign.Params{{Name: "Signature", Value: "s"}, {Name: "AccessKeyId", Value: "k"}}
		for i := 0; i < len(pairs); i += 2 {
			p = append(p, sign.Param{Name: pairs[i], Value: pairs[i+1]})
		}
		out, err := g.Call(t.Context(), protocol.Named("GetSecretValue"), protocol.Request{ID: "ours", Params: p})
		var said *kms.Error
		switch {
		case errors.As(err, &said):
			return said.Code
		case err != nil:
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%v: %v", pairs, err)
			}
			return "unavailable"
		}
		answer := out.(*kms.GetSecretValueResponse)
		return answer.VersionID + " " + answer.ExtendedConfig + " " + answer.RequestID
	}
	cache := []string{"SecretName", "db", "VersionStage", "ACSCurrent", "FetchExtendedConfig", "true"}
	const extended = `v1 {"DBName":"orders"} `
	if got := ask(cache...); got != extended+"ours" || server.calls.Load() != 0 {
		t.Errorf("a cache client: %s, %d calls passed on", got, server.calls.Load())
	}
	if got := ask("SecretName", "db"); got != "v1  ours" {
		t.Errorf("a client that does not ask for the configuration: %s", got)
	}
	if got := ask("SecretName", "other"); got != kms.CodeResourceNotFound {
		t.Errorf("a secret that is not there: %s", got)
	}
	server.away.Store(true)
	for _, tt := range []struct {
		want  string
		pairs []string
	}{
		{extended + "ours", cache},
		{"v1  ours", []string{"SecretName", "db"}},
		{"v1  ours", []string{"SecretName", "db", "VersionStage", "blue"}},
		{"v1  ours", []string{"SecretName", "db", "VersionId", "v1", "VersionStage", "ACSCurrent"}},
		{"unavailable", []string{"SecretName", "db", "VersionStage", "ACSPrevious"}},
		{"unavailable", []string{"SecretName", "db", "VersionId", "v0"}},
		{"unavailable", []string{"SecretName", "db", "DryRun", "true"}},
		{kms.CodeResourceNotFound, []string{"SecretName", "other"}},
	} {
		if got := ask(tt.pairs...); got != tt.want {
			t.Errorf("away, %v: %s, want %s", tt.pairs, got, tt.want)
		}
	}
}
