package rpc_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// noted is a gate that notes what reaches it.
type noted struct {
	calls []protocol.Request
	last  error
}

func (g *noted) Call(_ context.Context, _ *operation.Op, r protocol.Request) (any, error) {
	g.calls = append(g.calls, r)
	return &kms.DescribeRegionsResponse{}, nil
}

func (g *noted) Refuse(_ context.Context, _ protocol.Request, _ string, err error) error {
	g.last = err
	return err
}

func noteDoor(change func(*auth.Config)) (*rpc.Door, *noted) {
	c := auth.Config{
		Keys:     goldenKeys(),
		Now:      time.Now,
		Service:  protocol.Service,
		Harmless: protocol.Harmless,
		Regions:  []string{"local"},
	}
	if change != nil {
		change(&c)
	}
	g := &noted{}
	return &rpc.Door{Gate: g, Auth: auth.New(c), Log: slog.New(slog.DiscardHandler)}, g
}

var testKey = sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}

// v1Query is the query of a request that testid signed by version 1.
func v1Query(t *testing.T, method string, params ...string) string {
	t.Helper()
	p, err := testKey.SignV1(method, formatted(false, append(params, "Version", kms.Version)...), time.Now(), rand.Text())
	if err != nil {
		t.Fatal(err)
	}
	v := url.Values{}
	for _, q := range p {
		v.Set(q.Name, q.Value)
	}
	return v.Encode()
}

// TestUnsignedParametersDoNotArrive plays an attacker who got hold of a request that was signed by
// version 1, and adds parameters to it, under every Authorization that is none of versions 3 and 4.
func TestUnsignedParametersDoNotArrive(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	for _, authorization := range []string{
		"", "ACS", "ACS ", "ACS3", "ACS1-HMAC-SHA1 x", "acs3-HMAC-SHA256 x", "Bearer x", "ACS testid:x",
	} {
		for _, add := range [][2]string{
			{"application/json", `{"UserName":"boss"}`}, {"application/json; charset=utf-8", `{"UserName":"boss"}`},
			{"Application/JSON", `{"UserName":"boss"}`},
			{form, "UserName=boss"}, {"", "UserName=boss"}, {"text/plain", "UserName=boss"}, {"", `{"UserName":"boss"}`},
		} {
			for _, method := range []string{"GET", "POST"} {
				door, gate := noteDoor(nil)
				r := httptest.NewRequest(method, "http://127.0.0.1/?"+v1Query(t, method, "Action", "CreateAccessKey"),
					strings.NewReader(add[1]))
				r.Header.Set("Content-Type", add[0])
				if authorization != "" {
					r.Header.Set("Authorization", authorization)
				}
				w := httptest.NewRecorder()
				door.ServeHTTP(w, r)
				if w.Code == http.StatusOK || len(gate.calls) > 0 {
					t.Errorf("%s, Authorization %q, %s %q: %d, %v", method, authorization, add[0], add[1], w.Code, gate.calls)
				}
			}
		}
	}
}

// TestContentTypeOfABodyIsSigned plays an attacker who has a form read as JSON, or JSON as a form.
func TestContentTypeOfABodyIsSigned(t *testing.T) {
	t.Parallel()
	door, gate := noteDoor(nil)
	body := `{"SecretName":"a"}`
	digest := sha256.Sum256([]byte(body))
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
	if err := testKey.SignHTTP(r, sign.Call{
		Action:  "GetSecretValue",
		Version: kms.Version,
		Body:    []byte(body),
		Time:    time.Now(),
		Nonce:   rand.Text(),
	}); err != nil {
		t.Fatal(err)
	}
	if r.Header.Get("x-acs-content-sha256") != hex.EncodeToString(digest[:]) {
		t.Fatal("the body is not signed")
	}
	r.Header.Set("Content-Type", "application/json") // added on the way
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	if fault.KindOf(gate.last) != fault.BadSignature || len(gate.calls) > 0 {
		t.Errorf("%d %s: %v; want a refusal", w.Code, w.Body, gate.last)
	}
}

