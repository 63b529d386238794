package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

const jsonBody = "application/json; charset=utf-8"

// decode returns the parameters of a query and a body.
func decode(query, contentType, body string) (sign.Params, error) {
	p, err := parseQuery(nil, query)
	if err == nil {
		err = unique(p)
	}
	if err != nil {
		return nil, err
	}
	return parseBody(p, contentType, []byte(body))
}

func TestDecodeRequest(t *testing.T) {
	t.Parallel()
	type params = sign.Params
	for _, tt := range []struct {
		name, query, kind, body string
		want                    params
	}{
		{"query", "a=b+c%20d&e=&%E4%B8%AD=%2B", "", "",
			params{{Name: "a", Value: "b c d"}, {Name: "e"}, {Name: "中", Value: "+"}}},
		{"empty pairs", "&a=b&&", "", "", params{{Name: "a", Value: "b"}}},
		{"a name alone", "a", "", "", params{{Name: "a"}}},
		{"equals in the value", "a=b=c", "", "", params{{Name: "a", Value: "b=c"}}},
		{"query and form", "a=1", formType, "b=2", params{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}},
		{"form with charset", "", formType + "; charset=UTF-8", "b=2", params{{Name: "b", Value: "2"}}},
		{"empty form", "a=1", formType, "", params{{Name: "a", Value: "1"}}},
		{"JSON is not form", "a=1", jsonBody, `{"s":"x","n":1.50,"b":true,"z":null,"o":{"k": [1, 2]},"l":[ "a" ]}`,
			params{{Name: "a", Value: "1"}, {Name: "s", Value: "x"}, {Name: "n", Value: "1.50"}, {Name: "b", Value: "true"},
				{Name: "o", Value: `{"k":[1,2]}`}, {Name: "l", Value: `["a"]`}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := decode(tt.query, tt.kind, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, query, kind, body string
		want                    fault.Kind
		text                    string
	}{
		{"twice in the query", "a=1&a=1", "", "", fault.Invalid, "given twice"},
		{"in query and form", "a=1", formType, "a=2", fault.Invalid, "given twice"},
		{"in query and JSON", "a=1", jsonBody, `{"a":"2"}`, fault.Invalid, "given twice"},
		{"twice in JSON", "", jsonBody, `{"a":"1","a":"2"}`, fault.Invalid, "given twice"},
		{"twice among many", strings.Join(append(numbered(30), "p7=x"), "&"), "", "", fault.Invalid, "given twice"},
		{"no name", "a=1&=", "", "", fault.Malformed, "no name"},
		{"no name in the form", "", formType, "=b", fault.Malformed, "no name"},
		{"no name in JSON", "", jsonBody, `{"":"b"}`, fault.Malformed, "no name"},
		{"bad escape", "a=%zz", "", "", fault.Malformed, "percent-encoded"},
		{"cut escape", "a=%4", "", "", fault.Malformed, "percent-encoded"},
		{"not UTF-8", "a=%ff", "", "", fault.Malformed, "UTF-8"},
		{"not UTF-8 in the form", "", formType, "a=%c3%28", fault.Malformed, "UTF-8"},
		{"not UTF-8 in JSON", "", jsonBody, "{\"a\":\"\xff\"}", fault.Malformed, "UTF-8"},
		{"JSON list", "", jsonBody, `["a"]`, fault.Malformed, "one JSON object"},
		{"JSON cut off", "", jsonBody, `{"a":"b"`, fault.Malformed, "one JSON object"},
		{"two JSON objects", "", jsonBody, `{"a":"b"}{}`, fault.Malformed, "one JSON object"},
		{"no type", "", "", "a=b", fault.Malformed, "Content-Type"},
		{"another type", "", "multipart/form-data; boundary=x", "a=b", fault.Malformed, "Content-Type"},
		{"too many", strings.Repeat("a&", 2001), "", "", fault.Malformed, "more than 2000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := decode(tt.query, tt.kind, tt.body)
			var f *fault.Error
			if !errors.As(err, &f) || f.Kind != tt.want || !strings.Contains(f.Msg, tt.text) {
				t.Errorf("err = %v, want kind %d that says %q", err, tt.want, tt.text)
			}
		})
	}
}

func numbered(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("p%d=", i))
	}
	return list
}

func FuzzDecode(f *testing.F) {
	f.Add("a=b&c=%20", formType, "d=e")
	f.Add("", jsonBody, `{"a":{"b":[1]}}`)
	f.Fuzz(func(t *testing.T, query, kind, body string) {
		all, err := decode(query, kind, body)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Malformed && k != fault.Invalid {
				t.Errorf("an error of kind %d: %v", k, err)
			}
			return
		}
		seen := map[string]bool{}
		for _, p := range all {
			if seen[p.Name] {
				t.Errorf("%q is there twice", p.Name)
			}
			seen[p.Name] = true
		}
	})
}
