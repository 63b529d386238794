package server_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
)

var update = flag.Bool("update", false, "write the table of settings into docs/operations.md")

// TestSettingsDocument compares docs/operations.md with the table of settings.
func TestSettingsDocument(t *testing.T) {
	t.Parallel()
	const path = "../../docs/operations.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := server.NewSettings().Table().Rows()
	lines := strings.Split(string(data), "\n")
	begin := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "| setting |") })
	if begin < 0 {
		t.Fatalf("%s has no line that begins with %q", path, "| setting |")
	}
	end := begin + slices.Index(lines[begin:], "")
	if *update {
		lines = slices.Replace(lines, begin, end, want...)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	const how = "go test ./internal/server -run TestSettingsDocument -update"
	for _, row := range want {
		if !slices.Contains(lines[begin:end], row) {
			t.Errorf("docs/operations.md lacks the row\n%s\n%s adds it", row, how)
		}
	}
	for _, row := range lines[begin:end] {
		if !slices.Contains(want, row) {
			t.Errorf("docs/operations.md has a row that is not of the table of settings\n%s\n%s removes it", row, how)
		}
	}
}

// TestEverySettingHasItsField verifies that each setting changes a field, and one that no other
// setting changes.
func TestEverySettingHasItsField(t *testing.T) {
	t.Parallel()
	owner := map[string]string{}
	for _, setting := range server.NewSettings().Table() {
		var changed []string
		for _, sample := range []string{"true", "false", "5s", "25h", "3", "300", "192.0.2.1", "json", "debug", "sample"} {
			before, after := server.NewSettings(), server.NewSettings()
			if err := before.Load(nil, nil, nil); err != nil {
				t.Fatal(err)
			}
			err := after.Load(map[string][]string{setting.Name: {sample}}, nil, nil)
			if err != nil && !strings.Contains(err.Error(), "which is not set") && setting.Name != "config" {
				continue
			}
			if changed = changes(reflect.ValueOf(*before), reflect.ValueOf(*after), ""); len(changed) > 0 {
				break
			}
		}
		if len(changed) != 1 {
			t.Errorf("setting %s changes %q, want one field", setting.Name, changed)
			continue
		}
		if other := owner[changed[0]]; other != "" {
			t.Errorf("the settings %s and %s change the same field %s", other, setting.Name, changed[0])
		}
		owner[changed[0]] = setting.Name
	}
}

// changes returns the paths of the fields in which two structs differ.
func changes(a, b reflect.Value, path string) (list []string) {
	if a.Kind() == reflect.Struct {
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.Name != "table" {
				list = append(list, changes(a.Field(i), b.Field(i), path+"."+f.Name)...)
			}
		}
		return list
	}
	if a.Kind() == reflect.Map {
		for _, key := range a.MapKeys() {
			list = append(list, changes(a.MapIndex(key).Elem(), b.MapIndex(key).Elem(), path+"."+key.String())...)
		}
		return list
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		return []string{path}
	}
	return nil
}
