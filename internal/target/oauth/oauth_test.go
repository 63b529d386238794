package oauth_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

const adminToken = "the-token-of-the-administrator"

func kind(strategy target.Strategy) target.Kind {
	k := oauth.Kind()
	k.Strategies = []target.Strategy{strategy}
	k.NeedsAdmin = true // in these configurations
	return k
}

// login asks a token endpoint without the code under test.
func login(ctx context.Context, endpoint string, c target.Credential, post bool) (bool, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if post {
		form.Set("client_id", c.Account)
		form.Set("client_secret", c.Secret.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !post {
		req.SetBasicAuth(url.QueryEscape(c.Account), url.QueryEscape(c.Secret.Reveal()))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		b, _ := io.ReadAll(resp.Body)
		return false, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return resp.StatusCode == http.StatusOK, nil
}

func TestHydra(t *testing.T) {
	t.Parallel()
	h := servers.StartHydra(t)
	// One address for both APIs, and a bearer token before the administrative one, as where Hydra
	// is in real use. One request at a time: Hydra on SQLite answers two writers with "Unable to
	// serialize access".
	var one sync.Mutex
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := &url.URL{Scheme: "http", Host: h.Public}
		if strings.HasPrefix(r.URL.Path, "/admin/") {
			to.Host = h.Admin
			if r.Header.Get("Authorization") != "Bearer "+adminToken {
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
		}
		one.Lock()
		defer one.Unlock()
		(&httputil.ReverseProxy{
			Rewrite:  func(p *httputil.ProxyRequest) { p.SetURL(to); p.SetXForwarded() },
			ErrorLog: log.New(io.Discard, "", 0), // of requests that a test breaks off
		}).ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context()))) // what Hydra has begun it ends, and the next one waits
	}))
	defer gateway.Close()
	addr := strings.TrimPrefix(gateway.URL, "http://")
	var n atomic.Int32
	for _, auth := range []string{"basic", "post"} {
		account := func(t *testing.T) target.Credential {
			i := n.Add(1)
			c := target.Credential{
				Account: fmt.Sprintf("app %d & söns?", i),
				Secret:  sensitive.New(fmt.Sprintf(`first "secret"+%%41 of &%d`, i)),
			}
			body, _ := json.Marshal(map[string]any{
				"client_id": c.Account, "client_secret": c.Secret.Reveal(), "grant_types": []string{"client_credentials"},
				"token_endpoint_auth_method": "client_secret_" + auth, "client_name": "kept",
			})
			req, err := http.NewRequestWithContext(
				t.Context(),
				http.MethodPost,
				gateway.URL+"/admin/clients",
				strings.NewReader(string(body)),
			)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+adminToken)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
				t.Fatalf("status %d: %s", resp.StatusCode, b)
			}
			return c
		}
		t.Run("client_secret_"+auth, func(t *testing.T) {
			targettest.Run(t, targettest.Harness{
				NoAdminAccount: true,
				Unguarded:      "OAuth 2.0 has no look-up of what a client may do",
				Kind:           kind(target.Single),
				Addr:           addr,
				Config: func(addr string) string {
					return fmt.Sprintf(
						`{"token_urls":["http://%[1]s/oauth2/token"],"client_auth":%[2]q,"password_punctuation":"&%%+$/",
						"admitted":["invalid_scope"],"get":{"url":"http://%[1]s/admin/clients/{client_id}"},
						"set":{"method":"PATCH","url":"http://%[1]s/admin/clients/{client_id}",
						"body":[{"op":"replace","path":"/client_secret","value":"{secret}"}]}}`,
						addr,
						auth,
					)
				},
				Admin:   target.Credential{Account: "admin", Secret: sensitive.New(adminToken)},
				Account: account,
				Login: func(ctx context.Context, c target.Credential) (bool, error) {
					return login(ctx, gateway.URL+"/oauth2/token", c, auth == "post")
				},
				Refused: func(account string) target.Credential {
					return target.Credential{Account: account, Secret: sensitive.New("short")}
				},
			})
		})
	}
}

// keeper is a provider that keeps several secrets of a client, which Hydra does not: POST and
// DELETE /clients/ID/secrets, and a token endpoint.
type keeper struct {
	url string
	mu  sync.Mutex
	has map[string][]string
	n   int
}

func startKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{has: map[string][]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /clients/{id}/secrets", k.change)
	mux.HandleFunc("DELETE /clients/{id}/secrets", k.change)
	mux.HandleFunc("POST /token", k.token)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	k.url = s.URL
	return k
}

func (k *keeper) change(w http.ResponseWriter, r *http.Request) {
	var in struct{ Secret string }
	if name, password, _ := r.BasicAuth(); name != "admin" || password != adminToken {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	id := r.PathValue("id")
	if json.NewDecoder(r.Body).Decode(&in) != nil || len(in.Secret) < 8 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprintf(w, `{"error":"weak_secret","error_description":%q}`, in.Secret+" is too short")
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.has[id] = slices.DeleteFunc(k.has[id], func(s string) bool { return s == in.Secret })
	if r.Method == http.MethodPost {
		k.has[id] = append(k.has[id], in.Secret)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (k *keeper) token(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	id, _ := url.QueryUnescape(user)
	secret, _ := url.QueryUnescape(password)
	k.mu.Lock()
	in := slices.Contains(k.has[id], secret)
	k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if !in {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	for name, refusal := range map[string]string{"scope": "invalid_scope", "audience": "invalid_target"} {
		if r.FormValue(name) != "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":%q}`, refusal)
			return
		}
	}
	_, _ = io.WriteString(w, `{"access_token":"t","token_type":"Bearer"}`)
}

func TestProviderWithTwoSecrets(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	targettest.Run(t, targettest.Harness{
		NoAdminAccount: true,
		Unguarded:      "OAuth 2.0 has no look-up of what a client may do",
		Unread:         "this provider shows no clients",
		Kind:           kind(target.Overlap),
		Addr:           strings.TrimPrefix(k.url, "http://"),
		Config: func(addr string) string {
			return fmt.Sprintf(`{"token_urls":["http://%[1]s/token"],"admin_auth":"basic",
				"admitted":["invalid_scope","invalid_target"],
				"set":{"method":"POST","url":"http://%[1]s/clients/{client_id}/secrets","body":{"secret":"{secret}"}},
				"remove":{"method":"DELETE","url":"http://%[1]s/clients/{client_id}/secrets","body":{"secret":"{secret}"}}}`, addr)
		},
		Admin: target.Credential{Account: "admin", Secret: sensitive.New(adminToken)},
		Account: func(*testing.T) target.Credential {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.n++
			c := target.Credential{
				Account: fmt.Sprintf("tenant/%d", k.n),
				Secret:  sensitive.New(fmt.Sprintf("first secret %d", k.n)),
			}
			k.has[c.Account] = []string{c.Secret.Reveal()}
			return c
		},
		Login: func(ctx context.Context, c target.Credential) (bool, error) {
			return login(ctx, k.url+"/token", c, false)
		},
		Refused: func(account string) target.Credential {
			return target.Credential{Account: account, Secret: sensitive.New("short")}
		},
	})
}

var change = target.Change{
	ID: "c1", Strategy: target.Single,
	New: target.Credential{Account: "app", Secret: sensitive.New("new-secret-marker")},
	Old: target.Credential{Account: "app", Secret: sensitive.New("old-secret-marker")},
}

// canned answers a set and a token request with fixed answers.
func canned(t *testing.T, setStatus int, setBody string, tokenStatus int, tokenBody string) target.Target {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/token" {
			w.WriteHeader(tokenStatus)
			_, _ = io.WriteString(w, tokenBody)
			return
		}
		w.Header().Set("Location", "/token")
		w.WriteHeader(setStatus)
		_, _ = io.WriteString(w, setBody)
	}))
	t.Cleanup(s.Close)
	tt, err := oauth.Kind().Open(target.Settings{Name: "idp", Config: fmt.Appendf(
		nil,
		`{"token_urls":["%[1]s/token"],"admin_auth":"none","admitted":["invalid_target"],
		"set":{"method":"PUT","url":"%[1]s/c/{client_id}","body":{"client_secret":"{secret}"}}}`,
		s.URL,
	)})
	if err != nil {
		t.Fatal(err)
	}
	return tt
}

func TestSetIsJudgedWithCare(t *testing.T) {
	t.Parallel()
	const dead, live = `{"error":"invalid_client"}`, `{"access_token":"t"}`
	for _, tt := range []struct {
		name      string
		status    int
		body      string
		tokenCode int
		token     string
		class     target.Class
		text      string
	}{
		{"done", 200, `{"client_secret":"new-secret-marker"}`, 401, dead, 0, ""},
		{"refused, and dead", 400, `{"error":"invalid","error_description":"new-secret-marker is weak"}`, 401, dead, target.Refused,
			"set a secret at idp: the provider answered with an error (HTTP 400) [invalid [redacted] is weak]"},
		{"refused because an earlier attempt did it", 400, `{"error":"reuse"}`, 200, live, 0, ""},
		{"refused, and the earlier one is admitted", 400, `{"error":"reuse"}`, 400, `{"error":"invalid_target"}`, 0, ""},
		{"refused, and nobody knows", 422, `{}`, 503, `{}`, target.Unknown, "whether it was set before is not known"},
		{"denied", 403, `{}`, 401, dead, target.Denied, "HTTP 403"},
		{"not authenticated", 401, `{}`, 401, dead, target.Denied, "the administrator: set a secret at idp"},
		{"no such client", 404, `{}`, 401, dead, target.Denied, "HTTP 404"},
		{"busy", 429, `{}`, 401, dead, target.Unreachable, "HTTP 429"},
		{"broken", 502, `{}`, 401, dead, target.Unknown, "HTTP 502"},
		{"redirect", 307, `{}`, 200, live, target.Unknown, "HTTP 307"},
		{"accepted for later", 202, `{}`, 200, live, target.Unknown, "HTTP 202"},
		{"another secret", 200, `{"client_secret":"its-own-marker"}`, 401, dead, target.Unknown, "the provider chose another secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := canned(t, tt.status, tt.body, tt.tokenCode, tt.token).Apply(t.Context(), change)
			if tt.text == "" && err != nil ||
				tt.text != "" &&
					(target.ClassOf(err) != tt.class || !strings.Contains(targettest.OperatorText(err), tt.text)) {
				t.Errorf("class %v, %v; want %v, %q", target.ClassOf(err), err, tt.class, tt.text)
			}
			if target.IsAdminRejected(err) != (tt.status == http.StatusUnauthorized) {
				t.Errorf("%v: of the administrator: %v", err, target.IsAdminRejected(err))
			}
			if strings.Contains(targettest.OperatorText(err), "marker") {
				t.Error("the error tells a secret")
			}
		})
	}
}

func TestTokenEndpointIsJudgedWithCare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		body   string
		class  target.Class
		text   string
	}{
		{401, `{"error":"invalid_client","error_description":"new-secret-marker?"}`, target.Rejected, `get a token of idp for "app": the provider answered with an error (HTTP 401) [invalid_client [redacted]?]`},
		{400, `{"error":"invalid_client"}`, target.Rejected, "HTTP 400"},
		{401, `{"error":"unauthorized_client"}`, target.Rejected, "unauthorized_client"},
		{400, `{"error":"unauthorized_client"}`, target.Unclear, "unauthorized_client"},
		{400, `{"error":"invalid_scope"}`, target.Unclear, "invalid_scope"},
		{400, `{"error":"invalid_target"}`, target.Admitted, "invalid_target"},
		{403, `{"error":"invalid_target"}`, target.Admitted, "invalid_target"},
		{429, `{"error":"invalid_target"}`, target.Unclear, "invalid_target"},
		{500, `{"error":"invalid_target"}`, target.Unclear, "invalid_target"},
		{401, `<html>`, target.Unclear, "HTTP 401"},
		{429, `{"error":"slow_down"}`, target.Unclear, "slow_down"},
		{200, `{}`, target.Unclear, "HTTP 200"},
		{500, `{"error":"invalid_client"}`, target.Unclear, "HTTP 500"},
		{502, `<html>`, target.Unclear, "HTTP 502"},
	} {
		err := canned(t, 200, "", tt.status, tt.body).Verify(t.Context(), change.New)
		if err == nil || target.ClassOf(err) != tt.class || !strings.Contains(targettest.OperatorText(err), tt.text) ||
			strings.Contains(targettest.OperatorText(err), "marker") {
			t.Errorf(
				"%d %s: class %v, %v; want %v, %q",
				tt.status,
				tt.body,
				target.ClassOf(err),
				err,
				tt.class,
				tt.text,
			)
		}
	}
}

// A value stays a value: it becomes neither JSON nor a path nor a query.
func TestTemplatesAreFilledAsValues(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Content-Type") + " " + strings.TrimSpace(string(body))
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	config := fmt.Sprintf(
		`{"token_urls":["%[1]s/t"],"admin_auth":"none","tls":{"ca":%[2]s},"set":{"method":"POST","url":"%[1]s/c/{client_id}?id={client_id}",
		"content_type":"application/merge-patch+json","body":{"n":1e400,"{secret}":["pre-{secret}","{client_id}"]}}}`,
		s.URL,
		ca,
	)
	open := func(config string) target.Target {
		tt, err := oauth.Kind().Open(target.Settings{Name: "idp", Config: []byte(config)})
		if err != nil {
			t.Fatal(err)
		}
		return tt
	}
	c := change
	c.New = target.Credential{Account: `a/../b?c&d="{secret}`, Secret: sensitive.New(`s",{"x":"<\`)}
	if err := open(config).Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	const want = `POST /c/a%2F..%2Fb%3Fc%26d%3D%22%7Bsecret%7D?id=a%2F..%2Fb%3Fc%26d%3D%22%7Bsecret%7D application/merge-patch+json ` +
		`{"n":1e400,"{secret}":["pre-s\",{\"x\":\"<\\","a/../b?c&d=\"{secret}"]}`
	if got := <-seen; got != want {
		t.Errorf("the request is %s\nwant %s", got, want)
	}
	c.New.Account = ".."
	if err := open(config).Apply(t.Context(), c); target.ClassOf(err) != target.Denied {
		t.Errorf("the client ID ..: %v", err)
	}
	c.New = change.New
	err := open(strings.Replace(config, `"ca":`, `"server_name":"idp.internal","ca":`, 1)).Apply(t.Context(), c)
	if target.ClassOf(err) != target.Unreachable ||
		!strings.Contains(targettest.OperatorText(err), "certificate is valid for") {
		t.Errorf("a certificate of another name: class %v, %v", target.ClassOf(err), err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"token_urls":["https://h/t"],"set":{"method":"PUT","url":"https://h/{client_id}","body":"{secret}"}}`: nil,
		`{}`: {"token_urls is required", "set is required"},
		`{"token_urls":["http://h/t"],"client_auth":"jwt","admin_auth":"x","password_length":1,"set":{"method":"GET","url":"https://h/{secret}","ok":[404],"content_type":"x;;"}}`: {
			"token_urls is http", `client_auth "jwt"`, `admin_auth "x"`, "password_length", `set: method "GET"`, "a secret has no place in a url",
			"no string of body holds {secret}", "neither url nor body holds {client_id}", "set: ok has statuses", "is not a media type"},
		`{"token_urls":["https://h/t"],"set":{"method":"PUT","url":"https://{client_id}.h/","body":["{secret}"]}}`: {
			"its place in the path or query",
		},
		`{"token_urls":[{"address":"https://h/t","role":"replica"}],"admitted":["invalid_client","X"],
			"get":{"url":"https://h/c","secrets":"x","max_secrets":101},
			"set":{"method":"PUT","url":"https://h/{client_id}","body":"{secret}"}}`: {
			"an endpoint that is no replica", `admitted: "invalid_client"`, `admitted: "X"`,
			"get: url must have {client_id}", "not a JSON pointer", "max_secrets must be",
		},
		`{"token_urls":["https://h/t"],"get":{"url":"https://h/{client_id}"},
			"set":{"method":"PUT","url":"https://h/{client_id}","body":"{secret}"}}`: {"body must be an object"},
		`{"token_urls":["https://h/t"],"mode":"rfc7592","set":{"method":"PUT","url":"https://h/","body":["{secret}"]}}`: {`there is no setting "mode"`},
	} {
		err := oauth.Kind().Check([]byte(config))
		if want == nil && err != nil || want != nil && err == nil {
			t.Errorf("%s: %v", config, err)
		}
		for _, text := range want {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %q", config, err, text)
			}
		}
	}
	_, err := oauth.Kind().Open(
		target.Settings{
			Name: "idp",
			Config: []byte(
				`{"token_urls":["https://h/t"],"set":{"method":"PUT","url":"https://h/{client_id}","body":"{secret}"}}`,
			),
		},
	)
	if err == nil || !strings.Contains(err.Error(), "has no administrator's credential") {
		t.Errorf("without an administrator: %v", err)
	}
}
