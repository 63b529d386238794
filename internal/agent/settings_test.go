package agent

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestSettingsDocument verifies that docs/agent.md names every setting of the configuration, with
// its default.
func TestSettingsDocument(t *testing.T) {
	t.Parallel()
	lines := strings.Split(read(t, "../../docs/agent.md"), "\n")
	n := 0
	eachSetting(reflect.TypeFor[Config](), func(f reflect.StructField) {
		n++
		name, value := f.Tag.Get("yaml"), f.Tag.Get("default")
		for _, line := range lines {
			if (strings.Contains(line, "`"+name+"`") || strings.Contains(line, "`"+name+": ")) && strings.Contains(line, value) {
				return
			}
		}
		t.Errorf("docs/agent.md has no line with `%s` and its default %q", name, value)
	})
	if n < 30 {
		t.Errorf("only %d settings were checked", n)
	}
}

// TestDefaults verifies that every default of a tag is a value of its field.
func TestDefaults(t *testing.T) {
	t.Parallel()
	c := Config{HTTP: &HTTP{}, Files: []File{{OnChange: &Hook{}}}}
	fill(reflect.ValueOf(&c).Elem())
	h := c.Files[0].OnChange
	if c.Log != (Log{"info", "text"}) || c.HTTP.SocketMode != "0600" || c.Files[0].Mode != "0600" ||
		h.Attempts != 5 || h.Timeout != 30*time.Second || c.KMS != nil {
		t.Errorf("%+v, file %+v, hook %+v", c, c.Files[0], h)
	}
	eachSetting(reflect.TypeFor[Config](), func(f reflect.StructField) {
		v := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "F", Type: f.Type, Tag: f.Tag}})).Elem()
		if fill(v); f.Tag.Get("default") != "" && v.Field(0).IsZero() {
			t.Errorf("the default of %s cannot be read: %q", f.Tag.Get("yaml"), f.Tag.Get("default"))
		}
	})
}

// eachSetting visits the settings of a struct and of the tables in it.
func eachSetting(in reflect.Type, visit func(reflect.StructField)) {
	for i := range in.NumField() {
		f := in.Field(i)
		visit(f)
		of := f.Type
		if of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if of.Kind() == reflect.Struct {
			eachSetting(of, visit)
		}
	}
}
