package httpauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/httpauth"
	"github.com/keyturn/keyturn/kms"
)

// service accepts one value of a header, and answers with the body of the request.
type service struct {
	*httptest.Server

	mu      sync.Mutex
	header  string
	accepts string
	seen    []string
	fault   func(http.ResponseWriter, *http.Request) bool
}

func start(t *testing.T, header, accepts string) *service {
	t.Helper()
	s := &service{header: header, accepts: accepts}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	got := r.Header.Get(s.header)
	s.seen = append(s.seen, got)
	switch {
	case s.fault != nil && s.fault(w, r):
	case got != s.accepts:
		w.WriteHeader(http.StatusUnauthorized)
	default:
		_, _ = w.Write(body)
	}
}

func (s *service) accept(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepts, s.seen = value, nil
}

func (s *service) requests() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.seen) }

func client(t *testing.T, c *consumer.Consumer, o httpauth.Options, origins ...string) *http.Client {
	t.Helper()
	o.Origins = origins
	transport, err := httpauth.New(c, "token", &o)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: transport}
}

func post(t *testing.T, c *http.Client, url string, body io.Reader) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

func TestSchemes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value   string
		options httpauth.Options
		header  string
		want    string
	}{
		{
			`{"AccountName":"app","AccountPassword":"pässword"}`,
			httpauth.Options{Scheme: httpauth.Basic},
			"Authorization",
			"Basic YXBwOnDDpHNzd29yZA==",
		},
		{"bare-token", httpauth.Options{}, "Authorization", "Bearer bare-token"},
		{`{"token":"t1"}`, httpauth.Options{Scheme: httpauth.Bearer}, "Authorization", "Bearer t1"},
		{`{"key":"k1"}`, httpauth.Options{
			Scheme: httpauth.Header,
			Header: "x-api-key",
			Format: credential.Format{SecretMember: "key"},
		}, "X-Api-Key", "k1"},
	} {
		_, c := consumertest.New(t, "token", "v1", tt.value)
		s := start(t, tt.header, tt.want)
		if status, body := post(t, client(t, c, tt.options, s.URL), s.URL, strings.NewReader("hello")); status != 200 ||
			body != "hello" {
			t.Errorf("%s: status %d, body %q, the server saw %q", tt.value, status, body, s.seen)
		}
	}
}

// TestRejected verifies that a caller does not notice that the server no longer accepts a
// credential.
func TestRejected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*consumertest.Endpoint){
		"promoted":  func(e *consumertest.Endpoint) { e.Put("token", "v2", "t2") },
		"candidate": func(e *consumertest.Endpoint) { e.SetStage("token", kms.StagePending, "v2", "t2") },
		"previous":  func(e *consumertest.Endpoint) { e.SetStage("token", kms.StagePrevious, "v0", "t2") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, c := consumertest.New(t, "token", "v1", "t1")
			s := start(t, "Authorization", "Bearer t2")
			change(e)
			h := client(t, c, httpauth.Options{}, s.URL)
			if status, body := post(t, h, s.URL, strings.NewReader("hello")); status != 200 || body != "hello" ||
				s.requests() != 2 {
				t.Errorf("status %d, body %q, %d requests, want 200 after two", status, body, s.requests())
			}
		})
	}
}

