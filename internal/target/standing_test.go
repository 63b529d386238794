package target

import "testing"

// TestSameAccount verifies that no spelling of an administrator's name passes for another account.
func TestSameAccount(t *testing.T) {
	for _, same := range []string{
		"keyturn",
		"KEYTURN",
		" keyturn ",
		"keyturn@%",
		"'keyturn'@'localhost'",
		"Keyturn@10.0.0.1",
	} {
		if !SameAccount("keyturn", same) {
			t.Errorf("%q passes for another account than keyturn", same)
		}
	}
	for _, other := range []string{"keyturn2", "app", "", "@keyturn"} {
		if SameAccount("keyturn", other) {
			t.Errorf("%q is taken for keyturn", other)
		}
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"a@b@host", "a@b@%", true},
		{"a@b@host", "'A@b'@'10.0.0.1'", true},
		{"a@b@host", "a@b", true}, // a name with an "@", without its host part
		{"a@b@host", "a", false},
		{"a@b@host", "a@c@host", false},
		{"a@b@host", "a@c", false},
	} {
		if SameAccount(c.a, c.b) != c.same || SameAccount(c.b, c.a) != c.same {
			t.Errorf("%q and %q: want same account: %v", c.a, c.b, c.same)
		}
	}
}

// TestAccountPolicy verifies which accounts a policy allows, and which of them it names exactly.
func TestAccountPolicy(t *testing.T) {
	for _, c := range []struct {
		patterns      []string
		account       string
		allows, exact bool
	}{
		{nil, "app", true, false},
		{[]string{"*"}, "postgres", true, false},
		{[]string{"app_*"}, "app_1", true, false},
		{[]string{"app_*"}, "App_1", false, false},
		{[]string{"app_?"}, "app_10", false, false},
		{[]string{"app_*", "postgres"}, "postgres", true, true},
		{[]string{"*a*b"}, "xaybzb", true, false},
		{[]string{"*a*b"}, "xaybz", false, false},
		{[]string{"*"}, "*", true, false},
		{[]string{"ä?"}, "äö", true, false},
		{[]string{""}, "app", false, false},
	} {
		allows, exact := AllowsAccount(c.patterns, c.account), NamesAccount(c.patterns, c.account)
		if allows != c.allows || exact != c.exact {
			t.Errorf("%q for %q: allows %v, names %v", c.patterns, c.account, allows, exact)
		}
	}
}
