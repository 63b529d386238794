package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/internal/target/webhook"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// The suite of package targettest runs in examples/webhook-target; here is what is particular to
// the kind.

const key = "the-key-that-signs-the-requests"

var change = target.Change{
	ID: "c1", Strategy: target.Overlap,
	New: target.Credential{Account: "app", Secret: sensitive.New(`new-"<secret>"-marker`), ID: "k2"},
	Old: target.Credential{Account: "app", Secret: sensitive.New("old-secret-marker"), ID: "k1"},
}

func openAt(t *testing.T, url, more string) target.Target {
	t.Helper()
	config := fmt.Sprintf(`{"url":%q,"strategy":"overlap"%s}`, url, more)
	tt, err := webhook.Kind().Open(
		target.Settings{
			Name:   "crm",
			Config: json.RawMessage(config),
			Admin:  target.Credential{Secret: sensitive.New(key)},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return tt
}

// endpoint answers every request alike, and counts them.
func endpoint(t *testing.T, status int, contentType, body string) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestRequest(t *testing.T) {
	t.Parallel()
	type seen struct {
		body   []byte
		header http.Header
	}
	requests := make(chan seen, 10)
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{body, r.Header}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"result":"ok","states":["live","dead"]}`)
	}))
	defer s.Close()
	ca, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	tt := openAt(t, s.URL, `,"headers":{"X-Team":"payments"},"tls":{"ca":`+string(ca)+`}`)
	ctx := t.Context()
	if err := tt.Apply(ctx, change); err != nil {
		t.Fatal(err)
	}
	first := <-requests
	timestamp := first.header.Get(sign.WebhookTimestamp)
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "v1\n%s\n%s", timestamp, first.body)
	if want := "v1=" + hex.EncodeToString(mac.Sum(nil)); first.header.Get(sign.WebhookSignature) != want {
		t.Error("the signature is not that of the documentation")
	}
	mac = hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "v2\n%s\nPOST\n%s/\n%s", timestamp, s.URL, first.body)
	if want := "v2=" + hex.EncodeToString(mac.Sum(nil)); first.header.Get(sign.WebhookSignatureV2) != want {
		t.Error("the signature of version 2 is not that of the documentation")
	}
	if n, err := strconv.ParseInt(timestamp, 10, 64); err != nil || time.Since(time.Unix(n, 0)).Abs() > time.Minute {
		t.Errorf("the timestamp is %q", timestamp)
	}
	if first.header.Get("X-Team") != "payments" || first.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", first.header)
	}
	var in map[string]any
	if err := json.Unmarshal(first.body, &in); err != nil {
		t.Fatal(err)
	}
	attempt, _ := in["attempt"].(string)
	delete(in, "attempt")
	got, _ := json.Marshal(in)
	const want = `{"account":"app","change_id":"c1","new":{"account":"app","id":"k2","secret":"new-\"\u003csecret\u003e\"-marker"},` +
		`"old":{"account":"app","id":"k1","secret":"old-secret-marker"},"protocol":1,"step":"set","strategy":"overlap","target":"crm"}`
	if string(got) != want {
		t.Errorf("the body is %s\nwant %s", got, want)
	}
	if err := tt.Apply(ctx, change); err != nil {
		t.Fatal(err)
	}
	var again struct{ Attempt string }
	if err := json.Unmarshal((<-requests).body, &again); err != nil || attempt == "" || again.Attempt == attempt {
		t.Errorf("two attempts are called %q and %q (%v)", attempt, again.Attempt, err)
	}
	states, err := tt.(target.Inspector).Inspect(ctx, []target.Credential{change.New, change.Old})
	if err != nil || len(states) != 2 || states[0] != target.Live || states[1] != target.Dead {
		t.Errorf("Inspect = %v, %v", states, err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const isJSON = "application/json"
	for _, tt := range []struct {
		name, contentType string
		status            int
		body              string
		class             target.Class
		text              string
	}{
		{"refused", isJSON, 200, `{"result":"refused","code":"E7","message":"too short"}`, target.Refused, "set of target crm: refused [too short E7]"},
		{"refused by status too", isJSON, 422, `{"result":"refused"}`, target.Refused, "set of target crm: refused (HTTP 422)"},
		{"denied", isJSON, 401, `{"result":"denied","code":"signature"}`, target.Denied, "set of target crm: denied (HTTP 401) [signature]"},
		{"unavailable", isJSON, 200, `{"result":"unavailable"}`, target.Unreachable, "set of target crm: unavailable"},
		{"unknown", isJSON, 200, `{"result":"unknown","message":"lost\r\n\tit"}`, target.Unknown, "set of target crm: unknown [lost it]"},
		{"rejected is no answer to set", isJSON, 200, `{"result":"rejected"}`, target.Unknown, `set of target crm: the plug-in's answer is a result that this step does not have [result "rejected"]`},
		{"another word", isJSON, 200, `{"result":"done"}`, target.Unknown, `result "done"`},
		{"no result", isJSON, 200, `{}`, target.Unknown, `result ""`},
		{"ok with a failure's status", isJSON, 404, `{"result":"ok"}`, target.Unknown, "ok, but the transport says that it failed (HTTP 404)"},
		{"denied with a server error", isJSON, 500, `{"result":"denied"}`, target.Unknown, "a status that tells nothing (HTTP 500)"},
		{"gateway", "text/html", 403, `<html>new-"<secret>"-marker</html>`, target.Unknown, "the answer is not of type application/json (HTTP 403)"},
		{"no type", "", 200, `{"result":"ok"}`, target.Unknown, "not of type application/json"},
		{"like JSON", "application/json+x", 200, `{"result":"ok"}`, target.Unknown, "not of type application/json"},
		{"other charset", "application/json; charset=latin1", 200, `{"result":"ok"}`, target.Unknown, "not of type application/json"},
		{"not JSON", isJSON, 200, `{"result":"ok"`, target.Unknown, "not the JSON object"},
		{"unknown member", isJSON, 200, `{"result":"ok","resutl":1}`, target.Unknown, "not the JSON object"},
		{"two objects", isJSON, 200, `{"result":"ok"}{"result":"refused"}`, target.Unknown, "more than one JSON object"},
		{"no content", isJSON, 204, ``, target.Unknown, "HTTP 204"},
		{"redirect", isJSON, 307, `{"result":"ok"}`, target.Unknown, "HTTP 307"},
		{"long", isJSON, 200, `{"result":"ok","message":"` + strings.Repeat("x", 70_000) + `"}`, target.Unknown, "longer than 65536 bytes"},
		{"quotes the secret", isJSON, 200, `{"result":"refused","code":"old-secret-marker","message":"new-\"<secret>\"-marker is bad"}`, target.Refused, "refused [[redacted] is bad [redacted]]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, asked := endpoint(t, tt.status, tt.contentType, tt.body)
			err := openAt(t, url, "").Apply(t.Context(), change)
			if target.ClassOf(err) != tt.class || err == nil ||
				!strings.Contains(targettest.OperatorText(err), tt.text) {
				t.Errorf("class %v, %v; want %v, %q", target.ClassOf(err), err, tt.class, tt.text)
			}
			if err != nil && strings.Contains(targettest.OperatorText(err), "marker") {
				t.Error("the error tells a secret")
			}
			if asked.Load() != 1 {
				t.Errorf("the endpoint was asked %d times", asked.Load())
			}
		})
	}
}

