// Package auth establishes the identity of a caller. It finds the access key, verifies the
// signature in constant time, refuses a stale time and a replayed nonce, and returns the principal
// with the parameters that the signature covers. It knows nothing of HTTP beyond headers by name.
//
// Operations get parameters only from here: a parameter that the signature does not cover is
// dropped. The bytes that are signed are the bytes that are interpreted.
package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

const (
	// Window is how far the time of a request may be in the past (protocol.md section 10).
	Window = 15 * time.Minute
	// DefaultAhead is how far the time of a request may be in the future unless Config says
	// otherwise.
	DefaultAhead = 2 * time.Minute
	// anyRegion is the region of a version 4 scope when a client has none, as official SDKs write
	// it.
	anyRegion = "center"
)

// Claim is what a request states about itself before anything is verified.
type Claim struct {
	AccessKeyID, Action, Version string
	// Format is the parameter Format, from the query or a form.
	Format string
}

// Result is what is known of a request. Without an error the claim is verified, and the other
// fields are set.
type Result struct {
	Claim

	Principal policy.Principal
	// Params are all parameters that the signature covers, and no others.
	Params sign.Params
}

// take fills the claim from the parameters of version 1.
func (c *Claim) take(p sign.Params) {
	c.AccessKeyID, c.Action = value(p, "AccessKeyId"), value(p, "Action")
	c.Version, c.Format = value(p, "Version"), value(p, "Format")
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

// Keys finds access keys. One that does not exist is found false; an error means that it could not
// be looked for.
type Keys interface {
	Find(ctx context.Context, id string) (key Key, found bool, err error)
}

// Config says how requests are verified.
type Config struct {
	// Keys finds access keys. Required.
	Keys Keys
	// Now is the clock. Required.
	Now func() time.Time
	// Nonces bounds how many nonces are remembered; 0 means DefaultNonces.
	Nonces int
	// Ahead is how far the time of a request may be in the future, at most Window; 0 means
	// DefaultAhead.
	Ahead time.Duration
	// RefuseV1 refuses signature version 1, whose usual algorithm is HMAC-SHA1.
	RefuseV1 bool
	// Regions are the regions that the scope of version 4 may name, beside "center"; nil means any.
	Regions []string
	// Service returns the service of an API version, which the scope of version 4 must name; ""
	// means that there is no such version. Required.
	Service func(version string) string
	// Harmless reports whether a parameter of that name never holds a secret, so that an error
	// message may repeat it. nil means that no parameter is harmless.
	Harmless func(name string) bool
	// History keeps used nonces over a restart; nil means that they are in memory alone.
	History *History
	// Start is when the process began: without a History, requests with times before that second
	// are refused, since they may have been accepted before. Zero means that none can have been.
	Start time.Time
	// Log is for the operator; nil means that nothing is logged.
	Log *slog.Logger
}

// Authenticator verifies requests. It is safe for concurrent use.
type Authenticator struct {
	config Config
	nonces *Nonces
}

// New returns an authenticator.
func New(c Config) *Authenticator {
	if c.Ahead <= 0 {
		c.Ahead = DefaultAhead
	}
	return &Authenticator{config: c, nonces: NewNonces(c.Nonces, c.History, c.Start, c.Log)}
}

// Nonces returns how many nonces are remembered.
func (a *Authenticator) Nonces() int { return a.nonces.Len() }

// Authenticate verifies a request. The error is a *fault.Error whose kind says what is wrong; what
// the request claims to be is returned in any case.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (Result, error) {
	query, err := parseQuery(nil, r.Query)
	if err == nil {
		err = unique(query)
	}
	if err != nil {
		return Result{}, err
	}
	authorization, err := r.single("authorization")
	if err != nil {
		return Result{}, err
	}
	claim := Claim{Format: value(query, "Format")}
	var v verified
	if strings.HasPrefix(authorization, "ACS3-") || strings.HasPrefix(authorization, "ACS4-") {
		v, err = a.header(ctx, &r, query, authorization, &claim)
	} else {
		v, err = a.parameters(ctx, &r, query, &claim)
	}
	if err != nil {
		return Result{Claim: claim}, err
	}
	return Result{Claim: claim, Principal: v.principal, Params: v.params}, nil
}

// verified is a caller and what the signature covers.
type verified struct {
	principal policy.Principal
	params    sign.Params
}

func value(p sign.Params, name string) string {
	s, _ := p.Get(name)
	return s
}

