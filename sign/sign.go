// Package sign computes and checks the request signatures of the Alibaba Cloud RPC protocol:
// version 1 (HMAC-SHA1 over all parameters), version 3 (ACS3-HMAC-SHA256, headers) and version 4
// (ACS4-HMAC-SHA256, a derived key).
//
// Clients and servers use it. It works on decoded parameters, because clients write the same
// parameter in several ways (a space as "+" or "%20") and only the decoded form is signed. The
// caller must find the access key, and check the age of a request, its nonce, and whether enough
// headers are signed. Canonical strings contain parameter values: never log one. Errors quote
// nothing of a request.
package sign

import (
	"slices"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// Param is one decoded request parameter.
type Param struct{ Name, Value string }

// Params are the parameters of a request, in any order. A server refuses a request that names one
// twice before it checks the signature; here duplicates are ordered by value.
type Params []Param

// Get returns the value of the first parameter called name.
func (p Params) Get(name string) (string, bool) {
	for i := range p {
		if p[i].Name == name {
			return p[i].Value, true
		}
	}
	return "", false
}

// PercentEncode keeps the unreserved bytes A-Z a-z 0-9 - _ . ~ and encodes every other byte as %XX.
// Unlike [net/url.QueryEscape], it encodes a space as %20.
func PercentEncode(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f || !unreserved(byte(r)) }) {
		return s
	}
	return string(appendEncoded(make([]byte, 0, len(s)+32), s))
}

// CanonicalQuery returns the parameters as name=value joined by "&", percent-encoded and sorted by
// name in byte order. It does not change p. Version 4 writes an empty value without "=";
// [CanonicalRequest] does so.
func CanonicalQuery(p Params) string {
	return string(appendQuery(make([]byte, 0, querySize(p)), p, ACS3))
}

func appendQuery(dst []byte, p Params, s Scheme) []byte {
	for i, q := range sorted(p) {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = appendEncoded(dst, q.Name)
		if q.Value == "" && s == ACS4 {
			continue
		}
		dst = append(dst, '=')
		dst = appendEncoded(dst, q.Value)
	}
	return dst
}

// sorted returns p itself when it is in order, as official clients send it, and an ordered copy
// otherwise.
func sorted(p Params) Params {
	if slices.IsSortedFunc(p, compareParams) {
		return p
	}
	p = slices.Clone(p)
	slices.SortFunc(p, compareParams)
	return p
}

func compareParams(a, b Param) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Value, b.Value)
}

// querySize guesses the encoded size, so that most strings are built in one allocation.
func querySize(p Params) int {
	n := 0
	for i := range p {
		n += len(p[i].Name) + len(p[i].Value)*3/2 + 8
	}
	return n
}

func appendEncoded(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; unreserved(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

func unreserved(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '_' || c == '.' || c == '~'
}