// Once the request has been sent, a connection that ends tells nothing.
func TestCutAfterTheRequest(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	if err := openAt(t, s.URL, "").Apply(t.Context(), change); target.ClassOf(err) != target.Unknown ||
		!strings.Contains(targettest.OperatorText(err), "EOF") {
		t.Errorf("class %v, %v", target.ClassOf(err), err)
	}
}

// A cut text must not leave the beginning of a secret that reached across the cut.
func TestLongMessageHidesWholeSecret(t *testing.T) {
	t.Parallel()
	url, _ := endpoint(
		t,
		200,
		"application/json",
		`{"result":"refused","message":"`+strings.Repeat("x", 290)+`old-secret-marker"}`,
	)
	err := openAt(t, url, "").Apply(t.Context(), change)
	if err == nil || strings.Contains(err.Error(), "old-sec") || len(err.Error()) > 400 {
		t.Errorf("the error is %v", err)
	}
}

func TestVerifyStateGenerate(t *testing.T) {
	t.Parallel()
	verify := func(tt target.Target) error { return tt.Verify(context.Background(), change.New) }
	inspect := func(tt target.Target) error {
		_, err := tt.(target.Inspector).Inspect(context.Background(), []target.Credential{change.New})
		return err
	}
	generate := func(tt target.Target) error {
		c, err := tt.(target.Generator).Generate(context.Background(), "app", change.Old, rand.Reader)
		if err == nil && (c.Account != "app" || c.Secret.Reveal() != "made-by-it" || c.ID != "k9") {
			return fmt.Errorf("generated %+v", c)
		}
		return err
	}
	for _, tt := range []struct {
		name, body string
		do         func(target.Target) error
		class      target.Class
		text       string
	}{
		{"rejected", `{"result":"rejected"}`, verify, target.Rejected, "verify of target crm: rejected"},
		{"refused is no answer to verify", `{"result":"refused"}`, verify, target.Unknown, "does not have"},
		{"verified", `{"result":"ok"}`, verify, 0, ""},
		{"too few states", `{"result":"ok"}`, inspect, target.Unknown, "0 states for 1 credentials"},
		{"no such state", `{"result":"ok","states":["alive"]}`, inspect, target.Unknown, "state 1 is none of"},
		{"unknown state", `{"result":"ok","states":["unknown"]}`, inspect, 0, ""},
		{"generated", `{"result":"ok","credential":{"account":"app","secret":"made-by-it","id":"k9"}}`, generate, 0, ""},
		{"nothing generated", `{"result":"ok"}`, generate, target.Unknown, "no credential with a secret"},
		{"generated for another", `{"result":"ok","credential":{"account":"b","secret":"s"}}`, generate, target.Unknown, "of another account"},
		{"generated again", `{"result":"ok","credential":{"account":"app","secret":"old-secret-marker"}}`, generate, target.Unknown, "that is in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, _ := endpoint(t, 200, "application/json", tt.body)
			err := tt.do(openAt(t, url, `,"generate":true`))
			if tt.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || target.ClassOf(err) != tt.class ||
				!strings.Contains(targettest.OperatorText(err), tt.text) {
				t.Errorf("class %v, %v; want %v, %q", target.ClassOf(err), err, tt.class, tt.text)
			}
		})
	}
}