// TestNonceHasOneForm plays an attacker who sends a captured request again, with something around
// its nonce.
func TestNonceHasOneForm(t *testing.T) {
	t.Parallel()
	for _, scheme := range []sign.Scheme{sign.ACS3, sign.ACS4} {
		door, gate := noteDoor(nil)
		const nonce = "n-1"
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", nil)
		if err := testKey.SignHTTP(r, sign.Call{
			Scheme:  scheme,
			Region:  "local",
			Action:  "DescribeRegions",
			Version: kms.Version,
			Time:    time.Now(),
			Nonce:   nonce,
		}); err != nil {
			t.Fatal(err)
		}
		send := func(values ...string) int {
			again := r.Clone(t.Context())
			again.Header["X-Acs-Signature-Nonce"] = values
			w := httptest.NewRecorder()
			door.ServeHTTP(w, again)
			return w.Code
		}
		if code := send(nonce); code != http.StatusOK {
			t.Fatalf("%s: the request itself: %d", scheme, code)
		}
		for _, around := range []string{
			" ", "\t", "\u00a0", "\u3000", "\u2028", "\u0085", "\u2003", "\v", "\f", "\r", "\n", " \t ",
		} {
			for _, v := range [][]string{
				{nonce + around}, {around + nonce}, {nonce, around}, {nonce, nonce}, {nonce + around + around},
			} {
				if code := send(v...); code == http.StatusOK {
					t.Errorf("%s: accepted again with nonce %q", scheme, v)
				}
			}
		}
		if len(gate.calls) != 1 {
			t.Errorf("%s: %d calls, want 1", scheme, len(gate.calls))
		}
	}
}

// TestScopeIsEnforced plays an attacker who has a key that was derived for another region, service
// or day.
func TestScopeIsEnforced(t *testing.T) {
	t.Parallel()
	today := time.Now().UTC().Format("20060102")
	for _, tt := range []struct {
		scope sign.Scope
		ok    bool
	}{
		{sign.Scope{Date: today, Region: "local", Product: "Kms"}, true},
		{sign.Scope{Date: today, Region: "center", Product: "Kms"}, true},
		{sign.Scope{Date: today, Region: "us-east-1", Product: "Kms"}, false},
		{sign.Scope{Date: today, Region: "Local", Product: "Kms"}, false},
		{sign.Scope{Date: today, Region: "local", Product: "Ecs"}, false},
		{sign.Scope{Date: today, Region: "local", Product: "kms"}, false},
		{sign.Scope{Date: today, Region: "local", Product: "Sts"}, false},
		{sign.Scope{Date: "20200101", Region: "local", Product: "Kms"}, false},
	} {
		door, gate := noteDoor(nil)
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", nil)
		headers := map[string]string{
			"host":                  "127.0.0.1",
			"x-acs-action":          "DescribeRegions",
			"x-acs-version":         kms.Version,
			"x-acs-date":            time.Now().UTC().Format("2006-01-02T15:04:05Z"),
			"x-acs-signature-nonce": rand.Text(),
		}
		empty := sha256.Sum256(nil)
		headers["x-acs-content-sha256"] = hex.EncodeToString(empty[:])
		a := sign.Authorization{
			Scheme: sign.ACS4, AccessKeyID: "testid", Scope: tt.scope,
			SignedHeaders: []string{
				"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version",
			},
		}
		a.Signature = sign.Signature(testKey.AccessKeySecret, a, sign.Request{
			Method: "POST", Header: func(name string) string {
				return headers[name]
			}, BodySHA256: headers["x-acs-content-sha256"],
		})
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		r.Header.Set("Authorization",
			string(a.Scheme)+" Credential=testid/"+tt.scope.Date+"/"+tt.scope.Region+"/"+tt.scope.Product+
				"/aliyun_v4_request,SignedHeaders="+strings.Join(a.SignedHeaders, ";")+",Signature="+a.Signature)
		door.ServeHTTP(httptest.NewRecorder(), r)
		if accepted := len(gate.calls) == 1; accepted != tt.ok {
			t.Errorf("%v: accepted %t, %v; want %t", tt.scope, accepted, gate.last, tt.ok)
		}
	}
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, errors.New("read")
}

