package sign

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/sensitive"
)

func TestVectorsV1(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	for _, v := range vectorsV1 {
		t.Run(v.name, func(t *testing.T) {
			p := decode(t, v.query, v.form)
			before := slices.Clone(p)
			text, ok, err := VerifyV1(secret, v.method, p)
			if !ok || err != nil {
				t.Fatalf("VerifyV1 = %t, %v; want true", ok, err)
			}
			if v.stringToSign != "" && text != v.stringToSign {
				t.Errorf("string to sign differs (-want +got):\n%s", cmp.Diff(v.stringToSign, text))
			}
			if got := StringToSignV1(v.method, p); got != text {
				t.Errorf("StringToSignV1 and VerifyV1 differ (-verify +got):\n%s", cmp.Diff(text, got))
			}
			if got, err := SignatureV1(secret, "", text); got != v.signature || err != nil {
				t.Errorf("SignatureV1 = %q, %v; want %q", got, err, v.signature)
			}
			if v.canonical != "" {
				unsigned := slices.DeleteFunc(slices.Clone(p), func(q Param) bool { return q.Name == "Signature" })
				if got := CanonicalQuery(unsigned); got != v.canonical {
					t.Errorf("CanonicalQuery differs (-want +got):\n%s", cmp.Diff(v.canonical, got))
				}
			}
			if !slices.Equal(p, before) {
				t.Error("the parameters were modified")
			}
		})
	}
}

func TestVectorsV1Changed(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	for _, v := range vectorsV1 {
		good := decode(t, v.query, v.form)
		refused := func(what string, secret sensitive.Value, method string, p Params) {
			t.Helper()
			if _, ok, _ := VerifyV1(secret, method, p); ok {
				t.Errorf("%s: verifies with a changed %s", v.name, what)
			}
		}
		refused("secret", sensitive.New("testsecreT"), v.method, good)
		refused("method", secret, "PUT", good)
		for i := range good {
			for j := range good[i].Value {
				bad := slices.Clone(good)
				b := []byte(bad[i].Value)
				b[j] ^= 1
				bad[i].Value = string(b)
				refused("byte in "+bad[i].Name, secret, v.method, bad)
			}
			refused("set without "+good[i].Name, secret, v.method, slices.Delete(slices.Clone(good), i, i+1))
		}
		refused("set of parameters", secret, v.method, append(slices.Clone(good), Param{"Extra", ""}))
	}
}

// A Base64 decoder takes several spellings of the same bytes. If they verified, a remembered
// signature could be replayed in another spelling.
func TestVerifyV1OneSpelling(t *testing.T) {
	t.Parallel()
	v := vectorsV1[0]
	for _, signature := range []string{
		v.signature + "\n", "\r\n" + v.signature, strings.TrimRight(v.signature, "="), v.signature + "=",
		strings.Replace(v.signature, "Fg=", "Fh=", 1), "!", strings.Repeat("A", 4096), v.signature + v.signature,
		strings.Replace(v.signature, "S", "\n", 1),
	} {
		p := decode(t, v.query)
		for i := range p {
			if p[i].Name == "Signature" {
				p[i].Value = signature
			}
		}
		if _, ok, err := VerifyV1(sensitive.New(testSecret), v.method, p); ok || err != nil {
			t.Errorf("VerifyV1 of signature %q = %t, %v; want false", signature, ok, err)
		}
	}
}

func TestV1Errors(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	for name, p := range map[string]Params{"absent": {{"Action", "X"}}, "empty": {{"Signature", ""}}} {
		if _, ok, err := VerifyV1(secret, "GET", p); ok || err == nil ||
			err.Error() != "sign: the parameter Signature is missing or empty" {
			t.Errorf("%s signature: %t, %v", name, ok, err)
		}
	}
	const unknown = "sign: SignatureMethod is neither HMAC-SHA1 nor HMAC-SHA256"
	if _, ok, err := VerifyV1(secret, "GET", Params{
		{"SignatureMethod", "HMAC-MD5"},
		{"Signature", "AAAA"},
	}); ok || err == nil || err.Error() != unknown {
		t.Errorf("unknown algorithm: %t, %v", ok, err)
	}
	if _, err := SignatureV1(secret, "hmac-sha1", "x"); err == nil || err.Error() != unknown {
		t.Errorf("SignatureV1 with an unknown algorithm: %v", err)
	}
}

func TestV1SHA256(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(testSecret)
	p := Params{{"Action", "X"}, {"SignatureMethod", HMACSHA256}}
	signature, err := SignatureV1(secret, HMACSHA256, StringToSignV1("GET", p))
	if err != nil {
		t.Fatal(err)
	}
	p = append(p, Param{"Signature", signature})
	if _, ok, err := VerifyV1(secret, "get", p); !ok || err != nil {
		t.Errorf("VerifyV1 = %t, %v; want true", ok, err)
	}
	p[1].Value = HMACSHA1
	if _, ok, _ := VerifyV1(secret, "GET", p); ok {
		t.Error("a signature of one algorithm verifies under another")
	}
}

func TestClientMakesVectorsV1(t *testing.T) {
	t.Parallel()
	for _, v := range vectorsV1 {
		want := decode(t, v.query, v.form)
		var given Params
		for _, q := range want {
			if !slices.Contains(setBySigning[:], q.Name) {
				given = append(given, q)
			}
		}
		value := func(name string) string { s, _ := want.Get(name); return s }
		now, err := time.Parse(timeFormat, value("Timestamp"))
		if err != nil {
			t.Fatal(err)
		}
		c := Credentials{value("AccessKeyId"), sensitive.New(testSecret), sensitive.New(value("SecurityToken"))}
		before := slices.Clone(given)
		got, err := c.SignV1(v.method, given, now.In(time.FixedZone("", 3600)), value("SignatureNonce"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sorted(want), sorted(got)); diff != "" {
			t.Errorf("%s: SignV1 differs (-want +got):\n%s", v.name, diff)
		}
		if !slices.Equal(given, before) {
			t.Errorf("%s: SignV1 modified its argument", v.name)
		}
	}
}

func TestSignV1Errors(t *testing.T) {
	t.Parallel()
	good := Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("s")}
	for _, name := range setBySigning {
		_, err := good.SignV1("GET", Params{{name, ""}}, vectorTime, "n")
		if want := "sign: parameter " + name + " is set by signing"; err == nil || err.Error() != want {
			t.Errorf("SignV1 with %s = %v, want %q", name, err, want)
		}
	}
	for _, c := range []Credentials{{}, {AccessKeyID: "id"}, {AccessKeySecret: good.AccessKeySecret}} {
		if _, err := c.SignV1("GET", nil, vectorTime, "n"); err == nil ||
			err.Error() != "sign: access key ID or secret is missing" {
			t.Errorf("SignV1 with incomplete credentials: %v", err)
		}
	}
}

func BenchmarkVerifyV1(b *testing.B) {
	p := sorted(decode(b, vectorsV1[1].query))
	secret := sensitive.New(testSecret)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := VerifyV1(secret, "POST", p); !ok {
			b.Fatal("not verified")
		}
	}
}
