package oauth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// TestWhatTheCheckFinds verifies what the members of a client mean for a rotation.
func TestWhatTheCheckFinds(t *testing.T) {
	t.Parallel()
	const list = `,"secrets":"/a~1b/secrets"`
	const remove = `,"remove":{"method":"DELETE","url":"https://h/{client_id}","body":["{secret}"]}`
	for _, tt := range []struct {
		get, more, client, want string
	}{
		{"", "", `{}`, ""},
		{"", "", `{"client_id":"app","token_endpoint_auth_method":"client_secret_basic","jwks":{}}`, ""},
		{"", "", `{"client_id":"other"}`, "other-client impossible"},
		{"", "", `{"enabled":false}`, "client-disabled impossible"},
		{"", "", `{"token_endpoint_auth_method":"none"}`, "public-client impossible"},
		{"", "", `{"token_endpoint_auth_method":"private_key_jwt"}`, "auth-method impossible"},
		{"", "", `{"token_endpoint_auth_method":"client_secret_post"}`, "auth-method-differs impossible"},
		{"", `,"client_auth":"post"`, `{"token_endpoint_auth_method":"client_secret_post"}`, ""},
		{"", "", `{"grant_types":["authorization_code","client_credentials"]}`, ""},
		{"", "", `{"grant_types":["authorization_code"]}`, "grant-not-allowed impossible"},
		{"", `,"admitted":["unauthorized_client"]`, `{"grant_types":["password"]}`, "grant-not-allowed note"},
		{"", `,"scope":"read write"`, `{"scope":"write read x"}`, ""},
		{"", `,"scope":"read write"`, `{"scope":"read"}`, "scope-not-allowed impossible"},
		{"", `,"scope":"read write","admitted":["invalid_scope"]`, `{"scope":"read"}`, "scope-not-allowed note"},
		{"", `,"audience":"a"`, `{"audience":["a","b"]}`, ""},
		{"", `,"audience":"c"`, `{"audience":["a","b"]}`, "audience-not-allowed impossible"},
		{"", "", `{"client_secret_expires_at":0}`, ""},
		{"", "", `{"client_secret_expires_at":4102444800}`, "secret-expires note"},
		{"", "", `{"client_secret_expires_at":1000000000}`, "secret-expired impossible"},
		{"", "", `{"jwks":{"keys":[{"kty":"EC"}]}}`, "other-keys note outlasts"},
		{"", "", `{"jwks_uri":"https://h/keys"}`, "other-keys note outlasts"},
		{list, "", `{}`, "secrets-not-read needs-consent"},
		{list, "", `{"a/b":{"secrets":[{}]}}`, ""},
		{list, "", `{"a/b":{"secrets":[{},{}]}}`, "other-secrets needs-consent outlasts"},
		{list, remove, `{"a/b":{"secrets":[{},{}]}}`, "secret-limit impossible outlasts"},
		{list + `,"max_secrets":3`, remove, `{"a/b":{"secrets":[{},{}]}}`, "other-secrets note outlasts"},
	} {
		r := startRegistry(t)
		targettest.Must(t, json.Unmarshal([]byte(fmt.Sprintf(`{"app":%s}`, tt.client)), &r.clients))
		if got := found(t, r.open(t, tt.get, tt.more)); got != tt.want {
			t.Errorf("%s %s %s: %q, want %q", tt.get, tt.more, tt.client, got, tt.want)
		}
	}
}

// found returns codes and verdicts of a check.
func found(t *testing.T, system target.Target) string {
	t.Helper()
	var got []string
	for _, f := range targettest.Findings(t, system, target.CheckRequest{Current: change.Old}) {
		got = append(got, f.Code, string(f.Verdict))
		if f.Outlasts {
			got = append(got, "outlasts")
		}
	}
	return strings.Join(got, " ")
}

// TestCheckWithoutAnswer verifies that what the administrator may not read is a finding, and
// silence an error.
func TestCheckWithoutAnswer(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	system := r.open(t, "", "")
	if got := found(t, system); got != "no-client impossible" {
		t.Errorf("without a client: %q", got)
	}
	r.status = http.StatusForbidden
	if got := found(t, system); got != "client-denied impossible" {
		t.Errorf("without the right: %q", got)
	}
	r.status = http.StatusUnauthorized
	_, err := system.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: change.Old})
	if targettest.Expect(t, err, target.Denied, "HTTP 401"); !target.IsAdminRejected(err) {
		t.Errorf("not authenticated: %v is not of the administrator", err)
	}
	r.status = http.StatusServiceUnavailable
	_, err = system.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: change.Old})
	targettest.Expect(t, err, target.Unreachable, "HTTP 503")
}

