package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

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
// signature covers the digest of the body, so it is verified before the body is read: a caller
// without a key cannot have a body read.
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
	if !key.Secret.Verify(auth, r.signedRequest(query, digest)) {
		return verified{}, fault.New(fault.WrongSignature, "Specified signature does not match our calculation.")
	}
	body, err := signedBody(r, auth, digest)
	if err != nil {
		return verified{}, err
	}
	var v verified
	if v.principal, err = a.accept(key, r.get("x-acs-security-token"), at, r.get("x-acs-signature-nonce")); err != nil {
		return verified{}, err
	}
	v.params, err = parseBody(query, r.get("content-type"), body)
	return v, err
}

// signedRequest returns the request that a signature in the header covers. digest is the digest of
// its body.
func (r *Request) signedRequest(query sign.Params, digest string) sign.Request {
	return sign.Request{
		Method:     r.Method,
		Path:       "/",
		Query:      query,
		Header:     r.get,
		BodySHA256: digest,
	}
}

// signedBody reads the body and verifies that the signature covers it. digest is the one that was
// signed.
func signedBody(r *Request, auth sign.Authorization, digest string) (body []byte, err error) {
	if r.Length != 0 {
		if body, err = r.Body(); err != nil {
			return nil, err
		}
	}
	switch {
	case digest != bodyDigest(body):
		return nil, fault.New(fault.WrongSignature, "x-acs-content-sha256 is not the digest of the body.")
	case len(body) > 0 && !slices.Contains(auth.SignedHeaders, "content-type"):
		return nil, fault.New(fault.BadSignature, "The header content-type must be signed when there is a body.")
	}
	return body, nil
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
