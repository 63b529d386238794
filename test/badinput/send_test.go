// Package badinput_test sends a real server what no client should send, over plain TCP, byte for
// byte: each request has one right refusal, none is a fault of the server, and afterwards it
// serves as before.
package badinput_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	// marker is part of every value and signature key that the requests carry.
	marker   = "marker-7f3c9a"
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json; charset=utf-8"
)

// kit makes requests for one server.
type kit struct {
	s      *keyturntest.Server
	nonces *atomic.Int64
}

func (k kit) nonce() string { return fmt.Sprintf("nonce-%d", k.nonces.Add(1)) }

func stamp(ago time.Duration) string { return time.Now().UTC().Add(-ago).Format(wire.TimeFormat) }

// raw is a request with the Host header and nothing else.
func (k kit) raw(line string, headers ...string) string {
	return line + "\r\nHost: " + k.s.HTTPEndpoint + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

// post is a request with a body.
func (k kit) post(target, contentType, body string, headers ...string) string {
	headers = append(headers, fmt.Sprintf("Content-Length: %d", len(body)))
	if contentType != "" {
		headers = append(headers, "Content-Type: "+contentType)
	}
	return k.raw("POST "+target+" HTTP/1.1", headers...) + body
}

// v1 is a request with a signature of version 1. before changes its parameters before they are
// signed, after changes the query as it is sent.
func (k kit) v1(
	method, action string,
	params map[string]string,
	before func(map[string]string),
	after func(string) string,
) string {
	p := map[string]string{
		"Action": action, "Version": kms.Version, "AccessKeyId": k.s.Credentials.AccessKeyID, "SignatureMethod": "HMAC-SHA1",
		"SignatureVersion": "1.0", "Timestamp": stamp(0), "SignatureNonce": k.nonce(), "Format": "JSON",
	}
	maps.Copy(p, params)
	if before != nil {
		before(p)
	}
	query := k.signV1(method, p)
	if after != nil {
		query = after(query)
	}
	return k.raw(method + " /?" + query + " HTTP/1.1")
}

func (k kit) signV1(method string, p map[string]string) string {
	var list sign.Params
	values := url.Values{}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		list = append(list, sign.Param{Name: name, Value: p[name]})
		values.Set(name, p[name])
	}
	signature, err := sign.SignatureV1(k.s.Credentials.AccessKeySecret, sign.HMACSHA1, sign.StringToSignV1(method, list))
	if err != nil {
		panic(err)
	}
	values.Set("Signature", signature)
	return values.Encode()
}

// acs is a request with a signature of version 3 or 4, as it is put together.
type acs struct {
	scheme, id, scope    string
	secret               sensitive.Value
	method               string
	query                map[string]string
	header               map[string]string // lower case; all of them are signed
	unsigned             []string          // whole lines
	contentType, body    string
	signed               []string // instead of the headers' names
	authorization        string   // instead of the right one
	signature            func(string) string
	sentBody, sentTarget string // instead of what was signed
}

// v3 is a signed request; change changes it before it is signed.
func (k kit) v3(action string, params map[string]string, change func(*acs)) string {
	a := &acs{
		scheme: "ACS3-HMAC-SHA256",
		id:     k.s.Credentials.AccessKeyID,
		secret: k.s.Credentials.AccessKeySecret,
		method: "POST",
		query:  params,
		header: map[string]string{
			"host": k.s.HTTPEndpoint, "x-acs-action": action, "x-acs-version": kms.Version, "x-acs-date": stamp(0),
			"x-acs-signature-nonce": k.nonce(),
		},
	}
	if change != nil {
		change(a)
	}
	return a.text()
}

