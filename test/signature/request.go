// Package signature holds signatures to their promise by mutation: whatever is changed in an
// accepted request, it is refused or means the same, and no request is accepted twice.
//
// A [Server] is the real HTTP server with the real door and authenticator before a gate that
// notes what reaches it. A seed is a signed request; a mutation changes it in one place or
// several. Each mutant is sent before and after the request that it was made of.
package signature

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	host     = "kms.test:7443"
	region   = "local"
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json; charset=utf-8"
)

// credentials are the only access key.
var credentials = sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}

// field is one header line.
type field struct{ name, value string }

// message is a request as it is sent.
type message struct {
	method, target string
	headers        []field // host is among them
	body           string
	http2          bool
}

func (m message) clone() message {
	m.headers = slices.Clone(m.headers)
	return m
}

// http1 is the message in the bytes of HTTP/1.1.
func (m message) http1() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", m.method, m.target)
	for _, h := range m.headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.name, h.value)
	}
	if m.body != "" || m.method == "POST" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(m.body))
	}
	return []byte(b.String() + "\r\n" + m.body)
}

// seed makes signed requests that differ in their nonce alone.
type seed struct {
	name  string
	build func(nonce string, now time.Time) message
}

// params are parameters of an operation: every kind of byte that is encoded in one way or another.
var params = map[string]string{
	"SecretName": "app/db-1", "VersionId": "v 1+%~*中", "Description": "", "VersionStages": `["ACSCurrent","a"]`,
}

// where says in which part of a request the parameters are.
type where int

const (
	inQuery where = iota
	inForm
	inJSON
	allInForm // version 1: the signature too
)

// seeds are requests of every version of the signature, with their parameters in every place,
// over both versions of HTTP.
func seeds() []seed {
	var list []seed
	add := func(name string, build func(nonce string, now time.Time) message) {
		for _, version := range []string{"HTTP/1", "HTTP/2"} {
			list = append(list, seed{name + ", " + version, func(nonce string, now time.Time) message {
				m := build(nonce, now)
				m.http2 = version == "HTTP/2"
				return m
			}})
		}
	}
	for _, method := range []string{"GET", "POST"} {
		add("v1 "+method+", query", func(nonce string, now time.Time) message { return v1(method, inQuery, nonce, now) })
		add("v1 "+method+", query, no nonce", func(nonce string, now time.Time) message {
			return v1WithoutNonce(method, nonce, now)
		})
		for _, s := range []sign.Scheme{sign.ACS3, sign.ACS4} {
			add(string(s)+" "+method+", query", func(nonce string, now time.Time) message {
				return acs(s, method, inQuery, nonce, now)
			})
		}
	}
	add("v1, form", func(nonce string, now time.Time) message { return v1("POST", inForm, nonce, now) })
	add("v1, all in the form", func(nonce string, now time.Time) message { return v1("POST", allInForm, nonce, now) })
	for _, s := range []sign.Scheme{sign.ACS3, sign.ACS4} {
		add(string(s)+", form", func(nonce string, now time.Time) message { return acs(s, "POST", inForm, nonce, now) })
		add(string(s)+", JSON", func(nonce string, now time.Time) message { return acs(s, "POST", inJSON, nonce, now) })
	}
	return list
}

func encode(p map[string]string) string {
	v := url.Values{}
	for name, value := range p {
		v.Set(name, value)
	}
	return v.Encode()
}

func list(p map[string]string) sign.Params {
	var l sign.Params
	for _, name := range slices.Sorted(maps.Keys(p)) {
		l = append(l, sign.Param{Name: name, Value: p[name]})
	}
	return l
}

func v1(method string, in where, nonce string, now time.Time) message {
	common := map[string]string{
		"Action": "PutSecretValue", "Version": kms.Version, "AccessKeyId": credentials.AccessKeyID,
		"SignatureMethod":  sign.HMACSHA1,
		"SignatureVersion": "1.0", "Timestamp": now.UTC().Format(wire.TimeFormat), "Format": "JSON", "SignatureType": "",
	}
	if nonce != "" {
		common["SignatureNonce"] = nonce
	}
	return signV1(method, in, common)
}

// v1WithoutNonce makes the request another one by its description, as there is no nonce.
func v1WithoutNonce(method, nonce string, now time.Time) message {
	common := map[string]string{
		"Action": "PutSecretValue", "Version": kms.Version, "AccessKeyId": credentials.AccessKeyID,
		"SignatureVersion": "1.0", "Timestamp": now.UTC().Format(wire.TimeFormat), "RegionId": nonce,
	}
	return signV1(method, inQuery, common)
}

func signV1(method string, in where, common map[string]string) message {
	all := maps.Clone(common)
	maps.Copy(all, params)
	signature, err := sign.SignatureV1(credentials.AccessKeySecret, common["SignatureMethod"],
		sign.StringToSignV1(method, list(all)))
	if err != nil {
		panic(err) // the algorithm is one that there is
	}
	common["Signature"] = signature
	m := message{method: method, headers: []field{{"Host", host}, {"Accept-Encoding", "identity"}}}
	switch in {
	case inQuery:
		maps.Copy(common, params)
		m.target = "/?" + encode(common)
	case inForm:
		m.target, m.body = "/?"+encode(common), encode(params)
	case allInForm:
		maps.Copy(common, params)
		m.target, m.body = "/", encode(common)
	}
	if m.body != "" {
		m.headers = append(m.headers, field{"Content-Type", formType})
	}
	return m
}

func acs(scheme sign.Scheme, method string, in where, nonce string, now time.Time) message {
	m := message{method: method, target: "/"}
	headers := map[string]string{
		"host": host, "x-acs-action": "PutSecretValue", "x-acs-version": kms.Version,
		"x-acs-date":            now.UTC().Format(wire.TimeFormat),
		"x-acs-signature-nonce": nonce, "x-acs-credentials-provider": "static_ak",
	}
	var query sign.Params
	switch in {
	case inQuery:
		query, m.target = list(params), "/?"+encode(params)
	case inForm:
		m.body, headers["content-type"] = encode(params), formType
	case inJSON:
		m.body, headers["content-type"] = jsonObject(params), jsonType
	}
	digest := sha256.Sum256([]byte(m.body))
	headers["x-acs-content-sha256"] = hex.EncodeToString(digest[:])
	a := sign.Authorization{
		Scheme:        scheme,
		AccessKeyID:   credentials.AccessKeyID,
		SignedHeaders: slices.Sorted(maps.Keys(headers)),
	}
	credential := a.AccessKeyID
	if scheme == sign.ACS4 {
		a.Scope = sign.Scope{Date: now.UTC().Format("20060102"), Region: region, Product: "Kms"}
		credential += "/" + a.Scope.Date + "/" + region + "/Kms/aliyun_v4_request"
	}
	a.Signature = sign.Signature(credentials.AccessKeySecret, a, sign.Request{
		Method:     method,
		Query:      query,
		BodySHA256: headers["x-acs-content-sha256"],
		Header:     func(name string) string { return headers[name] },
	})
	for _, name := range a.SignedHeaders {
		m.headers = append(m.headers, field{name, headers[name]})
	}
	m.headers = append(m.headers, field{"accept", "application/json"}, field{
		"authorization", string(scheme) + " Credential=" + credential + ",SignedHeaders=" +
			strings.Join(a.SignedHeaders, ";") + ",Signature=" + a.Signature,
	})
	return m
}

func jsonObject(p map[string]string) string {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(p)) {
		members = append(members, strconv.Quote(name)+":"+strconv.Quote(p[name]))
	}
	return "{" + strings.Join(members, ",") + "}"
}
