// Package rest sends one HTTP request to a target, on its own connection, and reports the outcome:
// not sent, not answered, or answered. It never retries, follows no redirect, ignores the
// environment's proxies and keeps no connection, because each of these could send a credential
// twice or to another system than the one that the target's configuration names.
package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	// MaxBody is the length of the longest answer that is read; a longer one is no answer.
	MaxBody     = 64 << 10
	maxHeader   = 64 << 10
	dialTimeout = 5 * time.Second
)

// CheckURL returns an error unless the address is an absolute HTTP URL without a credential and a
// fragment. Plain http is permitted for loopback and with tls.off only, so that no target sends
// secrets in clear over a network by accident.
func CheckURL(name, s string, t target.TLS) error {
	if s == "" {
		return fmt.Errorf("%s is required: an https URL", name)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%s is not an https URL with a host", name)
	case u.User != nil:
		return fmt.Errorf("%s holds a user or password; those belong into a secret", name)
	case u.Fragment != "":
		return fmt.Errorf("%s has a fragment, which is never sent", name)
	case u.Scheme == "https" && t.Off:
		return fmt.Errorf("%s is https and tls has off; use one of them", name)
	case u.Scheme == "http" && !t.Off && !egress.IsLoopback(u.Hostname()):
		return fmt.Errorf(
			"%s is http, which sends secrets in clear; use https, or set off in tls where the network is trusted whole",
			name,
		)
	}
	return nil
}

// Reply is a target's answer.
type Reply struct {
	Status int
	Body   []byte
	// JSON says that the body is declared to be JSON in UTF-8.
	JSON bool
	// Proven says that TLS has proved the identity of the sender. If it is false, callers must not
	// read any text of the answer.
	Proven bool
	// ETag names this state of what was asked for; empty where the target has no such names.
	ETag string
}

// Do sends the request and reads the answer. An error has class Unreachable when no connection was
// made, so that nothing can have been sent, and class Unknown otherwise. secrets must have every
// secret that the request contains.
func Do(
	req *http.Request, dial egress.DialFunc, t target.TLS, attempt string, secrets ...sensitive.Value,
) (Reply, error) {
	transport := newTransport(dial, t, req.URL.Hostname())
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var connected atomic.Bool // a connection, with TLS when there is any
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	resp, err := client.Do(req)
	if err != nil {
		if !connected.Load() {
			return Reply{}, target.NotSent(attempt, ended(req.Context(), err), secrets...)
		}
		return Reply{}, target.NoAnswer(attempt, ended(req.Context(), err), secrets...)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return Reply{}, target.NoAnswer(attempt, ended(req.Context(), err), secrets...)
	}
	if len(body) > MaxBody {
		return Reply{}, target.Failed(
			target.Unknown, "", fmt.Sprintf("%s: the answer is longer than %d bytes", attempt, MaxBody), secrets...,
		)
	}
	return Reply{
		Status: resp.StatusCode,
		Body:   body,
		JSON:   isJSON(resp.Header.Get("Content-Type")),
		Proven: resp.TLS != nil,
		ETag:   strongTag(resp.Header.Get("ETag")),
	}, nil
}

// strongTag returns a tag that a condition on a change may name; a weak one (W/"…") may not.
func strongTag(tag string) string {
	if !strings.HasPrefix(tag, `"`) {
		return ""
	}
	return tag
}

// newTransport returns a transport for one request to host.
func newTransport(dial egress.DialFunc, t target.TLS, host string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return dial(ctx, network, address)
		},
		TLSHandshakeTimeout:    dialTimeout,
		TLSClientConfig:        t.Config(host),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// Answered returns the error for an answer. words are the target's own, without secrets: callers
// read them when TLS has proved the identity of the sender, otherwise the operator's log has them.
// An answer that says neither that something is done nor that it is refused may then be another
// service's.
func Answered(class target.Class, got Reply, text, words string, secrets []sensitive.Value) *target.Error {
	if words != "" && got.Proven {
		text += ": " + words
	}
	e := target.Failed(class, Code(got.Status), text, secrets...)
	if !got.Proven {
		e.Detail = words
	}
	if class == target.Unclear || class == target.Unreachable {
		return OfStranger(got, e)
	}
	return e
}

// OfStranger returns e as the answer of a stranger, unless TLS has proved the identity of its
// sender.
func OfStranger(got Reply, e *target.Error) *target.Error {
	if got.Proven {
		return e
	}
	return e.OfStranger()
}

// ended returns the context's error if the context has ended, because the transport reports that
// end differently in each phase of a request.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func isJSON(contentType string) bool {
	kind, params, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json" &&
		(params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
}

// Code returns the status of an answer as the code of an error.
func Code(status int) string { return fmt.Sprintf("HTTP %d", status) }