// TestReplacedUnread verifies that a set that replaces a client of which nothing is read needs
// consent, and one of a part of it does not.
func TestReplacedUnread(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://h/clients/{client_id}":        "set-replaces-client needs-consent client-not-read needs-consent",
		"https://h/clients/{client_id}/secret": "client-not-read needs-consent",
		"https://h/secrets?client={client_id}": "client-not-read needs-consent",
	} {
		system := targettest.Open(t, oauth.Kind(), fmt.Sprintf(`{"token_urls":["https://h/t"],"admin_auth":"none",
			"set":{"method":"PUT","url":%q,"body":{"s":"{secret}"}}}`, url), target.Credential{})
		if got := found(t, system); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}

// TestApplicationIsFollowed verifies that a login asks for what the application asks for, where it
// asks.
func TestApplicationIsFollowed(t *testing.T) {
	t.Parallel()
	var asked []string
	at := func(name string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, name+" "+r.FormValue("scope")+" "+r.FormValue("audience"))
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"t"}`)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	one, two, late := at("one"), at("two"), at("late")
	config := fmt.Appendf(nil, `{"token_urls":[%q,%q,{"address":%q,"role":"replica","lag":"3s"}],"admin_auth":"none",
		"scope":"s","audience":"a","set":{"method":"POST","url":"https://h/{client_id}","body":"{secret}"}}`, one, two, late)
	for _, tt := range []struct {
		login target.Login
		want  string
	}{
		{target.Login{}, "[one s a two s a | late s a]"},
		{target.Login{Endpoints: []string{two}, Role: "r w", Database: "d"}, "[two r w d |]"},
	} {
		asked = nil
		system, err := oauth.Kind().Open(target.Settings{Name: "idp", Config: config, Login: tt.login})
		targettest.Must(t, err)
		targettest.Must(t, system.Verify(targettest.Within(t), change.New))
		asked = append(asked, "|")
		if copied := system.(target.Copied); copied.Lag() > 0 {
			targettest.Must(t, copied.VerifyCopies(targettest.Within(t), change.New))
		}
		if got := fmt.Sprint(asked); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.login, got, tt.want)
		}
	}
}

// TestHydraAuthenticatesFirst verifies that the errors which docs/targets/oauth.md names for Hydra
// prove a secret there: with another secret it gives another answer.
func TestHydraAuthenticatesFirst(t *testing.T) {
	t.Parallel()
	h := servers.StartHydra(t)
	admin := "http://" + h.Admin + "/admin/clients"
	for id, grant := range map[string]string{"scope": "client_credentials", "grant": "authorization_code"} {
		hydra(t, http.MethodPost, admin, map[string]any{
			"client_id": id, "client_secret": "right-secret-marker", "grant_types": []string{grant}, "scope": "read",
		})
		for scope, want := range map[string]target.Class{"read": 0, "write": target.Admitted} {
			if id == "grant" {
				want = target.Admitted
			}
			config := fmt.Sprintf(`{"token_urls":["http://%s/oauth2/token"],"admin_auth":"none","scope":%q,
				"admitted":["unauthorized_client","invalid_scope"],
				"set":{"method":"PATCH","url":"%s/{client_id}","body":"{secret}"}}`,
				h.Public, scope, admin)
			system := targettest.Open(t, oauth.Kind(), config, target.Credential{})
			c := target.Credential{Account: id, Secret: targettest.Value("right-secret-marker")}
			if err := system.Verify(targettest.Within(t), c); target.ClassOf(err) != want || (err == nil) != (want == 0) {
				t.Errorf("%s %s: class %v, %s", id, scope, target.ClassOf(err), targettest.OperatorText(err))
			}
			c.Secret = targettest.Value("wrong-secret-marker")
			targettest.Expect(t, system.Verify(targettest.Within(t), c), target.Rejected)
		}
	}
}
