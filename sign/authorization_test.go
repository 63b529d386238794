package sign

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var hex64 = strings.Repeat("0a", 32)

func TestParseAuthorization(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header string
		want   Authorization
	}{
		{
			"ACS3-HMAC-SHA256 Credential=STS.a_b-1,SignedHeaders=host;x-acs-date,Signature=" + hex64,
			Authorization{
				Scheme:        ACS3,
				AccessKeyID:   "STS.a_b-1",
				SignedHeaders: []string{"host", "x-acs-date"},
				Signature:     hex64,
			},
		},
		{
			"ACS3-HMAC-SHA256 Credential=a, SignedHeaders=host,   Signature=" + hex64,
			Authorization{Scheme: ACS3, AccessKeyID: "a", SignedHeaders: []string{"host"}, Signature: hex64},
		},
		{
			"ACS4-HMAC-SHA256 Credential=a/20260102/cn-hangzhou/Kms/aliyun_v4_request,SignedHeaders=host,Signature=" + hex64,
			Authorization{
				Scheme:        ACS4,
				AccessKeyID:   "a",
				Scope:         Scope{"20260102", "cn-hangzhou", "Kms"},
				SignedHeaders: []string{"host"},
				Signature:     hex64,
			},
		},
	} {
		got, err := ParseAuthorization(tt.header)
		if err != nil {
			t.Errorf("ParseAuthorization(%q): %v", tt.header, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("ParseAuthorization(%q) differs (-want +got):\n%s", tt.header, diff)
		}
	}
}

func TestParseAuthorizationErrors(t *testing.T) {
	t.Parallel()
	const (
		scheme     = "sign: the scheme of Authorization is neither ACS3-HMAC-SHA256 nor ACS4-HMAC-SHA256"
		fields     = "sign: Authorization must hold Credential, SignedHeaders and Signature, in this order"
		credential = "sign: Credential of Authorization is malformed"
		scope      = "sign: the scope in Credential is malformed"
		headers    = "sign: SignedHeaders of Authorization is malformed"
		signature  = "sign: Signature of Authorization is not 64 lower-case hex digits"
	)
	var many []string
	for i := range maxSignedHeaders + 1 {
		many = append(many, fmt.Sprintf("x-%d", i))
	}
	v3 := func(c, h, s string) string {
		return "ACS3-HMAC-SHA256 Credential=" + c + ",SignedHeaders=" + h + ",Signature=" + s
	}
	v4 := func(c string) string {
		return "ACS4-HMAC-SHA256 Credential=" + c + ",SignedHeaders=host,Signature=" + hex64
	}
	for _, tt := range []struct{ header, want string }{
		{"", scheme},
		{"Bearer abc", scheme},
		{"acs3-hmac-sha256 Credential=a,SignedHeaders=host,Signature=" + hex64, scheme},
		{"ACS3-HMAC-SM3 Credential=a,SignedHeaders=host,Signature=" + hex64, scheme},
		{"ACS3-HMAC-SHA256", fields},
		{"ACS3-HMAC-SHA256 ", fields},
		{"ACS3-HMAC-SHA256  Credential=a,SignedHeaders=host,Signature=" + hex64, fields},
		{"ACS3-HMAC-SHA256 SignedHeaders=host,Credential=a,Signature=" + hex64, fields},
		{"ACS3-HMAC-SHA256 Credential=a,Signature=" + hex64, fields},
		{"ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host", fields},
		{"ACS3-HMAC-SHA256 Credential=a,SignedHeaders=host,\tSignature=" + hex64, fields},
		{v3("a", "host", hex64) + ",", fields},
		{v3("a", "host", hex64) + ",More=1", fields},
		{v3("", "host", hex64), credential},
		{v3("a b", "host", hex64), credential},
		{v3("a/20260102", "host", hex64), credential},
		{v3("a/", "host", hex64), credential},
		{v3(strings.Repeat("a", maxName+1), "host", hex64), credential},
		{v3("a", "", hex64), headers},
		{v3("a", "Host", hex64), headers},
		{v3("a", "host;", hex64), headers},
		{v3("a", "host;host", hex64), headers},
		{v3("a", "host\n", hex64), headers},
		{v3("a", strings.Join(many, ";"), hex64), headers},
		{v3("a", "host", ""), signature},
		{v3("a", "host", hex64[1:]), signature},
		{v3("a", "host", hex64+"0"), signature},
		{v3("a", "host", strings.ToUpper(hex64)), signature},
		{v3("a", "host", hex64+" "), signature},
		{v3("a", strings.Repeat("x", maxAuthorization), hex64), "sign: Authorization is too long"},
		{v4("a"), scope},
		{v4("/20260102/r/Kms/aliyun_v4_request"), credential},
		{v4("a/20260102/r/Kms"), scope},
		{v4("a/20260102/r/Kms/aliyun_v5_request"), scope},
		{v4("a/2026-1-2/r/Kms/aliyun_v4_request"), scope},
		{v4("a/2026010/r/Kms/aliyun_v4_request"), scope},
		{v4("a/20260102//Kms/aliyun_v4_request"), scope},
		{v4("a/20260102/r//aliyun_v4_request"), scope},
		{v4("a/20260102/r/aliyun_v4_request"), scope},
		{v4("a/20260102/r/Kms/x/aliyun_v4_request"), scope},
	} {
		a, err := ParseAuthorization(tt.header)
		if err == nil || err.Error() != tt.want {
			t.Errorf("ParseAuthorization(%q) = %v, want %q", tt.header, err, tt.want)
		}
		if diff := cmp.Diff(Authorization{}, a); diff != "" {
			t.Errorf("ParseAuthorization(%q) failed and returned something", tt.header)
		}
	}
}

func FuzzParseAuthorization(f *testing.F) {
	for _, v := range vectorsACS {
		f.Add(v.authorization)
	}
	f.Add("ACS3-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=" + hex64)
	f.Add("ACS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=;,Signature=")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := ParseAuthorization(header)
		if err != nil {
			return
		}
		if got := a.header(); got != header && got != strings.ReplaceAll(header, ", ", ",") &&
			!strings.Contains(header, ",  ") {
			t.Errorf("written back as %q", got)
		}
		again, err := ParseAuthorization(a.header())
		if err != nil {
			t.Fatalf("does not parse again: %v", err)
		}
		if diff := cmp.Diff(a, again); diff != "" {
			t.Errorf("parses differently the second time:\n%s", diff)
		}
	})
}
