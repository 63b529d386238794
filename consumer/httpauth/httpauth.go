// Package httpauth adds the credential in a secret to HTTP requests, also across rotations.
//
//	transport, err := httpauth.New(c, "partner/token", &httpauth.Options{
//		Origins: []string{"https://api.example.com"},
//		Scheme:  httpauth.Bearer,
//	})
//	client := &http.Client{Transport: transport}
//
// # Behavior
//
//   - Each request carries the current version. If the server answers 401, the secret is read
//     again, and the request is repeated once: with the version that is current then or, if that is
//     the rejected one, with the candidate of a rotation under way or the previous version
//     ([consumer.Consumer.Failed]), within [consumer.Config.LoginLimit]. A request whose body
//     cannot be sent again ([http.Request.GetBody]) is not repeated: the caller gets the 401, and
//     the next request carries the newer version.
//   - The credential goes to the origins in [Options.Origins] and nowhere else: not to another
//     host, port or scheme after a redirect.
//
// A connection is not bound to the credential of a request, so this package drains no connections
// and holds no versions.
package httpauth

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Scheme says how a request carries a credential.
type Scheme string

const (
	// Basic sends account and password in the header Authorization.
	Basic Scheme = "basic"
	// Bearer sends a token in the header Authorization.
	Bearer Scheme = "bearer"
	// Header sends the credential unchanged in the header [Options.Header].
	Header Scheme = "header"
)

// Options say where the credential goes.
type Options struct {
	// Origins receive the credential. Each is a scheme and a host, with a port unless it is the
	// default one, such as "https://api.example.com". Required.
	Origins []string
	// Scheme is [Basic], [Bearer] or [Header]. Empty means Bearer.
	Scheme Scheme
	// Header is the name of the header for scheme Header, such as X-Api-Key.
	Header string
	// Format says where in the value the credential is. The zero Format finds the usual members.
	Format credential.Format
	// Base sends the requests. nil means [http.DefaultTransport].
	Base http.RoundTripper
}

// Transport is an [http.RoundTripper] that adds a credential. It is safe for concurrent use.
type Transport struct {
	adapter *adapter.Adapter
	options Options // complete
	origins map[string]bool
	header  string
	made    atomic.Pointer[field] // for the last version that was used

	mu   sync.Mutex
	last *rejection // guarded by mu
}

// rejection is a version that was rejected, and the one to send instead. All requests that were
// under way with the version share it.
type rejection struct {
	version string
	known   chan struct{} // closed when the fields below are set
	until   time.Time     // when to ask again
	next    *consumer.Secret
	err     error
}

// field is the value of the header for one version.
type field struct {
	secret *consumer.Secret
	value  string
}

// New returns a Transport.
func New(c *consumer.Consumer, secret string, options *Options) (*Transport, error) {
	if options == nil {
		options = &Options{}
	}
	a, problem := adapter.New("httpauth", c, secret, &adapter.Options{Format: options.Format}, nil)
	t := &Transport{adapter: a, options: *options}
	t.options.Scheme = cmp.Or(t.options.Scheme, Bearer)
	if t.options.Base == nil {
		t.options.Base = http.DefaultTransport
	}
	if err := errors.Join(problem, t.readOrigins(), t.readHeader()); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Transport) readOrigins() error {
	if len(t.options.Origins) == 0 {
		return errors.New("httpauth: Origins is empty: " +
			"name the servers that receive the credential, such as https://api.example.com")
	}
	t.origins = map[string]bool{}
	for _, text := range t.options.Origins {
		u, err := url.Parse(text)
		switch {
		case err != nil, // err quotes the text, which may hold a password
			u.Scheme != "https" && u.Scheme != "http",
			u.Host == "",
			u.Path != "" && u.Path != "/",
			u.User != nil,
			u.RawQuery != "",
			u.Fragment != "":
			return errors.New("httpauth: each of Origins must be http:// or https:// and a host, and nothing else")
		}
		t.origins[origin(u)] = true
	}
	return nil
}

func (t *Transport) readHeader() error {
	t.header = "Authorization"
	switch scheme, header := t.options.Scheme, t.options.Header; {
	case scheme != Basic && scheme != Bearer && scheme != Header:
		return fmt.Errorf("httpauth: Scheme is %q; it must be basic, bearer or header", scheme)
	case scheme == Header && header == "":
		return errors.New("httpauth: Scheme is header, so Header must name the header")
	case scheme != Header && header != "":
		return fmt.Errorf("httpauth: Header is %q, which requires scheme header", header)
	case header != "":
		t.header = textproto.CanonicalMIMEHeaderKey(header)
	}
	return nil
}

