package sign

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/sensitive"
)

// signed lets the client side make the vector's request.
func (v vectorACS) signed(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "https://"+v.host+"/?"+v.query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v.contentType != "" {
		r.Header.Set("Content-Type", v.contentType)
	}
	if v.provider != "" {
		r.Header.Set("x-acs-credentials-provider", v.provider)
	}
	r.Header.Set("User-Agent", "not signed")
	c := Credentials{v.id, sensitive.New(testSecret), sensitive.New(v.token)}
	if err := c.SignHTTP(r, Call{
		Scheme:  v.scheme,
		Region:  v.region,
		Action:  v.action,
		Version: "2016-01-20",
		Body:    []byte(v.body),
		Time:    vectorTime,
		Nonce:   vectorNonce,
	}); err != nil {
		t.Fatal(err)
	}
	return r
}

// received is what a server passes to Verify.
func (v vectorACS) received(t testing.TB, r *http.Request) (Authorization, Request) {
	t.Helper()
	a, err := ParseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(v.body))
	return a, Request{
		Method: r.Method, Path: "/", Query: decode(t, r.URL.RawQuery), BodySHA256: hex.EncodeToString(digest[:]),
		Header: func(name string) string {
			if name == "host" {
				return r.Host
			}
			return r.Header.Get(name)
		},
	}
}

func TestVectorsACS(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	for _, v := range vectorsACS {
		t.Run(v.name, func(t *testing.T) {
			r := v.signed(t)
			if got := r.Header.Get("Authorization"); v.authorization != "" && got != v.authorization {
				t.Errorf("Authorization differs (-want +got):\n%s", cmp.Diff(v.authorization, got))
			}
			a, req := v.received(t, r)
			if a.Signature != v.signature || a.Scheme != v.scheme || a.AccessKeyID != v.id {
				t.Errorf("SignHTTP made %s %s, want %s", a.AccessKeyID, a.Signature, v.signature)
			}
			canonical := CanonicalRequest(a.Scheme, req, a.SignedHeaders)
			if v.canonical != "" && canonical != v.canonical {
				t.Errorf("CanonicalRequest differs (-want +got):\n%s", cmp.Diff(v.canonical, canonical))
			}
			if digest := sha256.Sum256([]byte(canonical)); v.digest != "" && hex.EncodeToString(digest[:]) != v.digest {
				t.Errorf("digest of the canonical request is %x, want %s", digest, v.digest)
			}
			if got := Signature(secret, a, req); got != v.signature {
				t.Errorf("Signature = %s, want %s", got, v.signature)
			}
			if !Verify(secret, a, req) {
				t.Error("Verify = false")
			}
		})
	}
}

func TestKeyV4(t *testing.T) {
	t.Parallel()
	a := Authorization{Scheme: ACS4, Scope: Scope{"20260102", "cn-hangzhou", "Kms"}}
	const want = "a300b761a7bee745543da72e686ed03e9abddb6313ff95a3bccb27b4cbccc0c4"
	if got := hex.EncodeToString(signingKey(sensitive.New(testSecret), a)); got != want {
		t.Errorf("key = %s, want %s", got, want)
	}
}

func TestVectorsACSChanged(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	for _, v := range vectorsACS {
		t.Run(v.name, func(t *testing.T) {
			a, req := v.received(t, v.signed(t))
			refused := func(what string, secret sensitive.Value, a Authorization, req Request) {
				t.Helper()
				if Verify(secret, a, req) {
					t.Errorf("verifies with changed %s", what)
				}
			}
			refused("secret", sensitive.New("testsecreT"), a, req)
			method, path, body := req, req, req
			method.Method, path.Path, body.BodySHA256 = "GET", "/x", strings.Repeat("0", 64)
			refused("method", secret, a, method)
			refused("path", secret, a, path)
			refused("body", secret, a, body)
			for i := range a.Signature {
				bad := a
				b := []byte(a.Signature)
				b[i] ^= 1
				bad.Signature = string(b)
				refused("signature", secret, bad, req)
			}
			for i := range req.Query {
				bad := req
				bad.Query = slices.Clone(req.Query)
				bad.Query[i].Value += "x"
				refused("value of "+bad.Query[i].Name, secret, a, bad)
			}
			for i, name := range a.SignedHeaders {
				bad := req
				bad.Header = func(n string) string {
					if n == name {
						return req.Header(n) + "x"
					}
					return req.Header(n)
				}
				refused("header "+name, secret, a, bad)
				list := a
				list.SignedHeaders = slices.Delete(slices.Clone(a.SignedHeaders), i, i+1)
				refused("list without "+name, secret, list, req)
			}
			for _, scheme := range []Scheme{ACS3, ACS4, "", "ACS3-HMAC-SM3"} {
				if bad := a; scheme != a.Scheme {
					bad.Scheme = scheme
					refused("scheme", secret, bad, req)
				}
			}
			short := a
			short.Signature = ""
			refused("signature, emptied,", secret, short, req)
		})
	}
}