func (a *acs) text() string {
	digest := sha256.Sum256([]byte(a.body))
	if _, ok := a.header["x-acs-content-sha256"]; !ok {
		a.header["x-acs-content-sha256"] = hex.EncodeToString(digest[:])
	}
	if a.header["x-acs-content-sha256"] == "-" {
		delete(a.header, "x-acs-content-sha256")
	}
	if a.contentType != "" {
		a.header["content-type"] = a.contentType
	}
	var query sign.Params
	values := url.Values{}
	for _, name := range slices.Sorted(maps.Keys(a.query)) {
		query = append(query, sign.Param{Name: name, Value: a.query[name]})
		values.Set(name, a.query[name])
	}
	names := slices.Sorted(maps.Keys(a.header))
	if a.signed == nil {
		a.signed = names
	}
	auth := sign.Authorization{Scheme: sign.Scheme(a.scheme), AccessKeyID: a.id, SignedHeaders: a.signed}
	if parts := strings.Split(a.scope, "/"); len(parts) >= 3 {
		auth.Scope = sign.Scope{Date: parts[0], Region: parts[1], Product: parts[2]}
	}
	signature := sign.Signature(a.secret, auth, sign.Request{
		Method:     a.method,
		Query:      query,
		BodySHA256: hex.EncodeToString(digest[:]),
		Header:     func(n string) string { return a.header[n] },
	})
	if a.signature != nil {
		signature = a.signature(signature)
	}
	credential := a.id
	if a.scope != "" {
		credential += "/" + a.scope
	}
	line := fmt.Sprintf("Authorization: %s Credential=%s,SignedHeaders=%s,Signature=%s", a.scheme,
		credential, strings.Join(a.signed, ";"), signature)
	if a.authorization != "" {
		line = a.authorization
	}
	if a.sentTarget == "" {
		a.sentTarget = "/?" + values.Encode()
	}
	if a.sentBody == "" {
		a.sentBody = a.body
	}
	text := a.method + " " + a.sentTarget + " HTTP/1.1\r\n"
	for _, name := range names {
		text += name + ": " + a.header[name] + "\r\n"
	}
	for _, u := range a.unsigned {
		text += u + "\r\n"
	}
	return text + line + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n", len(a.sentBody)) + a.sentBody
}

// send writes a request and reads the answer: "STATUS CODE", "STATUS plain" for an answer of
// net/http itself, "STATUS" for one without a body, or "closed". The second value is all that was
// read. With hangUp, it sends no more afterwards and says so; the server takes that as a client
// that has gone.
func send(endpoint, request string, hangUp bool) (outcome, answer string) {
	conn, err := net.DialTimeout("tcp", endpoint, 10*time.Second)
	if err != nil {
		return "not connected: " + err.Error(), ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a TCP connection has deadlines
	go func() {
		_, _ = io.WriteString(conn, request) // a server that has refused reads no more
		if hangUp {
			_ = conn.(*net.TCPConn).CloseWrite() // it may be closed already
		}
	}()
	var seen strings.Builder
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &seen)), &http.Request{Method: method})
	if err != nil {
		if seen.Len() > 0 {
			return "broken: " + seen.String(), seen.String()
		}
		return "closed", ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "broken: " + err.Error(), seen.String()
	}
	status := fmt.Sprint(resp.StatusCode)
	var e struct{ Code, Message, RequestId string }
	switch {
	case method == "HEAD" || len(body) == 0:
		return status, seen.String()
	case resp.Header.Get("Content-Type") != "application/json;charset=utf-8" || json.Unmarshal(body, &e) != nil:
		return status + " plain", seen.String()
	case resp.StatusCode == http.StatusOK:
		return status + " OK", seen.String()
	case e.Code == "" || e.Message == "" || e.RequestId == "":
		return status + " incomplete: " + string(body), seen.String()
	}
	return status + " " + e.Code, seen.String()
}

func report(t *testing.T, name, request, want, got, answer string) {
	t.Helper()
	if len(request) > 600 {
		request = request[:600] + "…"
	}
	t.Errorf("%s: %s; want %s\nrequest %q\nanswer %.600q", name, got, want, request, answer)
}
