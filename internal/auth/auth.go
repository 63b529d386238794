// Package auth tells who is calling. It finds the access key, verifies the signature in constant time, refuses a stale
// time and a replayed nonce, and returns the principal. It knows nothing of HTTP beyond headers by name.
//
// Nothing of a request that the signature does not cover decides who calls, or what.
package auth

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// Window is how far the time of a request may be from now, either way (protocol.md section 10).
const Window = 15 * time.Minute

const maxNonce = 128

// Request is what a signature covers.
type Request struct {
	Method string
	// Params are those of query and form: all that version 1 signs.
	Params sign.Params
	// Query are those of the query, which versions 3 and 4 sign one by one; the body they sign as a digest.
	Query sign.Params
	// Header finds a header by its lower-case name, "host" included.
	Header func(name string) string
	// BodySHA256 is the lower-case hex digest of the body. It is asked for only under versions 3 and 4.
	BodySHA256 func() string
}

// Identity is a verified caller, and the operation that its signature covers.
type Identity struct {
	Principal       policy.Principal
	Action, Version string
}

// Key is an access key, unsealed.
type Key struct {
	ID        string
	Principal policy.Principal
	Disabled  bool
	Secret    *sign.Key
	// Token belongs to a temporary key and is empty for a permanent one.
	Token sensitive.Value
	// ExpiresAt is zero for a permanent key.
	ExpiresAt time.Time
}

// Keys finds access keys. One that does not exist is found false; an error means that it could not be looked for.
type Keys interface {
	Find(ctx context.Context, id string) (key Key, found bool, err error)
}

// Authenticator verifies requests. It is safe for concurrent use.
type Authenticator struct {
	keys   Keys
	now    func() time.Time
	nonces *Nonces
}

// New returns an authenticator that remembers at most nonces many used nonces; 0 means DefaultNonces.
func New(keys Keys, now func() time.Time, nonces int, log *slog.Logger) *Authenticator {
	return &Authenticator{keys: keys, now: now, nonces: NewNonces(nonces, log)}
}

// Nonces tells how many used nonces are remembered.
func (a *Authenticator) Nonces() int { return a.nonces.Len() }

// Claim is what a request says of itself before anything is verified, for the record of a refused call.
type Claim struct{ AccessKeyID, Action string }

// ClaimedKey is the access key that a request says it is signed with; nothing of it is verified. Empty when it says none.
func ClaimedKey(r Request) string {
	if _, rest, ok := strings.Cut(r.Header("authorization"), "Credential="); ok {
		id, _, _ := strings.Cut(rest, ",")
		id, _, _ = strings.Cut(id, "/")
		return clip(id)
	}
	id, _ := r.Params.Get("AccessKeyId")
	return clip(id)
}

// Authenticate verifies a request. The error is a *fault.Error whose kind says what is wrong; what the request claims
// to be is returned in any case.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (Identity, Claim, error) {
	if h := r.Header("authorization"); strings.HasPrefix(h, "ACS3-") || strings.HasPrefix(h, "ACS4-") {
		return a.header(ctx, r, h)
	}
	if signature, _ := r.Params.Get("Signature"); signature != "" {
		return a.parameters(ctx, r)
	}
	claimed, _ := r.Params.Get("Action")
	return Identity{}, Claim{Action: claimed}, fault.New(fault.BadSignature, "The request is not signed.")
}

// parameters verifies version 1, where the signature is a parameter.
func (a *Authenticator) parameters(ctx context.Context, r Request) (Identity, Claim, error) {
	get := func(name string) string { s, _ := r.Params.Get(name); return s }
	claim := Claim{get("AccessKeyId"), get("Action")}
	id := Identity{Action: claim.Action, Version: get("Version")}
	if claim.AccessKeyID == "" {
		return id, claim, fault.New(fault.MissingKey, "AccessKeyId is mandatory for this action.")
	}
	at, err := parseTime(get("Timestamp"))
	switch {
	case get("SignatureType") != "":
		return id, claim, fault.New(fault.BadSignature, "SignatureType %q is not supported.", clip(get("SignatureType")))
	case get("SignatureVersion") != "1.0":
		return id, claim, fault.New(fault.BadSignature, "SignatureVersion must be 1.0.")
	case err != nil:
		return id, claim, err
	}
	key, err := a.find(ctx, claim.AccessKeyID)
	if err != nil {
		return id, claim, err
	}
	ok, err := key.Secret.VerifyV1(r.Method, r.Params)
	switch {
	case err != nil:
		return id, claim, fault.New(fault.BadSignature, "%s", err)
	case !ok:
		return id, claim, mismatch(r.Params, sign.StringToSignV1(r.Method, r.Params))
	}
	nonce := get("SignatureNonce")
	if nonce == "" {
		nonce = get("Signature") // KMS documents a request without nonce as legal; it is then good for one use
	}
	id.Principal, err = a.accept(key, get("SecurityToken"), at, nonce)
	return id, claim, err
}