// TestManyAtOnce verifies that requests under way together when a credential ends all succeed, and
// count as one rejection.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	e, c := consumertest.New(t, "token", "v1", "t1")
	s := start(t, "Authorization", "Bearer t1")
	h := client(t, c, httpauth.Options{}, s.URL)
	s.accept("Bearer t2")
	e.Put("token", "v2", "t2")
	var work sync.WaitGroup
	for range 40 {
		work.Go(func() {
			if status, _ := post(t, h, s.URL, strings.NewReader("hello")); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
	work.Wait()
	if rejected := c.Counters().Logins[consumer.LoginRejected]; rejected != 1 {
		t.Errorf("%d rejections are counted, want one", rejected)
	}
}

func TestNotRepeated(t *testing.T) {
	t.Parallel()
	e, c := consumertest.New(t, "token", "v1", "t1")
	s := start(t, "Authorization", "Bearer t2")
	e.Put("token", "v2", "t2")
	h := client(t, c, httpauth.Options{}, s.URL)
	once := io.MultiReader(strings.NewReader("only once"))
	if status, _ := post(t, h, s.URL, once); status != http.StatusUnauthorized || s.requests() != 1 {
		t.Errorf("a body that cannot be sent again: status %d after %d requests", status, s.requests())
	}
	if status, body := post(t, h, s.URL, io.MultiReader(strings.NewReader("only once"))); status != 200 ||
		body != "only once" {
		t.Errorf("the next request has status %d, body %q", status, body)
	}
	s.accept("nothing that there is")
	if status, _ := post(t, h, s.URL, strings.NewReader("hello")); status != http.StatusUnauthorized || s.requests() > 2 {
		t.Errorf("status %d after %d requests, want 401 after two at most", status, s.requests())
	}
	s.fault = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
	s.accept("")
	if status, _ := post(t, h, s.URL, strings.NewReader("hello")); status != http.StatusForbidden || s.requests() != 1 {
		t.Errorf("status %d after %d requests, want 403 after one", status, s.requests())
	}
}

// TestRedirect verifies that the credential goes to its origins alone.
func TestRedirect(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "token", "v1", "t1")
	other := start(t, "Authorization", "")
	s := start(t, "Authorization", "Bearer t1")
	to := other.URL + "/elsewhere"
	s.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	h := client(t, c, httpauth.Options{}, s.URL)
	if status, _ := post(t, h, s.URL+"/moved", strings.NewReader("hello")); status != 200 || other.seen[0] != "" {
		t.Errorf("status %d; the other host got %q", status, other.seen)
	}
	to = "/here"
	if status, body := post(t, h, s.URL+"/moved", strings.NewReader("hello")); status != 200 || body != "hello" {
		t.Errorf("within the origin: status %d, body %q", status, body)
	}
	if status, _ := post(t, h, strings.Replace(s.URL, "127.0.0.1", "localhost", 1),
		strings.NewReader("x")); status != http.StatusUnauthorized || s.seen[len(s.seen)-1] != "" {
		t.Errorf("status %d; another name of the host got the credential", status)
	}
}

// TestCallersRequest verifies that the caller's request is not changed, and its body is closed,
// whatever happens.
func TestCallersRequest(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "token", "v1", "line\nbreak marker")
	for secret, want := range map[string]string{"token": "line break", "nothing": "there is no such secret"} {
		transport, err := httpauth.New(c, secret, &httpauth.Options{Origins: []string{"https://api.example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, transport, want)
	}
}

// refuses expects that a request is not sent.
func refuses(t *testing.T, transport *httpauth.Transport, want string) {
	t.Helper()
	body := &closing{Reader: strings.NewReader("x")}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://API.example.com:443/x", body)
	if err != nil {
		t.Fatal(err)
	}
	_, err = transport.RoundTrip(r)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "marker") || !body.closed ||
		len(r.Header) != 0 {
		t.Errorf("%v; body closed: %v; header %v", err, body.closed, r.Header)
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// TestGoneAway verifies that a caller that gives up while it asks the consumer on behalf of others
// leaves that to another caller.
func TestGoneAway(t *testing.T) {
	t.Parallel()
	e, c := consumertest.New(t, "token", "v1", "t1")
	s := start(t, "Authorization", "Bearer t2")
	e.Put("token", "v2", "t2")
	h := client(t, c, httpauth.Options{}, s.URL)
	// less than the least time between two reads of a secret
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
		if err != nil {
			t.Error(err)
			return
		}
		response, err := h.Do(r)
		if err == nil {
			_ = response.Body.Close()
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	for s.requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	if status, _ := post(t, h, s.URL, strings.NewReader("hello")); status != 200 {
		t.Errorf("status %d", status)
	}
	work.Wait()
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	_, c := consumertest.New(t, "token", "v1", "t1")
	origins := []string{"https://api.example.com"}
	for want, o := range map[string]httpauth.Options{
		"Origins is empty":        {},
		"nothing else":            {Origins: []string{"https://user:marker@api.example.com/path?q"}},
		`Scheme is "digest"`:      {Origins: origins, Scheme: "digest"},
		"Header must name":        {Origins: origins, Scheme: httpauth.Header},
		"requires scheme header":  {Origins: origins, Header: "X-Api-Key"},
		"the consumer is missing": {Origins: origins, Scheme: "none"},
	} {
		with := c
		if want == "the consumer is missing" {
			with = nil
		}
		if _, err := httpauth.New(with, "token", &o); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "marker") {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	_, c := consumertest.New(b, "token", "v1", `{"token":"t1"}`)
	none := roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	transport, err := httpauth.New(c, "token", &httpauth.Options{Origins: []string{"https://api.example.com"}, Base: none})
	if err != nil {
		b.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := transport.RoundTrip(r); err != nil {
			b.Fatal(err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
