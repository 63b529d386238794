// Package rpc is the HTTP door: it decodes a request of the RPC protocol, has its signature
// verified, hands it to a gate, and encodes the answer as JSON or XML. It logs no query, body,
// header or string to sign, because values travel in them.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/conns"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
)

// writeAllowance is how long a caller may take to receive an answer after a wait.
const writeAllowance = 10 * time.Second

// Authenticator verifies who calls.
type Authenticator interface {
	Authenticate(ctx context.Context, r auth.Request) (auth.Result, error)
}

// Gate carries out the calls of verified callers. *api.Gate is the gate of a server; an agent has
// its own.
type Gate interface {
	// Call returns a pointer to the response struct of the operation. op is nil when the request
	// names no operation. An error of another endpoint, a *kms.Error, reaches the caller unchanged:
	// status, code and message.
	Call(ctx context.Context, op *operation.Op, r protocol.Request) (any, error)
	// Refuse records a request that does not reach Call, and returns the error to answer with.
	Refuse(ctx context.Context, r protocol.Request, accessKeyID string, err error) error
}

// Observer receives each call, for metrics. operation is empty when the request names no operation.
type Observer func(operation, code string, took time.Duration)

// Door serves the RPC protocol at the path "/".
type Door struct {
	Gate Gate
	Auth Authenticator
	Log  *slog.Logger
	// Limit limits the rate of calls; nil means no limit.
	Limit *limit.Limiter
	// Refusals delays answers to a source whose requests have no valid signature. Useless delays
	// answers to an access key whose calls are refused or need no right. Nil means no delay.
	Refusals, Useless *limit.Pacer
	// Origin returns the address of the client and whether it used TLS; nil means the ones of the
	// connection.
	Origin func(*http.Request) (source netip.Addr, secure bool, err error)
	// Admit receives the access key of each request with a valid signature, and the context of the
	// request. It returns false when the connection must be closed; nil admits every request.
	Admit func(ctx context.Context, key string) bool
	// Now is the clock of the limits; nil means time.Now.
	Now func() time.Time
	// Observe may be nil.
	Observe Observer
	// NewID makes the ID of a request; nil means a random UUID.
	NewID func() string

	bodies bodies
}

// ServeHTTP answers one request.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := d.id()
	defer d.recovered(w, r, id)
	operation, body, asXML, err := d.serve(w, r, id)
	code := "OK"
	if err == nil {
		write(w, http.StatusOK, body, asXML)
	} else {
		code = writeError(w, id, r.Host, err, asXML).Code
		d.logFailure(r.Context(), id, operation, err)
	}
	if d.Observe != nil {
		d.Observe(operation, code, time.Since(start))
	}
}

// recovered turns a panic outside the handlers into a 500 for this request and logs it.
func (d *Door) recovered(w http.ResponseWriter, r *http.Request, id string) {
	if p := recover(); p != nil {
		err := fmt.Errorf("the door panicked: %v\n%s", p, debug.Stack())
		d.logFailure(r.Context(), id, "", err)
		writeError(w, id, r.Host, err, false)
	}
}

func (d *Door) id() string {
	if d.NewID != nil {
		return d.NewID()
	}
	return uuid.NewString()
}

// logFailure logs what the operator should know: internal errors, and a store or audit trail that
// is unavailable.
func (d *Door) logFailure(ctx context.Context, id, operation string, err error) {
	if elsewhere := (*kms.Error)(nil); errors.As(err, &elsewhere) {
		return // the operator of the other endpoint sees it
	}
	switch fault.KindOf(err) {
	case fault.Internal:
		d.Log.ErrorContext(ctx, "call failed", "request_id", id, "operation", operation, "err", err)
	case fault.Unavailable:
		if errors.Is(err, context.Canceled) {
			return // the caller hung up; that must not fill the log
		}
		d.Log.WarnContext(ctx, "call not served", "request_id", id, "operation", operation, "err", err)
	}
}

// wantsXML reports whether the caller asks for XML, by the parameter Format or, under signature
// versions 3 and 4, by the header Accept.
func wantsXML(r *http.Request, claim auth.Claim) bool {
	if claim.Format != "" {
		return strings.EqualFold(claim.Format, "XML")
	}
	return strings.HasPrefix(r.Header.Get("Authorization"), "ACS") &&
		strings.HasPrefix(r.Header.Get("Accept"), "application/xml")
}

// serve verifies the request, hands it to the gate and encodes the answer. name is the name of the
// operation; it is empty when the request did not reach the gate or names no operation.
func (d *Door) serve(
	w http.ResponseWriter, r *http.Request, id string,
) (name string, body []byte, asXML bool, err error) {
	request := protocol.Request{ID: id, Method: r.Method, UserAgent: r.UserAgent()}
	key, asXML, err := d.verify(w, r, &request)
	if err != nil {
		return "", nil, asXML, d.refuse(w, r, request, key, err)
	}
	op := protocol.Find(request.Version, request.Action)
	if op != nil {
		name = op.Name
		if op.Waits {
			stay(w, op.Deadline)
		}
	}
	out, err := d.Gate.Call(r.Context(), op, request)
	if fault.KindOf(err) == fault.Denied || op == nil || op.NeedsNoRight() {
		pace(w, r, d.Useless, key)
	}
	if err != nil {
		return name, nil, asXML, err
	}
	body, err = encode(name, out, asXML)
	return name, body, asXML, err
}

