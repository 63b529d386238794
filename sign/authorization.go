package sign

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
)

// Bounds of an Authorization header: five times what official clients send.
const (
	maxAuthorization = 8 << 10
	maxSignedHeaders = 64
	maxName          = 128
)

var (
	errTooLong       = errors.New("sign: Authorization is too long")
	errScheme        = errors.New("sign: the scheme of Authorization is neither ACS3-HMAC-SHA256 nor ACS4-HMAC-SHA256")
	errFields        = errors.New("sign: Authorization must hold Credential, SignedHeaders and Signature, in this order")
	errCredential    = errors.New("sign: Credential of Authorization is malformed")
	errScope         = errors.New("sign: the scope in Credential is malformed")
	errSignedHeaders = errors.New("sign: SignedHeaders of Authorization is malformed")
	errSignature     = errors.New("sign: Signature of Authorization is not 64 lower-case hex digits")
)

// Scope binds a version 4 signature to a day, a region and a product.
type Scope struct{ Date, Region, Product string }

// Authorization is a decoded Authorization header. Scope is empty under ACS3.
type Authorization struct {
	Scheme        Scheme
	AccessKeyID   string
	Scope         Scope
	SignedHeaders []string
	Signature     string
}

// ParseAuthorization decodes an Authorization header:
//
//	ACS3-HMAC-SHA256 Credential=<id>,SignedHeaders=<a;b;c>,Signature=<hex>
//	ACS4-HMAC-SHA256 Credential=<id>/<yyyymmdd>/<region>/<product>/aliyun_v4_request,…
//
// The three members must have this order, as every SDK writes them; spaces may follow a comma. Any
// other form is refused, so that an Authorization has one spelling. Errors never quote the header.
func ParseAuthorization(header string) (Authorization, error) {
	if len(header) > maxAuthorization {
		return Authorization{}, errTooLong
	}
	scheme, rest, _ := strings.Cut(header, " ")
	a := Authorization{Scheme: Scheme(scheme)}
	if a.Scheme != ACS3 && a.Scheme != ACS4 {
		return Authorization{}, errScheme
	}
	credential, rest, ok1 := member(rest, "Credential=")
	headers, rest, ok2 := member(rest, "SignedHeaders=")
	signature, rest, ok3 := member(rest, "Signature=")
	if !ok1 || !ok2 || !ok3 || rest != "" {
		return Authorization{}, errFields
	}
	if err := a.setCredential(credential); err != nil {
		return Authorization{}, err
	}
	if err := a.setSignedHeaders(headers); err != nil {
		return Authorization{}, err
	}
	if len(signature) != 2*sha256.Size || !only(signature, lowerHexDigit) {
		return Authorization{}, errSignature
	}
	a.Signature = signature
	return a, nil
}

// member returns the value of key at the start of s, up to a comma, and the rest after the comma
// and spaces. Only Signature, the last member, must have no comma.
func member(s, key string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, key)
	value, rest, comma := strings.Cut(s, ",")
	return value, strings.TrimLeft(rest, " "), ok && comma != (key == "Signature=")
}

func (a *Authorization) setCredential(s string) error {
	id, scope, _ := strings.Cut(s, "/")
	if !named(id, keyIDByte) {
		return errCredential
	}
	a.AccessKeyID = id
	if a.Scheme == ACS3 {
		if len(s) != len(id) {
			return errCredential
		}
		return nil
	}
	scope, ok := strings.CutSuffix(scope, "/"+scopeEnd)
	date, scope, _ := strings.Cut(scope, "/")
	region, product, _ := strings.Cut(scope, "/")
	if !ok || len(date) != 8 || !only(date, digit) || !named(region, keyIDByte) || !named(product, keyIDByte) {
		return errScope
	}
	a.Scope = Scope{Date: date, Region: region, Product: product}
	return nil
}

func (a *Authorization) setSignedHeaders(s string) error {
	if strings.Count(s, ";") >= maxSignedHeaders {
		return errSignedHeaders
	}
	names := strings.Split(s, ";")
	for i, name := range names {
		if !named(name, headerByte) || slices.Contains(names[:i], name) {
			return errSignedHeaders
		}
	}
	a.SignedHeaders = names
	return nil
}

// header is the inverse of [ParseAuthorization]. It is not called String, so that fmt does not
// print a signature by accident.
func (a Authorization) header() string {
	b := append([]byte(nil), a.Scheme...)
	b = append(b, " Credential="...)
	b = append(b, a.AccessKeyID...)
	if a.Scheme == ACS4 {
		b = append(b, "/"+a.Scope.Date+"/"+a.Scope.Region+"/"+a.Scope.Product+"/"+scopeEnd...)
	}
	b = append(b, ",SignedHeaders="...)
	b = appendJoined(b, a.SignedHeaders)
	b = append(b, ",Signature="...)
	return string(append(b, a.Signature...))
}

func named(s string, allowed func(byte) bool) bool {
	return s != "" && len(s) <= maxName && only(s, allowed)
}

func only(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func digit(c byte) bool         { return '0' <= c && c <= '9' }
func lowerHexDigit(c byte) bool { return digit(c) || 'a' <= c && c <= 'f' }
func headerByte(c byte) bool    { return unreserved(c) && (c < 'A' || c > 'Z') && c != '~' }
func keyIDByte(c byte) bool     { return unreserved(c) && c != '~' }
