package kms_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

var credentials = sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}

// endpoint answers with one script after the other, and keeps what it was asked.
type endpoint struct {
	*httptest.Server
	mu       sync.Mutex
	answers  []func(http.ResponseWriter) // guarded by mu
	requests []*http.Request             // guarded by mu
	bodies   []string                    // guarded by mu
}

func serve(t interface{ Cleanup(func()) }, answers ...func(http.ResponseWriter)) *endpoint {
	e := &endpoint{answers: answers}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.requests, e.bodies = append(e.requests, r), append(e.bodies, string(body))
		answer := e.answers[min(len(e.requests), len(e.answers))-1]
		e.mu.Unlock()
		answer(w)
	}))
	t.Cleanup(e.Close)
	return e
}

func status(code int, kind string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"Code":%q,"Message":"m","RequestId":"r-1","HostId":"h","Recommend":""}`, kind)
	}
}

func ok(body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { fmt.Fprint(w, body) }
}

func client(t *testing.T, e *endpoint) *kms.Client {
	t.Helper()
	c, err := kms.NewClient(kms.Config{Endpoint: e.URL, Credentials: credentials})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNoValueInURL verifies that parameters travel in the body, signed, and never in the URL.
func TestNoValueInURL(t *testing.T) {
	t.Parallel()
	e := serve(t, ok(`{"SecretName":"a","VersionId":"v2",`+
		`"VersionStages":{"VersionStage":["ACSCurrent"]},"RequestId":"r"}`))
	out, err := client(t, e).PutSecretValue(t.Context(), &kms.PutSecretValueRequest{
		SecretName:    "a",
		VersionID:     "v2",
		SecretData:    sensitive.New("s3cret"),
		VersionStages: []string{"x"},
	})
	if err != nil || out.VersionID != "v2" || len(out.VersionStages) != 1 {
		t.Fatalf("PutSecretValue = %+v, %v", out, err)
	}
	r := e.requests[0]
	if r.Method != http.MethodPost || r.URL.RawQuery != "" ||
		!strings.HasPrefix(r.Header.Get("Authorization"), "ACS3-HMAC-SHA256 Credential=testid,") ||
		r.Header.Get("x-acs-action") != "PutSecretValue" {
		t.Errorf("request %s %s, %v", r.Method, r.URL, r.Header)
	}
	form, err := url.ParseQuery(e.bodies[0])
	if err != nil || form.Get("SecretData") != "s3cret" || form.Get("VersionStages") != `["x"]` ||
		form.Has("SecretDataType") {
		t.Errorf("body %v, %v", form, err)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	throttled := status(429, kms.CodeThrottling, "x-acs-retry-after", "1")
	away := status(503, kms.CodeUnavailable)
	good := ok(`{"SecretName":"a","RequestId":"r"}`)
	get := func(c *kms.Client, ctx context.Context) error {
		_, err := c.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "a"})
		return err
	}
	create := func(c *kms.Client, ctx context.Context) error {
		_, err := c.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName: "a",
			VersionID:  "v1",
			SecretData: sensitive.New("x"),
		})
		return err
	}
	for _, tt := range []struct {
		name    string
		call    func(*kms.Client, context.Context) error
		answers []func(http.ResponseWriter)
		want    int
		code    string
	}{
		{"a read waits out a throttle", get, []func(http.ResponseWriter){throttled, throttled, good}, 3, ""},
		{"a read waits out an outage", get, []func(http.ResponseWriter){away, good}, 2, ""},
		{"not for ever", get, []func(http.ResponseWriter){away}, 3, kms.CodeUnavailable},
		{"a refusal before anything was done may be repeated", create, []func(http.ResponseWriter){throttled, good}, 2, ""},
		{"an unknown outcome of a change may not", create, []func(http.ResponseWriter){away, good}, 1, kms.CodeUnavailable},
		{
			"a plain error is final",
			get,
			[]func(http.ResponseWriter){status(404, kms.CodeResourceNotFound), good},
			1,
			kms.CodeResourceNotFound,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := serve(t, tt.answers...)
			err := tt.call(client(t, e), t.Context())
			if kms.CodeOf(err) != tt.code || len(e.requests) != tt.want {
				t.Errorf("%d requests, %v; want %d, code %q", len(e.requests), err, tt.want, tt.code)
			}
			nonces := map[string]bool{}
			for _, r := range e.requests {
				nonces[r.Header.Get("x-acs-signature-nonce")] = true
			}
			if len(nonces) != len(e.requests) {
				t.Error("two attempts have one nonce")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	e := serve(t, func(w http.ResponseWriter) { cancel(); away(w) })
	if err := get(client(t, e), ctx); err == nil || len(e.requests) != 1 {
		t.Errorf("after its context has ended: %d requests, %v", len(e.requests), err)
	}
}

// TestDelay verifies that the delay between two attempts stays in its bounds, however many there
// are.
func TestDelay(t *testing.T) {
	t.Parallel()
	for attempt := 1; attempt < 200; attempt++ {
		bound := 2 * time.Second
		if attempt < 5 {
			bound = 100 * time.Millisecond << attempt
		}
		if d := kms.Delay(attempt, errors.New("no answer")); d < 0 || d >= bound {
			t.Errorf("after attempt %d: %s; want less than %s", attempt, d, bound)
		}
	}
}

// TestRetryAfter verifies that the wait that a service asks for is respected up to an hour, and
// that no call sleeps for more than a minute.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"":                     0,
		"-5":                   0,
		"soon":                 0,
		"250":                  250 * time.Millisecond,
		"60001":                time.Minute + time.Millisecond,
		"3600000":              time.Hour,
		"3600001":              time.Hour,
		"99999999999999999999": time.Hour,
	} {
		e := &kms.Error{Header: http.Header{"X-Acs-Retry-After": {header}}}
		if got := e.RetryAfter(); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	e := serve(t, status(429, kms.CodeThrottling, "x-acs-retry-after", "60001"))
	_, err := client(t, e).GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "a"})
	if !errors.Is(err, kms.ErrThrottling) || len(e.requests) != 1 {
		t.Errorf("%d requests, %v; want one, and the error at once", len(e.requests), err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	e := serve(t, status(409, kms.CodeResourceExist, "x-acs-retry-after", "250"))
	_, err := client(t, e).DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "a"})
	var k *kms.Error
	if !errors.Is(err, kms.ErrResourceExist) || errors.Is(err, kms.ErrResourceNotFound) || !errors.As(err, &k) {
		t.Fatalf("err = %v", err)
	}
	if k.HTTPStatus != 409 || k.RequestID != "r-1" || k.HostID != "h" || k.Temporary() ||
		k.RetryAfter() != 250*time.Millisecond {
		t.Errorf("%+v, retry after %v", k, k.RetryAfter())
	}
	e = serve(t, func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway); fmt.Fprint(w, "<html>") })
	_, err = client(t, e).CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "a",
		VersionID:  "v",
		SecretData: sensitive.New("x"),
	})
	if !errors.As(err, &k) || k.HTTPStatus != 502 || k.Code != "HTTP502" {
		t.Errorf("an answer of something else: %v", err)
	}
	e = serve(t, ok(`not JSON`))
	if _, err = client(t, e).DescribeSecret(t.Context(), &kms.DescribeSecretRequest{SecretName: "a"}); err == nil ||
		!strings.Contains(err.Error(), "not a JSON object") {
		t.Errorf("a success that is not JSON: %v", err)
	}
}

// TestUnansweredCall verifies that a caller learns that the service may have carried a call out:
// where the connection ends before the answer, also if no connection is possible afterwards, and
// not where the service was not reached or has answered.
func TestUnansweredCall(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answers    []func(http.ResponseWriter) // of one connection each; then the service has ended
		idempotent bool
		want       bool
	}{
		"never reached":                 {nil, true, false},
		"gone during the call":          {[]func(http.ResponseWriter){hangUp}, false, true},
		"gone for good during the call": {[]func(http.ResponseWriter){hangUp}, true, true},
		"answered":                      {[]func(http.ResponseWriter){status(403, kms.CodeNoPermission)}, true, false},
		"not answered, then refused": {
			[]func(http.ResponseWriter){hangUp, status(403, kms.CodeNoPermission)}, true, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			left := tt.answers
			server := &httptest.Server{Listener: listener, Config: &http.Server{}}
			server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer := left[0]
				if left = left[1:]; len(left) == 0 {
					listener.Close()
				}
				w.Header().Set("Connection", "close")
				answer(w)
			})
			if len(left) == 0 {
				listener.Close()
			} else {
				server.Start()
				t.Cleanup(server.CloseClientConnections)
			}
			c, err := kms.NewClient(kms.Config{Endpoint: "http://" + listener.Addr().String(), Credentials: credentials})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Do(t.Context(), kms.Call{Action: "RotateSecret", Idempotent: tt.idempotent})
			var unanswered *kms.UnansweredError
			if got := errors.As(err, &unanswered); err == nil || got != tt.want ||
				got && (unanswered.Action != "RotateSecret" || unanswered.Idempotent != tt.idempotent) {
				t.Errorf("%v, unanswered %t; want %t", err, got, tt.want)
			}
		})
	}
}

// hangUp ends the connection without an answer.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]kms.Config{
		"Endpoint must be": {Credentials: credentials},
		"https":            {Endpoint: "ftp://h", Credentials: credentials},
		"no path":          {Endpoint: "http://h/x", Credentials: credentials},
		"AccessKeyID":      {Endpoint: "h"},
	} {
		if _, err := kms.NewClient(c); err == nil || !strings.Contains(err.Error(), name) ||
			strings.Contains(err.Error(), "testsecret") {
			t.Errorf("%+v: %v, want an error that says %q", c.Endpoint, err, name)
		}
	}
	for given, want := range map[string]string{
		"h:1":        "https://h:1/",
		"http://h":   "http://h/",
		"https://h/": "https://h/",
	} {
		c, err := kms.NewClient(kms.Config{Endpoint: given, Credentials: credentials})
		if err != nil || c.Endpoint() != want {
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}

func ExampleClient() {
	current := `{"SecretName":"app/db","SecretData":"s3cret","VersionId":"v1",` +
		`"VersionStages":{"VersionStage":["ACSCurrent"]}}`
	e := serve(cleanup{}, ok(current), status(404, kms.CodeResourceNotFound))
	client, err := kms.NewClient(kms.Config{
		Endpoint:    e.URL,
		Credentials: sign.Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("secret")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	got, err := client.GetSecretValue(context.Background(), &kms.GetSecretValueRequest{SecretName: "app/db"})
	fmt.Println(got.VersionID, got.SecretData, got.SecretData.Reveal(), err)
	_, err = client.GetSecretValue(context.Background(), &kms.GetSecretValueRequest{SecretName: "none"})
	fmt.Println(errors.Is(err, kms.ErrResourceNotFound))
	// Output:
	// v1 [redacted] s3cret <nil>
	// true
}

type cleanup struct{}

func (cleanup) Cleanup(func()) {}
