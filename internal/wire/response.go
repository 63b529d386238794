package wire

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sensitive"
)

// TimeFormat is the layout of every time on the wire: UTC, whole seconds (protocol.md section 10).
const TimeFormat = "2006-01-02T15:04:05Z"

// AppendJSON appends the JSON form of a response struct. Empty lists are arrays too, because
// clients check for them.
func AppendJSON(b []byte, response any) []byte {
	return appendObject(b, reflect.Indirect(reflect.ValueOf(response)))
}

func appendObject(b []byte, v reflect.Value) []byte {
	b = append(b, '{')
	first := true
	list := Fields(v.Type())
	for i := range list {
		f := &list[i]
		fv := v.Field(f.index)
		if f.OmitEmpty && fv.IsZero() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), f.Name...), '"', ':')
		b = appendMember(b, f, reflect.Indirect(fv))
	}
	return append(b, '}')
}

func appendMember(b []byte, f *Field, v reflect.Value) []byte {
	switch f.kind {
	case kindInt:
		return strconv.AppendInt(b, v.Int(), 10)
	case kindBool:
		return strconv.AppendBool(b, v.Bool())
	case kindStruct:
		return appendObject(b, v)
	case kindList, kindStructList:
		b = append(append(append(b, '{', '"'), f.List...), '"', ':', '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if f.kind == kindList {
				b = AppendQuoted(b, v.Index(i).String())
			} else {
				b = appendObject(b, v.Index(i))
			}
		}
		return append(b, ']', '}')
	case kindTime:
		t := timeOf(v)
		if t.IsZero() {
			return append(b, '"', '"')
		}
		b = append(b, '"')
		return append(t.UTC().AppendFormat(b, TimeFormat), '"')
	default:
		return AppendQuoted(b, text(f.kind, v))
	}
}

// timeOf and valueOf go through the address where there is one: an interface would hold a copy.
func timeOf(v reflect.Value) time.Time {
	if v.CanAddr() {
		return *v.Addr().Interface().(*time.Time)
	}
	return v.Interface().(time.Time)
}

func valueOf(v reflect.Value) sensitive.Value {
	if v.CanAddr() {
		return *v.Addr().Interface().(*sensitive.Value)
	}
	return v.Interface().(sensitive.Value)
}

func text(k kind, v reflect.Value) string {
	switch k {
	case kindValue:
		return valueOf(v).Reveal()
	case kindTime:
		t := timeOf(v)
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(TimeFormat)
	case kindInt:
		return strconv.FormatInt(v.Int(), 10)
	case kindBool:
		return strconv.FormatBool(v.Bool())
	default:
		return v.String()
	}
}

// AppendQuoted appends s as a JSON string. Only what JSON demands is escaped.
func AppendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// XML returns the XML form of a response struct under the given root element. A value with a
// character that XML 1.0 cannot carry is refused with an error that names Format, the parameter to
// change.
func XML(root string, response any) ([]byte, error) {
	b := bytes.NewBufferString("<?xml version='1.0' encoding='UTF-8'?>\n")
	err := writeElement(b, root, func() error { return writeObject(b, reflect.Indirect(reflect.ValueOf(response))) })
	return b.Bytes(), err
}

func writeObject(b *bytes.Buffer, v reflect.Value) error {
	for _, f := range Fields(v.Type()) {
		fv := v.Field(f.index)
		if f.OmitEmpty && fv.IsZero() {
			continue
		}
		if err := writeElement(b, f.Name, func() error {
			return writeMember(b, &f, reflect.Indirect(fv))
		}); err != nil {
			return err
		}
	}
	return nil
}

func writeElement(b *bytes.Buffer, name string, content func() error) error {
	b.WriteString("<" + name + ">")
	if err := content(); err != nil {
		return err
	}
	b.WriteString("</" + name + ">")
	return nil
}

func writeMember(b *bytes.Buffer, f *Field, v reflect.Value) error {
	switch f.kind {
	case kindStruct:
		return writeObject(b, v)
	case kindList, kindStructList:
		for i := range v.Len() {
			err := writeElement(b, f.List, func() error {
				if f.kind == kindList {
					return writeText(b, v.Index(i).String())
				}
				return writeObject(b, v.Index(i))
			})
			if err != nil {
				return err
			}
		}
		return nil
	default:
		return writeText(b, text(f.kind, v))
	}
}

func writeText(b *bytes.Buffer, s string) error {
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return fault.Parameter("Format", "the value holds a character that XML cannot carry; use JSON.")
		}
	}
	return xml.EscapeText(b, []byte(s))
}

// DecodeResponse fills the response struct that into points to from JSON. Members that it does not
// know are ignored.
func DecodeResponse(data []byte, into any) error {
	return decodeObject(data, reflect.ValueOf(into).Elem())
}

func decodeObject(data []byte, v reflect.Value) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return fmt.Errorf("decode response: not a JSON object")
	}
	for _, f := range Fields(v.Type()) {
		raw, ok := members[f.Name]
		if !ok || string(raw) == "null" {
			continue
		}
		if err := decodeMember(&f, raw, v.Field(f.index)); err != nil {
			return fmt.Errorf("decode response member %s: %w", f.Name, err)
		}
	}
	return nil
}

func decodeMember(f *Field, raw json.RawMessage, v reflect.Value) error {
	switch f.kind {
	case kindStruct:
		return decodeObject(raw, v)
	case kindList, kindStructList:
		return decodeResponseList(f, raw, v)
	}
	s := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("not a JSON string")
		}
	}
	switch f.kind {
	case kindInt:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("not a whole number")
		}
		v.SetInt(int64(n))
	case kindBool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("not true or false")
		}
		v.SetBool(b)
	case kindTime:
		if s == "" {
			return nil
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fmt.Errorf("not a time of the form %s", TimeFormat)
		}
		v.Set(reflect.ValueOf(t.UTC()))
	case kindValue:
		v.Set(reflect.ValueOf(sensitive.New(s)))
	default:
		v.SetString(s)
	}
	return nil
}

func decodeResponseList(f *Field, raw json.RawMessage, v reflect.Value) error {
	var object map[string][]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return fmt.Errorf("not an object with a list")
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	v.Set(reflect.MakeSlice(v.Type(), len(object[f.List]), len(object[f.List])))
	for i, item := range object[f.List] {
		if f.kind == kindList {
			var s string
			if err := json.Unmarshal(item, &s); err != nil {
				return fmt.Errorf("item %d is not a string", i)
			}
			v.Index(i).SetString(s)
			continue
		}
		if err := decodeObject(item, v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// SetRequestID puts the ID of the request into the member RequestId of a response struct.
func SetRequestID(v reflect.Value, id string) {
	list := Fields(v.Type())
	for i := range list {
		if list[i].Name == "RequestId" {
			v.Field(list[i].index).SetString(id)
		}
	}
}