// parameters verifies version 1, where the signature is a parameter and covers the parameters of
// query and form. The body is read once the query has named a key that exists, or when the query
// cannot name one because all is in the form.
func (a *Authenticator) parameters(ctx context.Context, r *Request, query sign.Params, claim *Claim) (verified, error) {
	claim.take(query)
	if a.config.RefuseV1 {
		return verified{}, fault.New(fault.BadSignature,
			"Signature version 1 is switched off here; sign with version 3 or 4.")
	}
	var key Key
	var err error
	all, hasBody := query, r.Length != 0
	if hasBody {
		if err = r.checkFormBody(); err != nil {
			return verified{}, err
		}
	}
	named := claim.AccessKeyID != ""
	if named || !hasBody {
		if err = r.admit(*claim); err != nil {
			return verified{}, err
		}
	}
	if named && hasBody {
		if key, err = a.find(ctx, claim.AccessKeyID); err != nil {
			return verified{}, err
		}
	}
	if hasBody {
		if all, err = r.readForm(query); err != nil {
			return verified{}, err
		}
		claim.take(all)
	}
	at, err := checkV1(all, *claim)
	if err != nil {
		return verified{}, err
	}
	if !named && hasBody {
		if err = r.admit(*claim); err != nil {
			return verified{}, err
		}
	}
	if key.Secret == nil {
		if key, err = a.find(ctx, claim.AccessKeyID); err != nil {
			return verified{}, err
		}
	}
	ok, err := key.Secret.VerifyV1(r.Method, all)
	switch {
	case err != nil:
		return verified{}, fault.New(fault.BadSignature, "%s", err)
	case !ok:
		return verified{}, a.mismatch(r.Method, all)
	}
	nonce := value(all, "SignatureNonce")
	if nonce == "" {
		nonce = value(all, "Signature") // KMS documents a request without nonce as legal; it is then good for one use
	}
	v := verified{params: all}
	v.principal, err = a.accept(key, value(all, "SecurityToken"), at, nonce)
	return v, err
}

// checkV1 checks everything of version 1 that needs no key, and returns the time of the request.
func checkV1(all sign.Params, claim Claim) (time.Time, error) {
	switch {
	case value(all, "Signature") == "":
		return time.Time{}, fault.New(fault.BadSignature, "The request is not signed.")
	case claim.AccessKeyID == "":
		return time.Time{}, fault.New(fault.MissingKey, "AccessKeyId is mandatory for this action.")
	}
	at, err := parseTime(value(all, "Timestamp"))
	switch {
	case value(all, "SignatureType") != "":
		return at, fault.New(fault.BadSignature,
			"SignatureType %q is not supported.", clip(value(all, "SignatureType")))
	case value(all, "SignatureVersion") != "1.0":
		return at, fault.New(fault.BadSignature, "SignatureVersion must be 1.0.")
	}
	return at, err
}

// mismatch is the answer to a wrong signature of version 1. The legacy SDK compares what follows
// "is:" with its own string and reports a wrong secret to its user when they are equal. The string
// holds every parameter, so it is left out unless all of them are harmless.
func (a *Authenticator) mismatch(method string, all sign.Params) error {
	const message = "Specified signature is not matched with our calculation."
	for _, p := range all {
		if a.config.Harmless == nil || !a.config.Harmless(p.Name) {
			return fault.New(fault.WrongSignature, message)
		}
	}
	return fault.New(fault.WrongSignature, "%s", message+" server string to sign is:"+sign.StringToSignV1(method, all))
}

// requiredSigned are the headers that a signature of version 3 or 4 must cover.
var requiredSigned = []string{
	"host",
	"x-acs-action",
	"x-acs-version",
	"x-acs-date",
	"x-acs-signature-nonce",
	"x-acs-content-sha256",
}

// header verifies versions 3 and 4, where the signature is in the header Authorization. The
// signature covers the digest of the body, so it is verified before the body is read: strangers
// cannot have a body read.
func (a *Authenticator) header(
	ctx context.Context, r *Request, query sign.Params, authorization string, claim *Claim,
) (verified, error) {
	auth, err := sign.ParseAuthorization(authorization)
	if err != nil {
		return verified{}, fault.New(fault.BadSignature, "%s", err)
	}
	claim.AccessKeyID = auth.AccessKeyID
	if err := r.checkForm(auth.SignedHeaders); err != nil {
		return verified{}, err
	}
	claim.Action, claim.Version = r.get("x-acs-action"), r.get("x-acs-version")
	if err := r.admit(*claim); err != nil {
		return verified{}, err
	}
	at, err := a.checkHeaders(r, auth)
	if err != nil {
		return verified{}, err
	}
	key, err := a.find(ctx, auth.AccessKeyID)
	if err != nil {
		return verified{}, err
	}
	digest := r.get("x-acs-content-sha256")
	signed := sign.Request{
		Method:     r.Method,
		Path:       "/",
		Query:      query,
		Header:     r.get,
		BodySHA256: digest,
	}
	if !key.Secret.Verify(auth, signed) {
		return verified{}, fault.New(fault.WrongSignature, "Specified signature does not match our calculation.")
	}
	var body []byte
	if r.Length != 0 {
		if body, err = r.Body(); err != nil {
			return verified{}, err
		}
	}
	switch {
	case digest != bodyDigest(body):
		return verified{}, fault.New(fault.WrongSignature, "x-acs-content-sha256 is not the digest of the body.")
	case len(body) > 0 && !slices.Contains(auth.SignedHeaders, "content-type"):
		return verified{}, fault.New(fault.BadSignature, "The header content-type must be signed when there is a body.")
	}
	var v verified
	if v.principal, err = a.accept(key, r.get("x-acs-security-token"), at, r.get("x-acs-signature-nonce")); err != nil {
		return verified{}, err
	}
	v.params, err = parseBody(query, r.get("content-type"), body)
	return v, err
}

