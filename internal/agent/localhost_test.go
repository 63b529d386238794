package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// fixedSecrets is a secretReader with fixed values.
type fixedSecrets map[string]answer

func (s fixedSecrets) read(_ context.Context, name string) (answer, error) {
	switch name {
	case "gone":
		return answer{}, kms.ErrResourceNotFound
	case "denied":
		return answer{}, kms.ErrNoPermission
	case "away":
		return answer{}, errors.New("no value could be read yet")
	}
	a, ok := s[name]
	if !ok {
		return answer{}, errNotHeld
	}
	return a, nil
}

func (s fixedSecrets) ready() error {
	if len(s) == 0 {
		return errors.New(`secret "db" was not read yet`)
	}
	return nil
}

const goodToken = "0123456789abcdef0123456789abcdef"

func programOf(t *testing.T, s secretReader) (http.Handler, string) {
	t.Helper()
	path := write(t, filepath.Join(t.TempDir(), "token"), goodToken+"\n")
	tok, err := readToken(path)
	if err != nil {
		t.Fatal(err)
	}
	return program(s, tok), goodToken
}

var someSecrets = fixedSecrets{
	"db":     {Value: value("db", "v1", "marker"), Stages: []string{"ACSCurrent"}, FetchedAt: time.Unix(1e9, 0)},
	"app/db": {Value: value("app/db", "v2", "marker")},
	"bin":    {Value: Value{Name: "bin", VersionID: "v1", Data: value("", "", "AAH/").Data, Binary: true}, Stale: true},
}

// TestHostileClient verifies that who is not a program of this machine with the token gets nothing,
// whatever it tries.
func TestHostileClient(t *testing.T) {
	t.Parallel()
	h, tok := programOf(t, someSecrets)
	for name, tt := range map[string]struct {
		change func(r *http.Request)
		status int
	}{
		"no token": {func(r *http.Request) { r.Header.Del(TokenHeader) }, 401},
		"another token": {func(r *http.Request) { r.Header.Set(TokenHeader, strings.Repeat("x", len(tok))) },
			401},
		"a part of the token": {func(r *http.Request) { r.Header.Set(TokenHeader, tok[:len(tok)-1]) }, 401},
		"the token and more":  {func(r *http.Request) { r.Header.Set(TokenHeader, tok+"x") }, 401},
		"an empty token":      {func(r *http.Request) { r.Header.Set(TokenHeader, "") }, 401},
		"two tokens":          {func(r *http.Request) { r.Header.Add(TokenHeader, tok) }, 401},
		"the token as a bearer": {func(r *http.Request) {
			r.Header.Del(TokenHeader)
			r.Header.Set("Authorization",
				"Bearer "+tok)
		}, 401},
		"the token in a cookie": {func(r *http.Request) {
			r.Header.Del(TokenHeader)
			r.Header.Set("Cookie",
				TokenHeader+"="+tok)
		}, 401},
		"the token in the query": {func(r *http.Request) { r.Header.Del(TokenHeader); r.URL.RawQuery = "token=" + tok },
			400},
		"a name that DNS may rebind": {func(r *http.Request) { r.Host = "evil.example:7490" }, 403},
		"a name below localhost":     {func(r *http.Request) { r.Host = "evil.localhost" }, 403},
		"a name that begins so":      {func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 403},
		"another address":            {func(r *http.Request) { r.Host = "192.0.2.1:7490" }, 403},
		"the address of any":         {func(r *http.Request) { r.Host = "0.0.0.0:7490" }, 403},
		"a decimal address":          {func(r *http.Request) { r.Host = "2130706433" }, 403},
		"no host":                    {func(r *http.Request) { r.Host = "" }, 403},
		"forwarded for":              {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }, 403},
		"forwarded for nobody":       {func(r *http.Request) { r.Header.Set("X-Forwarded-For", "") }, 403},
		"forwarded for this machine": {func(r *http.Request) { r.Header.Set("x-forwarded-for", "127.0.0.1") }, 403},
		"forwarded host":             {func(r *http.Request) { r.Header.Set("X-Forwarded-Host", "localhost") }, 403},
		"forwarded":                  {func(r *http.Request) { r.Header.Set("Forwarded", "for=127.0.0.1") }, 403},
		"via":                        {func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") }, 403},
		"a page of another site":     {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		"a page of the same site":    {func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		"two words on the site": {func(r *http.Request) { r.Header["Sec-Fetch-Site"] = []string{"none", "cross-site"} },
			403},
		"an origin":                   {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"an origin of this machine":   {func(r *http.Request) { r.Header.Set("Origin", "http://localhost:7490") }, 403},
		"the origin null":             {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"POST":                        {func(r *http.Request) { r.Method = http.MethodPost }, 405},
		"HEAD":                        {func(r *http.Request) { r.Method = http.MethodHead }, 405},
		"OPTIONS, before a page asks": {func(r *http.Request) { r.Method = http.MethodOptions }, 405},
		"TRACE":                       {func(r *http.Request) { r.Method = http.MethodTrace }, 405},
		"a query":                     {func(r *http.Request) { r.URL.RawQuery = "callback=f" }, 400},
		"a name not held":             {func(r *http.Request) { r.URL.Path = "/v1/secrets/other" }, 404},
		"all names":                   {func(r *http.Request) { r.URL.Path = "/v1/secrets/" }, 404},
		"a way up": {func(
			r *http.Request) {
			r.URL.Path = "/healthz/../v1/secrets/db"
			r.Header.Del(TokenHeader)
		}, 307},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/v1/secrets/db", "/v1/secrets/db/value"} {
				r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:7490"+path, nil)
				r.Header.Set(TokenHeader, tok)
				tt.change(r)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != tt.status || strings.Contains(w.Body.String(), "marker") {
					t.Errorf("%s: status %d, body %q; want %d and nothing", path, w.Code, w.Body, tt.status)
				}
				if got := w.Header(); got.Get("Access-Control-Allow-Origin") != "" || got.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: header %v", path, got)
				}
			}
		})
	}
}