// mismatch is the answer to a wrong signature. The legacy SDK compares what follows "is:" with its own string and tells
// the user that the secret is wrong when they are equal. The string holds every parameter, so it is left out for
// requests that carry a value.
func mismatch(p sign.Params, text string) error {
	const message = "Specified signature is not matched with our calculation."
	for _, name := range []string{"SecretData", "Plaintext", "CiphertextBlob", "Policy", "SecurityToken", "VersionStages", "ExtendedConfig"} {
		if _, ok := p.Get(name); ok {
			return fault.New(fault.WrongSignature, message)
		}
	}
	return fault.New(fault.WrongSignature, "%s", message+" server string to sign is:"+text)
}

// requiredSigned are the headers that a signature of version 3 or 4 must cover.
var requiredSigned = []string{"host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"}

// header verifies versions 3 and 4, where the signature is in the header Authorization.
func (a *Authenticator) header(ctx context.Context, r Request, authorization string) (Identity, Claim, error) {
	id := Identity{Action: r.Header("x-acs-action"), Version: r.Header("x-acs-version")}
	claim := Claim{Action: id.Action}
	auth, err := sign.ParseAuthorization(authorization)
	if err != nil {
		return id, claim, fault.New(fault.BadSignature, "%s", err)
	}
	claim.AccessKeyID = auth.AccessKeyID
	at, err := checkHeaders(r, auth)
	if err != nil {
		return id, claim, err
	}
	digest := r.BodySHA256()
	if r.Header("x-acs-content-sha256") != digest {
		return id, claim, fault.New(fault.WrongSignature, "x-acs-content-sha256 is not the digest of the body.")
	}
	key, err := a.find(ctx, auth.AccessKeyID)
	if err != nil {
		return id, claim, err
	}
	if !key.Secret.Verify(auth, sign.Request{Method: r.Method, Path: "/", Query: r.Query, Header: r.Header, BodySHA256: digest}) {
		return id, claim, fault.New(fault.WrongSignature, "Specified signature does not match our calculation.")
	}
	id.Principal, err = a.accept(key, r.Header("x-acs-security-token"), at, r.Header("x-acs-signature-nonce"))
	return id, claim, err
}

func checkHeaders(r Request, auth sign.Authorization) (time.Time, error) {
	signed := func(name string) bool { return slices.Contains(auth.SignedHeaders, name) } // a handful: faster than a map
	for _, name := range requiredSigned {
		if !signed(name) || r.Header(name) == "" {
			return time.Time{}, fault.New(fault.BadSignature, "The header %s must be sent and signed.", name)
		}
	}
	switch {
	case r.Header("x-acs-security-token") != "" && !signed("x-acs-security-token"):
		return time.Time{}, fault.New(fault.BadSignature, "The header x-acs-security-token must be signed.")
	case r.Header("x-acs-accesskey-id") != "" && r.Header("x-acs-accesskey-id") != auth.AccessKeyID:
		return time.Time{}, fault.New(fault.BadSignature, "x-acs-accesskey-id differs from Credential.")
	}
	at, err := parseTime(r.Header("x-acs-date"))
	if err == nil && auth.Scheme == sign.ACS4 && auth.Scope.Date != at.Format("20060102") {
		return at, fault.New(fault.BadSignature, "The date of Credential differs from x-acs-date.")
	}
	return at, err
}

func (a *Authenticator) find(ctx context.Context, id string) (Key, error) {
	key, found, err := a.keys.Find(ctx, id)
	if err == nil && !found {
		err = fault.New(fault.UnknownKey, "Specified access key is not found.")
	}
	return key, err
}

// accept checks what is left once the signature has verified: the state of the key, its token, time and nonce. The nonce
// comes last, so that nobody but the caller can use it up.
func (a *Authenticator) accept(key Key, token string, at time.Time, nonce string) (policy.Principal, error) {
	now := a.now()
	temporary := !key.Token.IsZero()
	switch {
	case key.Disabled:
		return policy.Principal{}, fault.New(fault.DisabledKey, "This AccessKey is not enabled.")
	case temporary && token == "":
		return policy.Principal{}, fault.New(fault.MissingToken, "SecurityToken is mandatory for this action.")
	case temporary && !key.Token.Equal(sensitive.New(token)), !temporary && token != "":
		return policy.Principal{}, fault.New(fault.WrongToken, "The specified SecurityToken does not match the AccessKeyId.")
	case !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		return policy.Principal{}, fault.New(fault.ExpiredToken, "The specified SecurityToken is expired.")
	case at.Before(now.Add(-Window)) || at.After(now.Add(Window)):
		return policy.Principal{}, fault.New(fault.Expired, "Specified time stamp or date value is expired. The server's time is %s.", now.UTC().Format(wire.TimeFormat))
	case len(nonce) > maxNonce:
		return policy.Principal{}, fault.New(fault.BadSignature, "The signature nonce has more than %d characters.", maxNonce)
	}
	p := key.Principal
	p.AccessKeyID = key.ID
	return p, a.nonces.Use(key.ID, nonce, at, now)
}

// parseTime reads the one layout that requests may use. time.Parse alone would take fractions too.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(wire.TimeFormat, s)
	if err != nil || len(s) != len(wire.TimeFormat) {
		return t, fault.New(fault.NoTimestamp, `The input parameter "Timestamp" that is mandatory for processing this request is not supplied. It has the form YYYY-MM-DDThh:mm:ssZ.`)
	}
	return t, nil
}

func clip(s string) string { return s[:min(len(s), 64)] }
