package ldap

import "testing"

// TestCanonicalAccount verifies that spellings which a directory takes for one entry have one name,
// and that other entries have others.
func TestCanonicalAccount(t *testing.T) {
	t.Parallel()
	const want = "uid=app,dc=example,dc=org"
	for _, name := range []string{
		want, "UID=App,DC=Example,DC=org", "uid=app , dc=example, dc=org", "0.9.2342.19200300.100.1.1=app,dc=example,dc=org",
	} {
		if got := (config{}).CanonicalAccount(name); got != want {
			t.Errorf("%q is %q", name, got)
		}
	}
	for _, name := range []string{"uid=app2,dc=example,dc=org", "cn=app,dc=example,dc=org", "app"} {
		if got := (config{}).CanonicalAccount(name); got == want {
			t.Errorf("%q is the account %q", name, want)
		}
	}
}
