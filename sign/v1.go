package sign

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/sensitive"
)

// Algorithms of version 1, as the parameter SignatureMethod spells them.
const (
	HMACSHA1   = "HMAC-SHA1"
	HMACSHA256 = "HMAC-SHA256"
)

var (
	errAlgorithm   = errors.New("sign: SignatureMethod is neither HMAC-SHA1 nor HMAC-SHA256")
	errSHA1        = errors.New("sign: HMAC-SHA1 is not possible under GODEBUG=fips140=only")
	errNoSignature = errors.New("sign: the parameter Signature is missing or empty")
)

// StringToSignV1 returns the text that version 1 signs: the method, "/" for any path, and the
// canonical query of every parameter but Signature, percent-encoded a second time.
func StringToSignV1(method string, p Params) string {
	return string(appendStringToSignV1(nil, method, p))
}

// SignatureV1 returns the Base64 signature of stringToSign. An empty algorithm means HMAC-SHA1.
func SignatureV1(secret sensitive.Value, algorithm, stringToSign string) (string, error) {
	sum, err := macV1(secret, algorithm, []byte(stringToSign))
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum), nil
}

// VerifyV1 reports whether the parameter Signature is the signature of the other parameters with
// secret. It also returns the string to sign of the server, which helps a client after a mismatch.
// Only the canonical Base64 encoding of a signature matches, so a caller that remembers signatures
// to detect replays can compare them as strings. It returns an error if the request names an
// unknown algorithm or has no signature.
func VerifyV1(secret sensitive.Value, method string, p Params) (stringToSign string, ok bool, err error) {
	if ok, err = NewKey(secret).VerifyV1(method, p); err != nil {
		return "", false, err
	}
	return StringToSignV1(method, p), ok, nil
}

// equalBase64 reports in constant time whether s is the canonical encoding of want. It checks the
// length because the decoder skips line breaks, and decodes strictly because the decoder otherwise
// ignores the spare bits of the last digit.
func equalBase64(s string, want []byte) bool {
	var got [sha256.Size + 2]byte
	if len(s) != base64.StdEncoding.EncodedLen(len(want)) {
		return false
	}
	n, err := base64.StdEncoding.Strict().Decode(got[:], []byte(s))
	return err == nil && subtle.ConstantTimeCompare(got[:n], want) == 1
}

func macV1(secret sensitive.Value, algorithm string, text []byte) ([]byte, error) {
	var newHash func() hash.Hash
	switch algorithm {
	case "", HMACSHA1:
		if fips140.Enforced() {
			return nil, errSHA1 // the hash would panic
		}
		newHash = sha1.New
	case HMACSHA256:
		newHash = sha256.New
	default:
		return nil, errAlgorithm
	}
	mac := hmac.New(newHash, []byte(secret.Reveal()+"&"))
	mac.Write(text)
	return mac.Sum(nil), nil
}

// appendStringToSignV1 encodes twice in one pass, without building the canonical query.
func appendStringToSignV1(dst []byte, method string, p Params) []byte {
	dst = slices.Grow(dst, len(method)+8+querySize(p)+8*len(p))
	dst = append(dst, strings.ToUpper(method)...)
	dst = append(dst, "&%2F&"...)
	first := true
	for _, q := range sorted(p) {
		if q.Name == "Signature" {
			continue
		}
		if !first {
			dst = append(dst, "%26"...)
		}
		first = false
		dst = appendEncodedTwice(dst, q.Name)
		dst = append(dst, "%3D"...)
		dst = appendEncodedTwice(dst, q.Value)
	}
	return dst
}

func appendEncodedTwice(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', '2', '5', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}
