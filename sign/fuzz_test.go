package sign

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

var fuzzSecret = sensitive.New("dummy")

// FuzzStringToSignV1 compares the one-pass canonical string with its definition. It also verifies
// that different requests have different strings: a signature for one set of parameters must not be
// valid for another.
func FuzzStringToSignV1(f *testing.F) {
	f.Add("GET", "Action", "ListSecrets", "a", "b")
	f.Add("post", "a", "1&b=2", "", "\xff")
	f.Add("GET", "a", "1", "b", "2")
	f.Add("GET", "Signature", "x", "Signature", "y")
	f.Fuzz(func(t *testing.T, method, name1, value1, name2, value2 string) {
		p := Params{{name1, value1}, {name2, value2}}
		var kept Params
		for _, q := range p {
			if q.Name != "Signature" {
				kept = append(kept, q)
			}
		}
		got := StringToSignV1(method, p)
		if want := strings.ToUpper(method) + "&%2F&" + PercentEncode(CanonicalQuery(kept)); got != want {
			t.Fatalf("StringToSignV1 = %q; want %q", got, want)
		}
		_, query, ok := strings.Cut(got[len(strings.ToUpper(method)):], "&%2F&")
		once, err := url.QueryUnescape(query)
		if !ok || err != nil {
			t.Fatalf("%q cannot be read back: %v", got, err)
		}
		values, err := url.ParseQuery(once)
		if err != nil {
			t.Fatalf("%q is no query: %v", once, err)
		}
		n := 0
		for _, v := range values {
			n += len(v)
		}
		for _, q := range kept {
			found := false
			for _, v := range values[q.Name] {
				found = found || v == q.Value
			}
			if !found {
				t.Fatalf("%q=%q is not in %q", q.Name, q.Value, once)
			}
		}
		if once != "" && n != len(kept) {
			t.Fatalf("%d parameters became %d", len(kept), n)
		}
	})
}

// FuzzVerifyV1 signs and verifies. It verifies that a changed parameter, or another spelling of the
// signature, is refused.
func FuzzVerifyV1(f *testing.F) {
	f.Add("SecretName", "app/db", "x", "AAAA")
	f.Add("", "", "\x00", "=")
	f.Add("Format", "JSON", "Format", "\n")
	f.Fuzz(func(t *testing.T, name, value, other, signature string) {
		for _, reserved := range setBySigning {
			if name == reserved {
				return
			}
		}
		c := Credentials{AccessKeyID: "id", AccessKeySecret: fuzzSecret}
		signed, err := c.SignV1("GET", Params{{name, value}}, time.Unix(0, 0), "nonce")
		if err != nil {
			return
		}
		if _, ok, err := VerifyV1(fuzzSecret, "GET", signed); !ok || err != nil {
			t.Fatalf("%v does not verify: %v", signed, err)
		}
		good, _ := signed.Get("Signature")
		for i := range signed {
			changed := append(Params{}, signed...)
			switch {
			case changed[i].Name == "Signature" && signature != good:
				changed[i].Value = signature
			case changed[i].Name == name && other != value:
				changed[i].Value = other
			default:
				continue
			}
			if _, ok, _ := VerifyV1(fuzzSecret, "GET", changed); ok {
				t.Fatalf("%v verifies, signed was %v", changed, signed)
			}
		}
	})
}
