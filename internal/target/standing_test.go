package target

import "testing"

// TestSameAccount verifies that no spelling of an administrator's name passes for another account.
func TestSameAccount(t *testing.T) {
	for _, same := range []string{"keyturn", "KEYTURN", " keyturn ", "keyturn@%", "'keyturn'@'localhost'", "Keyturn@10.0.0.1"} {
		if !SameAccount("keyturn", same) {
			t.Errorf("%q passes for another account than keyturn", same)
		}
	}
	for _, other := range []string{"keyturn2", "app", "", "@keyturn"} {
		if SameAccount("keyturn", other) {
			t.Errorf("%q is taken for keyturn", other)
		}
	}
}
