package oauth_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// registry is a provider that replaces a client by what is put to its URL, as Hydra does. With a
// tag, it takes a change of the client only from a caller who has read it as it is now.
type registry struct {
	url string
	mu  sync.Mutex
	// clients holds each client with its secret.
	clients map[string]map[string]any
	// tag is of the clients now; race is called before a change.
	tag  string
	race func()
	// status answers instead, if it is not zero.
	status int
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{clients: map[string]map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /clients/{id}", r.get)
	mux.HandleFunc("PUT /clients/{id}", r.put)
	mux.HandleFunc("POST /token", r.token)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

func (r *registry) get(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.clients[req.PathValue("id")]
	switch {
	case r.status != 0:
		w.WriteHeader(r.status)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		c = maps.Clone(c)
		delete(c, "client_secret")
		w.Header().Set("ETag", r.tag)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(c)
	}
}

func (r *registry) put(w http.ResponseWriter, req *http.Request) {
	if r.race != nil {
		r.race()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := map[string]any{}
	switch {
	case r.tag != "" && req.Header.Get("If-Match") != r.tag:
		w.WriteHeader(http.StatusPreconditionFailed)
	case json.NewDecoder(req.Body).Decode(&c) != nil:
		w.WriteHeader(http.StatusBadRequest)
	default:
		r.clients[req.PathValue("id")] = c
	}
}

func (r *registry) token(w http.ResponseWriter, req *http.Request) {
	id, secret, _ := req.BasicAuth()
	r.mu.Lock()
	c := r.clients[id]
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if c == nil || c["client_secret"] != secret {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	_, _ = io.WriteString(w, `{"access_token":"t"}`)
}

// open opens a target that replaces whole clients, with further members of get and of its
// configuration.
func (r *registry) open(t *testing.T, get, more string) target.Target {
	t.Helper()
	config := fmt.Sprintf(`{"token_urls":["%[1]s/token"],"admin_auth":"none",
		"get":{"url":"%[1]s/clients/{client_id}"%[2]s},
		"set":{"method":"PUT","url":"%[1]s/clients/{client_id}","body":{"client_secret":"{secret}"}}%[3]s}`, r.url, get, more)
	return targettest.Open(t, oauth.Kind(), config, target.Credential{})
}

// randomClient returns a client that may get tokens, with members as clients of some age have them.
func randomClient(seed uint64, id, secret string) map[string]any {
	rng := rand.New(rand.NewPCG(seed, 0))
	c := map[string]any{
		"client_id":                  id,
		"client_secret":              secret,
		"grant_types":                []any{"client_credentials"},
		"token_endpoint_auth_method": "client_secret_basic",
	}
	for name, values := range map[string][]any{
		"client_name":          {"Shop \"<&>\"", "söns"},
		"scope":                {"read", "read write offline_access"},
		"audience":             {[]any{"https://api.example.test"}, []any{"a", "b"}},
		"redirect_uris":        {[]any{"https://app.example.test/cb"}, []any{"http://127.0.0.1:8080/cb?x=%20"}},
		"allowed_cors_origins": {[]any{"https://app.example.test"}},
		"grant_types":          {[]any{"client_credentials", "authorization_code", "refresh_token"}},
		"response_types":       {[]any{"code"}, []any{"code", "id_token"}},
		"contacts":             {[]any{"ops@example.test"}},
		"owner":                {"team-payments"},
		"policy_uri":           {"https://example.test/policy"},
		"tos_uri":              {"https://example.test/tos"},
		"client_uri":           {"https://example.test"},
		"logo_uri":             {"https://example.test/logo.png"},
		"subject_type":         {"public"},
		"skip_consent":         {true},
		"metadata":             {map[string]any{"a": map[string]any{"b": []any{1.5, nil}}}, map[string]any{"n": 1e15}},
		"client_credentials_grant_access_token_lifespan": {"1h0m0s", "15m0s"},
		"access_token_strategy":                          {"opaque", "jwt"},
	} {
		if rng.IntN(2) == 0 {
			c[name] = values[rng.IntN(len(values))]
		}
	}
	return c
}

const seeds = 60

// TestMembersAreKept verifies that a rotation changes nothing of a client but its secret, whatever
// the client has, at a provider that replaces it.
func TestMembersAreKept(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	tt := r.open(t, "", "")
	for seed := range uint64(seeds) {
		id := fmt.Sprintf("app-%d", seed)
		c := change
		c.Old.Account, c.New.Account = id, id
		before := randomClient(seed, id, c.Old.Secret.Reveal())
		r.clients[id] = maps.Clone(before)
		for range 2 {
			targettest.Must(t, tt.Apply(targettest.Within(t), c))
		}
		before["client_secret"] = c.New.Secret.Reveal()
		if after := r.clients[id]; !reflect.DeepEqual(after, plain(before)) {
			t.Fatalf("seed %d: the client is\n%v\nand was\n%v", seed, after, before)
		}
		targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
	}
}

// plain returns a value as JSON has it.
func plain(v map[string]any) (out map[string]any) {
	b, _ := json.Marshal(v)
	_ = json.Unmarshal(b, &out)
	return out
}

// TestMerge verifies that a body reaches into members of the client, and that null removes one.
func TestMerge(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	config := fmt.Sprintf(`{"token_urls":["%[1]s/token"],"admin_auth":"none","get":{"url":"%[1]s/clients/{client_id}"},
		"set":{"method":"PUT","url":"%[1]s/clients/{client_id}",
		"body":{"client_secret":"{secret}","old":null,"a":{"b":{"id":"{client_id}"}}}}}`, r.url)
	tt := targettest.Open(t, oauth.Kind(), config, target.Credential{})
	r.clients["app"] = map[string]any{"old": true, "a": map[string]any{"b": map[string]any{"c": "kept"}, "d": "kept"}}
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	want := map[string]any{
		"client_secret": change.New.Secret.Reveal(),
		"a":             map[string]any{"b": map[string]any{"c": "kept", "id": "app"}, "d": "kept"},
	}
	if got := r.clients["app"]; !reflect.DeepEqual(got, want) {
		t.Errorf("the client is %v, want %v", got, want)
	}
}

// TestHydraKeepsMembers does the same with Hydra, by both ways to set a secret there.
func TestHydraKeepsMembers(t *testing.T) {
	t.Parallel()
	h := servers.StartHydra(t)
	admin := "http://" + h.Admin + "/admin/clients"
	for way, set := range map[string]string{
		"PATCH": `"method":"PATCH","body":[{"op":"replace","path":"/client_secret","value":"{secret}"}]`,
		"PUT":   `"method":"PUT","body":{"client_secret":"{secret}"}`,
	} {
		tt := targettest.Open(t, oauth.Kind(), fmt.Sprintf(`{"token_urls":["http://%s/oauth2/token"],"admin_auth":"none",
			"get":{"url":"%s/{client_id}"},"set":{"url":"%s/{client_id}",%s}}`, h.Public, admin, admin, set),
			target.Credential{})
		for seed := range uint64(seeds / 3) {
			id := fmt.Sprintf("%s app %d", way, seed)
			c := change
			c.Old.Account, c.New.Account = id, id
			hydra(t, http.MethodPost, admin, randomClient(seed, id, c.Old.Secret.Reveal()))
			at := admin + "/" + strings.ReplaceAll(id, " ", "%20")
			before := hydra(t, http.MethodGet, at, nil)
			targettest.Must(t, tt.Apply(targettest.Within(t), c))
			after := hydra(t, http.MethodGet, at, nil)
			delete(before, "updated_at")
			delete(after, "updated_at")
			if !reflect.DeepEqual(after, before) {
				t.Fatalf("%s, seed %d: the client is\n%v\nand was\n%v", way, seed, after, before)
			}
			targettest.Must(t, tt.Verify(targettest.Within(t), c.New))
			targettest.Expect(t, tt.Verify(targettest.Within(t), c.Old), target.Rejected)
			findings, err := tt.(target.Checker).CheckAccount(targettest.Within(t), target.CheckRequest{Current: c.New})
			if err != nil || len(findings) != 0 {
				t.Errorf("%s, seed %d: %v, %v", way, seed, findings, err)
			}
		}
	}
}

// hydra makes a call of Hydra's administrative API.
func hydra(t *testing.T, method, url string, body any) (out map[string]any) {
	t.Helper()
	b, err := json.Marshal(body)
	targettest.Must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(b))
	targettest.Must(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	targettest.Must(t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	targettest.Must(t, err)
	if resp.StatusCode/100 != 2 || json.Unmarshal(got, &out) != nil {
		t.Fatalf("%s %s: status %d: %s", method, url, resp.StatusCode, got)
	}
	return out
}

// TestChangeMeanwhile verifies that a client that another administrator changes between the read
// and the set keeps that change, where the provider has entity tags.
func TestChangeMeanwhile(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	tt := r.open(t, "", "")
	r.clients["app"] = map[string]any{"client_id": "app", "client_secret": change.Old.Secret.Reveal()}
	r.tag = `"1"`
	r.race = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tag, r.clients["app"]["scope"], r.race = `"2"`, "narrow", nil
	}
	targettest.Expect(t, tt.Apply(targettest.Within(t), change), target.Unreachable, "HTTP 412")
	targettest.Must(t, tt.Apply(targettest.Within(t), change))
	if got := r.clients["app"]["scope"]; got != "narrow" {
		t.Errorf("the scope is %v", got)
	}
	// Without an answer to the read, nothing was sent.
	r.status = http.StatusBadGateway
	next := change
	next.New.Secret = sensitive.New("another-secret-marker")
	targettest.Expect(t, tt.Apply(targettest.Within(t), next), target.Unreachable, "HTTP 502")
	r.status = http.StatusForbidden
	targettest.Expect(t, tt.Apply(targettest.Within(t), next), target.Denied, "HTTP 403")
}
