package auth_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// keys are those of the worked vectors, testid and STS.testid with its token, and two that are
// refused.
type keys map[string]auth.Key

func (k keys) Find(ctx context.Context, id string) (auth.Key, bool, error) {
	if ctx.Err() != nil {
		return auth.Key{}, false, fault.New(fault.Unavailable, "away")
	}
	key, ok := k[id]
	key.ID, key.Secret = id, sign.NewKey(sensitive.New("testsecret"))
	key.Principal = policy.Principal{Kind: policy.KindAccount, Account: "1234567890123456"}
	return key, ok, nil
}

// config is that of a server of region cn-hangzhou with these keys.
func config() auth.Config {
	return auth.Config{
		Keys: keys{
			"testid": {}, "disabled": {Disabled: true}, "STS.testid": {Token: sensitive.New("CAIS+tok/en==")},
			"STS.old": {ExpiresAt: now, Token: sensitive.New("old")},
		},
		Now:     func() time.Time { return now },
		Regions: []string{"cn-hangzhou"},
		Service: func(version string) string {
			return map[string]string{"2016-01-20": "Kms", "2015-04-01": "Sts"}[version]
		},
		Harmless: func(name string) bool { return name != "SecretData" && name != "Misspelled" },
	}
}

func authenticator(*testing.T) *auth.Authenticator { return auth.New(config()) }

func noBody() ([]byte, error) { return nil, fault.New(fault.Internal, "the body was read") }

// request is one without headers and body.
func request(method string, params sign.Params) auth.Request {
	return auth.Request{
		Method: method,
		Query:  sign.CanonicalQuery(params),
		Header: func(string) []string { return nil },
		Body:   noBody,
	}
}

func parse(t *testing.T, query string) sign.Params {
	t.Helper()
	var p sign.Params
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			t.Fatal(err)
		}
		if value, err = url.QueryUnescape(value); err != nil {
			t.Fatal(err)
		}
		p = append(p, sign.Param{Name: name, Value: value})
	}
	return p
}

// vector13 is vector 1.3 of the contract: a temporary key and every awkward character, as it
// crosses the wire.
const vector13 = "AccessKeyId=STS.testid&Action=CreateSecret&Description=&Format=JSON&RegionId=cn-hangzhou&" +
	"SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B+%2F%25%5C%22%E4%B8%AD%22%7D&SecretName=app+one%2F%2B%3D.%40-_&" +
	"SecurityToken=CAIS%2Btok%2Fen%3D%3D&Signature=thBJdWbQNa3xfGZV30DV6TEjR5I%3D&SignatureMethod=HMAC-SHA1&" +
	"SignatureNonce=9b7a44b0-3be1-11e5-8c73-08002700c460&SignatureType=&SignatureVersion=1.0&" +
	"Tags=%5B%7B%22TagKey%22%3A%22k%22%2C%22TagValue%22%3A%22v%22%7D%5D&Timestamp=2026-01-02T03%3A04%3A05Z&" +
	"Version=2016-01-20&VersionId=v1"

func TestVector13(t *testing.T) {
	t.Parallel()
	a := authenticator(t)
	r := request("POST", parse(t, vector13))
	got, err := a.Authenticate(t.Context(), r)
	if err != nil || got.Principal.AccessKeyID != "STS.testid" || got.Action != "CreateSecret" ||
		got.AccessKeyID != "STS.testid" {
		t.Fatalf("Authenticate = %+v, %v", got, err)
	}
	if _, err := a.Authenticate(t.Context(), r); fault.KindOf(err) != fault.Replayed {
		t.Errorf("the same request again: %v, want Replayed", err)
	}
	r.Method = "GET"
	if _, err := a.Authenticate(t.Context(), r); fault.KindOf(err) != fault.WrongSignature ||
		strings.Contains(err.Error(), "server string") {
		t.Errorf("another method: %v; want WrongSignature that does not repeat the value", err)
	}
}

