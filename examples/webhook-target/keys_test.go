package main

import (
	"fmt"
	"slices"
	"testing"
)

// TestRightsAreCarriedOver verifies that a new key may do exactly what the key that it replaces may
// do, with each strategy, and that a key whose rights are not known is not made.
func TestRightsAreCarriedOver(t *testing.T) {
	t.Parallel()
	const narrow, wide = "scope=read;from=10.0.0.0/8", "scope=write"
	one, two, next := credential{"app", "one"}, credential{"app", "two"}, credential{"app", "next"}
	other := credential{"app_b", "other"}
	of := func(c credential, rights string) key { return key{c.Account, hashOf(c.Secret), rights} }
	for _, strategy := range []string{"overlap", "single"} {
		list := keys{of(two, wide), of(one, narrow)}
		for range 2 {
			var ok bool
			list, ok = list.set(request{Strategy: strategy, New: next, Old: one})
			if !ok || !slices.Contains(list, of(next, narrow)) ||
				slices.Contains(list, of(two, wide)) != (strategy == "overlap") {
				t.Errorf("%s: %v, %v", strategy, list, ok)
			}
		}
	}
	list := keys{of(one, wide), of(other, narrow)}.retire(request{Strategy: "double", New: other, Old: one})
	if list.find(one) >= 0 || list.find(other) < 0 {
		t.Errorf("after retire: %v", list)
	}
	list, ok := list.set(request{Strategy: "double", New: next, Old: other})
	if want := (keys{of(other, narrow), of(next, wide)}); !ok || !slices.Equal(list, want) {
		t.Errorf("double: %v, want %v", list, want)
	}
	if _, ok := (keys{of(one, wide), of(two, narrow)}).set(request{Strategy: "overlap", New: next, Old: other}); ok {
		t.Error("a key is made whose rights are not known")
	}
}

func TestWhatTheCheckFinds(t *testing.T) {
	t.Parallel()
	one, two, other := credential{"app", "one"}, credential{"app", "two"}, credential{"app_b", "other"}
	of := func(c credential, rights string) key { return key{c.Account, hashOf(c.Secret), rights} }
	for _, tt := range []struct {
		strategy, partner string
		list              keys
		want              string
	}{
		{"overlap", "", keys{of(one, "")}, "[]"},
		{"overlap", "", keys{of(one, "r"), of(two, "")}, "[rights-kept note app other-keys note app]"},
		{"single", "", keys{of(one, ""), of(two, "")}, "[other-keys-go needs-consent app]"},
		{"single", "", keys{of(other, "")}, "[no-such-key impossible app]"},
		{"double", "app_b", keys{of(one, "r"), of(other, "r")}, "[rights-kept note app]"},
		{"double", "app_b", keys{of(one, ""), of(other, "r")}, "[partner-differs needs-consent app_b]"},
		{"double", "app_b", keys{of(one, "")}, "[no-such-account impossible app_b]"},
	} {
		var got []string
		for _, f := range tt.list.check(request{Strategy: tt.strategy, Account: "app", Partner: tt.partner, Old: one}) {
			got = append(got, f.Code, f.Verdict, f.Account)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s %v: %v, want %s", tt.strategy, tt.list, got, tt.want)
		}
	}
}
