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
