// Package rpc is the HTTP door: it decodes a request of the RPC protocol, has its signature verified, takes it to the
// gate, and encodes the answer as JSON or XML. It logs no query, body, header or string to sign: values travel in them.
package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/limit"
	"github.com/keyturn/keyturn/kms"
)

// writeAllowance is how long a caller may take to receive the answer that it has waited for.
const writeAllowance = 10 * time.Second

// Authenticator verifies who calls.
type Authenticator interface {
	Authenticate(ctx context.Context, r auth.Request) (auth.Identity, auth.Claim, error)
}

// Gate does what a verified caller asks for. *api.Gate is the one of a server; an agent has its own.
type Gate interface {
	// Call returns a pointer to the response struct of the operation. An error of another endpoint, a *kms.Error, is answered as it
	// came: status, code and message.
	Call(ctx context.Context, r api.Request) (any, error)
	// Refuse records a request that no caller was found for, and returns what is answered.
	Refuse(ctx context.Context, r api.Request, accessKeyID string, err error) error
}

// Observer is told of each call, for metrics. operation is "" when the request named none that exists.
type Observer func(operation, code string, took time.Duration)

// Door serves the RPC protocol at the path "/".
type Door struct {
	Gate Gate
	Auth Authenticator
	Log  *slog.Logger
	// Limit may be nil: then nothing is limited.
	Limit *limit.Limiter
	// Admit is told the access key of each request whose signature is valid, with the context of the request.
	// It answers false when the connection of the request is to be closed; nil means that it never is.
	Admit func(ctx context.Context, key string) bool
	// Now is the clock of the limits; nil means time.Now.
	Now func() time.Time
	// Observe may be nil.
	Observe Observer
	// NewID makes the ID of a request; nil means a random UUID.
	NewID func() string
}

func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := d.id()
	defer d.recovered(w, r, id)
	in, err := decode(r)
	asXML := wantsXML(r, in)
	var operation string
	var body []byte
	if err == nil {
		operation, body, err = d.serve(w, r, id, in, asXML)
	} else {
		err = d.Gate.Refuse(r.Context(), d.request(r, id, in), "", err)
	}
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

// recovered answers for a fault of ours outside any handler, so that it is seen and ends this request alone.
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

// logFailure writes what the operator should know: faults of our own, and a store or trail that is away.
func (d *Door) logFailure(ctx context.Context, id, operation string, err error) {
	if elsewhere := (*kms.Error)(nil); errors.As(err, &elsewhere) {
		return // an answer of another endpoint, whose operator knows
	}
	switch fault.KindOf(err) {
	case fault.Internal:
		d.Log.ErrorContext(ctx, "call failed", "request_id", id, "operation", operation, "err", err)
	case fault.Unavailable:
		if errors.Is(err, context.Canceled) {
			return // the caller has gone; strangers do not fill the log by hanging up
		}
		d.Log.WarnContext(ctx, "call not served", "request_id", id, "operation", operation, "err", err)
	}
}

// wantsXML reports which form the caller asks for: the parameter Format, and under versions 3 and 4 the header Accept.
func wantsXML(r *http.Request, in input) bool {
	if format, ok := in.form.Get("Format"); ok && format != "" {
		return strings.EqualFold(format, "XML")
	}
	accept := r.Header.Get("Accept")
	return strings.HasPrefix(r.Header.Get("Authorization"), "ACS") && strings.HasPrefix(accept, "application/xml")
}

func (d *Door) request(r *http.Request, id string, in input) api.Request {
	return api.Request{
		ID: id, Method: r.Method, Params: in.all, Source: source(r), Secure: r.TLS != nil, UserAgent: r.UserAgent(),
	}
}