// origin returns scheme, host and port, also the default port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[strings.ToLower(u.Scheme)]
	}
	return strings.ToLower(u.Scheme) + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// errUnauthorized is the cause of a rejection.
var errUnauthorized = errors.New("httpauth: the server answers 401")

// RoundTrip sends a request, with the credential if it goes to one of the origins.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.origins[origin(r.URL)] {
		return t.options.Base.RoundTrip(r)
	}
	s, err := t.adapter.Consumer.Get(r.Context(), t.adapter.Secret)
	var first *http.Request
	if err == nil {
		first, err = t.with(r, s)
	}
	if err != nil {
		closeBody(r)
		return nil, err
	}
	response, err := t.options.Base.RoundTrip(first)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	next, err := t.instead(r.Context(), s.VersionID)
	if err != nil {
		return response, nil // there is nothing better to send
	}
	again, err := t.repeat(r, next)
	if err != nil {
		return response, nil
	}
	_, _ = io.CopyN(io.Discard, response.Body, maxDiscard) // so that the connection is used again
	_ = response.Body.Close()
	response, err = t.options.Base.RoundTrip(again)
	if err == nil && response.StatusCode != http.StatusUnauthorized {
		t.adapter.Consumer.Worked(t.adapter.Secret, next.VersionID)
	}
	return response, err
}

// instead returns the version to send instead of one that was rejected. One caller asks the
// consumer, and all callers at the same time share the answer.
func (t *Transport) instead(ctx context.Context, version string) (*consumer.Secret, error) {
	for {
		t.mu.Lock()
		r := t.last
		if r == nil || r.version != version || r.over(time.Now()) {
			r = &rejection{version: version, known: make(chan struct{})}
			t.last = r
			t.mu.Unlock()
			r.next, r.err = t.adapter.Consumer.Failed(ctx, t.adapter.Secret, version, errUnauthorized)
			r.until = time.Now().Add(shared)
			close(r.known)
			return r.next, r.err
		}
		t.mu.Unlock()
		select {
		case <-r.known:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !r.gaveUp() {
			return r.next, r.err
		}
	}
}

// shared is how long the answer for a rejected version is used again.
const shared = time.Second

func (r *rejection) over(now time.Time) bool {
	select {
	case <-r.known:
		return now.After(r.until) || r.gaveUp()
	default:
		return false
	}
}

// gaveUp reports whether the context of the caller that asked the consumer ended before the answer.
func (r *rejection) gaveUp() bool {
	return errors.Is(r.err, context.Canceled) || errors.Is(r.err, context.DeadlineExceeded)
}

const maxDiscard = 64 << 10

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // a RoundTripper must
	}
}

// repeat returns the same request with another version.
func (t *Transport) repeat(r *http.Request, s *consumer.Secret) (*http.Request, error) {
	again, err := t.with(r, s)
	if err != nil || r.Body == nil || r.Body == http.NoBody {
		return again, err
	}
	if r.GetBody == nil {
		return nil, errors.New("httpauth: the body cannot be sent again")
	}
	again.Body, err = r.GetBody()
	return again, err
}

// with returns a copy of a request with the credential. A RoundTripper must not change its
// argument.
func (t *Transport) with(r *http.Request, s *consumer.Secret) (*http.Request, error) {
	value, err := t.value(s)
	if err != nil {
		return nil, err
	}
	copied := r.Clone(r.Context())
	if copied.Header == nil {
		copied.Header = http.Header{}
	}
	copied.Header[t.header] = []string{value}
	return copied, nil
}

func (t *Transport) value(s *consumer.Secret) (string, error) {
	if made := t.made.Load(); made != nil && made.secret == s {
		return made.value, nil
	}
	cred, err := t.options.Format.Read(s)
	if err != nil {
		return "", err
	}
	value := cred.Secret.Reveal()
	switch t.options.Scheme {
	case Basic:
		if cred.Account == "" || strings.Contains(cred.Account, ":") {
			return "", fmt.Errorf("httpauth: the value of secret %q, version %s, "+
				"names no account that scheme basic can carry", s.Name, s.VersionID)
		}
		value = "Basic " + base64.StdEncoding.EncodeToString([]byte(cred.Account+":"+value))
	case Bearer:
		value = "Bearer " + value
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "", fmt.Errorf("httpauth: the credential in secret %q, version %s, "+
			"has characters that no header can carry, such as a line break", s.Name, s.VersionID)
	}
	t.made.Store(&field{secret: s, value: value})
	return value, nil
}
