package target_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// TestAdviceKeepsTheRejection verifies that advice to the operator does not hide that the target
// has rejected its administrator: calls with a rejected administrator are limited.
func TestAdviceKeepsTheRejection(t *testing.T) {
	t.Parallel()
	rejected := target.AsAdmin(target.Rejected.Errorf("log in as rotator: wrong password"))
	if err := target.WithAdvice(rejected, "GRANT"); !target.IsAdminRejected(err) {
		t.Errorf("%v does not say that the administrator was rejected", err)
	}
	if err := target.WithAdvice(target.Denied.Errorf("no right"), "GRANT"); target.IsAdminRejected(err) {
		t.Errorf("%v says that the administrator was rejected", err)
	}
}

// TestAsAdmin verifies what an error of a login says of the administrator, also where it passes
// through several functions.
func TestAsAdmin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err              *target.Error
		class            target.Class
		rejected, failed bool
	}{
		{target.Rejected.Errorf("no"), target.Denied, true, true},
		{target.Unclear.Errorf("no"), target.Denied, false, true},
		{target.Unknown.Errorf("no"), target.Unreachable, false, true},
		{target.Denied.Errorf("no"), target.Denied, false, true},
		{target.Refused.Errorf("no"), target.Refused, false, true},
		{target.Admitted.Errorf("no"), target.Denied, false, false},
		{target.Unreachable.Errorf("no"), target.Unreachable, false, false},
		{target.Failed(target.Denied, target.CodeEgress, "no"), target.Denied, false, false},
	} {
		err := target.AsAdmin(tt.err)
		for range 2 {
			if target.ClassOf(err) != tt.class || target.IsAdminRejected(err) != tt.rejected ||
				target.IsAdminFailed(err) != tt.failed {
				t.Errorf("%s: %s, rejected %t, failed %t; want %s, %t, %t", tt.err.Class, target.ClassOf(err),
					target.IsAdminRejected(err), target.IsAdminFailed(err), tt.class, tt.rejected, tt.failed)
			}
			err = target.AsAdmin(err)
		}
	}
}