// The date of the scope makes the key, so a client could sign today's request with a key made for
// another day.
func TestVerifyV4ScopeDate(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	v := vectorsACS[4]
	good, req := v.received(t, v.signed(t))
	for _, scope := range []Scope{{"20260103", "cn-hangzhou", "Kms"}, {"", "cn-hangzhou", "Kms"}} {
		a := good
		a.Scope = scope
		a.Signature = Signature(secret, a, req)
		if Verify(secret, a, req) {
			t.Errorf("a scope of day %q verifies", scope.Date)
		}
	}
	for _, scope := range []Scope{{"20260102", "cn-beijing", "Kms"}, {"20260102", "cn-hangzhou", "Sts"}} {
		a := good
		a.Scope = scope
		if Verify(secret, a, req) {
			t.Errorf("the signature of another scope verifies for %v", scope)
		}
	}
}

func TestCanonicalRequestEmptyValue(t *testing.T) {
	t.Parallel()
	r := Request{
		Method:     "post",
		Query:      Params{{"b", ""}, {"a", "1"}},
		Header:     func(string) string { return " v " },
		BodySHA256: "d",
	}
	for s, want := range map[Scheme]string{
		ACS3: "POST\n/\na=1&b=\nhost:v\n\nhost\nd",
		ACS4: "POST\n/\na=1&b\nhost:v\n\nhost\nd",
	} {
		if got := CanonicalRequest(s, r, []string{"host"}); got != want {
			t.Errorf("%s: CanonicalRequest = %q, want %q", s, got, want)
		}
	}
}

func TestSignHTTPErrors(t *testing.T) {
	t.Parallel()
	good := Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("s")}
	for _, tt := range []struct {
		want                       string
		c                          Credentials
		scheme                     Scheme
		region, url, nonce, action string
	}{
		{"", good, ACS3, "", "http://h/?a=b", "n", "A"},
		{"", good, "", "", "http://h/", "n", "A"},
		{"", good, ACS4, "center", "http://h/", "n", "A"},
		{"sign: access key ID or secret is missing", Credentials{}, ACS3, "", "http://h/", "n", "A"},
		{"sign: access key ID is malformed", Credentials{
			AccessKeyID:     "a,b",
			AccessKeySecret: good.AccessKeySecret,
		}, ACS3, "", "http://h/", "n", "A"},
		{
			"sign: the scheme of Authorization is neither ACS3-HMAC-SHA256 nor ACS4-HMAC-SHA256", good, "ACS5", "",
			"http://h/", "n", "A",
		},
		{"sign: ACS4 needs a region of letters, digits, '-', '_' and '.'", good, ACS4, "", "http://h/", "n", "A"},
		{"sign: ACS4 needs a region of letters, digits, '-', '_' and '.'", good, ACS4, "a/b", "http://h/", "n", "A"},
		{"sign: the request has no host", good, ACS3, "", "/", "n", "A"},
		{"sign: nonce is missing", good, ACS3, "", "http://h/", "", "A"},
		{"sign: the query of the request is malformed", good, ACS3, "", "http://h/?SecretData=%zz", "n", "A"},
	} {
		r, err := http.NewRequest("", tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = nil
		err = tt.c.SignHTTP(r, Call{
			Scheme:  tt.scheme,
			Region:  tt.region,
			Action:  tt.action,
			Version: "2016-01-20",
			Time:    vectorTime,
			Nonce:   tt.nonce,
		})
		if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("SignHTTP = %v, want %q", err, tt.want)
		}
		if err != nil && r.Header.Get("Authorization") != "" {
			t.Errorf("SignHTTP failed with %v and signed all the same", err)
		}
	}
}

func BenchmarkVerifyACS3(b *testing.B) {
	v := vectorsACS[0]
	a, req := v.received(b, v.signed(b))
	req.Query = sorted(req.Query)
	secret := sensitive.New(testSecret)
	b.ReportAllocs()
	for b.Loop() {
		if !Verify(secret, a, req) {
			b.Fatal("not verified")
		}
	}
}