func TestOtherStrategyIsDenied(t *testing.T) {
	t.Parallel()
	url, asked := endpoint(t, 200, "application/json", `{"result":"ok"}`)
	c := change
	c.Strategy = target.Single
	if err := openAt(t, url, "").Apply(t.Context(), c); target.ClassOf(err) != target.Denied || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

func TestNotUTF8IsDenied(t *testing.T) {
	t.Parallel()
	url, asked := endpoint(t, 200, "application/json", `{"result":"ok"}`)
	c := change
	c.New.Secret = sensitive.New("a\xffb")
	if err := openAt(t, url, "").Apply(t.Context(), c); target.ClassOf(err) != target.Denied || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// A certificate that nobody vouched for, or of another name, is found before a secret has been
// sent.
func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	ca, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	for more, want := range map[string]string{
		"": "certificate signed by unknown authority",
		`,"tls":{"server_name":"crm.internal","ca":` + string(ca) + `}`: "certificate is valid for",
	} {
		err := openAt(t, s.URL, more).Apply(t.Context(), change)
		if target.ClassOf(err) != target.Unreachable || !strings.Contains(targettest.OperatorText(err), want) ||
			asked.Load() != 0 {
			t.Errorf("%s: class %v, %v, asked %d times", more, target.ClassOf(err), err, asked.Load())
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"url":"https://h/x","strategy":"double"}`:                          nil,
		`{"url":"http://[::1]:1/x","strategy":"single"}`:                     nil,
		`{"url":"http://10.0.0.1/x","strategy":"single","tls":{"off":true}}`: nil,
		`{}`: {"url is required", "strategy is required"},
		`{"url":"http://10.0.0.1/x","strategy":"both"}`:                                     {"url is http, which sends secrets in clear", `strategy "both" is none of`},
		`{"url":"http://localhost.example.com/x","strategy":"single"}`:                      {"url is http"},
		`{"url":"https://u:p@h/x","strategy":"single","password_length":3}`:                 {"url holds a user or password", "password_length is 12 to 128"},
		`{"url":"https://h/#x","strategy":"single"}`:                                        {"url has a fragment"},
		`{"url":"ftp://h","strategy":"single"}`:                                             {"url is not an https URL"},
		`{"url":"https://h","tls":{"off":true},"strategy":"single"}`:                        {"url is https and tls has off"},
		`{"url":"https://h","strategy":"single","generate":true,"password_length":20}`:      {"leave password_length and password_punctuation out"},
		`{"url":"https://h","strategy":"single","headers":{"a b":"c","host":"x","X":"\n"}}`: {`"a b" is not a header`, "Host cannot be set", `"X" is not a header`},
		`{"url":"https://h","strategy":"single","secret":"x"}`:                              {`there is no setting "secret"`},
	} {
		err := webhook.Kind().Check(json.RawMessage(config))
		if want == nil && err != nil || want != nil && err == nil {
			t.Errorf("%s: %v", config, err)
		}
		for _, text := range want {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %q", config, err, text)
			}
		}
	}
	_, err := webhook.Kind().Open(
		target.Settings{
			Name:   "crm",
			Config: []byte(`{"url":"https://h","strategy":"single"}`),
			Admin:  target.Credential{Secret: sensitive.New("short")},
		},
	)
	if err == nil || !strings.Contains(err.Error(), "shorter than 16 characters") ||
		strings.Contains(err.Error(), `"short"`) {
		t.Errorf("a short key: %v", err)
	}
}
