package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// Scheme is the first word of an Authorization header.
type Scheme string

// The schemes with a shared secret. SDKs also have variants with SM3 and RSA, which are not
// supported.
const (
	ACS3 Scheme = "ACS3-HMAC-SHA256"
	ACS4 Scheme = "ACS4-HMAC-SHA256"
)

const (
	scopeEnd    = "aliyun_v4_request"
	keyPrefixV4 = "aliyun_v4"
)

// Request is the part of a request that versions 3 and 4 sign.
type Request struct {
	Method string
	Path   string // canonical URI; empty means "/", as in every RPC call
	Query  Params // of the URL alone: a body is signed through its digest

	// Header returns the value of a header by its lower-case name, or "" if there is none. It must
	// know "host" too. Spaces and tabs around a value are not signed; every other byte is.
	Header func(lowerName string) string

	// BodySHA256 is the lower-case hex digest of the raw body. A server must compute it from the
	// body that it read, and not copy it from the request.
	BodySHA256 string
}

// CanonicalRequest returns the text that scheme s hashes. The client chooses the signed headers and
// their order, so signedHeaders is used as given.
func CanonicalRequest(s Scheme, r Request, signedHeaders []string) string {
	return string(appendRequest(nil, s, r, signedHeaders))
}

// Signature returns the lower-case hex signature of r under a, and ignores a.Signature. The key of
// version 3 is the secret alone, without the "&" of version 1.
func Signature(secret sensitive.Value, a Authorization, r Request) string {
	sum := signature(secret, a, r)
	return string(sum[:])
}

// Verify reports in constant time whether a.Signature is the signature of r with secret. For ACS4
// the dates in the scope and in x-acs-date must be equal. The caller must check that enough headers
// are signed.
func Verify(secret sensitive.Value, a Authorization, r Request) bool {
	if a.Scheme != ACS3 && a.Scheme != ACS4 {
		return false
	}
	if a.Scheme == ACS4 && !sameDay(a.Scope.Date, r.Header("x-acs-date")) {
		return false
	}
	want := signature(secret, a, r)
	return subtle.ConstantTimeCompare(want[:], []byte(a.Signature)) == 1
}

// sameDay reports whether date (yyyymmdd) is the day of stamp (yyyy-mm-ddThh:mm:ssZ).
func sameDay(date, stamp string) bool {
	return len(date) == 8 && len(stamp) > 10 && stamp[4] == '-' && stamp[7] == '-' &&
		date[:4] == stamp[:4] && date[4:6] == stamp[5:7] && date[6:] == stamp[8:10]
}

func signature(secret sensitive.Value, a Authorization, r Request) (out [2 * sha256.Size]byte) {
	var scratch [2048]byte // most requests fit, so no buffer is allocated
	digest := sha256.Sum256(appendRequest(scratch[:0], a.Scheme, r, a.SignedHeaders))

	text := appendTextACS(make([]byte, 0, len(ACS3)+1+2*sha256.Size), a.Scheme, digest)
	var sum [sha256.Size]byte
	hex.Encode(out[:], appendMAC(sum[:0], signingKey(secret, a), text))
	return out
}

// appendTextACS appends what is signed in the end: the scheme and the digest of the canonical
// request.
func appendTextACS(dst []byte, s Scheme, digest [sha256.Size]byte) []byte {
	dst = append(append(dst, s...), '\n')
	return hex.AppendEncode(dst, digest[:])
}

func signingKey(secret sensitive.Value, a Authorization) []byte {
	if a.Scheme != ACS4 {
		return []byte(secret.Reveal())
	}
	key := []byte(keyPrefixV4 + secret.Reveal())
	for _, part := range [...]string{a.Scope.Date, a.Scope.Region, a.Scope.Product, scopeEnd} {
		key = appendMAC(nil, key, []byte(part))
	}
	return key
}

func appendMAC(dst, key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(dst)
}

func appendRequest(dst []byte, s Scheme, r Request, signedHeaders []string) []byte {
	dst = append(dst, strings.ToUpper(r.Method)...)
	dst = append(dst, '\n')
	if r.Path == "" {
		dst = append(dst, '/')
	}
	dst = append(dst, r.Path...)
	dst = append(dst, '\n')
	dst = appendQuery(dst, r.Query, s)
	dst = append(dst, '\n')
	for _, name := range signedHeaders {
		dst = append(dst, name...)
		dst = append(dst, ':')
		dst = append(dst, TrimHeader(r.Header(name))...)
		dst = append(dst, '\n')
	}
	dst = append(dst, '\n')
	dst = appendJoined(dst, signedHeaders)
	dst = append(dst, '\n')
	return append(dst, r.BodySHA256...)
}

// TrimHeader returns the value of a header as it is signed: without the spaces and tabs around it.
// A server that uses a signed header must use this form, or one signature covers two meanings.
func TrimHeader(value string) string { return strings.Trim(value, " \t") }

func appendJoined(dst []byte, names []string) []byte {
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ';')
		}
		dst = append(dst, name...)
	}
	return dst
}
