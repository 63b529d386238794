package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sign"
)

const (
	maxAnswer   = 16 << 20
	maxAttempts = 3
	firstDelay  = 100 * time.Millisecond
	maxDelay    = 2 * time.Second
	longestWait = time.Minute // for which a call sleeps because the service asks it to
	formType    = "application/x-www-form-urlencoded"
)

// Config configures a [Client].
type Config struct {
	// Endpoint is host[:port], reached over TLS, or a URL that begins with https:// or http://.
	// Required.
	Endpoint string
	// Credentials sign each request. Required.
	Credentials sign.Credentials
	// RootCAs are the authorities to trust; nil means the system's.
	RootCAs *x509.CertPool
	// HTTPClient replaces the default client, which has a timeout of 30 seconds and keeps
	// connections open. RootCAs is then ignored.
	HTTPClient *http.Client
	// UserAgent is sent with each request; empty means "keyturn-go".
	UserAgent string
	// MaxAttempts bounds how often one call is sent: 0 means 3, 1 means no retry. A call is
	// repeated after a temporary error or without an answer, and only if repeating it changes
	// nothing more. The delay is the one that the service asks for, or random: below 0.2 s, 0.4 s
	// … 2 s. When the service asks for more than a minute, the call returns the error at once, and
	// [Error.RetryAfter] has the time.
	MaxAttempts int
	// Now is the clock of the signatures; nil means time.Now.
	Now func() time.Time
}

// Client calls one endpoint. It is safe for concurrent use.
type Client struct {
	endpoint string
	config   Config
	http     *http.Client
}

// NewClient returns a client, or an error that names what is wrong with the configuration.
func NewClient(c Config) (*Client, error) {
	endpoint := c.Endpoint
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case c.Endpoint == "" || err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("kms: Endpoint must be host[:port] or an http:// or https:// URL")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return nil, errors.New("kms: Endpoint must have no path, query or user")
	case c.Credentials.AccessKeyID == "" || c.Credentials.AccessKeySecret.IsZero():
		return nil, errors.New("kms: Credentials need an AccessKeyID and an AccessKeySecret")
	}
	if c.UserAgent == "" {
		c.UserAgent = "keyturn-go"
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = maxAttempts
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := c.HTTPClient
	if h == nil {
		h = &http.Client{Timeout: 30 * time.Second, Transport: transport(c.RootCAs)}
	}
	return &Client{endpoint: u.Scheme + "://" + u.Host + "/", config: c, http: h}, nil
}

func transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
	}
}

// Endpoint returns the URL that the client calls.
func (c *Client) Endpoint() string { return c.endpoint }

// Call is one request by name, for operations without a method in this package.
type Call struct {
	// Action is the operation, such as GetSecretValue.
	Action string
	// Version is the API version; empty means Version.
	Version string
	// Params are its parameters. They travel in the body, so that no value is in a URL.
	Params sign.Params
	// Accept is the wanted form of the answer; empty means application/json.
	Accept string
	// Idempotent allows the client to repeat the call when its outcome is unknown.
	Idempotent bool
}

// Do sends a call and returns the body of a successful answer. Any other answer is an [*Error]. The
// error of a call that was sent and not answered is an [*UnansweredError].
func (c *Client) Do(ctx context.Context, call Call) ([]byte, error) {
	if call.Version == "" {
		call.Version = Version
	}
	form := url.Values{}
	for _, p := range call.Params {
		form.Add(p.Name, p.Value)
	}
	body := []byte(form.Encode())
	unanswered := false
	for attempt := 1; ; attempt++ {
		var sent atomic.Bool // the transport may report it from another goroutine
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			WroteRequest: func(i httptrace.WroteRequestInfo) { sent.Store(i.Err == nil) },
		})
		answer, err := c.once(traced, call, body)
		if err == nil {
			return answer, nil
		}
		var answered *Error
		isAnswered := errors.As(err, &answered)
		unanswered = unanswered || sent.Load() && !isAnswered
		if attempt < c.config.MaxAttempts && mayRetry(ctx, call, err) {
			if d := delay(attempt, err); d <= longestWait && sleep(ctx, d) {
				continue
			}
		}
		if unanswered && !isAnswered {
			err = &UnansweredError{Action: call.Action, Idempotent: call.Idempotent, Err: err}
		}
		return nil, err
	}
}

// mayRetry reports whether sending the call again can help and cannot harm: a refusal that came
// before anything was done may always be repeated, an unknown outcome only for idempotent calls.
func mayRetry(ctx context.Context, call Call, err error) bool {
	var e *Error
	switch {
	case ctx.Err() != nil:
		return false
	case errors.As(err, &e) && e.HTTPStatus == http.StatusTooManyRequests:
		return true
	case errors.As(err, &e):
		return call.Idempotent && e.Temporary()
	}
	var op *net.OpError
	return call.Idempotent || errors.As(err, &op) && op.Op == "dial"
}

// delay returns the time between an attempt, counted from 1, and the next.
func delay(attempt int, err error) time.Duration {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter() > 0 {
		return e.RetryAfter()
	}
	return mathrand.N(min(firstDelay<<min(attempt, 10), maxDelay))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) once(ctx context.Context, call Call, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("kms: %s: build the request: %w", call.Action, err)
	}
	req.Header.Set("User-Agent", c.config.UserAgent)
	req.Header.Set("Accept", "application/json")
	if call.Accept != "" {
		req.Header.Set("Accept", call.Accept)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", formType)
	}
	now := c.config.Now()
	if err := c.config.Credentials.SignHTTP(req, sign.Call{
		Action:  call.Action,
		Version: call.Version,
		Body:    body,
		Time:    now,
		Nonce:   rand.Text(),
	}); err != nil {
		return nil, fmt.Errorf("kms: %s: sign the request: %w", call.Action, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("kms: %s: %w", call.Action, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("kms: %s: read the answer: %w", call.Action, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, decodeError(resp, answer)
	}
	return answer, nil
}

// decodeError returns the [*Error] of an answer. If the answer does not have the documented form,
// such as that of a proxy, the error has its status.
func decodeError(resp *http.Response, body []byte) error {
	var e struct {
		Code, Message, RequestId, HostId, Recommend string
		AccessDeniedDetail                          struct{ AuthAction string }
	}
	if json.Unmarshal(body, &e) != nil || e.Code == "" {
		e.Code, e.Message = "HTTP"+fmt.Sprint(resp.StatusCode),
			"the answer is not one of this API: "+http.StatusText(resp.StatusCode)
	}
	return &Error{
		HTTPStatus: resp.StatusCode, Code: e.Code, Message: e.Message, RequestID: e.RequestId, HostID: e.HostId,
		Recommend: e.Recommend, Header: resp.Header, DeniedAction: e.AccessDeniedDetail.AuthAction,
	}
}

// call makes one call of an operation of the table, whose response is an Out.
func call[Out any](ctx context.Context, c *Client, name string, in any) (*Out, error) {
	op := operations.Named(name)
	body, err := c.Do(ctx, Call{Action: name, Version: op.Version, Params: wire.Encode(in), Idempotent: op.Retryable})
	if err != nil {
		return nil, err
	}
	out := new(Out)
	if err := wire.DecodeResponse(body, out); err != nil {
		return nil, fmt.Errorf("kms: %s: %w", name, err)
	}
	return out, nil
}
