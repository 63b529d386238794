package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzMembers holds the line's middle part to encoding/json, with every member that a caller fills
// set, or all but one.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{"plain ~", "", `"\`, "<&>", "é\u2028\u2029\x7f", "\x00\b\f\n\r\t\x1f", "\xff\xc3", "😀"} {
		f.Add(s, uint8(3))
	}
	f.Fuzz(func(t *testing.T, s string, empty uint8) {
		var r Record
		v := reflect.ValueOf(&r).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if field := v.Field(i); field.Kind() == reflect.String && name != "Prev" && name != "Hash" && name != "MAC" &&
				i != int(empty) {
				field.SetString(s)
			}
		}
		if empty%2 == 0 {
			r.Details = Details{{s, s}, {"b", s}}
		}
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(r); err != nil {
			t.Fatal(err)
		}
		if got := "{" + string(r.appendMembers(nil)) + "}"; got != strings.TrimSpace(want.String()) {
			t.Errorf("members of %q:\n%s\nwant\n%s", s, got, want.String())
		}
	})
}