// emptySHA256 is the digest of no body, which most requests have.
const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func bodyDigest(body []byte) string {
	if len(body) == 0 {
		return emptySHA256
	}
	digest := sha256.Sum256(body)
	return hex.EncodeToString(digest[:])
}

// checkHeaders checks everything of versions 3 and 4 that needs no key, and returns the time of the
// request.
func (a *Authenticator) checkHeaders(r *Request, auth sign.Authorization) (time.Time, error) {
	// There are few signed headers, so a search is faster than a map.
	signed := func(name string) bool { return slices.Contains(auth.SignedHeaders, name) }
	for _, name := range requiredSigned {
		if !signed(name) || r.get(name) == "" {
			return time.Time{}, fault.New(fault.BadSignature, "The header %s must be sent and signed.", name)
		}
	}
	switch id := r.get("x-acs-accesskey-id"); {
	case r.get("x-acs-security-token") != "" && !signed("x-acs-security-token"):
		return time.Time{}, fault.New(fault.BadSignature, "The header x-acs-security-token must be signed.")
	case id != "" && id != auth.AccessKeyID:
		return time.Time{}, fault.New(fault.BadSignature, "x-acs-accesskey-id differs from Credential.")
	}
	at, err := parseTime(r.get("x-acs-date"))
	if err == nil && auth.Scheme == sign.ACS4 {
		err = a.checkScope(auth.Scope, at, r.get("x-acs-version"))
	}
	return at, err
}

// checkScope verifies that a key that was derived for a day, a region and a service is used there.
func (a *Authenticator) checkScope(scope sign.Scope, at time.Time, version string) error {
	service := a.config.Service(version)
	switch {
	case scope.Date != at.Format("20060102"):
		return fault.New(fault.BadSignature, "The date of Credential differs from x-acs-date.")
	case service != "" && scope.Product != service:
		return fault.New(fault.BadSignature,
			"The product in Credential must be %s, the service that x-acs-version names.", service)
	case a.config.Regions != nil && scope.Region != anyRegion && !slices.Contains(a.config.Regions, scope.Region):
		return fault.New(fault.BadSignature,
			"The region in Credential must be %s or %s.", strings.Join(a.config.Regions, ", "), anyRegion)
	}
	return nil
}

func (a *Authenticator) find(ctx context.Context, id string) (Key, error) {
	key, found, err := a.config.Keys.Find(ctx, id)
	if err == nil && !found {
		err = fault.New(fault.UnknownKey, "Specified access key is not found.")
	}
	return key, err
}

// accept checks what is left once the signature has verified: the state of the key, its token, time
// and nonce. The nonce comes last, so that only the caller can use it up.
func (a *Authenticator) accept(key Key, token string, at time.Time, nonce string) (policy.Principal, error) {
	now := a.config.Now()
	temporary := !key.Token.IsZero()
	switch {
	case key.Disabled:
		return policy.Principal{}, fault.New(fault.DisabledKey, "This AccessKey is not enabled.")
	case temporary && token == "":
		return policy.Principal{}, fault.New(fault.MissingToken, "SecurityToken is mandatory for this action.")
	case temporary && !key.Token.Equal(sensitive.New(token)), !temporary && token != "":
		return policy.Principal{}, fault.New(fault.WrongToken,
			"The specified SecurityToken does not match the AccessKeyId.")
	case !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt):
		return policy.Principal{}, fault.New(fault.ExpiredToken, "The specified SecurityToken is expired.")
	case at.Before(now.Add(-Window)) || at.After(now.Add(a.config.Ahead)):
		return policy.Principal{}, fault.New(fault.Expired,
			"Specified time stamp or date value is expired. The server's time is %s.",
			now.UTC().Format(wire.TimeFormat))
	}
	if err := checkNonce(nonce); err != nil {
		return policy.Principal{}, err
	}
	p := key.Principal
	p.AccessKeyID = key.ID
	return p, a.nonces.Use(key.ID, nonce, at, now)
}

// parseTime reads the one layout that requests may use. time.Parse alone would take fractions too.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(wire.TimeFormat, s)
	if err != nil || len(s) != len(wire.TimeFormat) {
		return t, fault.New(fault.NoTimestamp, `The input parameter "Timestamp" that is mandatory for processing `+
			`this request is not supplied. It has the form YYYY-MM-DDThh:mm:ssZ.`)
	}
	return t, nil
}

func clip(s string) string { return s[:min(len(s), 64)] }
