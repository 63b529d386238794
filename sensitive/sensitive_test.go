package sensitive_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/sensitive"
)

const marker = "hunter2-marker"

type holder struct {
	Open   sensitive.Value
	hidden sensitive.Value
	ptr    *sensitive.Value
	list   []sensitive.Value
	table  map[string]sensitive.Value
}

func newHolder() holder {
	v := sensitive.New(marker)
	return holder{v, v, &v, []sensitive.Value{v}, map[string]sensitive.Value{"k": v}}
}

func ExampleValue() {
	password := sensitive.New("correct horse")
	fmt.Println("connecting with", password)
	fmt.Println("length", password.Len())
	fmt.Println("on the wire:", password.Reveal())
	// Output:
	// connecting with [redacted]
	// length 13
	// on the wire: correct horse
}

func TestFormat(t *testing.T) {
	t.Parallel()
	v := sensitive.New(marker)
	for _, verb := range strings.Split("v +v #v s q x X d t b o O U c e E f F g G 10s -20v .3s 08d z", " ") {
		for _, arg := range []any{v, &v} {
			if got := fmt.Sprintf("%"+verb, arg); got != sensitive.Redacted {
				t.Errorf("%%%s of %T = %q, want %q", verb, arg, got, sensitive.Redacted)
			}
		}
	}
	if v.String() != sensitive.Redacted || v.GoString() != sensitive.Redacted || fmt.Sprint(v) != sensitive.Redacted {
		t.Error("String, GoString or Sprint shows something else than [redacted]")
	}
}

// fmt calls no method on an unexported field, nor under %p.
func TestFormatNested(t *testing.T) {
	t.Parallel()
	h := newHolder()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%p", "%T"} {
		for _, arg := range []any{h, &h, h.Open, h.list, h.table, []any{h}, reflect.ValueOf(h)} {
			if got := fmt.Sprintf(verb, arg); strings.Contains(got, marker) || strings.Contains(got, fmt.Sprintf("%x", marker)) {
				t.Errorf("%s of %T shows the value", verb, arg)
			}
		}
	}
}

func TestSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := newHolder()
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		log := slog.New(handler)
		log.Info("a", "direct", h.Open)
		log.Info("b", "inside", h, "pointer", &h)
	}
	if strings.Contains(out.String(), marker) {
		t.Error("a log line shows the value")
	}
	if n := strings.Count(out.String(), "direct"); n != 2 ||
		!strings.Contains(out.String(), "direct="+sensitive.Redacted) {
		t.Errorf("log = %q, want direct=[redacted]", out.String())
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]sensitive.Value{"full": sensitive.New(marker), "zero": {}} {
		for encoding, marshal := range map[string]func() ([]byte, error){
			"json":   func() ([]byte, error) { return json.Marshal(v) },
			"field":  func() ([]byte, error) { return json.Marshal(struct{ V *sensitive.Value }{&v}) },
			"xml":    func() ([]byte, error) { return xml.Marshal(v) },
			"text":   v.MarshalText,
			"binary": v.MarshalBinary,
			"gob": func() ([]byte, error) {
				var b bytes.Buffer
				err := gob.NewEncoder(&b).Encode(v)
				return b.Bytes(), err
			},
		} {
			out, err := marshal()
			if err == nil || !strings.Contains(err.Error(), "sensitive: a value is not marshalled") {
				t.Errorf("%s of a %s value: error %v, want a refusal", encoding, name, err)
			}
			if bytes.Contains(out, []byte(marker)) {
				t.Errorf("%s of a %s value shows it", encoding, name)
			}
		}
	}
}

func TestOmitZero(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(struct {
		V sensitive.Value `json:",omitzero"`
	}{})
	if err != nil || string(got) != "{}" {
		t.Errorf("Marshal = %s, %v; want {}", got, err)
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "", false}, {"ab", "a", false}} {
		a, b := sensitive.New(tt.a), sensitive.New(tt.b)
		if a.Equal(b) != tt.want || b.Equal(a) != tt.want {
			t.Errorf("Equal(%q, %q) = %t", tt.a, tt.b, !tt.want)
		}
		if a.Reveal() != tt.a || a.Len() != len(tt.a) || a.IsZero() != (tt.a == "") {
			t.Errorf("New(%q): Reveal, Len or IsZero is wrong", tt.a)
		}
	}
	if reflect.TypeFor[sensitive.Value]().Comparable() {
		t.Error("Value can be compared with ==")
	}
}