// TestStrangersHaveNoBodyRead verifies that the body of a request whose key is unknown, or whose
// signature of version 3 is wrong, is not read.
func TestStrangersHaveNoBodyRead(t *testing.T) {
	t.Parallel()
	door, _ := noteDoor(nil)
	signed := func(c sign.Credentials) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", unread{t})
		r.Header.Set("Content-Type", "application/json")
		if err := c.SignHTTP(r, sign.Call{
			Action:  "DescribeRegions",
			Version: kms.Version,
			Body:    []byte("{}"),
			Time:    time.Now(),
			Nonce:   rand.Text(),
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	stranger := sign.Credentials{AccessKeyID: "nobody", AccessKeySecret: sensitive.New("x")}
	forger := sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("x")}
	v1 := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/?AccessKeyId=nobody&Signature=x&Action=DescribeRegions",
		unread{t})
	v1.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	unsigned := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", unread{t})
	unsigned.Header.Set("Content-Type", "application/json")
	large := signed(testKey)
	large.ContentLength = auth.MaxBody + 1
	for name, r := range map[string]*http.Request{
		"an unknown key, version 3": signed(stranger),
		"a wrong signature":         signed(forger),
		"an unknown key, version 1": v1,
		"none":                      unsigned,
		"too long":                  large,
	} {
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		if w.Code < 400 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// TestWrongSignatureRepeatsNoSecret verifies, for every parameter of every operation that is a
// secret, a document or unknown, that the answer to a wrong signature does not repeat its value.
func TestWrongSignatureRepeatsNoSecret(t *testing.T) {
	t.Parallel()
	const marker = "marker7f3c9a"
	door, _ := noteDoor(nil)
	names := map[string]bool{"SecurityToken": true, "Password": true, "secretdata": true, "SecretData.1": true}
	harmless := ""
	for _, o := range protocol.Operations() {
		for _, p := range o.Params() {
			if p.Secret || p.Type == "json" {
				names[p.Name] = true
			}
		}
	}
	if !names["AccountPassword"] || !names["SecretData"] {
		t.Fatal("the parameters that hold secrets are not found")
	}
	answer := func(name string) string {
		query := "AccessKeyId=testid&Action=DescribeRegions&Version=2016-01-20&SignatureVersion=1.0&Signature=x&Timestamp=" +
			url.QueryEscape(time.Now().UTC().Format("2006-01-02T15:04:05Z")) + "&" + name + "=" + marker
		w := httptest.NewRecorder()
		door.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/?"+query, nil))
		if !strings.Contains(w.Body.String(), "SignatureDoesNotMatch") {
			t.Errorf("%s: %s", name, w.Body)
		}
		return w.Body.String()
	}
	for name := range names {
		if strings.Contains(answer(name), marker) {
			t.Errorf("the answer repeats %s", name)
		}
	}
	if harmless = answer("SecretName"); !strings.Contains(harmless, marker) ||
		!strings.Contains(harmless, "server string to sign is:GET&%2F&") {
		t.Errorf("a client that wants to see the string to sign gets %s", harmless)
	}
}

// TestV1CanBeSwitchedOff verifies that no request that is signed by version 1 gets in then, and
// that one of version 3 does.
func TestV1CanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	door, gate := noteDoor(func(c *auth.Config) { c.RefuseV1 = true })
	w := httptest.NewRecorder()
	door.ServeHTTP(w,
		httptest.NewRequest(http.MethodGet, "http://127.0.0.1/?"+v1Query(t, "GET", "Action", "DescribeRegions"), nil))
	if !strings.Contains(w.Body.String(), "IncompleteSignature") || !strings.Contains(w.Body.String(), "switched off") {
		t.Errorf("version 1: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", nil)
	if err := testKey.SignHTTP(r, sign.Call{
		Action:  "DescribeRegions",
		Version: kms.Version,
		Time:    time.Now(),
		Nonce:   rand.Text(),
	}); err != nil {
		t.Fatal(err)
	}
	door.ServeHTTP(httptest.NewRecorder(), r)
	if len(gate.calls) != 1 {
		t.Errorf("version 3: %v", gate.last)
	}
}