func TestProgram(t *testing.T) {
	t.Parallel()
	h, tok := programOf(t, someSecrets)
	get := func(path, host string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "http://"+host+path, nil)
		r.Header.Set(TokenHeader, tok)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	var got struct {
		Name, Value, Encoding string
		Version               string `json:"version_id"`
		Stages                []string
		Stale                 bool
	}
	w := get("/v1/secrets/db", "localhost")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil ||
		got.Name != "db" ||
		got.Value != "marker" ||
		got.Version != "v1" ||
		got.Encoding != "text" ||
		got.Stages[0] != "ACSCurrent" ||
		got.Stale {
		t.Errorf("answer %q, %v", w.Body, err)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("header %v, want no-store", w.Header())
	}
	for path, want := range map[string]string{
		"/v1/secrets/db/value":       "marker",
		"/v1/secrets/app%2Fdb/value": "marker",
		"/v1/secrets/bin/value":      "\x00\x01\xff",
		"/healthz":                   "ok\n",
		"/readyz":                    "ok\n",
	} {
		if w := get(path, "[::1]:7490"); w.Code != 200 || w.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", path, w.Code, w.Body, want)
		}
	}
	for path, want := range map[string]int{"/v1/secrets/gone": 404, "/v1/secrets/denied/value": 403,
		"/v1/secrets/away": 503, "/v1/secrets/app/db/value": 404} {
		if w := get(path, "127.0.0.1"); w.Code != want {
			t.Errorf("%s: %d %q, want %d", path, w.Code, w.Body, want)
		}
	}
	h, _ = programOf(t, fixedSecrets{})
	if w := get("/readyz", "localhost"); w.Code != 503 ||
		!strings.Contains(w.Body.String(), `secret \"db\" was not read yet`) {
		t.Errorf("not ready: %d %q", w.Code, w.Body)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	made, err := readToken(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	text := strings.TrimSpace(read(t, path))
	if err != nil ||
		info.Mode().Perm() != 0o600 ||
		len(text) < 2*tokenBytes ||
		!made.is(text) ||
		made.is(text+"x") ||
		made.is("") {
		t.Errorf("token of %d characters, mode %v, %v", len(text), info.Mode(), err)
	}
	if list(t, dir) != "token" {
		t.Errorf("left behind: %s", list(t, dir))
	}
	if again, err := readToken(path); err != nil || again != made {
		t.Errorf("the second start has another token, %v", err)
	}
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := readToken(path); err == nil || !strings.Contains(err.Error(), "can be read by everybody") {
		t.Errorf("a token that everybody reads: %v", err)
	}
	if _, err := readToken(write(t, filepath.Join(dir, "short"), "short")); err == nil ||
		!strings.Contains(err.Error(), "fewer than 32") {
		t.Errorf("a short token: %v", err)
	}
}
