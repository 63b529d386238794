package plugin

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
)

// TestOpenAPIDescribesTheMessages verifies that the OpenAPI document has exactly the members, steps
// and results of the code.
func TestOpenAPIDescribesTheMessages(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/webhook-openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := yaml.Parser().Unmarshal(b)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path ...string) any {
		var v any = doc
		for _, p := range path {
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("there is no %v", path)
			}
			v = m[p]
		}
		return v
	}
	if get("openapi") != "3.1.0" {
		t.Errorf("openapi %v", get("openapi"))
	}
	for schema, of := range map[string]any{
		"Request":    request{},
		"Credential": credential{},
		"Reply":      reply{},
		"Finding":    finding{},
	} {
		described, _ := get("components", "schemas", schema, "properties").(map[string]any)
		var got []string
		for name := range described {
			got = append(got, name)
		}
		if want := members(of); !slices.Equal(sorted(got), want) {
			t.Errorf("%s has %v, the code %v", schema, sorted(got), want)
		}
	}
	steps := words(get("components", "schemas", "Request", "properties", "step", "enum"))
	if want := []string{"check", "generate", "retire", "set", "state", "verify"}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	results := []string{"ok"}
	for r := range meaning {
		results = append(results, r)
	}
	got := words(get("components", "schemas", "Reply", "properties", "result", "enum"))
	if !slices.Equal(got, sorted(results)) {
		t.Errorf("results %v, want %v", got, sorted(results))
	}
}

func members(of any) []string {
	var names []string
	for f := range reflect.TypeOf(of).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return sorted(names)
}

func words(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, w := range list {
		s, _ := w.(string)
		out = append(out, s)
	}
	return sorted(out)
}

func sorted(s []string) []string { slices.Sort(s); return s }
