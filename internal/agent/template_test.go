package agent

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyturn/keyturn/sensitive"
)

func value(name, version, data string) Value {
	return Value{Name: name, VersionID: version, Data: sensitive.New(data)}
}

func of(values ...Value) map[string]Value {
	m := map[string]Value{}
	for _, v := range values {
		m[v.Name] = v
	}
	return m
}

func TestRender(t *testing.T) {
	t.Parallel()
	const db = `{"User":"app","Password":"it's \"50%\" $HOME\\","Port":5432,"On":true,"None":null,"Tags":["a", "<b>"]}`
	values := of(value("db", "v7", db), value("plain", "v1", "line one\nline two"))
	for text, want := range map[string]string{
		`{{ secret "plain" }}`:                                 "line one\nline two",
		`{{ member "db" "User" }}:{{ member "db" "Port" }}`:    "app:5432",
		`{{ member "db" "On" }} {{ member "db" "Tags" }}`:      `true ["a","<b>"]`,
		`{{ version "db" }}`:                                   "v7",
		`{{ member "db" "Password" | json }}`:                  `"it's \"50%\" $HOME\\"`,
		`{{ secret "plain" | yaml }}`:                          `"line one\nline two"`,
		`{{ secret "plain" | base64 }}`:                        "bGluZSBvbmUKbGluZSB0d28=",
		`{{ secret "plain" | base64 | unbase64 }}`:             "line one\nline two",
		`{{ member "db" "Password" | shell }}`:                 `'it'\''s "50%" $HOME\'`,
		`A={{ member "db" "Password" | env }}`:                 `A="it's \"50%\" \$HOME\\"`,
		`A={{ member "db" "User" | env }}`:                     "A=app",
		`p={{ secret "plain" | properties }}`:                  `p=line one\nline two`,
		`{{ with $x := member "db" "User" }}{{ $x }}{{ end }}`: "app",
	} {
		s, err := parseTemplate("f", text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := s.render(values)
		if err != nil || string(got) != want {
			t.Errorf("%s = %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestRenderRefuses verifies that a template is refused when values are missing or do not fit, with
// the place and without a value.
func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	values := of(value("db", "v7", `{"User":"marker"}`), value("bad", "v1", "marker\xff\x00"),
		value("lines", "v1", "marker\nmarker"))
	for text, want := range map[string]string{
		`{{ secret "nothing" }}`:          `line 1:3: there is no value of secret "nothing"`,
		"\n" + `{{ member "db" "Pass" }}`: `line 2:3: secret "db" has no member "Pass"; it has User`,
		`{{ member "bad" "x" }}`:          `line 1:3: the value of secret "bad" is no JSON object, so it has no member "x"`,
		`{{ secret "bad" | json }}`:       "line 1:18: the value is not UTF-8 text; use base64",
		`{{ secret "bad" | shell }}`: "line 1:18: a value with a NUL byte cannot be a word of a " +
			"shell; use base64",
		`{{ secret "lines" | env }}`: "line 1:20: a value with a line break, a NUL byte or bytes that " +
			"are not UTF-8 does not fit in a file of NAME=value lines; use base64",
		`{{ secret "db" | unbase64 }}`: "line 1:17: what unbase64 is given is not base64",
		`{{ (secret "db").Member }}`: "line 1:11: a function or a member there does not suit what it " +
			"is given",
		`{{ index (secret "db") 999 }}`: "line 1:3: a function or a member there does not suit what it " +
			"is given",
		`{{ .Anything }}{{ secret "db" }}`: "",
		`{{ slice (secret "db") 5 1 }}`: "line 1:3: a function or a member there does not suit what it " +
			"is given",
		`{{ range 100000000 }}{{ secret "db" }}{{ end }}`: "the file would be larger than 4194304 bytes",
	} {
		s, err := parseTemplate("f", text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		out, err := s.render(values)
		if want == "" {
			continue
		}
		if err == nil || err.Error() != want || out != nil {
			t.Errorf("%s = %d bytes, %v; want %s", text, len(out), err, want)
		}
		if err != nil && strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: the error shows the value", text)
		}
	}
}

// FuzzRender renders any value through every function. The result must be a text that reads back as
// the value, or an error without the value in it.
func FuzzRender(f *testing.F) {
	for _, s := range []string{"", "plain", "it's", `a"b\c`, "$x `y`", "\x00", "\xff", "äöü €𝄞", "line\nline\r\n", " lead",
		"#hash", "a=b"} {
		f.Add(s)
	}
	templates := map[string]*parsedTemplate{}
	for _, name := range []string{"json", "yaml", "base64", "shell", "env", "properties"} {
		s, err := parseTemplate("f", `{{ secret "s" | `+name+` }}`)
		if err != nil {
			f.Fatal(err)
		}
		templates[name] = s
	}
	f.Fuzz(func(t *testing.T, data string) {
		for name, s := range templates {
			out, err := s.render(of(value("s", "v1", data)))
			if err != nil {
				if len(data) > 8 && strings.Contains(err.Error(), data) {
					t.Errorf("%s: the error shows the value", name)
				}
				continue
			}
			if strings.ContainsAny(string(out), "\n\r\x00") && name != "shell" {
				t.Errorf("%s of %q breaks its line: %q", name, data, out)
			}
			if !utf8.Valid(out) && name != "shell" {
				t.Errorf("%s of %q is not UTF-8: %q", name, data, out)
			}
			if back, ok := readBack(name, string(out)); ok && back != data {
				t.Errorf("%s of %q reads back as %q", name, data, back)
			}
		}
	})
}

// readBack reads what the quoting functions write, by the rules of those who read it.
func readBack(name, s string) (string, bool) {
	switch name {
	case "shell":
		return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(s, "'"), "'"), `'\''`, "'"), true
	case "base64":
		back, err := unbase64(s)
		return back, err == nil
	case "env":
		if !strings.HasPrefix(s, `"`) {
			return s, true
		}
		return unescapeAll(s[1:len(s)-1], nil), true
	case "json", "yaml":
		out, ok := memberText([]byte(s))
		return out, ok
	}
	return "", false
}

func unescapeAll(s string, special map[byte]byte) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			if c, ok := special[s[i]]; ok {
				b.WriteByte(c)
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