// serve verifies the request, takes it to the gate and encodes the answer. operation is empty unless it exists.
func (d *Door) serve(w http.ResponseWriter, r *http.Request, id string, in input, asXML bool) (operation string, body []byte, err error) {
	request := d.request(r, id, in)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		return "", nil, d.Gate.Refuse(r.Context(), request, "", fault.New(fault.Method, "Use GET or POST."))
	case r.URL.Path != "/" && r.URL.Path != "":
		return "", nil, d.Gate.Refuse(r.Context(), request, "", fault.New(fault.NoAction, "The path is /."))
	case in.json && !strings.HasPrefix(r.Header.Get("Authorization"), "ACS"):
		return "", nil, d.Gate.Refuse(r.Context(), request, "", fault.New(fault.Malformed, "Signature version 1 does not cover a JSON body; send a form, or sign with version 3."))
	}
	signed := covered(r, in)
	if d.Limit != nil {
		claimed := auth.ClaimedKey(signed)
		if retry, yes := d.Limit.Exhausted(claimed, d.now()); yes {
			return "", nil, d.throttle(r.Context(), request, claimed, retry)
		}
	}
	identity, claim, err := d.Auth.Authenticate(r.Context(), signed)
	request.Action, request.Version = claim.Action, identity.Version
	if err != nil {
		return "", nil, d.Gate.Refuse(r.Context(), request, claim.AccessKeyID, err)
	}
	request.Action, request.Principal = identity.Action, identity.Principal
	if d.Admit != nil && !d.Admit(r.Context(), identity.Principal.AccessKeyID) {
		w.Header().Set("Connection", "close")
		busy := &fault.Error{Kind: fault.Throttled, Retry: time.Second, Msg: "This access key has too many connections."}
		return "", nil, d.Gate.Refuse(r.Context(), request, identity.Principal.AccessKeyID, busy)
	}
	if retry, ok := d.Limit.Take(identity.Principal.AccessKeyID, d.now()); !ok {
		return "", nil, d.throttle(r.Context(), request, identity.Principal.AccessKeyID, retry)
	}
	if most, waits := api.Waits(request.Version, request.Action); waits {
		stay(w, most)
	}
	out, err := d.Gate.Call(r.Context(), request)
	if api.Known(request.Version, request.Action) {
		operation = request.Action
	}
	if err != nil {
		return operation, nil, err
	}
	body, err = encode(operation, out, asXML)
	return operation, body, err
}

// stay lets the connection of a call that waits stay open as long as that may take. Where it cannot, a test's recorder say, nothing
// closes it either.
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

// throttle refuses a request that is over a limit. One record a second stands for all refusals of a key.
func (d *Door) throttle(ctx context.Context, request api.Request, key string, retry time.Duration) error {
	err := &fault.Error{Kind: fault.Throttled, Retry: retry}
	if n, yes := d.Limit.Tell(key, d.now()); yes {
		err.Msg = fmt.Sprintf("This access key is over its rate; %d of its requests were refused since the last record.", n)
		return d.Gate.Refuse(ctx, request, key, err)
	}
	return err
}

// canonical are the spellings under which net/http keeps the headers that every signature covers; looking them up by
// any other would spell them anew for each request.
var canonical = map[string]string{
	"authorization": "Authorization", "content-type": "Content-Type", "x-acs-accesskey-id": "X-Acs-Accesskey-Id",
	"x-acs-action": "X-Acs-Action", "x-acs-content-sha256": "X-Acs-Content-Sha256",
	"x-acs-credentials-provider": "X-Acs-Credentials-Provider", "x-acs-date": "X-Acs-Date",
	"x-acs-security-token": "X-Acs-Security-Token", "x-acs-signature-nonce": "X-Acs-Signature-Nonce", "x-acs-version": "X-Acs-Version",
}

// covered is what the signature of a request covers.
func covered(r *http.Request, in input) auth.Request {
	return auth.Request{
		Method: r.Method, Params: in.form, Query: in.query,
		Header: func(name string) string {
			if name == "host" {
				return r.Host
			}
			spelled, ok := canonical[name]
			if !ok {
				return r.Header.Get(name)
			}
			if values := r.Header[spelled]; len(values) > 0 {
				return values[0]
			}
			return ""
		},
		BodySHA256: func() string {
			if len(in.body) == 0 {
				return emptySHA256
			}
			digest := sha256.Sum256(in.body)
			return hex.EncodeToString(digest[:])
		},
	}
}

// emptySHA256 is the digest of no body, which most requests have.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func source(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}