// verify fills a request with its verified caller and with the parameters that the signature
// covers. It returns an error for a request without a valid signature, or over a limit. key is the
// access key, which is only a claim unless the request has a principal.
func (d *Door) verify(
	w http.ResponseWriter, r *http.Request, request *protocol.Request,
) (key string, asXML bool, err error) {
	origin := d.Origin
	if origin == nil {
		origin = conns.Proxies(nil).Origin
	}
	if request.Source, request.Secure, err = origin(r); err != nil {
		return "", false, fault.Wrap(fault.Malformed, err, "The proxy's header X-Forwarded-For cannot be read.")
	}
	if err := checkTarget(r); err != nil {
		return "", wantsXML(r, auth.Claim{Format: r.URL.Query().Get("Format")}), err
	}
	read, release := d.body(w, r, request.Source)
	defer release() // of the body, only the parameters are kept, and only of a known caller
	caller, err := d.Auth.Authenticate(r.Context(), d.unverified(r, read))
	asXML = wantsXML(r, caller.Claim)
	request.Action, request.Version = caller.Action, caller.Version
	if err != nil {
		return caller.AccessKeyID, asXML, err
	}
	request.Principal, request.Params = caller.Principal, caller.Params
	key = caller.Principal.AccessKeyID
	if d.Admit != nil && !d.Admit(r.Context(), key) {
		w.Header().Set("Connection", "close")
		return key, asXML, &fault.Error{
			Kind:  fault.Throttled,
			Retry: time.Second,
			Msg:   "This access key has too many connections.",
		}
	}
	if retry, ok := d.Limit.Take(key, d.now()); !ok {
		return key, asXML, throttled(retry)
	}
	return key, asXML, nil
}

// checkTarget verifies the method and the path, which are the same for every operation.
func checkTarget(r *http.Request) error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		return fault.New(fault.Method, "Use GET or POST.")
	case r.URL.Path != "/" && r.URL.Path != "" || r.URL.Opaque != "":
		return fault.New(fault.NoAction, "The path is /.")
	}
	return nil
}

// admit refuses a request whose claimed access key has used up its share.
func (d *Door) admit(c auth.Claim) error {
	if retry, yes := d.Limit.Exhausted(c.AccessKeyID, d.now()); yes {
		return throttled(retry)
	}
	return nil
}

// stay raises the deadlines of the connection for a call that waits. It ignores errors:
// httptest.ResponseRecorder has no deadlines.
func stay(w http.ResponseWriter, most time.Duration) {
	c, until := http.NewResponseController(w), time.Now().Add(most+writeAllowance)
	_ = c.SetReadDeadline(until)
	_ = c.SetWriteDeadline(until)
}

func (d *Door) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// throttled returns the error for a request that is over a limit.
func throttled(retry time.Duration) error { return &fault.Error{Kind: fault.Throttled, Retry: retry} }

// refuse refuses a request before it reaches Call. key is only a claim unless the request has a
// principal.
func (d *Door) refuse(w http.ResponseWriter, r *http.Request, request protocol.Request, key string, err error) error {
	err = d.Gate.Refuse(r.Context(), request, key, err)
	if request.Principal.Kind == "" {
		pace(w, r, d.Refusals, conns.Source(request.Source).String())
	} else {
		pace(w, r, d.Useless, key)
	}
	return err
}

// pace delays the answer to a client whose requests achieve nothing, or has its connection closed.
func pace(w http.ResponseWriter, r *http.Request, p *limit.Pacer, client string) {
	if !p.Wait(r.Context(), client) {
		w.Header().Set("Connection", "close")
	}
}

// canonical maps the headers that every signature covers to the spelling of net/http. Without it,
// each lookup would convert the name.
var canonical = map[string]string{
	"authorization":              "Authorization",
	"content-type":               "Content-Type",
	"x-acs-accesskey-id":         "X-Acs-Accesskey-Id",
	"x-acs-action":               "X-Acs-Action",
	"x-acs-content-sha256":       "X-Acs-Content-Sha256",
	"x-acs-credentials-provider": "X-Acs-Credentials-Provider",
	"x-acs-date":                 "X-Acs-Date",
	"x-acs-security-token":       "X-Acs-Security-Token",
	"x-acs-signature-nonce":      "X-Acs-Signature-Nonce",
	"x-acs-version":              "X-Acs-Version",
}

// unverified returns the request in the form that the authenticator reads.
func (d *Door) unverified(r *http.Request, body func() ([]byte, error)) auth.Request {
	return auth.Request{
		Method: r.Method,
		Query:  r.URL.RawQuery,
		Length: length(r),
		Host:   r.Host,
		Header: func(name string) []string {
			if spelled, ok := canonical[name]; ok {
				return r.Header[spelled]
			}
			return r.Header.Values(name)
		},
		Body:  body,
		Admit: d.admit,
	}
}

func length(r *http.Request) int64 {
	if r.Body == nil || r.Body == http.NoBody {
		return 0
	}
	return r.ContentLength
}
