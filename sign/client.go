package sign

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

// timeFormat is the only spelling of a time in the protocol.
const timeFormat = "2006-01-02T15:04:05Z"

var setBySigning = [...]string{
	"AccessKeyId", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp", "SecurityToken", "Signature",
}

var (
	errNoCredentials = errors.New("sign: access key ID or secret is missing")
	errKeyID         = errors.New("sign: access key ID is malformed")
	errRegion        = errors.New("sign: ACS4 needs a region of letters, digits, '-', '_' and '.'")
	errNoHost        = errors.New("sign: the request has no host")
	errNoNonce       = errors.New("sign: nonce is missing")
	errQuery         = errors.New("sign: the query of the request is malformed")
)

// Credentials are an access key. SecurityToken belongs to a temporary one and is empty otherwise.
type Credentials struct {
	AccessKeyID     string
	AccessKeySecret sensitive.Value
	SecurityToken   sensitive.Value
}

// SignV1 returns p with the parameters of a version 1 signature added: AccessKeyId,
// SignatureMethod, SignatureVersion, SignatureNonce, Timestamp, SecurityToken for a temporary key,
// and Signature. The caller gives Action, Version and Format, and a nonce that was never used; KMS
// allows none, and an empty one is left out. A retry is signed afresh. p stays as it is.
func (c Credentials) SignV1(method string, p Params, now time.Time, nonce string) (Params, error) {
	if c.AccessKeyID == "" || c.AccessKeySecret.IsZero() {
		return nil, errNoCredentials
	}
	added := Params{
		{"AccessKeyId", c.AccessKeyID},
		{"SignatureMethod", HMACSHA1},
		{"SignatureVersion", "1.0"},
		{"Timestamp", now.UTC().Format(timeFormat)},
	}
	if nonce != "" {
		added = append(added, Param{"SignatureNonce", nonce})
	}
	if !c.SecurityToken.IsZero() {
		added = append(added, Param{"SecurityToken", c.SecurityToken.Reveal()})
	}
	for _, name := range setBySigning {
		if _, ok := p.Get(name); ok {
			return nil, fmt.Errorf("sign: parameter %s is set by signing", name)
		}
	}
	all := slices.Concat(p, added)
	signature, err := SignatureV1(c.AccessKeySecret, HMACSHA1, StringToSignV1(method, all))
	if err != nil {
		return nil, err
	}
	return append(all, Param{"Signature", signature}), nil
}

// Call describes one request for [Credentials.SignHTTP].
type Call struct {
	// Scheme is ACS3 or ACS4. Empty means ACS3.
	Scheme Scheme
	// Region is part of the signature under ACS4, and required there. ACS3 ignores it.
	Region string
	// Action is the operation, such as GetSecretValue, and Version the version of its API.
	Action, Version string
	// Body is what the request will send. nil means an empty body.
	Body []byte
	// Time is the time of the signature. A server accepts it for some minutes.
	Time time.Time
	// Nonce must never have been used with this access key before. Required.
	Nonce string
}

// SignHTTP sets the x-acs-* headers and Authorization of r. It signs host, content-type if present,
// and every x-acs-* header that r has, so set those first. It leaves r.Body alone. Sign a retry
// again, with a new nonce.
func (c Credentials) SignHTTP(r *http.Request, call Call) error {
	a := Authorization{Scheme: cmp.Or(call.Scheme, ACS3), AccessKeyID: c.AccessKeyID}
	stamp := call.Time.UTC().Format(timeFormat)
	if a.Scheme == ACS4 {
		date := strings.ReplaceAll(stamp[:len("2006-01-02")], "-", "")
		a.Scope = Scope{Date: date, Region: call.Region, Product: "Kms"}
	}
	if err := c.check(a, call.Nonce); err != nil {
		return err
	}
	req, err := requestOf(r, call.Body)
	if err != nil {
		return err
	}
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("x-acs-action", call.Action)
	r.Header.Set("x-acs-version", call.Version)
	r.Header.Set("x-acs-date", stamp)
	r.Header.Set("x-acs-signature-nonce", call.Nonce)
	r.Header.Set("x-acs-content-sha256", req.BodySHA256)
	if !c.SecurityToken.IsZero() {
		r.Header.Set("x-acs-accesskey-id", c.AccessKeyID)
		r.Header.Set("x-acs-security-token", c.SecurityToken.Reveal())
	}
	a.SignedHeaders = headersToSign(r.Header)
	a.Signature = Signature(c.AccessKeySecret, a, req)
	r.Header.Set("Authorization", a.header())
	return nil
}

// check refuses what ParseAuthorization at the other end would.
func (c Credentials) check(a Authorization, nonce string) error {
	switch {
	case a.Scheme != ACS3 && a.Scheme != ACS4:
		return errScheme
	case c.AccessKeyID == "" || c.AccessKeySecret.IsZero():
		return errNoCredentials
	case !named(c.AccessKeyID, keyIDByte):
		return errKeyID
	case a.Scheme == ACS4 && !named(a.Scope.Region, keyIDByte):
		return errRegion
	case nonce == "":
		return errNoNonce
	}
	return nil
}

// requestOf reads what is signed from r as the server will see it.
func requestOf(r *http.Request, body []byte) (Request, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	if host == "" {
		return Request{}, errNoHost
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Request{}, errQuery // err quotes the query, where values travel
	}
	var query Params
	for name, list := range values {
		for _, value := range list {
			query = append(query, Param{name, value})
		}
	}
	digest := sha256.Sum256(body)
	return Request{
		Method: cmp.Or(r.Method, http.MethodGet),
		Path:   r.URL.EscapedPath(),
		Query:  query,
		Header: func(name string) string {
			if name == "host" {
				return host
			}
			return r.Header.Get(name)
		},
		BodySHA256: hex.EncodeToString(digest[:]),
	}, nil
}

func headersToSign(h http.Header) []string {
	names := []string{"host"}
	for name := range h {
		name = strings.ToLower(name)
		if name == "content-type" || strings.HasPrefix(name, "x-acs-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
