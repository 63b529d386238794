package agent

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mistakes collects what is wrong with a configuration, each with the path of the setting. It
// quotes no text of the file but names of settings, so that a value which was put there by mistake
// is not shown.
type mistakes struct{ list []string }

func (m *mistakes) add(path, format string, args ...any) {
	m.list = append(m.list, path+": "+fmt.Sprintf(format, args...))
}

// err is one error for all of them, in the order of the file's structure.
func (m *mistakes) err() error {
	if len(m.list) == 0 {
		return nil
	}
	return &ConfigError{Mistakes: m.list}
}

// ConfigError is everything that is wrong with a configuration.
type ConfigError struct {
	// Mistakes are one sentence each, with the path of the setting.
	Mistakes []string
}

func (e *ConfigError) Error() string { return strings.Join(e.Mistakes, "\n") }

// decode fills a struct from what a YAML file says. A name that the struct does not have and a
// value of another type are mistakes.
func decode(raw map[string]any, into reflect.Value, path string, m *mistakes) {
	known := map[string]reflect.Value{}
	for i := range into.NumField() {
		if name := into.Type().Field(i).Tag.Get("yaml"); name != "" {
			known[name] = into.Field(i)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		at := join(path, name)
		field, ok := known[name]
		if !ok {
			m.add(at, "unknown setting; known are %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			continue
		}
		decodeValue(raw[name], field, at, m)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func decodeValue(raw any, field reflect.Value, path string, m *mistakes) {
	switch {
	case raw == nil:
		m.add(path, "is empty; leave it out, or give it a value")
	case field.Type() == reflect.TypeFor[time.Duration]():
		decodeDuration(raw, field, path, m)
	case field.Kind() == reflect.Pointer:
		fresh := reflect.New(field.Type().Elem())
		decodeValue(raw, fresh.Elem(), path, m)
		field.Set(fresh)
	case field.Kind() == reflect.Struct:
		table, ok := raw.(map[string]any)
		if !ok {
			m.add(path, "must be a table of settings")
			return
		}
		decode(table, field, path, m)
	case field.Kind() == reflect.Slice:
		decodeList(raw, field, path, m)
	default:
		decodeScalar(raw, field, path, m)
	}
}

// decodeList takes one text for a list of one.
func decodeList(raw any, field reflect.Value, path string, m *mistakes) {
	list, ok := raw.([]any)
	if text, single := raw.(string); single && field.Type().Elem().Kind() == reflect.String {
		list, ok = []any{text}, true
	}
	if !ok {
		m.add(path, "must be a list")
		return
	}
	out := reflect.MakeSlice(field.Type(), len(list), len(list))
	for i, item := range list {
		decodeValue(item, out.Index(i), fmt.Sprintf("%s[%d]", path, i), m)
	}
	field.Set(out)
}

func decodeScalar(raw any, field reflect.Value, path string, m *mistakes) {
	value := reflect.ValueOf(raw)
	switch {
	case field.Kind() == reflect.String && value.Kind() != reflect.String:
		m.add(path, "must be text; put it in quotes")
	case field.Kind() == reflect.Bool && value.Kind() != reflect.Bool:
		m.add(path, "must be true or false")
	case field.Kind() == reflect.Int && value.Kind() != reflect.Int:
		m.add(path, "must be a whole number")
	default:
		field.Set(value.Convert(field.Type()))
	}
}

func decodeDuration(raw any, field reflect.Value, path string, m *mistakes) {
	text, _ := raw.(string)
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		m.add(path, "must be a duration longer than zero, such as 30s, 5m or 12h")
		return
	}
	field.SetInt(int64(d))
}

// fill sets every field that is zero to the default of its tag, in tables and lists too. A table
// that is left out stays nil.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fill(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			text := v.Type().Field(i).Tag.Get("default")
			switch field := v.Field(i); {
			case text == "":
				fill(field)
			case !field.IsZero():
			case field.Type() == reflect.TypeFor[time.Duration]():
				d, _ := time.ParseDuration(text) // a test reads every default
				field.SetInt(int64(d))
			case field.Kind() == reflect.Int:
				n, _ := strconv.Atoi(text)
				field.SetInt(int64(n))
			default:
				field.SetString(text)
			}
		}
	}
}