// TestVector32 is vector 3.2 of the contract.
func TestVector32(t *testing.T) {
	t.Parallel()
	headers := map[string]string{
		"host": "kms.example.test:8443", "x-acs-accesskey-id": "STS.testid", "x-acs-action": "CreateSecret",
		"x-acs-content-sha256":       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"x-acs-credentials-provider": "static_sts", "x-acs-date": "2026-01-02T03:04:05Z",
		"x-acs-security-token":  "CAIS+tok/en==",
		"x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d", "x-acs-version": "2016-01-20",
		"authorization": "ACS3-HMAC-SHA256 Credential=STS.testid,SignedHeaders=host;x-acs-accesskey-id;x-acs-action;" +
			"x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-security-token;x-acs-signature-nonce;" +
			"x-acs-version,Signature=945c793c25b8e883ad896e81ed9a1deca918f61aeae07a14eed5e50b817e498e",
	}
	query := parse(t,
		"Description=&SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B%20%2F%25%5C%22%E4%B8%AD%22%7D&"+
			"SecretName=app%20one%2F%2B%3D.%40-_&VersionId=v1")
	call := func(a *auth.Authenticator, change map[string]string, body string) error {
		header := func(name string) string {
			if v, ok := change[name]; ok {
				return v
			}
			return headers[name]
		}
		_, err := a.Authenticate(t.Context(), auth.Request{
			Method: "POST", Query: sign.CanonicalQuery(query), Host: header("host"),
			Header: func(name string) []string {
				if v := header(name); v != "" {
					return []string{v}
				}
				return nil
			},
			Length: int64(len(body)),
			Body:   func() ([]byte, error) { return []byte(body), nil },
		})
		return err
	}
	a := authenticator(t)
	for _, tt := range []struct {
		name   string
		change map[string]string
		body   string
		kind   fault.Kind
	}{
		{"as it is", nil, "", fault.OK},
		{"again", nil, "", fault.Replayed},
		{"another action", map[string]string{"x-acs-action": "GetSecretValue"}, "", fault.WrongSignature},
		{"another body", nil, "x", fault.WrongSignature},
		{"another host", map[string]string{"host": "kms.example.test"}, "", fault.WrongSignature},
		{"another token", map[string]string{"x-acs-security-token": "x"}, "", fault.WrongSignature},
		{"no nonce", map[string]string{"x-acs-signature-nonce": ""}, "", fault.BadSignature},
		{"no version", map[string]string{"x-acs-version": ""}, "", fault.BadSignature},
		{"another key id", map[string]string{"x-acs-accesskey-id": "testid"}, "", fault.BadSignature},
		{"time with a fraction", map[string]string{"x-acs-date": "2026-01-02T03:04:05.5Z"}, "", fault.NoTimestamp},
		{"unknown scheme", map[string]string{"authorization": "ACS3-HMAC-SM3 Credential=a,SignedHeaders=host,Signature=00"},
			"", fault.BadSignature},
		{"action not signed",
			map[string]string{"authorization": strings.Replace(headers["authorization"], "x-acs-action;", "", 1)}, "",
			fault.BadSignature},
		{"token not signed",
			map[string]string{"authorization": strings.Replace(headers["authorization"], "x-acs-security-token;", "", 1)}, "",
			fault.BadSignature},
	} {
		if err := call(a, tt.change, tt.body); fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %v, want kind %d", tt.name, err, tt.kind)
		}
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	a := authenticator(t)
	signed := func(key, token string, at time.Time, nonce string, more ...sign.Param) sign.Params {
		p := append(sign.Params{{Name: "Action", Value: "ListSecrets"}, {Name: "Version", Value: "2016-01-20"}}, more...)
		out, err := sign.Credentials{AccessKeyID: key, AccessKeySecret: sensitive.New("testsecret"),
			SecurityToken: sensitive.New(token)}.SignV1("GET", p, at, nonce)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	set := func(p sign.Params, name, value string) sign.Params {
		for i := range p {
			if p[i].Name == name {
				p[i].Value = value
			}
		}
		return p
	}
	minute := time.Minute
	for _, tt := range []struct {
		name string
		p    sign.Params
		kind fault.Kind
		text string
	}{
		{"good", signed("testid", "", now, "n1"), fault.OK, ""},
		{"replayed", signed("testid", "", now, "n1"), fault.Replayed, ""},
		{"replayed under another time", signed("testid", "", now.Add(-5*minute), "n1"), fault.Replayed, ""},
		{"same nonce of another key", signed("STS.testid", "CAIS+tok/en==", now, "n1"), fault.OK, ""},
		{"no nonce", signed("testid", "", now, ""), fault.OK, ""},
		{"no nonce, again", signed("testid", "", now, ""), fault.Replayed, ""},
		{"early edge", signed("testid", "", now.Add(-15*minute), "n2"), fault.OK, ""},
		{"late edge", signed("testid", "", now.Add(2*minute), "n3"), fault.OK, ""},
		{"too early", signed("testid", "", now.Add(-15*minute-time.Second), "n4"), fault.Expired, "2026-01-02T03:04:05Z"},
		{"too late", signed("testid", "", now.Add(2*minute+time.Second), "n5"), fault.Expired, ""},
		{"no time", set(signed("testid", "", now, "n6"), "Timestamp", ""), fault.NoTimestamp, ""},
		{"wrong time", set(signed("testid", "", now, "n7"), "Timestamp", "2026-01-02 03:04:05"), fault.NoTimestamp, ""},
		{"unknown key", signed("nobody", "", now, "n8"), fault.UnknownKey, ""},
		{"disabled key", signed("disabled", "", now, "n9"), fault.DisabledKey, ""},
		{"no key", set(signed("testid", "", now, "n10"), "AccessKeyId", ""), fault.MissingKey, ""},
		{"changed action", set(signed("testid", "", now, "n11"), "Action", "DeleteSecret"), fault.WrongSignature,
			"server string to sign is:GET&%2F&"},
		{"signature version", set(signed("testid", "", now, "n12"), "SignatureVersion", "2.0"), fault.BadSignature, ""},
		{"signature method", set(signed("testid", "", now, "n13"), "SignatureMethod", "MD5"), fault.BadSignature, ""},
		{"bearer", signed("testid", "", now, "n14", sign.Param{Name: "SignatureType", Value: "BEARERTOKEN"}),
			fault.BadSignature, ""},
		{"empty type", signed("testid", "", now, "n15", sign.Param{Name: "SignatureType"}), fault.OK, ""},
		{"no token", signed("STS.testid", "", now, "n16"), fault.MissingToken, ""},
		{"wrong token", signed("STS.testid", "x", now, "n17"), fault.WrongToken, ""},
		{"token with a permanent key", signed("testid", "x", now, "n18"), fault.WrongToken, ""},
		{"expired token", signed("STS.old", "old", now, "n19"), fault.ExpiredToken, ""},
		{"long nonce", signed("testid", "", now, strings.Repeat("n", 129)), fault.BadSignature, "128"},
		{"unsigned", sign.Params{{Name: "Action", Value: "ListSecrets"}}, fault.BadSignature, "not signed"},
	} {
		_, err := a.Authenticate(t.Context(), request("GET", tt.p))
		if fault.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want kind %d that says %q", tt.name, err, tt.kind, tt.text)
		}
	}
}

// TestNonceIsNotBurnt holds that a request whose signature does not verify uses up no nonce.
func TestNonceIsNotBurnt(t *testing.T) {
	t.Parallel()
	a := authenticator(t)
	p := parse(t, vector13)
	for i := range p {
		if p[i].Name == "Signature" {
			p[i].Value = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
		}
	}
	if _, err := a.Authenticate(t.Context(), request("POST", p)); fault.KindOf(err) != fault.WrongSignature {
		t.Fatalf("wrong signature: %v", err)
	}
	if _, err := a.Authenticate(t.Context(), request("POST", parse(t, vector13))); err != nil {
		t.Errorf("the true request after a forged one with its nonce: %v", err)
	}
}

func TestStoreAwayIsNotUnknownKey(t *testing.T) {
	t.Parallel()
	a := authenticator(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Authenticate(ctx, request("POST", parse(t, vector13))); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("err = %v, want Unavailable", err)
	}
}
