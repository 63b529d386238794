package sign

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var encodedForm = regexp.MustCompile(`^(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*$`)

func TestPercentEncode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":           "",
		"aZ09-_.~":   "aZ09-_.~",
		" *+/%=&":    "%20%2A%2B%2F%25%3D%26",
		"é中":         "%C3%A9%E4%B8%AD",
		"\x00\xff\n": "%00%FF%0A",
	} {
		if got := PercentEncode(in); got != want {
			t.Errorf("PercentEncode(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPercentEncodeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(rapid.Byte()).Draw(t, "in"))
		out := PercentEncode(in)
		if !encodedForm.MatchString(out) {
			t.Fatalf("PercentEncode(%q) = %q: not canonical", in, out)
		}
		if back, err := url.PathUnescape(out); err != nil || back != in {
			t.Fatalf("%q decodes to %q, %v; want %q", out, back, err, in)
		}
		if twice := string(appendEncodedTwice(nil, in)); twice != PercentEncode(out) {
			t.Fatalf("encoded twice: %q, want %q", twice, PercentEncode(out))
		}
	})
}

func TestStringToSignV1Property(t *testing.T) {
	t.Parallel()
	param := rapid.Custom(func(t *rapid.T) Param {
		return Param{rapid.String().Draw(t, "name"), rapid.String().Draw(t, "value")}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := Params(rapid.SliceOf(param).Draw(t, "p"))
		want := "GET&%2F&" + PercentEncode(CanonicalQuery(p))
		if got := StringToSignV1("GET", append(slices.Clone(p), Param{"Signature", "s"})); got != want {
			t.Fatalf("StringToSignV1 = %q, want %q", got, want)
		}
	})
}

func TestGet(t *testing.T) {
	t.Parallel()
	p := Params{{"a", "1"}, {"a", "2"}, {"b", ""}}
	for _, tt := range []struct {
		name, want string
		ok         bool
	}{{"a", "1", true}, {"b", "", true}, {"A", "", false}, {"", "", false}} {
		if got, ok := p.Get(tt.name); got != tt.want || ok != tt.ok {
			t.Errorf("Get(%q) = %q, %t; want %q, %t", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestCanonicalQueryOrder(t *testing.T) {
	t.Parallel()
	p := Params{{"b", "2"}, {"a", "2"}, {"B", ""}, {"a", "1"}, {"a.1", "x y"}}
	before := slices.Clone(p)
	if got, want := CanonicalQuery(p), "B=&a=1&a=2&a.1=x%20y&b=2"; got != want {
		t.Errorf("CanonicalQuery = %q, want %q", got, want)
	}
	if !slices.Equal(p, before) {
		t.Error("CanonicalQuery modified its argument")
	}
	if got := CanonicalQuery(nil); got != "" {
		t.Errorf("CanonicalQuery of nothing = %q", got)
	}
}

func FuzzCanonicalQuery(f *testing.F) {
	f.Add("SecretName", "my/secret", "Action", "GetSecretValue")
	f.Add("a", "", "a", "\xff&=+ %")
	f.Add("", "", "\x00", "中")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		p := Params{{name1, value1}, {name2, value2}}
		got := CanonicalQuery(p)
		if other := CanonicalQuery(Params{p[1], p[0]}); got != other {
			t.Errorf("the order of parameters matters: %q, %q", got, other)
		}
		values, err := url.ParseQuery(got)
		if err != nil {
			t.Fatalf("%q is no query: %v", got, err)
		}
		for _, q := range p {
			if !slices.Contains(values[q.Name], q.Value) {
				t.Errorf("%q lost parameter %q=%q", got, q.Name, q.Value)
			}
		}
		if strings.ContainsAny(got, "+ ;") {
			t.Errorf("%q is not percent-encoded", got)
		}
	})
}
