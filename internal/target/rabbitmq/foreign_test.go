package rabbitmq_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
)

// TestForeignNames verifies that nothing in an answer of the API is shown as a command of Keyturn,
// and that a shell reads the commands of findings as they are meant.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	const name = targettest.HostileName
	blind := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any = []any{}
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "permissions"):
		case strings.HasPrefix(path, "/api/users/"):
			answer = map[string]any{
				"name": "app", "tags": "", "password_hash": "AAAAAAAA", "hashing_algorithm": name,
			}
		case blind:
			w.WriteHeader(http.StatusForbidden)
			answer = map[string]any{"error": "not_authorised", "reason": name}
		case path == "/api/parameters":
			answer = []any{map[string]any{
				"component": name, "name": name, "vhost": name, "value": map[string]any{"uri": "amqp://app:x@h"},
			}}
		case path == "/api/nodes":
			answer = []any{map[string]any{
				"name": name, "partitions": []string{"x"}, "enabled_plugins": []string{"rabbitmq_auth_backend_" + name},
			}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	config := fmt.Sprintf(`{"api":%q,"amqp":["amqps://127.0.0.1:1"],"tls":{"ca":%q}}`, s.URL, ca)
	admin := target.Credential{Account: "a $(id)'\n", Secret: sensitive.New("The-administrator's-1")}
	tt := targettest.Open(t, rabbitmq.Kind(), config, admin)
	ask := target.CheckRequest{Current: target.Credential{Account: "app", Secret: sensitive.New("a-password")}}
	list := targettest.Findings(t, tt, ask)
	targettest.Harmless(t, list)
	for _, want := range []string{"hash-changes", "links", "partition", "node-down", "other-backends"} {
		if !strings.Contains(targettest.Codes(list), want) {
			t.Errorf("found %s, not %s", targettest.Codes(list), want)
		}
	}
	blind = true
	list = targettest.Findings(t, tt, ask)
	targettest.Harmless(t, list)
	const fix = `rabbitmqctl set_user_tags $'a $(id)\'\012' administrator`
	for _, f := range list {
		if f.Code == "nodes-not-read" && f.Fix != fix {
			t.Errorf("fix: %s; want %s", f.Fix, fix)
		}
	}
}
